"""Walks two sides through a model stage by stage, and says where the first one goes wrong.

Two worker processes take the stages in turns (``tracing``); this module pairs them, judges every
stage by limits made from rounding (``floors``), and finds the first one at fault. Nothing but the
current stage's values is kept, so memory does not grow with the number of stages.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..base.backends import BACKENDS
from ..base.files import in_files, scratch_folder
from ..definitions.base import Probe
from ..measure.launch import Worker, WorkerError
from ..metrics.floors import METRICS, Tolerances, floor
from ..metrics.limits import exceeds

Facts = dict[str, Any]

# an error this many times its limit is clear
CLEAR = 3.0
OK, FAULT, INHERITED = "ok", "at fault", "inherited"
HIDDEN = (
    "right on the reference's values, but on its own {times:.3g} times what rounding accumulates: something passes to "
    "it from the stage before, beside the values that are compared"
)
# the path of the row that judges the call as users make it
WHOLE = "(whole call)"
# the same, with small tiles and blocks
PIECES = "(whole call in small pieces)"


@dataclass
class Row:
    """One value of one stage. ``added``: on the reference's input; ``chained``: on each side's own.

    ``shared``: both sides ran the same code there.
    """

    probe: str
    variant: str
    path: str
    entry: str
    shape: list[int] = field(default_factory=list)
    exact: bool = False
    rms: float = 0.0
    peak: float = 0.0
    added: Facts = field(default_factory=dict)
    chained: Facts = field(default_factory=dict)
    floor: Facts = field(default_factory=dict)
    floor_chained: Facts | None = None
    limit: Facts = field(default_factory=dict)
    status: str = OK
    where: Facts | None = None
    heard: Facts | None = None
    shared: bool = False

    def record(self) -> Facts:
        return asdict(self)


class Pair:
    """The reference's worker and the other's, both with their model loaded."""

    def __init__(
        self, reference: Worker, other: Worker, timeout_s: float, *, exact: bool = True, sample_rate: int | None = None
    ) -> None:
        self.reference, self.other, self.timeout_s = reference, other, timeout_s
        self.exact, self.sample_rate = exact, sample_rate

    def ask(self, worker: Worker, do: str, **arguments: Any) -> Facts:
        return worker.ask(do, self.timeout_s, **arguments)


class ProbeTrace:
    """One walk of both sides on one probe; iterate for its rows as they are found."""

    def __init__(self, pair: Pair, probe: Probe, variant: str, tolerances: Tolerances) -> None:
        self.pair, self.probe, self.variant, self.tolerances = pair, probe, variant, tolerances
        self.broken: str | None = None
        self.last: Row | None = None
        # whether own values say anything of the stages: not behind a fault, nor where decisions fell otherwise
        self.comparable = True

    def rows(self) -> Iterator[Row]:
        """The rows as they are found.

        Raises:
            WorkerLost: one of the two died.
        """
        with scratch_folder() as self.folder, in_files(self.probe.inputs) as files:
            self._open(files)
            yield from self._walk()

    def _open(self, files: dict[str, str]) -> None:
        common = {"exact": self.pair.exact, "sample_rate": self.pair.sample_rate, "settings": self.probe.settings}
        for worker in (self.pair.reference, self.pair.other):
            self.pair.ask(worker, "prepare", inputs=files)
            self.pair.ask(worker, "trace_open", reference=worker is self.pair.reference, **common)

    # ------------------------------------------------------------------ in step
    def _walk(self) -> Iterator[Row]:
        last = "the beginning"
        while True:
            try:
                step = self.pair.ask(self.pair.other, "trace_next")
            except WorkerError as error:
                rest = self._reference_at(None, True)["skipped"]
                yield self._failed(rest[0] if rest else last, f"after {last}, this stage raises {error}")
                return
            path = step["path"]
            try:
                reached = self._reference_at(path, step.get("leaf", True))
            except WorkerError as error:
                yield self._failed(path or last, f"after {last}, the reference itself raises {error}")
                return
            if path is not None and not reached["found"]:
                yield self._failed(path, "the reference has no such stage")
                return
            for skipped in reached["skipped"]:
                yield self._failed(skipped, "this stage is missing")
            if path is None:
                if self.last is not None:
                    yield self._whole(self.last, WHOLE)
                    in_pieces = self._whole(self.last, PIECES)
                    if in_pieces.added is not None:
                        yield in_pieces
                return
            yield from self._judged(step, reached["entries"])
            last = path

    def _reference_at(self, path: str | None, leaf: bool) -> Facts:
        return self.pair.ask(self.pair.reference, "trace_next", until=path, leaf=leaf, folder=str(self.folder))

    def _judged(self, step: Facts, entries: dict[str, Facts]) -> Iterator[Row]:
        path = step["path"]
        for name in step["changed"]:
            if name not in entries:
                entry = self.pair.ask(self.pair.reference, "trace_entry", name=name, folder=str(self.folder))["entry"]
                if entry is not None:
                    entries[name] = entry
        limits = {name: self.tolerances.limits(path, name, entry) for name, entry in entries.items()}
        judged = self.pair.ask(self.pair.other, "trace_judge", entries=entries, limits=limits)["entries"]
        if self.broken is None and step["broken"]:
            self.broken = step["broken"]
        for name, entry in entries.items():
            if not judged[name].get("absent"):
                self.last = self._row(path, name, entry, limits[name], judged[name])
                self.last.shared = step.get("shared", False)
                self._judge_chain(self.last, entry, step.get("decides", False))
                yield self.last

    # ------------------------------------------------------------------ rows
    def _row(self, path: str, name: str, entry: Facts, limit: Facts, judged: Facts) -> Row:
        added = judged["added"]
        return Row(
            self.probe.name,
            self.variant,
            path,
            name,
            shape=entry["shape"],
            exact=entry["exact"],
            rms=entry["rms"],
            peak=entry["peak"],
            added=added,
            chained=judged.get("chained") or {"reason": self.broken or "no chain"},
            floor={metric: floor(entry, metric) for metric in METRICS},
            floor_chained=entry["floor_chained"],
            limit=limit,
            status=FAULT if exceeds(added, limit) else OK,
            where=judged.get("where"),
            heard=judged.get("heard"),
        )

    def _judge_chain(self, row: Row, entry: Facts, decides: bool) -> None:
        """What passes from stage to stage beside the compared values shows on own values only."""
        if row.status == FAULT or not self.comparable:
            self.comparable = False
            return
        # one decision on the edge moves all behind it, and so does the least difference in F0, whose phase is summed
        if decides or row.exact:
            self.comparable = row.chained.get("max_abs") == 0
            return
        limit = self.tolerances.chained_limits(row.path, entry)
        if limit is None or "reason" in row.chained or not exceeds(row.chained, limit):
            return
        row.status, self.comparable = FAULT, False
        times = max(row.chained[metric] / bound for metric, bound in limit.items())
        row.where = {"kind": "hidden", "sentence": HIDDEN.format(times=times), "facts": {"chained_limit": limit}}

    def _whole(self, last: Row, path: str) -> Row:
        """The call as users make it beside its own stages: tiles and blocks have no stage."""
        entry: Facts = {"exact": False, "rms": last.rms, "peak": last.peak, "unit": 2.0**-24}
        if last.exact:
            # 16-bit audio: rounding before it moves values by whole steps; the least floor is one step of one value
            entry |= {"rms": max(1, math.prod(last.shape)) ** -0.5, "peak": 1.0, "unit": 1.0}
        entry |= {"floor_added": last.floor_chained}
        row = Row(self.probe.name, self.variant, path, last.entry, shape=last.shape, exact=last.exact)
        row.rms, row.peak, row.limit = last.rms, last.peak, self.tolerances.limits(path, last.entry, entry)
        row.floor = {metric: floor(entry, metric) for metric in METRICS}
        try:
            ask = {"settings": self.probe.settings, "pieces": path == PIECES}
            row.added = self.pair.ask(self.pair.other, "trace_call", **ask)["added"]
        except WorkerError as error:
            row.added = {"reason": f"the call raises {error}"}
        row.chained, row.floor_chained = last.chained, last.floor_chained
        row.status = FAULT if row.added is not None and exceeds(row.added, row.limit) else OK
        return row

    def _failed(self, path: str, reason: str) -> Row:
        return Row(self.probe.name, self.variant, path, "", added={"reason": reason}, status=FAULT)


def is_clear(added: Mapping[str, Any], limit: Mapping[str, float]) -> bool:
    """Whether an error is so far above its limit that no unlucky rounding can be meant."""
    return exceeds(added, {metric: CLEAR * bound for metric, bound in limit.items()})


def first_fault(rows: Iterable[Row]) -> Row | None:
    """The first clear one, at which it stops; else the first one at all."""
    unclear = None
    for row in rows:
        if row.status == FAULT:
            if is_clear(row.added, row.limit) or (row.where or {}).get("kind") == "hidden":
                return row
            unclear = unclear or row
    return unclear


def device_kind(backend: str) -> str:
    """``cpu`` or ``gpu``."""
    return "cpu" if BACKENDS[backend].device == "cpu" else "gpu"
