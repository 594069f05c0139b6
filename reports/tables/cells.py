"""Cells of tables: a run's figures with their sources, or the reason for their absence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from suites.base.lines import Line
from suites.base.statistics import LEAST_LAUNCHES, Estimate
from suites.metrics.registry import CORR, recorded_metric

from ..data.frame import Book, RunData
from ..render.document import Absent, Cell, Code, Inline, Num, Table, Text, estimate_of, plain, say

MIB = 2**20
Row = tuple[Cell, ...]


def table(
    book: Book,
    name: str,
    header: Sequence[str],
    rows: Sequence[tuple[RunData, Sequence[Cell]]],
    left: int = 1,
    about: Text = (),
) -> Table:
    """A table whose first column is the machine and precision, where the document holds several."""
    if book.several:
        found = tuple((run.setting, *cells) for run, cells in rows)
        return Table(name, ("machine", *header), found, left + 1, about)
    return Table(name, tuple(header), tuple(tuple(cells) for _, cells in rows), left, about)


def seconds_of(run: RunData, case: str) -> Num:
    """The case's audio, in seconds."""
    workload, sources = run.workload_of(case)
    return plain(workload["duration_s"], sources, ".1f")


def time_ms(run: RunData, case: str, component: str, backend: str) -> Num | Absent:
    time, line = run.time(case, component, backend), run.find(case, component, backend)
    if time is None or line is None:
        return Absent(run.why(case, component, backend))
    return estimate_of(time, (run.source(line, "samples_s"),), 1e3)


def realtime_factor(run: RunData, case: str, component: str, backend: str) -> Num | Absent:
    """Processing time over audio time."""
    time, line = run.time(case, component, backend), run.find(case, component, backend)
    if time is None or line is None:
        return Absent(run.why(case, component, backend))
    sources = (run.source(line, "samples_s"), run.source(line, "workload"))
    return estimate_of(time, sources, 1 / run.duration_s(case))


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


def mebibytes(run: RunData, line: Line | None, value: float | None, field: str, reason: str = "") -> Num | Absent:
    if value is None or line is None:
        return Absent(reason)
    return plain(value / MIB, (run.source(line, field),), ".0f")


def figure(run: RunData, line: Line, value: Any, name: str, field: str) -> Inline:
    """A parity figure; correlations are printed with enough digits to differ from one."""
    if value is None:
        return Absent()
    sources = (run.source(line, field),)
    if isinstance(value, str):
        return Num(value, sources)
    metric = recorded_metric(name)
    if metric is CORR:
        return Num(metric.text(float(value)), sources, float(value))
    return plain(value, sources)


def coverage(run_estimates: Sequence[Estimate | None], sources: tuple[str, ...]) -> Text:
    """The meaning of the brackets in a table, given its samples."""
    found = [e for e in run_estimates if e is not None]
    if not found:
        return ()
    fewest, most = min(e.rounds for e in found), max(e.rounds for e in found)
    rounds = _span(fewest, most, sources)
    if most == 1:
        return ("One round: single samples, without an interval.",)
    if all(e.launches >= LEAST_LAUNCHES for e in found):
        launches = _span(min(e.launches for e in found), max(e.launches for e in found), sources)
        return say(
            "{} process launches, {} rounds in all; each launch counts once, with its median. Brackets: "
            "95 % interval over the launches.",
            launches,
            rounds,
        )
    least = min(e.coverage for e in found)
    level = (
        "95 %"
        if least >= 0.95
        else say("{} (fewer than 6 rounds somewhere)", plain(100 * least, sources, ".0f", unit=" %"))
    )
    return say(
        "Medians over {} rounds; brackets cover the true median with a probability of at least {}. Fewer than "
        f"{LEAST_LAUNCHES} process launches somewhere: what differs between launches is not in the interval.",
        rounds,
        level,
    )


def _span(low: int, high: int, sources: tuple[str, ...]) -> Text:
    if low == high:
        return (plain(low, sources),)
    return say("{} to {}", plain(low, sources), plain(high, sources))


def all_sources(runs: Sequence[RunData], field: str = "samples_s") -> tuple[str, ...]:
    """Sources of a statement about whole runs."""
    return tuple(run.file(f"records.jsonl#*/*/*.{field}") for run in runs)
