"""Run folders made of chosen times, for tests of what judges runs: no model, no clock."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from suites.base.lines import SCHEMA
from suites.measure.config import compose_config

COMPONENTS = ("mel", "network", "decode", "f0")
BACKENDS = ("torch_cpu", "mlx_cpu")
CASES = ("synthetic-1s", "synthetic-2s")
Line = dict[str, Any]

ENVIRONMENT = {
    "os": "Linux 6.1",
    "machine": "x86_64",
    "cpu": "Test CPU",
    "cores_physical": 2,
    "cores_logical": 2,
    "memory_bytes": 2**34,
    "python": "3.11.7",
    "packages": {"mlx": "0.32.4", "torch": "2.13.0"},
    "commit": "0" * 40,
    "commit_clean": True,
    "load_average_1min": 0.1,
    "threads": 2,
    "backends": {
        "torch_cpu": {"blas": "MKL", "torch": "2.13.0"},
        "mlx_cpu": {"blas": "libmkl_rt.so.2", "mlx": "0.32.4"},
    },
    "weights": {"rmvpe": {"label": "rmvpe: synthetic", "sha256": "ab" * 32}},
    "audio_sha256": None,
}


@functools.cache
def config_of(suite: str, precision: str) -> str:
    return yaml.safe_dump(compose_config(suite, ["measure=smoke", f"precision={precision}"]).plain())


def make_run(
    folder: Path,
    seed: int = 0,
    slow: Mapping[tuple[str, str], float] | None = None,
    *,
    launches: int = 8,
    rounds: int = 10,
    noise: float = 0.02,
    precision: str = "fp32",
    environment: Mapping[str, Any] | None = None,
    change: Callable[[list[Line]], list[Line]] | None = None,
) -> Path:
    """A finished `rmvpe` run. ``slow``: by (component, backend) a factor on its times; ``noise``: between launches.

    ``change`` edits the lines before they are written.
    """
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config_of("rmvpe", precision))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT | dict(environment or {})))
    keys = [[case, component, backend] for case in CASES for component in COMPONENTS for backend in BACKENDS]
    (folder / "plan.json").write_text(json.dumps({"suite": "rmvpe", "backends": BACKENDS, "keys": keys}))
    rng = np.random.default_rng([seed, 3])
    lines: list[Line] = []
    for case, component, backend in keys:
        times = _times(
            rng, case, component, backend, (slow or {}).get((component, backend), 1.0), launches, rounds, noise
        )
        lines += _lines(folder.name, case, component, backend, times, precision)
    lines = change(lines) if change else lines
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _times(
    rng: np.random.Generator,
    case: str,
    component: str,
    backend: str,
    factor: float,
    launches: int,
    rounds: int,
    noise: float,
) -> np.ndarray:
    """``[launches, rounds]``: what the code takes, what a launch happens to get, and what else ran meanwhile."""
    base = 0.01 * (1 + COMPONENTS.index(component)) * (1 + CASES.index(case)) * (1.5 if backend == "mlx_cpu" else 1.0)
    of_launch = np.exp(noise * rng.standard_normal((launches, 1)))
    disturbed = 1 + 0.3 * rng.exponential(size=(launches, rounds)) * (rng.random((launches, rounds)) < 0.5)
    return base * factor * of_launch * disturbed * np.exp(0.005 * np.abs(rng.standard_normal((launches, rounds))))


def _lines(run: str, case: str, component: str, backend: str, times: np.ndarray, precision: str) -> list[Line]:
    key = {"case": case, "component": component, "backend": backend}
    launches = np.repeat(np.arange(times.shape[0]), times.shape[1]).tolist()
    seconds = times.ravel().tolist()
    samples = [
        {"schema": SCHEMA, "kind": "sample", **key, "round": i, "seconds": s, "launch": n, "calls": 1, "rest_s": 0.0}
        for i, (s, n) in enumerate(zip(seconds, launches, strict=True))
    ]
    return [*samples, _record(run, key, seconds, launches, precision)]


def _record(run: str, key: dict[str, str], seconds: list[float], launches: list[int], precision: str) -> Line:
    ours = key["backend"] == "mlx_cpu"
    check = {"value": 2e-6, "limit": 1e-5, "base": 1e-5, "floor": 1e-6, "passed": True, "of": "salience_max_abs"}
    cold = {"import_s": 1.0, "load_s": 0.5, "first_call_s": 0.3, "base_rss_bytes": 2**27, "peak_rss_bytes": 2**29}
    cold |= {"peak_rss_load_bytes": 2**28, "peak_rss_call_bytes": 2**29, "peak_device_bytes": 2**28 if ours else None}
    return {
        "schema": SCHEMA,
        "kind": "record",
        "run": run,
        "suite": "rmvpe",
        **key,
        "device": "cpu",
        "precision": precision,
        "profile": "applio",
        "time": "2026-01-02T03:04:05.678+00:00",
        "optimize": ["gemm_conv"] if ours else [],
        "blas": "libmkl_rt.so.2" if ours else "MKL",
        "threads": 2,
        "warnings": [],
        "reference": "torch_cpu",
        "workload": {
            "audio": "synthetic",
            "duration_s": float(key["case"][10]),
            "samples": 16000,
            "frames": 101,
            "weights": "w",
        },
        "samples_s": seconds,
        "rounds": list(range(len(seconds))),
        "launches": launches,
        "calls": 1,
        "warmup_s": [0.1],
        "warmup": [{"launch": 0, "calls": 3, "steady": True}],
        "parent_cpu_share": 0.001,
        "others_share": 0.0,
        "load_s": 0.5,
        "first_call_s": 0.3,
        "peak_rss_bytes": 2**29,
        "peak_device_bytes": cold["peak_device_bytes"],
        "cold": [cold, cold] if key["component"] == "f0" else [],
        "parity": {"max_abs": 2e-6, "limits": {"salience_max_abs": check}}
        if ours and key["component"] != "mel"
        else None,
        "status": "passed",
        "reason": None,
    }
