"""Many runs over time: every metric from run to run, and the changes that the gate would have called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from suites.base.errors import UserError
from suites.gate.baseline import Key, differences

from ..data.gates import printable
from ..data.history_runs import Change, Group, Member, Trend, collect, facts_of, grouped, judged
from ..figures import changes
from ..figures.changes import Called, Point, Series
from ..figures.pictures import in_parts
from ..render.document import (
    Absent,
    Bullets,
    Cell,
    Document,
    Num,
    Paragraph,
    Picture,
    Section,
    Table,
    Text,
    counted,
    estimate_of,
    plain,
    say,
    words_of,
)
from ..render.render import write
from ..tables.cells import MIB
from ..tables.verdicts import family_of, is_memory, ratio_number, recorded
from .build import Built

# most changes of a group on the terminal
MOST_NOTES = 12
ABOUT_TREND = (
    "The typical time of one call in the first and in the last run that has it. Ratio and verdict are the gate's, of "
    "the last run compared with the first: by the fast time over the reference's in the same run where there is a "
    "reference (*time*), else by fast times themselves (*seconds*). So the ratio is not that of the two times beside "
    "it: what the machine did to both sides is in the times only."
)
ABOUT_CHANGES = (
    "Each run compared with the one before it; where that one was too busy, or had too few launches to be judged by, "
    "with the last one before that."
)
ABOUT_FIGURES = (
    "Times are medians with their intervals. A line stands where the gate calls a change; it judges ratios to the "
    "reference's time, so where both sides rise together nothing is called."
)


def write_history(folder: Path, out: Path, policy: Mapping[str, Any]) -> Built:
    """report.md, report.html and plots in ``out``, of all runs in ``folder`` and one level below them.

    Raises:
        UserError: no such folder, or no run in it.
    """
    members, unread = collect(folder)
    if not members and not unread:
        raise UserError(f"{folder}: no run folders in it (folders with config.yaml and records.jsonl)")
    groups = [judged(group, policy) for group in grouped(members)]
    document = compose(folder, groups, unread, draw(groups, out))
    return Built(write(document, out), notes(groups, unread), 0 if members else 2, document)


# ---------------------------------------------------------------------- the document
def compose(
    folder: Path, groups: Sequence[Group], unread: Sequence[tuple[str, str]], pictures: Mapping[str, list[Picture]]
) -> Document:
    """A section per group of two runs or more, and what could not be compared or read."""
    several = [group for group in groups if len(group.members) > 1]
    sections = [Section("Summary", _summary(groups, unread))]
    for number, group in enumerate(several, 1):
        sections += _sections(group, number, groups, pictures.get(group.name, []))
    alone = [group for group in groups if len(group.members) == 1]
    if alone:
        items = tuple(_alone(group, groups) for group in alone)
        sections.append(Section("Runs without another one to be compared with", [Bullets(items)]))
    if unread:
        rows = tuple((recorded(label, (label,)), recorded(reason, (label,))) for label, reason in unread)
        sections.append(Section("Folders that could not be read", [Table("unread", ("folder", "why"), rows, 2)]))
    return Document(f"History of {folder.resolve().name}", sections)


def _summary(groups: Sequence[Group], unread: Sequence[tuple[str, str]]) -> list[Any]:
    count = sum(len(group.members) for group in groups)
    sources = tuple(f"{m.label}/records.jsonl" for group in groups for m in group.members)
    text = say("{} could be read", counted(count, "run", sources))
    if unread:
        text = say("{}, {} could not", text, plain(len(unread), tuple(name for name, _ in unread)))
    text = (*text, ".")
    several = [group for group in groups if len(group.members) > 1]
    if not several:
        return [Paragraph(text), Paragraph(("**Nothing to compare**: a history needs two runs that are alike.",))]
    return [Paragraph(text), Bullets(tuple(_sum_of(group) for group in several))]


def _sum_of(group: Group) -> Text:
    sources = tuple(f"{m.label}/records.jsonl" for m in group.members)
    runs, changes = counted(len(group.members), "run", sources), counted(len(group.changes), "change", sources)
    text = say("{}: {}, {} called", recorded(group.name, sources), runs, changes)
    if group.changes:
        last = group.members[group.changes[-1].at]
        text = say("{}, the latest in {}", text, recorded(last.title(), (last.run.file("environment.json"),)))
    return text


def _sections(group: Group, number: int, groups: Sequence[Group], pictures: Sequence[Picture]) -> Iterator[Section]:
    yield Section(group.name, [Paragraph(_what(group)), *_apart(group, groups), _runs(group, number)])
    rows = tuple(_change(group, change) for change in group.changes)
    blocks: list[Any] = [Paragraph((ABOUT_CHANGES,))]
    header = ("run", "date", "commit", "case", "component", "backend", "gates", "verdict", "compared with", "ratio (×)")
    blocks.append(Table(f"changes-{number}", header, rows, 9) if rows else Paragraph(("None.",)))
    if group.unjudged:
        blocks += [
            Paragraph(("What the gate could not judge:",)),
            Bullets(tuple(_open(group, *x) for x in group.unjudged)),
        ]
    yield Section("Changes that the gate would call", blocks, 3)
    times = [t for t in group.trends if not is_memory(t.metric)]
    shown = ("case", "component", "backend", "judged by", "verdict", "first (ms)", "last (ms)", "last / first (×)")
    table = Table(f"trends-{number}", shown, tuple(_time_row(group, t) for t in times), 5, (ABOUT_TREND,))
    drawn = [picture for picture in pictures if "-memory-" not in picture.name]
    yield Section("From the first run to the last", [table, Paragraph((ABOUT_FIGURES,)), *drawn], 3)
    peaks = [t for t in group.trends if is_memory(t.metric)]
    if peaks:
        shown = ("case", "component", "backend", "figure", "verdict", "first (MiB)", "last (MiB)", "last / first (×)")
        about = ("Medians of fresh processes, above what was held before loading.",)
        table = Table(f"memory-{number}", shown, tuple(_memory_row(group, t) for t in peaks), 5, about)
        drawn = [picture for picture in pictures if "-memory-" in picture.name]
        yield Section("Peak memory from the first run to the last", [table, *drawn], 3)


def _what(group: Group) -> Text:
    member = group.members[0]
    weights = ", ".join(dict.fromkeys(str(w) for w in member.sheet.facts["weights"].values())) or "none"
    source = (member.run.file("environment.json"),)
    return say(
        "{}, {} threads; measure {}; weights: {}.",
        recorded(str(member.sheet.fingerprint.get("cpu")), source),
        plain(member.sheet.facts["threads"] or 0, source),
        recorded(
            str(member.run.config["measure"].get("name", member.sheet.facts["model"])),
            (member.run.file("config.yaml"),),
        ),
        recorded(weights, source),
    )


def _apart(group: Group, groups: Sequence[Group]) -> list[Paragraph]:
    """How the group differs from another one of the same name."""
    near = _nearest(group, groups)
    if near is None or not group.name.endswith(")"):
        return []
    return [Paragraph(say("Not comparable with {}: {}.", near[0].name, recorded("; ".join(near[1]), _of_all(group))))]


def _nearest(group: Group, groups: Sequence[Group]) -> tuple[Group, list[str]] | None:
    own = facts_of(group.members[0])
    others = [(other, differences(facts_of(other.members[0]), own)) for other in groups if other is not group]
    return min(others, key=lambda pair: len(pair[1]), default=None)


def _of_all(group: Group) -> tuple[str, ...]:
    return tuple(member.run.file("environment.json") for member in group.members)


def _alone(group: Group, groups: Sequence[Group]) -> Text:
    member, near = group.members[0], _nearest(group, groups)
    sources = (member.run.file("config.yaml"), member.run.file("environment.json"))
    text = say("{} ({})", recorded(member.title(), sources), recorded(group.name, sources))
    if near is None:
        return text
    more = [*near[1][:3], *(["..."] if len(near[1]) > 3 else [])]
    return say(
        "{}: closest to {}, but {}",
        text,
        recorded(near[0].members[0].label, sources),
        recorded("; ".join(more), sources),
    )


def _runs(group: Group, number: int) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for i, member in enumerate(group.members):
        source = (member.run.file("environment.json"),)
        before = group.members[i - 1].sheet.fingerprint if i else member.sheet.fingerprint
        found = differences(before, member.sheet.fingerprint)
        changed = "; ".join(text.replace(" there, ", " to ").removesuffix(" here") for text in found)
        launches = max(len(entry.seconds) for entry in member.sheet.entries.values())
        rows.append(
            (
                recorded(member.label, source),
                recorded(f"{member.time:%Y-%m-%d %H:%M}", (member.run.file("records.jsonl#*/*/*.time"),)),
                recorded(member.commit, source),
                recorded(changed, source) if changed else "",
                plain(launches, (member.run.file("records.jsonl#*/*/*.launches"),)),
                plain(sum(change.at == i for change in group.changes), (member.run.file("records.jsonl"),)),
            )
        )
    header = ("run", "time", "commit", "software or machine: what became other", "launches", "changes called")
    return Table(f"runs-{number}", header, tuple(rows), 4)


def _sources(group: Group, key: Key, metric: str, *places: int) -> tuple[str, ...]:
    """The records of these runs."""
    return tuple(_source(group.members[i], key, family_of(metric).field[0]) for i in places)


def _change(group: Group, change: Change) -> tuple[Cell, ...]:
    v, member, before = change.verdict, group.members[change.at], group.members[change.against]
    both = _sources(group, v.key, v.metric, change.against, change.at)
    source = (member.run.file("environment.json"),)
    words = (member.label, member.date, member.commit)
    ratio = Absent(printable(v.text)) if v.change is None else ratio_number(v, both)
    names = (*map(printable, v.key), ", ".join(change.gates))
    return (
        *(recorded(w, source) for w in words),
        *names,
        recorded(v.kind, both),
        recorded(before.label, source),
        ratio,
    )


def _open(group: Group, at: int, reason: str, count: int) -> Text:
    member = group.members[at]
    sources = (member.run.file("records.jsonl"),)
    return say("{}: {} gates, {}", recorded(member.title(), sources), plain(count, sources), recorded(reason, sources))


def _time_row(group: Group, trend: Trend) -> tuple[Cell, ...]:
    values = [_time(group.members[i], trend.key) for i in (trend.first, trend.last)]
    return _trend_row(group, trend, trend.metric, values)


def _memory_row(group: Group, trend: Trend) -> tuple[Cell, ...]:
    values = [_peak(group.members[i], trend.key, trend.metric) for i in (trend.first, trend.last)]
    return _trend_row(group, trend, trend.metric.removesuffix("_bytes"), values)


def _trend_row(group: Group, trend: Trend, name: str, values: Sequence[Num | Absent]) -> tuple[Cell, ...]:
    v, both = trend.verdict, _sources(group, trend.key, trend.metric, trend.first, trend.last)
    if v is None or v.change is None:
        one = trend.first == trend.last
        why = "in one run only" if one else v.text if v else "another environment: seconds are not judged"
        return (*map(printable, trend.key), name, recorded(v.kind, both) if v else "", *values, Absent(printable(why)))
    return (*map(printable, trend.key), name, recorded(v.kind, both), *values, ratio_number(v, both))


def _time(member: Member, key: Key) -> Num | Absent:
    """Milliseconds of one call."""
    found = member.run.time(*key) if member.measured(key) else None
    return Absent() if found is None else estimate_of(found, (_source(member, key, "samples_s"),), 1e3)


def _peak(member: Member, key: Key, name: str) -> Num | Absent:
    entry = member.measured(key)
    values = entry.memory.get(name) if entry else None
    return plain(median(values) / MIB, (_source(member, key, "cold"),), ".0f") if values else Absent()


def _source(member: Member, key: Key, field: str) -> str:
    return member.run.file(f"records.jsonl#{'/'.join(key)}.{field}")


# ---------------------------------------------------------------------- its figures
def draw(groups: Sequence[Group], out: Path) -> dict[str, list[Picture]]:
    """By group: a figure per case and backend with a panel per component, and one per backend of peaks."""
    (out / "plots").mkdir(parents=True, exist_ok=True)
    pictures: dict[str, list[Picture]] = {}
    for number, group in enumerate((g for g in groups if len(g.members) > 1), 1):
        pictures[group.name] = [p for figure in _figures(group) for p in _drawn(group, number, figure, out)]
    return pictures


class Figure(NamedTuple):
    name: str
    title: str
    unit: str
    backend: str
    series: list[Series]


def _figures(group: Group) -> Iterator[Figure]:
    for case, backend in dict.fromkeys((case, backend) for case, _, backend in group.keys):
        keys = [key for key in group.keys if (key[0], key[2]) == (case, backend)]
        series = [_series(group, key, "time", key[1]) for key in keys]
        yield Figure(f"time-{case}-{backend}", f"Time of one call on {case}, {backend}", "ms", backend, series)
    for backend in dict.fromkeys(key[2] for key in group.keys):
        peaks = [t for t in group.trends if t.key[2] == backend and is_memory(t.metric)]
        titles = [f"{t.key[1]}, {t.key[0]}\n{t.metric.removesuffix('_bytes').replace('_', ' ')}" for t in peaks]
        series = [_series(group, t.key, t.metric, title) for t, title in zip(peaks, titles, strict=True)]
        if series:
            yield Figure(f"memory-{backend}", f"Peak memory, {backend}", "MiB", backend, series)


def _series(group: Group, key: Key, metric: str, title: str) -> Series:
    """One metric over the runs, with its called changes."""
    memory, points = is_memory(metric), []
    for i, member in enumerate(group.members):
        number = _peak(member, key, metric) if memory else _time(member, key)
        if isinstance(number, Num) and number.value is not None and number.value > 0:
            tooltip = f"{member.title()}: {number.text} {'MiB' if memory else 'ms'}"
            points.append(Point(i, number.value, number.low, number.high, tooltip))
    own = [c for c in group.changes if c.verdict.key == key and (c.verdict.metric == metric if memory else _of_time(c))]
    return Series(title, points, [Called(c.at, c.verdict.kind, _call_text(group, c)) for c in own])


def _of_time(change: Change) -> bool:
    """Whether the change is marked in the figure of times: all are, except of memory."""
    return not is_memory(change.verdict.metric)


def _call_text(group: Group, change: Change) -> str:
    """The change in one line, with the commit."""
    v, member, before = change.verdict, group.members[change.at], group.members[change.against]
    ratio = "" if v.change is None else ratio_number(v, ())
    size = f" {ratio.text}" if isinstance(ratio, Num) else f", {printable(v.text)}," if v.text else ""
    return (
        f"{v.kind} ({', '.join(change.gates)}){size} in {member.label}, commit {member.commit}, against {before.label}"
    )


def _drawn(group: Group, number: int, figure: Figure, out: Path) -> Iterator[Picture]:
    """The figure as pictures; series without positive values are left out."""
    labels = [f"{member.date}\n{member.commit}" for member in group.members]
    make = partial(changes.over_runs, labels=labels, backend=figure.backend, title=figure.title, unit=figure.unit)
    sources = tuple(member.run.file("records.jsonl") for member in group.members)
    alt = f"{figure.title}: a panel per metric, {len(labels)} runs in order of time, called changes marked"
    name, series = f"history-{number}-{figure.name}", [s for s in figure.series if s.points]
    yield from in_parts(series, changes.MOST_PANELS, make, out / "plots", name, alt, sources)


# ---------------------------------------------------------------------- the terminal
def notes(groups: Sequence[Group], unread: Sequence[tuple[str, str]]) -> list[str]:
    lines = [f"cannot be read: {label}: {reason}" for label, reason in unread]
    several = [group for group in groups if len(group.members) > 1]
    for group in several:
        lines.append(words_of(_sum_of(group)))
        found = [
            f"  {group.members[c.at].date} {printable(c.verdict.where)}: {_call_text(group, c)}" for c in group.changes
        ]
        lines += found[-MOST_NOTES:]
        if len(found) > MOST_NOTES:
            lines.append(f"  and {len(found) - MOST_NOTES} earlier ones; see the report")
        gates = sum(count for _, _, count in group.unjudged)
        lines += [f"  gates that could not be judged: {gates}; the report says why"] if gates else []
    alone = sum(len(group.members) == 1 for group in groups)
    if alone:
        lines.append(f"runs that are like no other one, and compared with nothing: {alone}")
    return lines
