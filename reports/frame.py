"""Records as data: what a report is made from, and ``frame(folder, ...)``, a pandas DataFrame with a row per record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import yaml

from suites import everything, outcome
from suites.backends import speed_reference
from suites.environment import fingerprint
from suites.errors import UserError
from suites.models import SUITES
from suites.models.base import Suite
from suites.record import Line, key_of, read_lines, records
from suites.statistics import Estimate, estimate, paired_ratio
from suites.weights import LEARNED_WEIGHTS

from . import trace as traces


@dataclass(frozen=True)
class RunData:
    """One run. ``label``: its folder as the document's sources name it; ``setting``: its machine and precision,
    where a document holds several."""

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    records: list[Line]
    outcome: outcome.Outcome
    label: str = ""
    setting: str = ""

    @cached_property
    def _index(self) -> dict[tuple[str, str, str], Line]:
        return {key_of(line): line for line in self.records}

    def find(self, case: str, component: str, backend: str) -> Line | None:
        return self._index.get((case, component, backend))

    @property
    def name(self) -> str:
        return str(self.config["suite"]["name"])

    @property
    def precision(self) -> str:
        return str(self.config["precision"])

    @property
    def suite(self) -> Suite:
        return SUITES[self.name]

    @property
    def finds_pitch(self) -> bool:
        """Whether the F0 that it compares is a trained network's."""
        return (
            bool(self.config["weights"]["rmvpe"])
            or self.suite.trained
            or LEARNED_WEIGHTS in self.environment.get("weights", {})
        )

    @cached_property
    def cases(self) -> list[str]:
        found = sorted({(r["workload"]["duration_s"], r["case"]) for r in self.records if "workload" in r})
        return [name for _, name in found]

    @cached_property
    def backends(self) -> list[str]:
        return list(dict.fromkeys(r["backend"] for r in self.records if "workload" in r))

    @cached_property
    def components(self) -> list[str]:
        return list(dict.fromkeys(r["component"] for r in self.records if "workload" in r))

    def duration_s(self, case: str) -> float:
        return float(next(r["workload"]["duration_s"] for r in self.records if r["case"] == case and "workload" in r))

    def workload_of(self, case: str) -> tuple[Line, tuple[str, ...]]:
        """What the case is computed on, and where that is written."""
        line = next(r for r in self.records if r["case"] == case and "workload" in r)
        return line["workload"], (self.source(line, "workload"),)

    # ------------------------------------------------------------------ where figures come from
    def source(self, line: Line, field: str) -> str:
        """A field of a record, as the document's sources name it."""
        return self.file(f"records.jsonl#{'/'.join(key_of(line))}.{field}")

    def file(self, name: str) -> str:
        """``environment.json#threads`` and the like, of this run."""
        return f"{self.label}/{name}" if self.label else name

    def why(self, case: str, component: str, backend: str) -> str:
        """Why there is no figure, as far as the records tell."""
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
        line = self.find(case, component, backend)
        return estimate(line["samples_s"], launches_of(line)) if line and line["status"] != "error" else None

    def speed_reference(self, backend: str) -> str | None:
        return speed_reference(backend, self.backends)

    def speedup(self, case: str, component: str, backend: str) -> Estimate | None:
        """Paired ratio to PyTorch on the same device, same precision; None without one."""
        beside = self.speed_reference(backend)
        if beside is None:
            return None
        ours, theirs = (self.find(case, component, name) for name in (backend, beside))
        if not ours or not theirs or "error" in (ours["status"], theirs["status"]):
            return None
        return self.gain(ours, theirs)

    def gain(self, ours: Line, theirs: Line) -> Estimate | None:
        """Paired ratio of two records: the second's time over the first's."""
        launches = dict(zip(ours["rounds"], launches_of(ours), strict=True))
        return paired_ratio(_by_round(theirs), _by_round(ours), launches)

    def parts_over_whole(self, case: str, backend: str) -> list[tuple[float, float]]:
        """Per round the seconds of all parts and of the whole, where one call timed them all."""
        if self.suite.timed(tuple(self.components)) == tuple(self.components):
            return []
        lines = [r for r in self.records if (r["case"], r["backend"]) == (case, backend) and r.get("samples_s")]
        times = {r["component"]: _by_round(r) for r in lines}
        whole = times.pop(self.suite.whole or "", {})
        return [(sum(part[n] for part in times.values() if n in part), whole[n]) for n in sorted(whole)]


@dataclass(frozen=True)
class Setting:
    """A machine with its software, and a precision policy. ``name``: short, empty where there is one only."""

    name: str
    run: RunData


@dataclass(frozen=True)
class Book:
    """Everything that one document is made from."""

    runs: list[RunData]
    traces: list[traces.Trace]
    settings: list[Setting]

    @property
    def several(self) -> bool:
        return len(self.settings) > 1

    def of(self, *suites: str) -> list[RunData]:
        """The runs of these suites that measured something."""
        return [run for run in self.runs if run.name in suites and run.cases]


def _by_round(line: Line) -> dict[int, float]:
    return dict(zip(line["rounds"], line["samples_s"], strict=True))


def launches_of(line: Line) -> list[int]:
    """Per sample the process launch that it was taken in; older records had one."""
    found: list[int] = line.get("launches") or [0] * len(line["samples_s"])
    return found


def load(folder: Path) -> RunData:
    """Read a run folder.

    Raises:
        UserError: not a run folder, or records that this program cannot read.
    """
    config_file = folder / "config.yaml"
    if not config_file.is_file():
        raise UserError(f"{folder}: not a run folder (no config.yaml)")
    config = yaml.safe_load(config_file.read_text())
    if not isinstance(config, dict) or config.get("suite", {}).get("name") not in SUITES:
        raise UserError(f"{config_file}: is damaged")
    planned = [tuple(key) for key in _json(folder / "plan.json").get("keys", [])]
    # a run that was resumed closed its records in another order; what was not planned, such as skips, comes first
    order = {key: place for place, key in enumerate(planned)}
    found = sorted(records(read_lines(folder / "records.jsonl")), key=lambda line: order.get(key_of(line), -1))
    return RunData(folder, config, _json(folder / "environment.json"), found, outcome.judge(planned, found))


def load_book(folders: Sequence[Path]) -> Book:
    """Runs, traces, and folders that hold several of them, as one document's data.

    Raises:
        UserError: a folder is none of these, or its records cannot be read.
    """
    found = [inner for folder in folders for inner in _inner(folder)]
    names = _distinct([folder.resolve() for folder in found])
    runs = [
        replace(load(folder), label="" if len(found) == 1 else name)
        for folder, name in zip(found, names, strict=True)
        if not traces.is_trace(folder)
    ]
    walked = [
        traces.load(folder)._replace(label="" if len(found) == 1 else name)
        for folder, name in zip(found, names, strict=True)
        if traces.is_trace(folder)
    ]
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
    if (folder / "config.yaml").is_file():
        return [folder]
    order = [step.folder for step in everything.steps()]
    inner = sorted(
        (path.parent for path in folder.glob("*/config.yaml")),
        key=lambda p: (order.index(p.name) if p.name in order else len(order), p.name),
    )
    if not inner:
        raise UserError(f"{folder}: neither a run folder nor a folder of runs (no config.yaml)")
    return inner


def _distinct(paths: Sequence[Path]) -> list[str]:
    """The last parts of the paths: as many as tell them apart."""
    for depth in range(1, 10):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(path) for path in paths]


def _settings(members: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """The members grouped by machine and precision, each group with its short name: ``A fp32``."""
    machines: dict[str, list[Any]] = {}
    for member in members:
        gpus = {f.get("gpu_name") or f.get("device_name") for f in member.environment.get("backends", {}).values()}
        own = json.dumps([fingerprint(member.environment), sorted(g for g in gpus if g)], sort_keys=True)
        machines.setdefault(own, []).append(member)
    policies = dict.fromkeys((m.config["precision"], m.config["profile"]) for m in members)
    groups: list[tuple[str, list[Any]]] = []
    for letter, found in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 40, machines.values(), strict=False):
        for precision, profile in policies:
            own_members = [m for m in found if (m.config["precision"], m.config["profile"]) == (precision, profile)]
            words = [letter if len(machines) > 1 else ""]
            words += [precision if len({p for p, _ in policies}) > 1 else ""]
            words += [profile if len({p for _, p in policies}) > 1 else ""]
            if own_members:
                groups.append((" ".join(filter(None, words)), own_members))
    return groups


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError:
        raise UserError(f"{path}: is damaged") from None


def frame(*folders: str | Path) -> pd.DataFrame:
    """One row per record of all runs, nested fields under dotted names, with the median of its samples."""
    book = load_book([Path(folder) for folder in folders])
    found = [
        {**line, "machine": run.setting, "folder": str(run.folder)}
        for run in book.runs
        for line in run.records
        if "workload" in line
    ]
    rows = pd.json_normalize(found, sep=".")
    if len(rows):
        rows["median_s"] = [median(samples) if samples else None for samples in rows["samples_s"]]
    return rows
