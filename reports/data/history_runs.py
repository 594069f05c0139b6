"""The runs of a folder in groups that can be compared, and the gate's verdict on each run by the one before it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from suites.base.environment import completed
from suites.base.errors import UserError
from suites.base.run_folder import RunFolder
from suites.gate.baseline import DAMAGE, Baseline, Entry, Key, baseline_of
from suites.gate.checks import MEASURED
from suites.gate.judge import MEANING, PASSED, TIMES, UNJUDGED, Verdict, judge

from .frame import RunData, load
from .gates import CALLS, commit_of, printable

# facts that must be equal for times to be comparable; changes of software are listed
HARDWARE = ("machine", "cpu", "processor", "cores_physical")


class Member(NamedTuple):
    """One run of a group. ``label``: its folder below the one that was searched."""

    run: RunData
    baseline: Baseline
    time: datetime

    @property
    def label(self) -> str:
        return self.run.label

    @property
    def commit(self) -> str:
        return commit_of(self.baseline)

    @property
    def date(self) -> str:
        return f"{self.time:%Y-%m-%d}"

    @property
    def facts_from(self) -> tuple[str, ...]:
        """The source of what is said of the run as a whole."""
        return (self.run.file("environment.json"),)

    def title(self) -> str:
        return f"{self.label}, {self.date}, {self.commit}"

    def measured(self, key: Key) -> Entry | None:
        entry = self.baseline.entries.get(key)
        return entry if entry is not None and entry.status in MEASURED else None


class Change(NamedTuple):
    """The gate's verdict on run ``at``, compared with run ``against``; both count within the group.

    ``gates``: all that say the same of this metric; the verdict is the first one's.
    """

    at: int
    against: int
    verdict: Verdict
    gates: tuple[str, ...]


class Trend(NamedTuple):
    """A figure from the first run that has it to the last one. ``verdict``: None where there is only one run."""

    key: Key
    metric: str
    first: int
    last: int
    verdict: Verdict | None


@dataclass(frozen=True)
class Group:
    """Runs that can be compared, in order of time. ``unjudged``: per run what the gate could not say, and how often."""

    name: str
    members: list[Member]
    changes: list[Change] = field(default_factory=list)
    unjudged: list[tuple[int, str, int]] = field(default_factory=list)
    trends: list[Trend] = field(default_factory=list)

    @property
    def keys(self) -> list[Key]:
        return list(dict.fromkeys(key for m in self.members for key in m.baseline.entries if m.measured(key)))


# ---------------------------------------------------------------------- which runs there are
def collect(folder: Path) -> tuple[list[Member], list[tuple[str, str]]]:
    """The runs that can be read, and the folders that cannot with the reason; traces have no times."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if RunFolder(folder).exists:
        raise UserError(f"{folder}: is a run itself; give the folder that holds runs")
    members, unread = [], []
    for run in RunFolder(folder).runs(depth=2):
        path, label = run.path, printable(run.path.relative_to(folder).as_posix())
        try:
            if not run.is_trace:
                members.append(_member(path, label))
        except (UserError, OSError, *DAMAGE) as error:
            message = str(error).removeprefix(f"{path}/").removeprefix(f"{path}: ")
            unread.append((label, printable(message) or type(error).__name__))
    return members, unread


def _member(path: Path, label: str) -> Member:
    baseline = baseline_of([path])
    run = replace(load(path), label=label)
    if not any(entry.status in MEASURED for entry in baseline.entries.values()):
        reasons = [f"{entry.status}, {entry.reason}" for entry in baseline.entries.values() if entry.reason]
        raise UserError(f"nothing in it can be judged: {reasons[0] if reasons else 'it has no records'}")
    _check_words(baseline)
    times = [datetime.fromisoformat(record["time"]) for record in run.records if record.get("time")]
    if not times:
        raise UserError("its records do not say when they were measured")
    return Member(run, baseline, min(t if t.tzinfo else t.replace(tzinfo=UTC) for t in times))


def _check_words(baseline: Baseline) -> None:
    """Refuse lone surrogates, which cannot be written into a report."""
    entries = [(key, e.reason, list(e.memory), list(e.parity)) for key, e in baseline.entries.items()]
    words = [baseline.facts, baseline.fingerprint, baseline.made, entries]
    try:
        json.dumps(words, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise UserError("its text is damaged: it holds half a character") from None


def grouped(members: Sequence[Member]) -> list[Group]:
    """Runs that the gate does not refuse to compare, on the same kind of machine; the largest groups first."""
    families: dict[str, list[Member]] = {}
    prints = completed([member.baseline.fingerprint for member in members])
    members = [
        member._replace(baseline=member.baseline._replace(fingerprint=own))
        for member, own in zip(members, prints, strict=True)
    ]
    for member in sorted(members, key=lambda m: (m.time, m.label)):
        families.setdefault(json.dumps(facts_of(member), sort_keys=True, default=str), []).append(member)
    groups: list[Group] = []
    for found in sorted(families.values(), key=len, reverse=True):
        run = found[0].run
        name = ", ".join((run.name, run.precision, *([run.config["profile"]] if run.config.get("profile") else [])))
        same = sum(re.sub(r" \(\d+\)$", "", group.name) == name for group in groups)
        groups.append(Group(f"{name} ({same + 1})" if same else name, found))
    return groups


def facts_of(member: Member) -> dict[str, Any]:
    hardware = {name: member.baseline.fingerprint.get(name) for name in HARDWARE}
    # a kernel update can change the reported size of memory by some megabytes
    memory = member.baseline.fingerprint.get("memory_bytes")
    return {**member.baseline.facts, **hardware, "memory_gib": round(memory / 2**30) if memory else None}


# ---------------------------------------------------------------------- what the gate says
def judged(group: Group, policy: Mapping[str, Any]) -> Group:
    """The verdicts on every run by the one before it, and on the last by the first."""
    base: dict[Key, tuple[Entry, int]] = {}
    changes: list[Change] = []
    unjudged: list[tuple[int, str, int]] = []
    for at, member in enumerate(group.members):
        if at:
            before = group.members[at - 1].baseline
            entries = before.entries | {key: entry for key, (entry, _) in base.items()}
            verdicts = judge(before._replace(entries=entries), member.baseline, policy).verdicts
            called = [v for v in verdicts if _is_change(v, before)]
            changes += [Change(at, base[v.key][1] if v.key in base else at - 1, v, g) for v, g in _merged(called)]
            reasons = [f"{v.word}: {v.text}" for v in verdicts if MEANING[v.kind] == UNJUDGED and v.metric != "status"]
            unjudged += [(at, reason, reasons.count(reason)) for reason in dict.fromkeys(reasons)]
        for key, entry in member.baseline.entries.items():
            # an entry that is no sound baseline does not replace an earlier one
            known = key in base and _sound(base[key][0], policy)
            if entry.status in MEASURED and (_sound(entry, policy) or not known):
                base[key] = (entry, at)
    order = {key: i for i, key in enumerate(group.keys)}
    changes.sort(key=lambda c: (c.at, order.get(c.verdict.key, len(order)), c.verdict.metric))
    return replace(group, changes=changes, unjudged=unjudged, trends=list(_trends(group, policy)))


def _sound(entry: Entry, policy: Mapping[str, Any]) -> bool:
    """Whether a later run can be judged by it: enough launches, on a machine that was not too busy."""
    return len(entry.seconds) >= max(2, policy["least_launches"]) and entry.others <= policy["time"]["too_busy"]


def _is_change(verdict: Verdict, before: Baseline) -> bool:
    """A figure that the gate calls changed, or a status that was still fine in the run before."""
    if verdict.kind in CALLS:
        return True
    if verdict.metric != "status":
        return verdict.kind in ("missing", "failed")
    entry = before.entries.get(verdict.key)
    return MEANING[verdict.kind] != PASSED and entry is not None and entry.status == "passed"


def _merged(verdicts: Sequence[Verdict]) -> list[tuple[Verdict, tuple[str, ...]]]:
    """What several gates say of one metric's time is one change, with the figures of the strictest gate."""
    found: dict[tuple[Any, ...], list[Verdict]] = {}
    for v in verdicts:
        found.setdefault((v.key, v.kind, "time" if v.metric in TIMES else v.metric), []).append(v)
    for same in found.values():
        same.sort(key=lambda v: list(TIMES).index(v.metric) if v.metric in TIMES else 0)
    return [(same[0], tuple(v.metric for v in same)) for same in found.values()]


def _trends(group: Group, policy: Mapping[str, Any]) -> Iterator[Trend]:
    verdicts: dict[tuple[int, int], dict[tuple[Key, str], Verdict]] = {}
    for key in group.keys:
        own = [i for i, member in enumerate(group.members) if member.measured(key)]
        pair = own[0], own[-1]
        if pair not in verdicts:
            before, after = (group.members[i].baseline for i in pair)
            found = judge(before, after, policy).verdicts if own[0] < own[-1] else []
            verdicts[pair] = {(v.key, v.metric): v for v in found}
        by = verdicts[pair]
        metric = "time" if (key, "time") in by else "seconds"
        yield Trend(key, metric, *pair, by.get((key, metric)))
        entries = {i: group.members[i].baseline.entries[key] for i in own}
        for name in dict.fromkeys(name for entry in entries.values() for name in entry.memory):
            having = [i for i, entry in entries.items() if entry.memory.get(name)]
            ends = having[0], having[-1]
            yield Trend(key, name, *ends, by.get((key, name)) if ends == pair else None)
