"""What a profile knows of stages, from their times, their work and the machine's peaks. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from ..metrics.stages import inside
from .findings import group_of
from .walk import device_kind

Walked = Sequence[Sequence[Any]]  # path, when it began and how long it took, in seconds


class Row(NamedTuple):
    """One stage, or several, on one backend. ``flops``, ``bytes``: None where nothing could be counted.
    ``roof_s``: the time that the machine's peaks allow for them; None where that is not known."""

    path: str
    backend: str
    seconds: float
    fastest_s: float
    flops: int | None
    bytes: int | None
    roof_s: float | None

    def rate(self, amount: int | None) -> float | None:
        """Of FLOP or bytes, a second."""
        return amount / self.seconds if amount and self.seconds else None

    @property
    def share(self) -> float | None:
        """Of its time, what the roofline explains."""
        return self.roof_s / self.seconds if self.roof_s is not None and self.seconds else None

    @property
    def excess_s(self) -> float:
        return max(0.0, self.seconds - (self.roof_s or 0.0))


def innermost(walk: Sequence[str]) -> list[str]:
    """Without the stages that consist of those before them."""
    return [path for last, path in pairwise(["", *walk]) if not inside(last, path)]


def common(walks: Sequence[Sequence[str]]) -> list[str]:
    """The stages that every backend ends at, in order: an optimisation computes several stages of another as one."""
    known = set.intersection(*map(set, walks))
    leaves = {path for walk in walks for path in innermost(walk)}
    return [path for path in walks[0] if path in known & leaves]


def merged(walked: Walked, until: Sequence[str]) -> list[float]:
    """Seconds up to each of these stages. Together they are the whole walk."""
    found, left = [0.0] * len(until), {path: i for i, path in enumerate(until)}
    place = 0
    for path, _, seconds in walked:
        found[place] += seconds
        place = min(left.get(path, place - 1) + 1, len(until) - 1)
    return found


class Roof(NamedTuple):
    """The fastest matrix product and the fastest copy of any framework on one kind of device."""

    flops_per_s: float
    bytes_per_s: float

    def seconds(self, flops: int | None, moved: int | None) -> float | None:
        """The least that so much work takes."""
        return None if flops is None or moved is None else max(flops / self.flops_per_s, moved / self.bytes_per_s)


def roof_of(profile: Mapping[str, Any], backend: str) -> Roof:
    same = [own for name, own in profile["peaks"].items() if device_kind(name) == device_kind(backend)]
    return Roof(*(max(own[name] for own in same) for name in ("matmul_flops_per_s", "copy_bytes_per_s")))


def rows(profile: Mapping[str, Any], backend: str) -> list[Row]:
    """The common stages on a backend; ``profile``: as ``profile.json`` holds it."""
    roof, found = roof_of(profile, backend), []
    for one in profile["stages"]:
        times, work = one["seconds"][backend], (one["flops"], one["bytes"])
        found.append(Row(one["path"], backend, median(times), min(times), *work, roof.seconds(*work)))
    return found


def together(rows: Iterable[Row], path: str = "") -> Row:
    """Several stages of a backend as one; what could not be counted is left out of the sums."""
    found = list(rows)
    sums = [sum(getattr(row, name) for row in found) for name in ("seconds", "fastest_s")]
    known = [
        [value for row in found if (value := getattr(row, name)) is not None] for name in ("flops", "bytes", "roof_s")
    ]
    return Row(path or found[-1].path, found[0].backend, *sums, *(sum(values) if values else None for values in known))


def parts(rows: Iterable[Row]) -> dict[str, Row]:
    """By part of the model, as a trace names them."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(group_of(row.path), []).append(row)
    return {part: together(own, part) for part, own in found.items()}


# ---------------------------------------------------------------------- what to work on
def kind_of(path: str) -> str:
    """Stages of one kind are computed by the same code: ``layers.*.conv``."""
    return re.sub(r"\.\d+(?=[.:]|$)", ".*", path)


def advice(rows: Sequence[Row]) -> str:
    """What has the most time above what its roofline explains, in a sentence: the stages of a kind, or the one among
    them that has most of it."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(kind_of(row.path), []).append(row)
    kind, own = max(kinds.items(), key=lambda item: sum(row.excess_s for row in item[1]))
    slowest = max(own, key=lambda row: row.excess_s)
    own = [slowest] if 2 * slowest.excess_s >= sum(row.excess_s for row in own) else own
    whole, name = together(own), f"`{slowest.path}`"
    if len(own) > 1:
        name = f"`{kind}`, {len(own)} stages, the worst of them {name}"
    share = 100 * whole.seconds / sum(row.seconds for row in rows)
    explained = f"the roofline explains {in_units(whole.roof_s)} of it" if whole.roof_s else "its work is not counted"
    return (
        f"{slowest.backend}: work next on {name}: {in_units(whole.seconds)}, {share:.0f} % of all stages; {explained}."
    )


def in_units(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


# ---------------------------------------------------------------------- kernels
class Kernel(NamedTuple):
    name: str
    calls: int
    seconds: float


def kernels(events: Walked) -> list[Kernel]:
    """By name, the longest first; ``events``: name, start and length in microseconds."""
    found: dict[str, list[float]] = {}
    for name, _, length in events:
        found.setdefault(name, []).append(1e-6 * length)
    return sorted((Kernel(name, len(own), sum(own)) for name, own in found.items()), key=lambda one: -one.seconds)


def busy_s(events: Walked) -> float:
    """Seconds in which at least one kernel ran: several streams overlap."""
    total, end = 0.0, float("-inf")
    for _, start, length in sorted(events, key=lambda event: event[1]):
        total += max(0.0, start + length - max(start, end))
        end = max(end, start + length)
    return 1e-6 * total


# ---------------------------------------------------------------------- Chrome's trace format
def chrome_trace(backends: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One walk of each backend, and the kernels of a call: complete events in microseconds."""
    events: list[dict[str, Any]] = []
    for process, (backend, found) in enumerate(backends.items(), 1):
        events.append({"ph": "M", "name": "process_name", "pid": process, "args": {"name": backend}})
        leaves = set(innermost([path for path, _, _ in found["walk"]]))
        spans = [(path, 1e6 * start, 1e6 * length) for path, start, length in found["walk"] if path in leaves]
        first = min((start for _, start, _ in found["kernels"] or ()), default=0.0)
        tracks = {"stages, one by one": spans}
        if found["kernels"]:
            tracks["kernels of the whole call"] = [(n, start - first, length) for n, start, length in found["kernels"]]
        for thread, (title, own) in enumerate(tracks.items(), 1):
            at = {"pid": process, "tid": thread}
            events.append({"ph": "M", "name": "thread_name", "args": {"name": title}, **at})
            events += [{"ph": "X", "name": name, "cat": title, "ts": ts, "dur": dur, **at} for name, ts, dur in own]
    return {"traceEvents": events, "displayTimeUnit": "ms"}
