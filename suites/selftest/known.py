"""``selftest known``: sleeps, work and memory of known size, measured by the requests that measure models."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from math import exp
from pathlib import Path
from typing import Any, NamedTuple

from ..base.backends import BACKENDS, impossible
from ..base.errors import UserError, nearest
from ..base.files import scratch_folder
from ..base.outcome import FAILED, PASSED, Answer
from ..base.speed import fast_logs
from ..base.words import options
from ..definitions.known import SLEEP_S
from ..measure.launch import Worker

TIMEOUT_S = 120.0
ROUNDS = 40
# of ten sleeps each, while which the parent is watched
WATCHED_CALLS = 10
ALLOCATED_BYTES = 1 << 30
# what may be off: of times, of what the clock adds to a 20 ms call, of the parent's share of a core, of memory
TIME_SHARE, OVERHEAD_SHARE, PARENT_SHARE, MEMORY_SHARE = 0.02, 0.01, 0.01, 0.05


class Reading(NamedTuple):
    """``error``: of what was read, relative to what is known, or a share as it is."""

    what: str
    known: str
    read: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        return abs(self.error) <= self.allowed


def known(words: Sequence[str]) -> Answer:
    """Passed where everything of known size is read right; ``words``: backend=NAME."""
    backend = "torch_cpu" if impossible("torch_cpu") is None else "mlx_cpu"
    backend = options(words, {"backend": backend})["backend"]
    if backend not in BACKENDS:
        raise UserError(f"backend={backend}{nearest(backend, BACKENDS)}")
    found = list(readings(backend))
    width = max(len(one.what) for one in found)
    lines = [f"{'':{width}}  {'known':>10}  {'read':>10}  {'off by':>8}  {'allowed':>8}"]
    for one in found:
        error, allowed = (f"{100 * share:.3g} %" for share in (one.error, one.allowed))
        verdict = "" if one.passed else "  off"
        lines.append(f"{one.what:{width}}  {one.known:>10}  {one.read:>10}  {error:>8}  {allowed:>8}{verdict}")
    passed = sum(one.passed for one in found)
    readings_found = [{**one._asdict(), "passed": one.passed} for one in found]
    code = PASSED if passed == len(found) else FAILED
    line = f"{('passed', 'failed')[code]}: {passed} of {len(found)} known sizes were read right on {backend}"
    return Answer(code, "\n".join(lines), {"backend": backend, "readings": readings_found}, line)


def readings(backend: str) -> Iterator[Reading]:
    """Every known size and its reading."""
    with scratch_folder() as scratch:
        log = scratch / "log"
        with _started(backend, log, _calibrated()) as worker:
            (sleep,) = _fast(worker, "sleep")
            yield Reading("a sleep", _ms(SLEEP_S), _ms(sleep), sleep / SLEEP_S - 1, TIME_SHARE)
            once, twice = _fast(worker, "work", "twice", rounds=3 * ROUNDS)
            yield Reading("twice the work", _ms(2 * once), _ms(twice), twice / (2 * once) - 1, TIME_SHARE)
            (nothing,) = _fast(worker, "nothing")
            yield Reading("a call that does nothing, in 20 ms", "0 ms", _ms(nothing), nothing / 0.02, OVERHEAD_SHARE)
            busy = _parent_share(worker)
            yield Reading("the parent meanwhile, of a core", "0 s", f"{busy:.4f} s/s", busy, PARENT_SHARE)
        with _started(backend, log, 1) as worker:
            held = worker.ask("memory", TIMEOUT_S)["rss_bytes"]
            cold = worker.ask("cold", TIMEOUT_S, component="allocate", second=False)
            peak = (cold["peak_rss_call_bytes"] or cold["peak_rss_bytes"]) - held
            read = f"{peak / 2**20:.0f} MiB"
            yield Reading(
                "memory", f"{ALLOCATED_BYTES / 2**20:.0f} MiB", read, peak / ALLOCATED_BYTES - 1, MEMORY_SHARE
            )


def _started(backend: str, log: Path, turns: int) -> Worker:
    worker = Worker(backend, "fp32", 1, log)
    worker.ask("hello", TIMEOUT_S, threads=1)
    settings = {"turns": turns, "bytes": ALLOCATED_BYTES}
    worker.ask("load", TIMEOUT_S, suite="known", paths={}, optimize="all", settings=settings)
    worker.ask("prepare", TIMEOUT_S, inputs={})
    return worker


def _calibrated() -> int:
    """Turns of a loop that take about 10 ms here."""
    start, turns = time.perf_counter(), 200_000
    for i in range(turns):
        _ = i
    return max(1000, int(turns * 0.005 / (time.perf_counter() - start)))


def _time(worker: Worker, **calls: int) -> dict[str, float]:
    found: dict[str, Any] = worker.ask("time", TIMEOUT_S, calls=calls)["calls"]
    return {name: one["seconds"][name] for name, one in found.items()}


def _fast(worker: Worker, *calls: str, rounds: int = ROUNDS) -> list[float]:
    """The fast time of each call; in turns, so that all see the same machine."""
    found = [_time(worker, **dict.fromkeys(calls, 1)) for _ in range(rounds)]
    return [exp(fast_logs([one[call] for one in found], [0] * rounds)[0]) for call in calls]


def _parent_share(worker: Worker) -> float:
    start, busy = time.monotonic(), time.process_time()
    for _ in range(WATCHED_CALLS):
        worker.ask("time", TIMEOUT_S, calls={"sleep": 10})
    return (time.process_time() - busy) / (time.monotonic() - start)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-4 else f"{1e6 * seconds:.2g} us"
