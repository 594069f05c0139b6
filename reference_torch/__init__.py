"""Reference implementation of RVC inference in PyTorch: plain, independent, unoptimised."""

from .checkpoint import CheckpointError
from .rmvpe import RMVPE

__all__ = ["RMVPE", "CheckpointError"]
