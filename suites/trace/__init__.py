"""A trace: two sides walk through a model stage by stage, and the first stage at fault is named."""
