"""Comparisons of arrays: how large a difference is, where it is and what it looks like."""
