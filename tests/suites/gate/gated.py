"""Made runs that are judged by the default policy, and ways to change their records."""

from __future__ import annotations

import numpy as np
from made_runs import make_run

from suites.gate.baseline import Baseline, baseline_of
from suites.gate.judge import judge, read_policy

POLICY = read_policy("default")
OURS = "mlx_cpu"


def judged(baseline: Baseline, folder, **options):
    return judge(baseline, baseline_of([make_run(folder / "run", **options)]), POLICY)


def kinds(outcome) -> set[str]:
    return {v.kind for v in outcome.verdicts}


def records_of(lines):
    return [line for line in lines if line["kind"] == "record"]


def one(lines, component="network", backend=OURS, kind="record"):
    return next(x for x in lines if (x["kind"], x["component"], x["backend"]) == (kind, component, backend))


def edited(**fields):
    """One record with other fields."""

    def change(lines):
        one(lines).update(fields)
        return lines

    return change


def without_record(lines):
    gone = one(lines)
    return [line for line in lines if line is not gone]


def nan_parity(lines):
    one(lines)["parity"]["limits"]["salience_max_abs"]["value"] = "nan"
    return lines


def no_parity(lines):
    one(lines)["parity"] = None
    return lines


def more_memory(lines):
    for cold in one(lines, "f0")["cold"]:
        cold["peak_rss_call_bytes"] += 2**28
    return lines


def of_noise(rng: np.random.Generator, sizes: np.ndarray, launches: int, sd: float) -> list[list[float]]:
    """Per component the launches' slowness; one launch in twenty is disturbed by something else."""
    noise = sd * rng.standard_normal((len(sizes), launches))
    noise += 0.3 * rng.standard_normal((len(sizes), launches)) * (rng.random((len(sizes), launches)) < 0.05)
    return (sizes[:, None] + noise).tolist()


def made_sheet(baseline: Baseline, slowness: list[list[float]]) -> Baseline:
    entry = next(e for e in baseline.entries.values() if e.slowness is not None)
    entries = {
        ("case", f"c{i}", OURS): entry._replace(slowness=logs, seconds=[0.01] * len(logs), memory={}, parity={})
        for i, logs in enumerate(slowness)
    }
    return baseline._replace(entries=entries)
