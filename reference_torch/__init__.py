"""Reference implementation of RVC inference in PyTorch: plain, independent, unoptimised."""

from rvc_common import CheckpointError

from .hubert import Hubert
from .pipeline import Pipeline
from .rmvpe import RMVPE
from .synthesizer import Synthesizer

__all__ = ["RMVPE", "CheckpointError", "Hubert", "Pipeline", "Synthesizer"]
