"""The worker's part of a profile: the stages of a walk by the clock, their work, the whole call, and its kernels."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .adapters import Adapter
from .clock import timed
from .walks import Walker

Answer = dict[str, Any]
Begin = Callable[[], Iterator[Any]]
Call = Callable[[], Any]


def walked(adapter: Adapter, begin: Begin, call: Call, request: Answer) -> Answer:
    """``stages``: the path of each, when it began and how long it took, in seconds, with all its values computed; what
    it is given was computed before."""
    stages: list[tuple[str, float, float]] = []
    gc.collect()
    gc.disable()
    try:
        adapter.synchronize()
        start = last = time.perf_counter()
        for event in begin():
            adapter.settle(event.carry.values())
            now = time.perf_counter()
            stages.append((event.whole_path, last - start, now - last))
            last = now
    finally:
        gc.enable()
    return {"stages": stages}


def called(adapter: Adapter, begin: Begin, call: Call, request: Answer) -> Answer:
    return {"seconds": timed(call, 1, adapter.synchronize).seconds}


def worked(adapter: Adapter, begin: Begin, call: Call, request: Answer) -> Answer:
    """``work``: of what is computed up to each of the paths ``until``, which are in order."""
    walker = Walker(begin())

    def reach(path: str) -> list[Any]:
        while walker.advance() and walker.event.whole_path != path:
            pass
        return list(walker.event.carry.values()) if walker.event else []

    return {"work": [adapter.work(partial(reach, path)) for path in request["until"]]}


def recorded(adapter: Adapter, begin: Begin, call: Call, request: Answer) -> Answer:
    """``kernels`` of one call: name, start and length in microseconds. PyTorch's profiler sees all of the process,
    MLX's too. ``kernels`` None: there is no CUDA, or no PyTorch to record it with."""
    try:
        import torch
        from torch.profiler import ProfilerActivity, profile
    except ImportError:
        return {"kernels": None}
    if adapter.device not in ("cuda", "gpu") or not torch.cuda.is_available():
        return {"kernels": None}
    for _ in range(2):  # the first recording of a process begins late
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            call()
            adapter.synchronize()
    return {"kernels": rows_of(found.events() or ())}


def rows_of(events: Any) -> list[tuple[str, float, float]]:
    """The profiler's events that ran on the device, in order."""
    device = [one for one in events if str(one.device_type).endswith("CUDA")]
    rows = [(one.name, one.time_range.start, one.time_range.end - one.time_range.start) for one in device]
    return sorted(rows, key=lambda row: row[1])


PARTS = {"stages": walked, "call": called, "work": worked, "kernels": recorded}
