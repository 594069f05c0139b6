"""Foundations: errors, paths, backends, the environment, records and statistics."""
