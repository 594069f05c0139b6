"""Whole documents: a run's report, comparisons, history, traces."""
