"""Walks two sides through a model stage by stage, and judges every stage.

Two worker processes take the stages in turns (``child.walks``); this module pairs them, judges every stage by limits
made from rounding (``metrics.floors``), and names what is at fault. The reference can be wrong as well: its
stages are compared with its own float64. Nothing but the current stage's values is kept, so memory does not grow with
the number of stages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.backends import BACKENDS
from ..base.errors import UserError
from ..base.files import in_files, scratch_folder
from ..base.lines import SCHEMA, Stage
from ..definitions.base import Probe
from ..measure.launch import Worker, WorkerError
from ..metrics.floors import METRICS, Tolerances, floor
from ..metrics.limits import exceeds

Facts = dict[str, Any]

OK, FAULT, INHERITED, REFERENCE_WRONG = "ok", "at fault", "inherited", "reference wrong"
# of a dump: a value after a decision that fell otherwise, whose accumulated error says nothing
NOT_JUDGED = "not judged"
WRONG = "the reference is wrong here: {operation} with output {shape} {how}"
FAR = "is {error:.2g} from its own float64, {times:.2g} times what rounding explains"
HIDDEN = "right on the reference's values, but on its own {times:.3g} times what rounding accumulates: "
# why: what a walk that is repeated on the same values decides
PASSED_ON = "something passes to it from a stage before, beside the values that are compared"
KEPT = (
    "called again on the same values it gives others (by {error:.2g}), so it or a stage before it keeps something from "
    "one call to the next"
)
# the path of the row that judges the call as users make it
WHOLE = "(whole call)"
# the same, with small tiles and blocks
PIECES = "(whole call in small pieces)"
IN_PIECES = "once its tiles and blocks are small"
# the row of a probe that is not walked: the call as users make it against the reference's
CALL = "(call)"
# where both agree to so many half units in the last place of the level, no stage is looked at: this decides what is
# walked, never what is at fault
CALL_UNITS = 300.0
# the call and its stages are two float32 computations, as both sides' stages are: where every stage is right, they may
# be so many times as far apart as those are, up to so many times the limit: F0's rounding alone, summed to a phase,
# varies so much
APART, MOST_APART = 2.0, 8.0
# of 16-bit audio a value now and then is rounded to the next step
INT_STEPS = {"rmse": 0.05, "max_abs": 1.0}
PRECISION_UNITS = {"fp32": 2.0**-24, "tf32": 2.0**-11, "fp16": 2.0**-11, "bf16": 2.0**-8}
# of a stage where there is nothing to compare
BLANK: Facts = {"shape": [], "exact": False, "rms": 0.0, "peak": 0.0, "status": OK, "where": None} | {
    name: {} for name in ("added", "chained", "floor", "limit")
}


@dataclass
class Pair:
    """The reference's worker and the other's, both with their model loaded. ``identity``: fields of every ``Stage``."""

    reference: Worker
    other: Worker
    timeout_s: float
    identity: Mapping[str, str]
    sample_rate: int | None = None

    def ask(self, worker: Worker, do: str, **arguments: Any) -> Facts:
        return worker.ask(do, self.timeout_s, **arguments)


class ProbeTrace:
    """One walk of both sides on one probe; iterate for its rows as they are found."""

    def __init__(self, pair: Pair, probe: Probe, variant: str, tolerances: Tolerances) -> None:
        self.pair, self.probe, self.variant, self.tolerances = pair, probe, variant, tolerances
        self.broken: str | None = None
        self.last: Stage | None = None
        self.right = True  # whether no stage was at fault so far
        self.pieces = False  # whether the other side's stages work in small pieces
        # whether own values can be compared: not after a fault, nor after a decision that differs
        self.comparable = True

    def rows(self) -> Iterator[Stage]:
        """The rows as they are found.

        Raises ``WorkerLost``: one of the two died. Raises ``UserError``: both sides refuse this input."""
        with scratch_folder() as self.folder, in_files(self.probe.inputs) as files:
            for worker in (self.pair.reference, self.pair.other):
                self.pair.ask(worker, "prepare", inputs=files)
            if not self.probe.walked and (row := self._agreed()) is not None:
                yield row
                return
            yield from self._opened()

    def _agreed(self) -> Stage | None:
        """The row of a call whose results are the same on both sides, in small pieces too; None where they are not."""
        path = self.folder / "call.npy"
        ask: Facts = {"settings": self.probe.settings}
        try:
            self.pair.ask(self.pair.reference, "trace_call", **ask, pieces=False, keep=str(path))
            found = [
                self.pair.ask(self.pair.other, "trace_call", **ask, pieces=pieces, against=str(path))["added"]
                for pieces in ((False, True) if self.probe.pieces else (False,))
            ]
        except WorkerError:  # a walk tells which stage raises, or that both sides refuse this input
            return None
        kept = np.load(path)
        result = kept.astype(np.float64)
        levels = {"rmse": math.sqrt(np.square(result).mean()), "max_abs": float(np.abs(result).max())}
        unit = PRECISION_UNITS[self.pair.identity["precision"]]
        floor_of = {metric: unit * level for metric, level in levels.items()}
        step = INT_STEPS if kept.dtype.kind in "iu" else {}
        limit = {metric: max(CALL_UNITS * least, step.get(metric, 0.0)) for metric, least in floor_of.items()}
        added = [figures for figures in found if figures is not None]
        if any("reason" in figures or exceeds(figures, limit) for figures in added):
            return None
        size: Facts = {"shape": list(result.shape), "rms": levels["rmse"], "peak": levels["max_abs"]}
        return self._stage(CALL, "x", added=added[0], chained=added[0], floor=floor_of, limit=limit, **size)

    # ------------------------------------------------------------------ in step
    def _opened(self) -> Iterator[Stage]:
        common = {"exact": True, "sample_rate": self.pair.sample_rate, "settings": self.probe.settings}
        self.pair.ask(self.pair.reference, "trace_open", reference=True, **common)
        self.pair.ask(self.pair.other, "trace_open", reference=False, pieces=self.pieces, **common)
        yield from self._walk()

    def _walk(self) -> Iterator[Stage]:
        last = "the beginning"
        while True:
            try:
                step = self.pair.ask(self.pair.other, "trace_next")
            except WorkerError as error:
                try:
                    rest = self._reference_at(None, True)["skipped"]
                except WorkerError as same:  # what neither side takes says nothing about either
                    raise UserError(f"probe {self.probe.name!r}, after {last}: {same}") from None
                yield self.failed(rest[0] if rest else last, f"after {last}, this stage raises {error}")
                return
            path = step["path"]
            try:
                reached = self._reference_at(path, step.get("leaf", True))
            except WorkerError as error:
                yield self.failed(path or last, f"after {last}, the reference itself raises {error}")
                return
            if path is not None and not reached["found"]:
                yield self.failed(path, "the reference has no such stage")
                return
            for skipped in reached["skipped"]:
                yield self.failed(skipped, "this stage is missing")
            if path is None:
                if self.last is not None:
                    yield from self._calls(self.last)
                return
            yield from self._judged(step, reached["entries"])
            if not all(entry.get("finite", True) for entry in reached["entries"].values()):
                return  # the reference is not: what follows has nothing to be compared with
            last = path

    def _calls(self, last: Stage) -> Iterator[Stage]:
        if self.pieces:
            return
        yield from self._whole(last, WHOLE)
        for row in self._whole(last, PIECES):
            if row.status == FAULT:
                yield from self._faults_in_pieces()
            yield row

    def _faults_in_pieces(self) -> Iterator[Stage]:
        """The stages that are at fault once they work in small pieces, as the call did."""
        again = ProbeTrace(self.pair, self.probe, self.variant, self.tolerances)
        again.folder, again.pieces = self.folder, True
        for row in again._opened():
            if row.status == FAULT:
                where = row.where or {"kind": "pieces", "facts": {}}
                sentence = ", ".join(filter(None, [where.get("sentence"), IN_PIECES]))
                row.where = {**where, "sentence": sentence}
                yield row

    def _reference_at(self, path: str | None, leaf: bool) -> Facts:
        return self.pair.ask(self.pair.reference, "trace_next", until=path, leaf=leaf, folder=str(self.folder))

    def _judged(self, step: Facts, entries: dict[str, Facts]) -> Iterator[Stage]:
        path = step["path"]
        for name in step["changed"]:
            if name not in entries:
                entry = self.pair.ask(self.pair.reference, "trace_entry", name=name, folder=str(self.folder))["entry"]
                if entry is not None:
                    entries[name] = entry
        for entry in entries.values():
            entry["decides"] = step.get("decides", False)
        limits = {name: self.tolerances.limits(path, name, entry) for name, entry in entries.items()}
        judged = self.pair.ask(self.pair.other, "trace_judge", entries=entries, limits=limits)["entries"]
        self.broken = self.broken or step["broken"]
        for name, entry in entries.items():
            if not judged[name].get("absent"):
                self.last = self._row(path, name, entry, limits[name], judged[name])
                self.last.shared = step.get("shared", False)
                self._judge_chain(self.last, entry)
                self.right = self.right and self.last.status == OK
                yield self.last

    # ------------------------------------------------------------------ rows
    def _stage(self, path: str, entry: str, **fields: Any) -> Stage:
        identity: Facts = {"schema": SCHEMA, "case": self.probe.name, "component": path, **self.pair.identity}
        identity |= {"probe": self.probe.name, "variant": self.variant, "path": path, "entry": entry}
        return Stage(**identity, **{**BLANK, **fields})

    def _row(self, path: str, name: str, entry: Facts, limit: Facts, judged: Facts) -> Stage:
        added, where = judged["added"], judged.get("where")
        times = self.tolerances.reference_error(path, name, entry) if entry.get("finite", True) else math.inf
        status = FAULT if exceeds(added, limit) else OK
        if times == math.inf or (times is not None and status == OK):
            status, where = REFERENCE_WRONG, _wrong_reference(path, entry, times)
        return self._stage(
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
            status=status,
            where=where,
            heard=judged.get("heard"),
        )

    def _judge_chain(self, row: Stage, entry: Facts) -> None:
        """What passes from stage to stage outside the compared values shows on own values only."""
        if row.status in (FAULT, REFERENCE_WRONG) or not self.comparable:
            self.comparable = False
            return
        # one decision on the edge moves all behind it, and so does the least difference in F0, whose phase is summed
        if entry["decides"] or row.exact:
            self.comparable = row.chained.get("max_abs") == 0
            return
        limit = self.tolerances.chained_limits(row.path, entry)
        if limit is None or "reason" in row.chained or not exceeds(row.chained, limit):
            return
        row.status, self.comparable = FAULT, False
        times = max(row.chained[metric] / bound for metric, bound in limit.items())
        ask = {"settings": self.probe.settings, "until": row.path, "entry": row.entry}
        again = self.pair.ask(self.pair.other, "trace_again", **ask)["again"]
        kept = exceeds(again, limit)
        why = KEPT.format(error=again.get("max_abs", math.inf)) if kept else PASSED_ON
        facts = {"chained_limit": limit, "again": again, "kept": kept}
        row.where = {"kind": "hidden", "sentence": HIDDEN.format(times=times) + why, "facts": facts}

    def _whole(self, last: Stage, path: str) -> Iterator[Stage]:
        """The call as users make it, if there is one, compared with its stages: tiles and blocks have no stage."""
        entry: Facts = {"exact": False, "rms": last.rms, "peak": last.peak, "unit": 2.0**-24}
        if last.exact:
            # 16-bit audio: rounding before it moves values by whole steps; the least floor is one step of one value
            entry |= {"rms": max(1, math.prod(last.shape)) ** -0.5, "peak": 1.0, "unit": 1.0}
        entry |= {"floor_added": last.floor_chained}
        limit = self.tolerances.limits(path, last.entry, entry)
        if self.right:
            limit = {
                metric: max(least, min(APART * last.chained.get(metric, 0.0), MOST_APART * least))
                for metric, least in limit.items()
            }
        try:
            ask = {"settings": self.probe.settings, "pieces": path == PIECES}
            added = self.pair.ask(self.pair.other, "trace_call", **ask)["added"]
        except WorkerError as error:
            added = {"reason": f"the call raises {error}"}
        if added is not None:
            same = {name: getattr(last, name) for name in ("shape", "exact", "rms", "peak", "chained", "floor_chained")}
            same |= {"floor": {metric: floor(entry, metric) for metric in METRICS}, "limit": limit}
            status = FAULT if exceeds(added, limit) else OK
            yield self._stage(path, last.entry, added=added, status=status, **same)

    def failed(self, path: str, reason: str) -> Stage:
        """The row of what cannot be compared."""
        return self._stage(path, "", added={"reason": reason}, status=FAULT)


def _wrong_reference(path: str, entry: Facts, times: float) -> Facts:
    """Which operation of the reference is wrong, on which shape, and by how much."""
    layer = entry.get("operation")
    how = "is not finite" + (", and its own float64 is" if entry.get("only_exact_finite") else "")
    if math.isfinite(times):
        how = FAR.format(error=entry["floor_added"]["max_abs"], times=times)
    operation = f"`{path}`" + (f", {layer}," if layer else "")
    sentence = WRONG.format(operation=operation, shape=entry["shape"], how=how)
    return {
        "kind": "reference",
        "sentence": sentence,
        "facts": {"operation": layer, "times": times, "finite": math.isfinite(times)},
    }


def device_kind(backend: str) -> str:
    """``cpu`` or ``gpu``."""
    return "cpu" if BACKENDS[backend].device == "cpu" else "gpu"
