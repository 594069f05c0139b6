"""RVC inference in MLX. Importing this package is cheap; MLX is loaded at first use of a model.

Import it before ``mlx.core``: on Linux CPUs it makes MLX use a fast BLAS (see ``runtime``).
"""

import importlib
from typing import TYPE_CHECKING, Any

from rvc_common import CheckpointError

if TYPE_CHECKING:
    from .hubert import Hubert
    from .pipeline import Pipeline
    from .rmvpe import RMVPE
    from .synthesizer import Synthesizer

__all__ = ["RMVPE", "CheckpointError", "Hubert", "Pipeline", "Synthesizer"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f".{name.lower()}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
