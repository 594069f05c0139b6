"""Reports of run folders. ``frame(folder, ...)``: the records of runs as a pandas DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.frame import frame as frame


def __getattr__(name: str) -> Any:
    # not imported above: the parts of this package import it first, and most of them need no pandas
    if name == "frame":
        from .data.frame import frame

        return frame
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
