"""A folder as ``run all`` leaves it, made of chosen figures: a run of every suite, and a trace. No model, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from made_runs import ENVIRONMENT, config_of

from suites.base.lines import SCHEMA
from suites.definitions import SUITES
from suites.trace.walk import BLANK, FAULT, OK

BACKENDS = ("torch_cpu", "mlx_cpu")
OURS, REFERENCE = "mlx_cpu", "torch_cpu"
COMPONENTS = {
    "rmvpe": ("mel", "network", "decode", "f0"),
    "hubert": ("extract", "encode", "features"),
    "synthesizer": ("encode", "flow", "decode", "infer"),
    "pipeline": ("f0", "content", "synthesis", "convert"),
    "components": ("mel", "mel_device", "gru_device"),
    "memory": ("rmvpe", "pipeline"),
    "cold_start": ("rmvpe", "pipeline"),
    "ablation": ("rmvpe.gemm_conv.on", "rmvpe.gemm_conv.off", "rmvpe.blas.on", "rmvpe.blas.off"),
    "accuracy": ("f0",),
}
USUAL = ("synthetic-1s", "synthetic-2s")
CASES = {"rmvpe": (*USUAL, "speech"), "memory": (*USUAL, "growth"), "accuracy": ("clean", "snr10")}
SECONDS = {"growth": 2.0, "speech": 1.5, "clean": 3.0, "snr10": 3.5}
ESTIMATOR = "pyin"
LAUNCHES, ROUNDS = 3, 2
Line = dict[str, Any]


def make_everything(folder: Path, **options: Any) -> Path:
    """A run of each suite under its name, and ``trace-rmvpe``."""
    for suite in COMPONENTS:
        make_suite(folder / suite, suite, **options)
    make_trace(folder / "trace-rmvpe", **options)
    return folder


def make_suite(
    folder: Path, suite: str, *, precision: str = "fp32", cpu: str = "Test CPU", factor: float = 1.0, seed: int = 0
) -> Path:
    """``factor``: on all times. The figures are noisy enough to have digits that nothing else has."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, list(COMPONENTS).index(suite)])
    (folder / "config.yaml").write_text(config_of(suite, precision))
    (folder / "environment.json").write_text(json.dumps(environment_of(cpu, rng)))
    keys = list(_keys(suite))
    (folder / "plan.json").write_text(json.dumps({"suite": suite, "backends": BACKENDS, "keys": keys}))
    lines = [_skipped(folder.name, suite, precision)]
    for case in CASES.get(suite, USUAL):
        for backend in _backends(suite):
            lines += _case(folder.name, suite, case, backend, precision, factor, rng)
    write_lines(folder, lines)
    if "f0" in COMPONENTS[suite]:
        _contours(folder, CASES.get(suite, USUAL), rng)
    if suite == "pipeline":
        _spectra(folder, USUAL, rng)
    return folder


def write_lines(folder: Path, lines: list[Line]) -> None:
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def environment_of(cpu: str, rng: np.random.Generator) -> dict[str, Any]:
    def peaks() -> dict[str, float]:
        return {
            "matmul_flops_per_s": float(rng.uniform(1e11, 2e11)),
            "matmul_size": 2048,
            "copy_bytes_per_s": float(rng.uniform(1e10, 2e10)),
        }

    backends = {name: {**facts, "available": True, "peaks": peaks()} for name, facts in ENVIRONMENT["backends"].items()}
    return ENVIRONMENT | {"cpu": cpu, "backends": backends}


def _keys(suite: str) -> Iterator[tuple[str, str, str]]:
    for case in CASES.get(suite, USUAL):
        for component in COMPONENTS[suite]:
            for backend in _backends(suite):
                yield case, component, backend


def _backends(suite: str) -> tuple[str, ...]:
    return {"ablation": (OURS,), "accuracy": (*BACKENDS, ESTIMATOR)}.get(suite, BACKENDS)


def _skipped(run: str, suite: str, precision: str) -> Line:
    head = {"schema": SCHEMA, "kind": "record", "run": run, "suite": suite, "case": "all", "component": "all"}
    head |= {"backend": "torch_mps", "device": "mps", "precision": precision, "profile": "applio"}
    return head | {"time": "2026-01-02T03:04:05.678+00:00", "status": "skipped", "reason": "MPS exists on macOS only"}


# ---------------------------------------------------------------------- records
def _case(
    run: str, suite: str, case: str, backend: str, precision: str, factor: float, rng: np.random.Generator
) -> Iterator[Line]:
    """All components of a case on a backend; of the pipeline the parts add up to the whole."""
    seconds = SECONDS.get(case) or float(case[10:-1])
    base = factor * seconds * (1.0 if backend == REFERENCE else 1.4)
    count = LAUNCHES * ROUNDS
    times = {c: base * 0.03 * (1 + i) * rng.uniform(0.97, 1.03, count) for i, c in enumerate(COMPONENTS[suite])}
    if suite == "pipeline":
        times["convert"] = sum(times[c] for c in COMPONENTS[suite][:-1]) * 1.001
    for component, found in times.items():
        key = {"case": case, "component": component, "backend": backend}
        launches = np.repeat(np.arange(LAUNCHES), ROUNDS).tolist()
        for i, (one, launch) in enumerate(zip(found.tolist(), launches, strict=True)):
            own = {"round": i, "seconds": one, "launch": launch, "calls": 2, "rest_s": 0.0, "others": 0.01}
            yield {"schema": SCHEMA, "kind": "sample", **key, **own}
        cold = _cold(suite, case, component, backend, rng)
        yield {
            "schema": SCHEMA, "kind": "record", "run": run, "suite": suite, **key, "device": "cpu",
            "precision": precision, "profile": "applio", "time": "2026-01-02T03:04:05.678+00:00",
            "optimize": ["gemm_conv"] if backend == OURS else [], "blas": "MKL", "threads": 2, "warnings": [],
            "reference": backend if suite == "ablation" or backend == ESTIMATOR else REFERENCE,
            "workload": {
                "audio": "made", "duration_s": seconds, "samples": int(16000 * seconds),
                "frames": int(100 * seconds) + 1, "weights": "w",
            },
            "work": _work(rng) if suite == "components" else None,
            "output": _output(suite, component, seconds),
            "samples_s": found.tolist(), "rounds": list(range(count)), "launches": launches, "calls": 2,
            "warmup_s": [0.1], "warmup": [{"launch": i, "calls": 3 + i, "steady": i > 0} for i in range(LAUNCHES)],
            "parent_cpu_share": 0.001, "others_share": float(rng.uniform(0.02, 0.2)),
            **{name: cold[0][name] if cold else None for name in
               ("load_s", "first_call_s", "peak_rss_bytes", "peak_device_bytes")},
            "cold": cold, "parity": _parity(suite, component, backend, rng), "status": "passed", "reason": None,
            **(_accuracy(backend, rng) if suite == "accuracy" else {}),
        }  # fmt: skip


def _accuracy(backend: str, rng: np.random.Generator) -> Line:
    shares = ("rpa", "rca", "octave_errors", "voicing_recall", "voicing_false_alarm", "overall_accuracy")
    counts = ("frames", "scored_frames", "voiced_frames", "near_frames")
    found: Line = {"truth": "exact", **{name: float(rng.uniform(0.1, 0.4)) for name in shares}}
    found |= {name: int(rng.integers(200, 400)) for name in counts}
    found |= {name: float(rng.uniform(3, 9)) for name in ("mean_cents", "p95_cents")}
    if backend != ESTIMATOR:
        return {"accuracy": found | {"limits": {"rpa": {"value": found["rpa"], "limit": 0.05, "passed": True}}}}
    about = {"title": "pYIN", "package": "librosa 0.11", "neural": False, "settings": {"fmin": 32.7}}
    return {"accuracy": found, "estimator": about}


def _work(rng: np.random.Generator) -> dict[str, int]:
    return {
        "flops_products": int(rng.integers(10**9, 2 * 10**9)),
        "flops_other": int(rng.integers(10**7, 10**8)),
        "bytes": int(rng.integers(10**8, 2 * 10**8)),
    }


def _output(suite: str, component: str, seconds: float) -> dict[str, int] | None:
    made = component == SUITES[suite].whole and suite == "pipeline"
    return {"samples": int(40000 * seconds), "sample_rate": 40000} if made else None


def _cold(suite: str, case: str, component: str, backend: str, rng: np.random.Generator) -> list[Line]:
    """Of the whole call, or of every model, in two processes; one of them sees many lengths."""
    if component != SUITES[suite].whole and suite not in ("memory", "cold_start"):
        return []
    return [_process(suite, case, backend, rng) for _ in range(1 if case == "growth" else 2)]


def _process(suite: str, case: str, backend: str, rng: np.random.Generator) -> Line:
    names = ["import_s", "load_s", "first_call_s", "second_call_s", "steady_s"]
    names += ["start_s", "new_shape_s", "new_shape_again_s"] if suite == "cold_start" else []
    found: Line = {name: float(rng.uniform(0.1, 0.9)) for name in names}
    sizes = {"base_rss_bytes": 60, "peak_rss_load_bytes": 100, "peak_rss_call_bytes": 200, "peak_rss_bytes": 200}
    sizes |= {"peak_rss_steady_bytes": 210} if suite == "memory" else {}
    found |= {name: int((mib + rng.uniform(0, 30)) * 2**20) for name, mib in sizes.items()}
    found["peak_device_bytes"] = int(rng.integers(2**24, 2**25)) if backend == OURS else None
    if case == "growth":
        held = [int(x) for x in rng.integers(2**28, 2**29, 8)]
        found["growth"] = {
            "start": {"rss_bytes": held[0]},
            "series": [{"seconds": 1.0 + i / 10, "rss_bytes": x} for i, x in enumerate(held[1:])],
            "grown_bytes": float(rng.uniform(2**21, 2**24)),
            "limit_bytes": 1.5 * 2**26,
        }
    return found


def _parity(suite: str, component: str, backend: str, rng: np.random.Generator) -> Line | None:
    """Every figure that the suite's tables ask for, and two that are judged."""
    if suite == "ablation":
        on = component.endswith(".on")
        return {"max_abs": float(rng.uniform(1e-7, 9e-7)), "relative": float(rng.uniform(1e-8, 9e-8))} if on else None
    if backend != OURS or suite in ("memory", "cold_start"):
        return None
    asked = [figure.name for figure in SUITES[suite].details if figure.of == component]
    found: Line = {figure: float(rng.uniform(1e-7, 9e-7)) for figure in asked}
    if component == "f0":
        names = ("frames", "voiced_frames", "voicing_mismatches", "octave_errors", "undecided_frames")
        found |= {name: int(rng.integers(10, 90)) for name in names}
        found |= {name: float(rng.uniform(1e-4, 9e-4)) for name in ("voicing_error_rate", "max_cents", "rms_cents")}
    error, floor = (float(rng.uniform(1e-6, 2e-6)) for _ in range(2))
    limits = {"max_abs": {"value": error, "limit": 3e-6, "base": 3e-6, "floor": floor, "passed": True, "of": "max_abs"}}
    corr = {"value": 1 - error / 10, "limit": 1 - 3e-6, "base": 1 - 3e-6, "floor": 1 - 1e-7, "passed": True}
    return found | {"limits": limits | {"corr": corr | {"of": "corr"}}}


# ---------------------------------------------------------------------- beside the records
def _contours(folder: Path, cases: tuple[str, ...], rng: np.random.Generator) -> None:
    (folder / "contours").mkdir()
    for case in cases:
        f0 = np.where(np.arange(60) % 20 < 15, 200.0, 0.0)
        both = {f"f0.{REFERENCE}": f0, f"f0.{OURS}": f0 * 1.0001}
        np.savez_compressed(folder / "contours" / f"{case}.npz", mel=rng.standard_normal((16, 60)), **both)


def _spectra(folder: Path, cases: tuple[str, ...], rng: np.random.Generator) -> None:
    (folder / "spectra").mkdir()
    for case in cases:
        level = rng.uniform(-80, -20, (16, 60)).astype(np.float16)
        found = {f"spectrum.{b}": level for b in BACKENDS} | {f"residual.{OURS}": level - 90}
        np.savez_compressed(folder / "spectra" / f"{case}.npz", sample_rate=np.array(40000), **found)


# ---------------------------------------------------------------------- a trace
def make_trace(
    folder: Path, *, precision: str = "fp32", cpu: str = "Test CPU", factor: float = 1.0, seed: int = 0
) -> Path:
    """RMVPE, two probes, one stage at fault in the second."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, 99])
    (folder / "config.yaml").write_text(config_of("rmvpe", precision))
    (folder / "environment.json").write_text(json.dumps(environment_of(cpu, rng) | {"audio": "made"}))
    lines = []
    for probe in ("clip", "noise"):
        for path in ("mel", "unet.encoder.layers.0.conv.0", "cnn", "f0"):
            bad = (probe, path) == ("noise", "cnn")
            lines.append(_stage(probe, path, precision, 20.0 if bad else float(rng.uniform(0.1, 0.8)), rng))
    lines.append(
        {
            **{"schema": SCHEMA, "kind": "spread", "suite": "rmvpe", "case": "clip", "component": "noise"},
            **{"backend": REFERENCE, "seeds": [0, 1, 2], "spread": _spread(rng)},
        }
    )
    write_lines(folder, lines)
    return folder


def _stage(probe: str, path: str, precision: str, times: float, rng: np.random.Generator) -> Line:
    limit = {"rmse": 1e-6, "max_abs": 1e-5}
    error = {name: times * bound for name, bound in limit.items()}
    error |= {"snr_db": 120.0, "corr": 1 - 1e-9, "values": 800, "cosine": 1.0, "relative": times * 2e-6}
    own: Mapping[str, Any] = error | {"max_abs": float(rng.uniform(1e-6, 9e-6))}
    fields: Line = {"probe": probe, "variant": "as configured", "entry": "x", "shape": [1, 4, 200], "rms": 0.5}
    fields |= {"peak": 2.0, "limit": limit, "floor": {k: v / 3 for k, v in limit.items()}, "floor_chained": None}
    row = {**BLANK, "path": path, "added": error, "chained": dict(own), **fields, "status": FAULT if times > 1 else OK}
    line = {"schema": SCHEMA, "kind": "trace", "suite": "rmvpe", "case": probe, "component": path}
    line |= {"backend": OURS, "reference": REFERENCE, "precision": precision, "profile": "applio"}
    return line | row


def _spread(rng: np.random.Generator) -> Line:
    names = [f"{name}_{end}" for name in ("corr", "snr_db", "mr_stft", "lsd_db") for end in ("min", "max")]
    return {name: float(rng.uniform(0.1, 0.9)) for name in (*names, "abs_level_db_max")}
