"""Records as a table: ``frame(folder)`` gives a pandas DataFrame, one row per record."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pandas as pd
import yaml

from suites import outcome
from suites.backends import speed_reference
from suites.errors import UserError
from suites.models import SUITES
from suites.models.base import Suite
from suites.record import Line, key_of, read_lines, records
from suites.statistics import Estimate, estimate, paired_ratio


class RunData(NamedTuple):
    """Everything that a report is made from."""

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    records: list[Line]
    outcome: outcome.Outcome

    def find(self, case: str, component: str, backend: str) -> Line | None:
        return next((r for r in self.records if key_of(r) == (case, component, backend)), None)

    @property
    def suite(self) -> Suite:
        return SUITES[self.config["suite"]["name"]]

    @property
    def cases(self) -> list[str]:
        found = sorted({(r["workload"]["duration_s"], r["case"]) for r in self.records if "workload" in r})
        return [name for _, name in found]

    @property
    def backends(self) -> list[str]:
        return list(dict.fromkeys(r["backend"] for r in self.records if "workload" in r))

    @property
    def components(self) -> list[str]:
        return list(dict.fromkeys(r["component"] for r in self.records if "workload" in r))

    def duration_s(self, case: str) -> float:
        return next(r["workload"]["duration_s"] for r in self.records if r["case"] == case and "workload" in r)

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
        lines = [r for r in self.records if (r["case"], r["backend"]) == (case, backend) and r.get("samples_s")]
        times = {r["component"]: _by_round(r) for r in lines}
        whole = times.pop(self.suite.whole or "", {})
        if self.suite.timed(tuple(self.components)) == tuple(self.components):
            return []
        return [(sum(part[n] for part in times.values() if n in part), whole[n]) for n in sorted(whole)]


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
    return RunData(
        folder,
        config,
        _json(folder / "environment.json"),
        found,
        outcome.judge(planned, found),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError:
        raise UserError(f"{path}: is damaged") from None


def frame(folder: str | Path) -> pd.DataFrame:
    """One row per record, nested fields under dotted names, with the median of its samples."""
    data = load(Path(folder))
    rows = pd.json_normalize([r for r in data.records if "workload" in r], sep=".")
    if len(rows):
        rows["median_s"] = [median(samples) if samples else None for samples in rows["samples_s"]]
    return rows
