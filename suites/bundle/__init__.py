"""Bundles: a model's inputs, weights and the reference's value at every stage, for ports in any language."""
