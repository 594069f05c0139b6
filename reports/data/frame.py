"""Records as data: what a report is made from, and ``frame(folder, ...)``, a pandas DataFrame with a row per record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress, product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pandas as pd

from suites.base import outcome
from suites.base.backends import speed_reference
from suites.base.environment import completed, fingerprint
from suites.base.errors import UserError
from suites.base.lines import Line
from suites.base.records import key_of, read_lines, records
from suites.base.run_folder import RunFolder
from suites.base.speed import Estimate, estimate, paired_ratio
from suites.definitions import SUITES, steps, with_section
from suites.definitions.base import Suite
from suites.definitions.precision import FLOAT32, POLICIES
from suites.definitions.single import OFF, ON
from suites.inputs.weights import TRAINED_WEIGHTS

from . import trace as traces

GROWTH = "growth"  # the case of many lengths in one process
MIB = 2**20


class Format(NamedTuple):
    """One number format of a model. ``float32``: the record of float32; ``gain``: its time over this one's."""

    case: str
    model: str
    policy: str
    backend: str
    line: Line
    float32: Line | None
    gain: Estimate | None

    @property
    def component(self) -> str:
        return f"{self.model}.{self.policy}"


@dataclass(frozen=True)
class RunData:
    """One run. ``label``: its folder as the document's sources name it; ``setting``: its machine and precision,
    where a document holds several, or its folder where a suite was run again."""

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    records: list[Line]
    outcome: outcome.Outcome
    label: str = ""
    setting: str = ""
    planned: tuple[tuple[str, str, str], ...] = ()

    @cached_property
    def _figures(self) -> dict[tuple[str, ...], Estimate | None]:
        """Cache of times and ratios: many tables show the same ones."""
        return {}

    @cached_property
    def _index(self) -> dict[tuple[str, str, str], Line]:
        return {key_of(line): line for line in self.records}

    @cached_property
    def first_of(self) -> dict[str, Line]:
        return {line["case"]: line for line in reversed(self.records) if "workload" in line}

    def find(self, case: str, component: str, backend: str) -> Line | None:
        return self._index.get((case, component, backend))

    @property
    def name(self) -> str:
        return str(self.config["suite"]["name"])

    @property
    def precision(self) -> str:
        return str(self.config["precision"])

    @property
    def counts(self) -> tuple[int, int]:
        """Records that passed, and those that were not skipped."""
        states = [line["status"] for line in self.records if line["status"] != "skipped"]
        return states.count("passed"), len(states)

    @property
    def suite(self) -> Suite:
        return SUITES[self.name]

    @property
    def finds_pitch(self) -> bool:
        """Whether the compared F0 comes from a trained network."""
        return (
            bool(self.config["weights"]["rmvpe"])
            or self.suite.trained
            or TRAINED_WEIGHTS in self.environment.get("weights", {})
        )

    @cached_property
    def cases(self) -> list[str]:
        return sorted(self.first_of, key=lambda case: (self.duration_s(case), case))

    @cached_property
    def backends(self) -> list[str]:
        return self._in_order("backend", 2)

    @cached_property
    def components(self) -> list[str]:
        return self._in_order("component", 1)

    def _in_order(self, field: str, place: int) -> list[str]:
        """Measured names in the order of the plan, even where records are missing."""
        known = dict.fromkeys(r[field] for r in self.records if "workload" in r)
        planned = dict.fromkeys(key[place] for key in self.planned)
        return [name for name in planned if name in known] + [name for name in known if name not in planned]

    def duration_s(self, case: str) -> float:
        return float(self.first_of[case]["workload"]["duration_s"])

    @property
    def files(self) -> RunFolder:
        """The run's folder: arrays for figures, and audio."""
        return RunFolder(self.folder)

    def ordered(self) -> Iterator[Line]:
        """The records of everything measured, by case, component and backend."""
        keys = product(self.cases, self.components, self.backends)
        return (line for key in keys if (line := self.find(*key)) is not None)

    def cold(self, growth: bool = False) -> list[Line]:
        """Records of everything that was measured in fresh processes; ``growth``: the case of many lengths instead."""
        return [line for line in self.ordered() if line.get("cold") and (line["case"] == GROWTH) == growth]

    # ------------------------------------------------------------------ where figures come from
    def source(self, line: Line, field: str) -> str:
        """A field of a record, as the document's sources name it."""
        return self.file(f"records.jsonl#{'/'.join(key_of(line))}.{field}")

    def file(self, name: str) -> str:
        """``environment.json#threads`` and the like, of this run."""
        return f"{self.label}/{name}" if self.label else name

    def why(self, case: str, component: str, backend: str) -> str:
        """Why there is no figure, if the records say so."""
        key = (case, component, backend)
        if key in self.outcome.missing:
            return f"{', '.join(key)}: planned, no record"
        line = self.find(*key)
        if line is not None and line["status"] in ("error", "not_comparable"):
            return f"{', '.join(key)}: {line['status']}, {line['reason']}"
        for known in ((component, backend), ("all", backend)):
            skipped = self.find("all", *known)
            if skipped is not None:
                return f"{backend}: {skipped['reason']}"
        return ""

    # ------------------------------------------------------------------ figures
    def time(self, case: str, component: str, backend: str) -> Estimate | None:
        """Seconds of one steady call."""
        key = (case, component, backend)
        if key not in self._figures:
            line = self.find(*key)
            known = line is not None and line["status"] != "error"
            self._figures[key] = estimate(line["samples_s"], launches_of(line)) if line and known else None
        return self._figures[key]

    def speed_reference(self, backend: str) -> str | None:
        return speed_reference(backend, self.backends)

    def speedup(self, case: str, component: str, backend: str) -> Estimate | None:
        """Paired ratio to PyTorch on the same device, same precision; None without one."""
        ours, theirs = (self.find(case, component, b or "") for b in (backend, self.speed_reference(backend)))
        if not ours or not theirs or "error" in (ours["status"], theirs["status"]):
            return None
        return self.gain(ours, theirs)

    def gain(self, ours: Line, theirs: Line) -> Estimate | None:
        """Paired ratio of two records: the second's time over the first's."""
        key = (*key_of(ours), *key_of(theirs))
        if key not in self._figures:
            launches = dict(zip(ours["rounds"], launches_of(ours), strict=True))
            self._figures[key] = paired_ratio(_by_round(theirs), _by_round(ours), launches)
        return self._figures[key]

    def ablations(self) -> Iterator[tuple[str, str, str, Line | None, Line | None, Estimate | None]]:
        """Case, ``model.optimisation``, backend, the records with it and without, and the gain where both exist."""
        names = dict.fromkeys(component.rpartition(".")[0] for component in self.components)
        for case, name, backend in product(self.cases, names, self.backends):
            with_, without = (self.find(case, f"{name}.{side}", backend) for side in (ON, OFF))
            if with_ or without:
                yield case, name, backend, with_, without, self.gain(with_, without) if with_ and without else None

    def formats(self) -> Iterator[Format]:
        """Every number format that was measured, beside the same backend's float32."""
        names = [name for name in self.components if name.partition(".")[2] in POLICIES]
        for case, name, backend in product(self.cases, names, self.backends):
            model, _, policy = name.partition(".")
            line, float32 = self.find(case, name, backend), self.find(case, f"{model}.{FLOAT32}", backend)
            if line is not None and "workload" in line:
                both = float32 is not None and policy != FLOAT32 and "error" not in (line["status"], float32["status"])
                gain = self.gain(line, float32) if both and float32 else None
                yield Format(case, model, policy, backend, line, float32, gain)

    @property
    def timed_together(self) -> bool:
        """Whether one call times several components: its parts."""
        return self.suite.timed(tuple(self.components)) != tuple(self.components)

    def parts_over_whole(self, case: str, backend: str) -> list[tuple[float, float]]:
        """Per round the seconds of all parts and of the whole, where one call timed them all."""
        if not self.timed_together:
            return []
        lines = [r for r in self.records if (r["case"], r["backend"]) == (case, backend) and r.get("samples_s")]
        times = {r["component"]: _by_round(r) for r in lines}
        whole = times.pop(self.suite.whole or "", {})
        return [(sum(part[n] for part in times.values() if n in part), whole[n]) for n in sorted(whole)]


class Setting(NamedTuple):
    """A machine with its software, and a precision policy. ``name``: short, empty where there is one only."""

    name: str
    run: RunData


@dataclass(frozen=True)
class Book:
    runs: list[RunData]
    traces: list[traces.Trace]
    settings: list[Setting]

    @property
    def several(self) -> bool:
        return len(self.settings) > 1

    def having(self, section: str) -> list[RunData]:
        """The runs whose suite fills this section, and that measured something."""
        return [run for run in self.runs if run.name in with_section(section) and run.cases]


def _by_round(line: Line) -> dict[int, float]:
    return dict(zip(line["rounds"], line["samples_s"], strict=True))


def launches_of(line: Line) -> list[int]:
    """Per sample the process launch that it was taken in; older records had one."""
    found: list[int] = line.get("launches") or [0] * len(line["samples_s"])
    return found


def load(folder: Path) -> RunData:
    """Read a run folder.

    Raises ``UserError``: not a run folder, or records that this program cannot read."""
    run = RunFolder(folder)
    config = run.config()
    if config["suite"]["name"] not in SUITES or not {"measure", "weights"} <= set(config):
        raise UserError(f"{folder / 'config.yaml'}: is damaged")
    planned = run.plan().keys
    # a run that was resumed closed its records in another order; what was not planned, such as skips, comes first
    order = {key: place for place, key in enumerate(planned)}
    found = sorted(records(read_lines(run.records_file)), key=lambda line: order.get(key_of(line), -1))
    found = [_consistent(line) for line in found]
    judged = outcome.judge(planned, found)
    return RunData(folder, config, run.environment(), found, judged, planned=tuple(planned))


def _consistent(line: Line) -> Line:
    """A record whose samples have lost their rounds or launches gives no times, and says why."""
    counts = [len(line[name]) for name in ("samples_s", "rounds", "launches") if line.get(name)]
    if len(set(counts)) < 2 and (not line.get("samples_s") or line.get("rounds")):
        return line
    reason = "its samples, rounds and launches do not fit together"
    return line | {"status": "error", "reason": reason, "samples_s": [], "rounds": [], "launches": []}


def load_book(folders: Sequence[Path]) -> Book:
    """Runs, traces, and folders that hold several of them, as one document's data.

    Raises ``UserError``: a folder is none of these, or its records cannot be read."""
    found = {path.resolve(): path for folder in folders for path in _inner(folder)}  # each once
    runs, walked = list[RunData](), list[traces.Trace]()
    for folder, name in zip(found.values(), distinct(list(found)) if len(found) != 1 else [""], strict=True):
        if RunFolder(folder).is_trace:
            walked.append(traces.load(folder)._replace(label=name))
        else:
            runs.append(replace(load(folder), label=name))
    settings = _settings([*runs, *walked])
    known = {id(member): name for name, members in settings for member in members}
    runs = [replace(run, setting=known[id(run)]) for run in runs]
    walked = [trace._replace(setting=known[id(trace)]) for trace in walked]
    firsts = [Setting(name, next((r for r in runs if r.setting == name), runs[0])) for name, _ in settings if runs]
    return Book(runs, walked, firsts)


def _inner(folder: Path) -> list[Path]:
    """The folder itself, or the runs in it: in the order of ``run all``, others after them by name."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if RunFolder(folder).exists:
        return [folder]
    order = [step.folder for step in steps()]
    inner = [run.path for run in RunFolder(folder).runs()]
    inner.sort(key=lambda path: (order.index(path.name) if path.name in order else len(order), path.name))
    if not inner:
        raise UserError(f"{folder}: neither a run folder nor a folder of runs (no config.yaml)")
    return inner


def distinct(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that are distinct."""
    for depth in range(1, 10):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(path) for path in paths]


def _settings(members: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """The members grouped by machine and precision, each group with its short name: ``A fp32``; where a suite was run
    more than once with the same, by folder as well."""
    machines: dict[str, list[Any]] = {}
    ordered = sorted(members, key=lambda m: not m.environment)
    prints = completed([fingerprint(member.environment) for member in ordered])
    for member, print_ in zip(ordered, prints, strict=True):
        gpus = {f.get("gpu_name") or f.get("device_name") for f in member.environment.get("backends", {}).values()}
        own = json.dumps([print_, sorted(g for g in gpus if g)], sort_keys=True)
        # interrupted before its environment was written: it has no figures of its own
        own = own if member.environment else next(iter(machines), own)
        machines.setdefault(own, []).append(member)
    policies = dict.fromkeys((m.config["precision"], m.config["profile"]) for m in members)
    several = len(machines) > 1, len({p for p, _ in policies}) > 1, len({p for _, p in policies}) > 1
    groups: list[tuple[str, list[Any]]] = []
    for letter, found in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 40, machines.values(), strict=False):
        for policy in policies:
            words = list(compress((letter, *policy), several))
            same = [m for m in found if (m.config["precision"], m.config["profile"]) == policy]
            groups += [(" ".join(filter(None, [*words, folder])), group) for folder, group in _by_folder(same)]
    return groups


def _by_folder(members: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """One group if every suite is there once; else groups by parent folder, or by folder."""
    if not members or _each_once(members):
        return [("", list(members))] if members else []
    for name_of in (lambda m: m.label.rpartition("/")[0] or m.label, lambda m: m.label):
        groups: dict[str, list[Any]] = {}
        for member in members:
            groups.setdefault(name_of(member), []).append(member)
        if all(map(_each_once, groups.values())):
            break
    return list(groups.items())


def _each_once(members: Sequence[Any]) -> bool:
    return len({(type(m), m.config["suite"]["name"]) for m in members}) == len(members)


def frame(*folders: str | Path) -> pd.DataFrame:
    """One row per record of all runs, nested fields under dotted names, with the median of its samples."""
    book = load_book([Path(folder) for folder in folders])
    found = [
        {**line, "machine": run.setting, "folder": str(run.folder)}
        for run in book.runs
        for line in run.records
        if "workload" in line
    ]
    rows = pd.json_normalize(found)
    if len(rows):
        rows["median_s"] = [median(samples) if samples else None for samples in rows["samples_s"]]
    return rows
