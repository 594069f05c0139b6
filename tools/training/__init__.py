"""Training of the small RMVPE: the step, its state, scores on held-out voices, the finished checkpoint."""
