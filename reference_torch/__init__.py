"""Reference implementation of RVC inference in PyTorch: plain, independent, unoptimised."""

from rvc_common import CheckpointError
from rvc_common.waiting import set_waiting

set_waiting()  # PyTorch reads it when it is loaded

from .hubert import Hubert  # noqa: E402
from .pipeline import Pipeline  # noqa: E402
from .rmvpe import RMVPE  # noqa: E402
from .synthesizer import Synthesizer  # noqa: E402

__all__ = ["RMVPE", "CheckpointError", "Hubert", "Pipeline", "Synthesizer"]
