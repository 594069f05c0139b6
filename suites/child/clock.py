"""The clock of a worker: how a call is timed, when it is warm, and what the timing itself costs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

# a call is warm when none of its latest calls was faster than all before them by more than this
STEADY_CALLS, STEADY_GAIN = 2, 0.05


class Timed(NamedTuple):
    """``seconds`` of one call (the mean, where it was called several times), and what the last one returned.

    ``rest_s``: how long the device went on after the clock had stopped; a call that had ended leaves nothing.
    """

    seconds: float
    rest_s: float
    result: Any
    parts: dict[str, float]


def timed(call: Callable[[], Any], repeats: int, synchronize: Callable[[], None]) -> Timed:
    """Call ``repeats`` times between two readings of the clock; no garbage is collected meanwhile.

    ``parts``: seconds of the parts of a call that tells them (``seconds`` of its result), the mean too.
    """
    parts: dict[str, float] = {}
    result = None
    gc.collect()
    gc.disable()
    try:
        synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            result = call()
            for name, taken in getattr(result, "seconds", {}).items():
                parts[name] = parts.get(name, 0.0) + taken
        stop = time.perf_counter()
        synchronize()
        rest = time.perf_counter() - stop
    finally:
        gc.enable()
    return Timed((stop - start) / repeats, rest, result, {name: taken / repeats for name, taken in parts.items()})


def is_steady(seconds: Sequence[float]) -> bool:
    """Whether these calls, from the first one on, have stopped becoming faster."""
    before, latest = seconds[:-STEADY_CALLS], seconds[-STEADY_CALLS:]
    return bool(before) and min(latest) >= (1 - STEADY_GAIN) * min(before)


def clock() -> dict[str, float]:
    """The clock's smallest step, and what timing an empty call reads: both in seconds, medians."""
    gc.collect()
    gc.freeze()  # what imports have left is not garbage, and looking at it takes PyTorch's worker seconds
    steps = [_step() for _ in range(50)]
    empty = [timed(lambda: None, 1, lambda: None).seconds for _ in range(20)]
    return {"resolution_s": median(steps), "overhead_s": median(empty)}


def _step() -> float:
    start = now = time.perf_counter()
    while now == start:
        now = time.perf_counter()
    return now - start
