"""Results that are no numbers: noticed at little cost, and followed to the stage that made the first of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Watcher = Callable[[str, np.ndarray], None]
# half a step of 24-bit audio: what is quieter becomes a file of zeros
SILENCE = 2.0**-24


class NonFiniteError(ValueError):
    """A model computes NaN or infinity; the message names it, and the first stage that does."""


class _FoundError(Exception):
    """Ends a watched call; the message says where."""


def is_finite(array: np.ndarray) -> bool:
    """Whether no value is NaN or infinite, without another array of this size."""
    return not array.size or (math.isfinite(array.min()) and math.isfinite(array.max()))


def is_silent(audio: np.ndarray) -> bool:
    return not audio.size or float(max(audio.max(), -audio.min())) < (SILENCE if audio.dtype.kind == "f" else 1)


def first_stage(again: Callable[[Watcher], object]) -> str:
    """The first stage of a watched call with NaN or infinity, and how many of its values are."""

    def watch(path: str, array: np.ndarray) -> None:
        if array.dtype.kind == "f" and not is_finite(array):
            raise _FoundError(f"first in stage {path} ({np.count_nonzero(~np.isfinite(array))} of {array.size} values)")

    try:
        again(watch)
    except _FoundError as found:
        return str(found)
    return "in the result of the whole call alone"
