"""What both implementations share: the models' calls, host steps, the pipeline, checkpoints, stages, noise.

Needs NumPy and small libraries, neither framework. What decides a result inside a network, and the
index search, is written once per implementation and is not here.
"""

__all__ = ["CheckpointError"]


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that belongs to another model."""
