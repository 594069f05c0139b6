"""How a worker times a call, when a call counts as warm, and what the timing itself costs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

# a call is warm when none of its latest calls was faster than all before them by more than this
STEADY_CALLS, STEADY_GAIN = 2, 0.05


class Timed(NamedTuple):
    """The timing of one call, and what the last repeat returned.

    Attributes:
        seconds: of one call; the mean of the repeats.
        rest_s: how long the device went on after the clock had stopped, beyond what waiting for an idle device takes
            at that moment; a call that had ended leaves nothing.
        result: of the last repeat.
        parts: seconds of the parts of a call, means too; of a call whose result reports them (``result.seconds``).
    """

    seconds: float
    rest_s: float
    result: Any
    parts: dict[str, float]


def timed(call: Callable[[], Any], repeats: int, synchronize: Callable[[], None]) -> Timed:
    """Call ``repeats`` times between two readings of the clock. No garbage is collected meanwhile; ``synchronize``
    waits for the device, before the first reading and after the second."""
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
        # waiting for an idle device takes milliseconds too where other processes hold the processor
        rest, *idle = (seconds_of(synchronize) for _ in range(3))
    finally:
        gc.enable()
    rest = max(0.0, rest - max(idle))
    return Timed((stop - start) / repeats, rest, result, {name: taken / repeats for name, taken in parts.items()})


def seconds_of(call: Callable[[], Any]) -> float:
    """Seconds of one call as it comes: garbage is collected as in any program."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def slowed(call: Callable[[], Any], share: float, synchronize: Callable[[], object]) -> Callable[[], Any]:
    """The call, which takes longer by a share."""

    def longer() -> Any:
        start = time.perf_counter()
        result = call()
        synchronize()
        now = time.perf_counter()
        until = now + (now - start) * share
        while time.perf_counter() < until:  # busy, as real work would be
            pass
        return result

    return longer


def is_steady(seconds: Sequence[float]) -> bool:
    """Whether calls have stopped becoming faster; ``seconds``: of all of them, from the first one on."""
    before, latest = seconds[:-STEADY_CALLS], seconds[-STEADY_CALLS:]
    return bool(before) and min(latest) >= (1 - STEADY_GAIN) * min(before)


def clock() -> dict[str, float]:
    """The clock's smallest step (``resolution_s``), and the time of an empty call (``overhead_s``): medians."""
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
