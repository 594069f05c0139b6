"""Many runs over time: every metric from run to run, and the changes that the gate would have called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from suites.base.environment import cpu_text
from suites.base.errors import UserError
from suites.gate.baseline import Key, differences
from suites.metrics.registry import BYTES, SECONDS

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
from ..render.html import write
from ..tables.verdicts import family_of, is_memory, ratio_number, recorded
from .build import Built

# most changes of a group on the terminal
MOST_NOTES = 12
ABOUT_TREND = (
    "The typical time of one call in the first and in the last run that has it. Ratio and verdict are the gate's, of "
    "the last run compared with the first: by the fast time over the reference's in the same run where there is a "
    "reference (*time*), else by fast times themselves (*seconds*). So the ratio is not that of the two times beside "
    "it: what slowed both sides is in the times only."
)
ABOUT_CHANGES = (
    "Each run compared with the one before it; where that one was too busy, or had too few launches to be judged by, "
    "with the last one before that."
)
ABOUT_FIGURES = (
    "Times are fast times with their intervals. A line marks where the gate calls a change. The gate judges ratios to "
    "the reference's time, so nothing is called where both sides rise together."
)


def write_history(folder: Path, out: Path, policy: Mapping[str, Any]) -> Built:
    """report.md, report.html and plots in ``out``, of all runs in ``folder`` and one level below them.

    Raises ``UserError``: no such folder, or no run in it."""
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
        sections.append(Section("Runs that no other run can be compared with", [Bullets(items)]))
    if unread:
        rows = tuple((recorded(label, (label,)), recorded(reason, (label,))) for label, reason in unread)
        sections.append(Section("Folders that could not be read", [Table("unread", ("folder", "why"), rows, 2)]))
    return Document(f"History of {folder.resolve().name}", sections)


def _summary(groups: Sequence[Group], unread: Sequence[tuple[str, str]]) -> list[Any]:
    count = sum(len(group.members) for group in groups)
    sources = tuple(f"{m.label}/records.jsonl" for group in groups for m in group.members)
    failed = say(", {} could not", plain(len(unread), tuple(name for name, _ in unread))) if unread else ""
    text = say("{} could be read{}.", counted(count, "run", sources), failed)
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
        text = say("{}, the latest in {}", text, recorded(last.title(), last.facts_from))
    return text


def _sections(group: Group, number: int, groups: Sequence[Group], pictures: Sequence[Picture]) -> Iterator[Section]:
    yield Section(group.name, [Paragraph(_what(group)), *_apart(group, groups), _runs(group, number)])
    rows = tuple(_change(group, change) for change in group.changes)
    blocks: list[Any] = [Paragraph((ABOUT_CHANGES,))]
    header = ("run", "date", "commit", "case", "component", "backend", "gates", "verdict", "compared with", "ratio (×)")
    blocks.append(Table(f"changes-{number}", header, rows, 9) if rows else Paragraph(("None.",)))
    if group.unjudged:
        items = tuple(_open(group, *one) for one in group.unjudged)
        blocks += [Paragraph(("What the gate could not judge:",)), Bullets(items)]
    yield Section("Changes that the gate would call", blocks, 3)
    times = [t for t in group.trends if not is_memory(t.metric)]
    shown = ("case", "component", "backend", "judged by", "verdict", "first (ms)", "last (ms)", "last / first (×)")
    table = Table(f"trends-{number}", shown, tuple(_trend_row(group, t) for t in times), 5, (ABOUT_TREND,))
    drawn = [picture for picture in pictures if "-memory-" not in picture.name]
    yield Section("From the first run to the last", [table, Paragraph((ABOUT_FIGURES,)), *drawn], 3)
    peaks = [t for t in group.trends if is_memory(t.metric)]
    if peaks:
        shown = ("case", "component", "backend", "figure", "verdict", "first (MiB)", "last (MiB)", "last / first (×)")
        about = ("Medians of fresh processes, above what was held before loading.",)
        table = Table(f"memory-{number}", shown, tuple(_trend_row(group, t) for t in peaks), 5, about)
        drawn = [picture for picture in pictures if "-memory-" in picture.name]
        yield Section("Peak memory from the first run to the last", [table, *drawn], 3)


def _what(group: Group) -> Text:
    member = group.members[0]
    facts, source = member.baseline.facts, member.facts_from
    measure = member.run.config["measure"].get("name", facts["model"])
    return say(
        "{}, {} threads; measure {}; weights: {}.",
        recorded(str(cpu_text(member.baseline.fingerprint)), source),
        plain(facts["threads"] or 0, source),
        recorded(str(measure), (member.run.file("config.yaml"),)),
        recorded(", ".join(dict.fromkeys(map(str, facts["weights"].values()))) or "none", source),
    )


def _apart(group: Group, groups: Sequence[Group]) -> list[Paragraph]:
    """How the group differs from another one of the same name."""
    near = _nearest(group, groups)
    if near is None or not group.name.endswith(")"):
        return []
    sources = tuple(source for member in group.members for source in member.facts_from)
    return [Paragraph(say("Not comparable with {}: {}.", near[0].name, recorded("; ".join(near[1]), sources)))]


def _nearest(group: Group, groups: Sequence[Group]) -> tuple[Group, list[str]] | None:
    own = facts_of(group.members[0])
    others = [(other, differences(facts_of(other.members[0]), own)) for other in groups if other is not group]
    return min(others, key=lambda pair: len(pair[1]), default=None)


def _alone(group: Group, groups: Sequence[Group]) -> Text:
    member, near = group.members[0], _nearest(group, groups)
    sources = (member.run.file("config.yaml"), *member.facts_from)
    text = say("{} ({})", recorded(member.title(), sources), recorded(group.name, sources))
    if near is None:
        return text
    more = "; ".join([*near[1][:3], *(["..."] if len(near[1]) > 3 else [])])
    other = recorded(near[0].members[0].label, sources)
    return say("{}: closest to {}, but {}", text, other, recorded(more, sources))


def _runs(group: Group, number: int) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for i, member in enumerate(group.members):
        run, source = member.run, member.facts_from
        before = group.members[max(i - 1, 0)].baseline.fingerprint
        found = differences(before, member.baseline.fingerprint)
        changed = "; ".join(text.replace(" there, ", " to ").removesuffix(" here") for text in found)
        launches = max(len(entry.seconds) for entry in member.baseline.entries.values())
        time = recorded(f"{member.time:%Y-%m-%d %H:%M}", (run.file("records.jsonl#*/*/*.time"),))
        facts = (recorded(member.commit, source), recorded(changed, source) if changed else "")
        counts = (
            plain(launches, (run.file("records.jsonl#*/*/*.launches"),)),
            plain(sum(change.at == i for change in group.changes), (run.file("records.jsonl"),)),
        )
        rows.append((recorded(member.label, source), time, *facts, *counts))
    header = ("run", "time", "commit", "software or machine: what became other", "launches", "changes called")
    return Table(f"runs-{number}", header, tuple(rows), 4)


def _sources(group: Group, key: Key, metric: str, *places: int) -> tuple[str, ...]:
    return tuple(_source(group.members[i], key, metric) for i in places)


def _change(group: Group, change: Change) -> tuple[Cell, ...]:
    v, member, before = change.verdict, group.members[change.at], group.members[change.against]
    both = _sources(group, v.key, v.metric, change.against, change.at)
    run = (recorded(text, member.facts_from) for text in (member.label, member.date, member.commit))
    names = (*map(printable, v.key), ", ".join(change.gates))
    ratio = Absent(printable(v.text)) if v.change is None else ratio_number(v, both)
    return (*run, *names, recorded(v.word, both), recorded(before.label, member.facts_from), ratio)


def _open(group: Group, at: int, reason: str, count: int) -> Text:
    member = group.members[at]
    sources = (member.run.file("records.jsonl"),)
    return say("{}: {} gates, {}", recorded(member.title(), sources), plain(count, sources), recorded(reason, sources))


def _trend_row(group: Group, trend: Trend) -> tuple[Cell, ...]:
    v, both = trend.verdict, _sources(group, trend.key, trend.metric, trend.first, trend.last)
    values = [_figure(group.members[i], trend.key, trend.metric) for i in (trend.first, trend.last)]
    words = (*map(printable, trend.key), trend.metric.removesuffix("_bytes"), recorded(v.word, both) if v else "")
    if v is not None and v.change is not None:
        return (*words, *values, ratio_number(v, both))
    one = trend.first == trend.last
    why = "in one run only" if one else v.text if v else "another environment: seconds are not judged"
    return (*words, *values, Absent(printable(why)))


def _figure(member: Member, key: Key, metric: str) -> Num | Absent:
    """The median of peaks, or milliseconds of one call."""
    entry, source = member.measured(key), (_source(member, key, metric),)
    if is_memory(metric):
        values = entry.memory.get(metric) if entry else None
        return plain(median(values), source, BYTES.format, BYTES.scale) if values else Absent()
    found = member.run.time(*key) if entry else None
    return Absent() if found is None else estimate_of(found, source, 1e3)


def _source(member: Member, key: Key, metric: str) -> str:
    return member.run.file(f"records.jsonl#{'/'.join(key)}.{family_of(metric).field[0]}")


# ---------------------------------------------------------------------- its figures
def draw(groups: Sequence[Group], out: Path) -> dict[str, list[Picture]]:
    """By group: a figure per case and backend with a panel per component, and one per backend of peaks."""
    (out / "plots").mkdir(parents=True, exist_ok=True)
    several = [group for group in groups if len(group.members) > 1]
    return {group.name: list(_pictures(group, out / "plots", number)) for number, group in enumerate(several, 1)}


def _pictures(group: Group, folder: Path, number: int) -> Iterator[Picture]:
    """Series without positive values are left out."""
    labels = [f"{member.date}\n{member.commit}" for member in group.members]
    sources = tuple(member.run.file("records.jsonl") for member in group.members)

    def drawn(backend: str, name: str, title: str, unit: str, found: Iterable[Series]) -> Iterator[Picture]:
        make = partial(changes.over_runs, labels=labels, backend=backend, title=title, unit=unit)
        alt = f"{title}: a panel per metric, {len(labels)} runs in order of time, called changes marked"
        series = [s for s in found if s.points]
        yield from in_parts(series, changes.MOST_PANELS, make, folder, f"history-{number}-{name}", alt, sources)

    for case, backend in dict.fromkeys((case, backend) for case, _, backend in group.keys):
        times = [_series(group, key, "time", key[1]) for key in group.keys if (key[0], key[2]) == (case, backend)]
        title = f"Time of one call on {case}, {backend}"
        yield from drawn(backend, f"time-{case}-{backend}", title, SECONDS.unit, times)
    for backend in dict.fromkeys(key[2] for key in group.keys):
        peaks = [t for t in group.trends if t.key[2] == backend and is_memory(t.metric)]
        titles = [f"{t.key[1]}, {t.key[0]}\n{t.metric.removesuffix('_bytes').replace('_', ' ')}" for t in peaks]
        series = [_series(group, t.key, t.metric, title) for t, title in zip(peaks, titles, strict=True)]
        yield from drawn(backend, f"memory-{backend}", f"Peak memory, {backend}", BYTES.unit, series)


def _series(group: Group, key: Key, metric: str, title: str) -> Series:
    """One metric over the runs, with its called changes; in the figure of times all but those of memory."""
    memory, points = is_memory(metric), []
    for i, member in enumerate(group.members):
        number = _figure(member, key, metric)
        if isinstance(number, Num) and number.value is not None and number.value > 0:
            tooltip = f"{member.title()}: {number.text} {(BYTES if memory else SECONDS).unit}"
            points.append(Point(i, number.value, number.low, number.high, tooltip))
    own = [c for c in group.changes if c.verdict.key == key]
    own = [c for c in own if (c.verdict.metric == metric if memory else not is_memory(c.verdict.metric))]
    return Series(title, points, [Called(c.at, c.verdict.kind, _call_text(group, c)) for c in own])


def _call_text(group: Group, change: Change) -> str:
    v, member, before = change.verdict, group.members[change.at], group.members[change.against]
    ratio = "" if v.change is None else ratio_number(v, ())
    size = f" {ratio.text}" if isinstance(ratio, Num) else f", {printable(v.text)}," if v.text else ""
    where = f"in {member.label}, commit {member.commit}, against {before.label}"
    return f"{v.kind} ({', '.join(change.gates)}){size} {where}"


# ---------------------------------------------------------------------- the terminal
def notes(groups: Sequence[Group], unread: Sequence[tuple[str, str]]) -> list[str]:
    lines = [f"cannot be read: {label}: {reason}" for label, reason in unread]
    several = [group for group in groups if len(group.members) > 1]
    for group in several:
        lines.append(words_of(_sum_of(group)))
        for c in group.changes[-MOST_NOTES:]:
            lines.append(f"  {group.members[c.at].date} {printable(c.verdict.where)}: {_call_text(group, c)}")
        if len(group.changes) > MOST_NOTES:
            lines.append(f"  and {len(group.changes) - MOST_NOTES} earlier ones; see the report")
        gates = sum(count for _, _, count in group.unjudged)
        lines += [f"  gates that could not be judged: {gates}; the report says why"] if gates else []
    alone = sum(len(group.members) == 1 for group in groups)
    if alone:
        lines.append(f"runs that are like no other one, and compared with nothing: {alone}")
    return lines
