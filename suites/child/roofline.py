"""What a device does at best: one half of a roofline. The other half is the work of a call (``Adapter.count``).

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009. Bytes of a call
are those of every operator's tensors, each read or written once: the traffic where no operator is fused with the next
one and nothing stays in a cache.
"""

from __future__ import annotations

import time

from .adapters.base import Adapter, Call

# of one measurement of a peak: the fastest call counts
PEAK_SECONDS = 0.4
# a matrix product grows until a call takes this long; what is copied is larger than caches
CALL_SECONDS, LARGEST_MATRIX = 0.02, 8192
COPIED_BYTES = 256 * 2**20


def peaks(adapter: Adapter, dtype: str) -> dict[str, float]:
    """FLOP/s of a matrix product in this precision, and bytes/s of a copy, as the framework reaches them."""
    size, seconds = 512, 0.0
    while seconds < CALL_SECONDS and size < LARGEST_MATRIX:
        size *= 2
        seconds = fastest(adapter.matmul(size, dtype), PEAK_SECONDS / 8)
    flops = 2 * size**3 / fastest(adapter.matmul(size, dtype), PEAK_SECONDS)
    return {
        "matmul_flops_per_s": flops,
        "matmul_size": size,
        "copy_bytes_per_s": 2 * COPIED_BYTES / fastest(adapter.copy(COPIED_BYTES), PEAK_SECONDS),
    }


def fastest(call: Call, seconds: float) -> float:
    """Seconds of the fastest of at least three calls, repeated for ``seconds``; one call before them is not timed."""
    call()
    started = time.perf_counter()
    taken: list[float] = []
    while len(taken) < 3 or time.perf_counter() - started < seconds:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)
