"""A run's result for programs: what ``run --json`` prints, as JSON values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from suites.base.lines import Line
from suites.base.speed import Estimate
from suites.metrics.registry import recorded_metric

from .frame import RunData, load


def result(folder: Path) -> dict[str, Any]:
    """Per case, component and backend the time, the speed-up and the worst judged figure; and what failed.

    Raises ``UserError``: not a run folder, or records that this program cannot read."""
    run = load(folder)
    found = run.outcome
    told = ("status", "case", "component", "backend", "reason")
    return {
        "folder": str(folder),
        "suite": run.name,
        "verdict": found.word,
        "counts": dict(zip(("passed", "measured"), run.counts, strict=True)),
        "components": [_measured(run, line) for line in run.ordered()],
        "failures": [{name: line[name] for name in told} for line in (*found.errors, *found.failed)],
        "missing": [dict(zip(("case", "component", "backend"), key, strict=True)) for key in found.missing],
        "skipped": {line["backend"]: line["reason"] for line in found.skipped if line["case"] == "all"},
    }


def _measured(run: RunData, line: Line) -> dict[str, Any]:
    case, component, backend = line["case"], line["component"], line["backend"]
    speedup = _interval(run.speedup(case, component, backend))
    return {
        "case": case,
        "component": component,
        "backend": backend,
        "status": line["status"],
        "seconds": _interval(run.time(case, component, backend)),
        "speedup": speedup and {**speedup, "reference": run.speed_reference(backend)},
        "worst_parity": _worst(line),
    }


def _interval(found: Estimate | None) -> dict[str, float] | None:
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}


def _worst(line: Line) -> dict[str, Any] | None:
    """The judged figure that is nearest to its limit, or farthest beyond."""
    checks = (line.get("parity") or {}).get("limits") or {}

    def share(name: str) -> float:
        metric, check = recorded_metric(name), checks[name]
        error, limit = (metric.to_error(float(check[part])) for part in ("value", "limit"))
        return error / limit if limit else float("inf") if error else 0.0

    if not checks:
        return None
    name = max(checks, key=share)
    return {"figure": name, **{part: checks[name][part] for part in ("value", "limit", "passed")}}
