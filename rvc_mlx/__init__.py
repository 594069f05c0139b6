"""RVC inference in MLX. Importing this package is cheap; MLX is loaded at first use of a model.

Import it before ``mlx.core``: on Linux CPUs it makes MLX use a fast BLAS (see ``runtime``).
"""

from typing import TYPE_CHECKING, Any

from .checkpoint import CheckpointError

if TYPE_CHECKING:
    from .rmvpe import RMVPE

__all__ = ["RMVPE", "CheckpointError"]


def __getattr__(name: str) -> Any:
    if name == "RMVPE":
        from .rmvpe import RMVPE

        return RMVPE
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
