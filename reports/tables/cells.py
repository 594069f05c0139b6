"""Cells of tables: a run's figures with their sources, or the reason for their absence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from suites.base.lines import Key, Line
from suites.base.speed import LEAST_LAUNCHES, Estimate
from suites.metrics.registry import CORR, recorded_metric

from ..data.frame import Book, RunData
from ..data.trace import Trace
from ..render.document import Absent, Cell, Code, Num, Section, Table, Text, estimate_of, joined, plain, say

Row = Sequence[Cell]


def table(
    book: Book,
    name: str,
    header: Sequence[str],
    rows: Sequence[tuple[RunData | Trace, Row]],
    left: int = 1,
    about: Text = (),
) -> Table:
    """A table whose first column is the machine and precision, where the document holds several."""
    if book.several:
        found = tuple((run.setting, *cells) for run, cells in rows)
        return Table(name, ("machine", *header), found, left + 1, about)
    return Table(name, tuple(header), tuple(tuple(cells) for _, cells in rows), left, about)


def section(title: str, found: Table) -> list[Section]:
    """A section of this table alone; none where it has no rows."""
    return [Section(title, [found])] if found.rows else []


def seconds_of(run: RunData, case: str) -> Num:
    return plain(run.duration_s(case), (run.source(run.first_of[case], "workload"),), ".1f")


def time_ms(run: RunData, case: str, component: str, backend: str) -> Num | Absent:
    return _scaled_time(run, (case, component, backend), 1e3, "samples_s")


def realtime_factor(run: RunData, case: str, component: str, backend: str) -> Num | Absent:
    """Processing time over audio time."""
    return _scaled_time(run, (case, component, backend), 1 / run.duration_s(case), "samples_s", "workload")


def _scaled_time(run: RunData, key: Key, scale: float, *fields: str) -> Num | Absent:
    time, line = run.time(*key), run.find(*key)
    if time is None or line is None:
        return Absent(run.why(*key))
    return estimate_of(time, tuple(run.source(line, name) for name in fields), scale)


def gain_number(run: RunData, case: str, component: str, backend: str) -> Num | Absent:
    """PyTorch's time over this backend's, on the same device."""
    gain, reference = run.speedup(case, component, backend), run.speed_reference(backend)
    lines = [run.find(case, component, name) for name in (backend, reference or backend)]
    if gain is None or None in lines:
        reason = run.why(case, component, backend) or (reference and run.why(case, component, reference))
        return Absent(reason or ("" if reference is None else "no round has both"))
    return estimate_of(gain, tuple(run.source(line, "samples_s") for line in lines if line), unit="×")


def speedup(run: RunData, case: str, component: str, backend: str) -> Text:
    """The ratio, the backend that it refers to, and the precision of both."""
    number = gain_number(run, case, component, backend)
    if isinstance(number, Absent):
        return (number,)
    return say("{} of {}, {}", number, Code(str(run.speed_reference(backend))), Code(run.precision))


def number(
    run: RunData, line: Line | None, field: str, form: str = "", scale: float = 1.0, reason: str = ""
) -> Num | Absent:
    """A record's number by its dotted name."""
    value: Any = line
    for name in field.split("."):
        value = (value or {}).get(name)
    return Absent(reason) if line is None or value is None else plain(value, (run.source(line, field),), form, scale)


def figure(run: RunData, line: Line, value: Any, name: str, field: str) -> Num | Absent:
    """A parity figure; correlations are printed with enough digits to differ from one."""
    if value is None:
        return Absent()
    sources = (run.source(line, field),)
    if recorded_metric(name) is CORR and not isinstance(value, str):
        return Num(CORR.text(float(value)), sources, float(value))
    return plain(value, sources)


def coverage(run_estimates: Sequence[Estimate | None], sources: tuple[str, ...]) -> Text:
    """The meaning of the brackets in a table, given its samples."""
    found = [e for e in run_estimates if e is not None]
    if not found:
        return ()
    if all(e.rounds == 1 for e in found):
        return ("One round: single samples, without an interval.",)
    rounds, launches = (_span(counts, sources) for counts in ([e.rounds for e in found], [e.launches for e in found]))
    words = "{} process launches, {} rounds in all; fast times (docs/measurement.md). Brackets: 95 % interval"
    if min(e.launches for e in found) < LEAST_LAUNCHES:
        words += f"; with fewer than {LEAST_LAUNCHES} launches it does not include the difference between processes"
    return say(f"{words}.", launches, rounds)


def _span(counts: Sequence[int], sources: tuple[str, ...]) -> Text:
    return joined([plain(count, sources) for count in sorted({min(counts), max(counts)})], " to ")


def all_sources(runs: Sequence[RunData], field: str = "samples_s") -> tuple[str, ...]:
    """Sources of a statement about whole runs."""
    return tuple(run.file(f"records.jsonl#*/*/*.{field}") for run in runs)


def is_slower(gain: Estimate) -> bool:
    return gain.rounds > 1 and gain.high < 1 and math.isfinite(gain.high)


def is_faster(gain: Estimate) -> bool:
    return gain.rounds > 1 and gain.low > 1
