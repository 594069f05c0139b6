"""Made-up runs and traces, each with the records that one figure needs."""

import re

import numpy as np

from reports.data.frame import RunData
from reports.data.trace import Trace
from suites.base import outcome
from suites.measure.config import compose_config
from suites.trace.walk import FAULT


def record(case, component, backend, seconds=0.1, samples=9, launches=3, **more):
    """A record with little noise; ``more`` goes over its fields."""
    times = [seconds * (1 + 0.01 * ((7 * i) % 5)) for i in range(samples)]
    length = re.search(r"([\d.]+)s$", case)
    return {
        "case": case,
        "component": component,
        "backend": backend,
        "status": "passed",
        "reason": None,
        "reference": "torch_cpu",
        "workload": {"duration_s": float(length[1]) if length else 1.0},
        "samples_s": times,
        "rounds": list(range(samples)),
        "launches": [i * launches // samples for i in range(samples)],
        "cold": [],
        **more,
    }


def run_of(suite, records, folder=None, environment=None, setting=""):
    config = compose_config(suite, ["measure=smoke"]).plain()
    found = outcome.judge([(r["case"], r["component"], r["backend"]) for r in records], records)
    return RunData(folder, config, environment or {}, records, found, "", setting)


BOTH = ("torch_cpu", "mlx_cpu")


def pipeline(folder=None, durations=(1, 5)):
    parts = {"f0": 0.2, "content": 0.3, "synthesis": 1.0, "convert": 1.6}
    lines = [
        record(f"synthetic-{d}s", part, backend, seconds * d * (1 + BOTH.index(backend)))
        for d in durations
        for part, seconds in parts.items()
        for backend in BOTH
    ]
    return run_of("pipeline", lines, folder)


def phases(suite, **more):
    """Records of fresh processes, of two lengths."""
    launch = {"base_rss_bytes": 2**27, "peak_rss_load_bytes": 2**28, "peak_device_bytes": 2**28, "load_s": 0.5}
    lines = [
        record(f"synthetic-{d}s", "rmvpe", b, cold=[launch | {"peak_rss_call_bytes": 2**29 + d * 2**24} | more] * 2)
        for d in (2, 10)
        for b in BOTH
    ]
    return run_of(suite, lines)


def ablation():
    gains = {"gemm_conv": 3.0, "tile": 0.9, "all": 4.0, "blas": 9.0}
    lines = [
        record("synthetic-1s", f"rmvpe.{name}.{side}", "mlx_cpu", 0.1 * (factor if side == "off" else 1))
        for name, factor in gains.items()
        for side in ("on", "off")
    ]
    return run_of("ablation", lines)


def components(peaks=True, work=True):
    done = {"flops_products": 10**9, "flops_other": 10**7, "bytes": 10**8}
    lines = [
        record("synthetic-2s", name, b, 0.02, work=done if work and b == "torch_cpu" else None)
        for name in ("mel", "mel_device", "gru_device")
        for b in BOTH
    ]
    found = {"matmul_flops_per_s": 2e11, "copy_bytes_per_s": 3e10, "matmul_size": 2048}
    slower = found | {"matmul_flops_per_s": 1e11, "copy_bytes_per_s": 4e10}
    given = {"torch_cpu": {"peaks": found}, "mlx_cpu": {"peaks": slower}} if peaks else {b: {} for b in BOTH}
    return run_of("components", lines, environment={"backends": given})


def sounds(folder):
    """A pipeline run that has kept spectra and contours."""
    data = pipeline(folder)
    rng = np.random.default_rng(0)
    for name in ("spectra", "contours"):
        (folder / name).mkdir(parents=True)
    level = rng.uniform(-80, -20, (128, 100)).astype(np.float16)
    given = {f"spectrum.{b}": level for b in BOTH} | {"residual.mlx_cpu": level - 90}
    np.savez(folder / "spectra" / "synthetic-1s.npz", sample_rate=np.array(40000), **given)
    f0 = np.where(np.arange(101) % 20 < 15, 200.0, 0.0)
    contours = {"f0.torch_cpu": f0, "f0.mlx_cpu": np.roll(f0, 1), "f0.truth": f0}
    np.savez(folder / "contours" / "synthetic-1s.npz", mel=rng.standard_normal((128, 101)), **contours)
    return data


def stage(path, variant="as configured", status="ok", share=0.3, own=1e-6):
    error = {"max_abs": share * 1e-6, "rmse": share * 1e-7}
    return {
        "variant": variant,
        "probe": "clip",
        "path": path,
        "entry": "x",
        "rms": 1.0,
        "added": error,
        "chained": {"max_abs": own, "rmse": own},
        "floor": {"max_abs": 1e-7},
        "floor_chained": None,
        "limit": {"max_abs": 1e-6},
        "status": status,
        "backend": "mlx_cpu",
        "reference": "torch_cpu",
    }


def walked(setting=""):
    """A fault in the second of four parts; the third inherits it, the fourth is not off."""
    rows = [
        stage("mel"),
        stage("unet.encoder.layers.0.conv.0", status=FAULT, share=20.0, own=1e-2),
        stage("cnn", own=1e-3),
        stage("f0", own=1e-7),
        *(stage(path, "plain") for path in ("mel", "unet.encoder.layers.0.conv.0", "unet.encoder.bn", "cnn", "f0")),
    ]
    return Trace(None, {"suite": {"name": "rmvpe"}, "precision": "fp32"}, {}, rows, [], "", setting)


FIRST = {"start_s": 0.1, "import_s": 0.4, "first_call_s": 0.3, "steady_s": 0.2}
GROWTH = {
    "growth": {
        "start": {"rss_bytes": 2**29},
        "series": [{"seconds": 1.0 + i, "rss_bytes": 2**29 + i * 2**20} for i in range(12)],
        "limit_bytes": 2**26,
    }
}


def grown():
    lines = [record("growth", "rmvpe", b, cold=[GROWTH]) for b in BOTH]
    return run_of("memory", lines)


MADE = {
    "time": pipeline,
    "speedup": pipeline,
    "breakdown": pipeline,
    "samples": pipeline,
    "memory": lambda: phases("memory"),
    "growth": grown,
    "first": lambda: phases("cold_start", **FIRST),
    "ablation": ablation,
    "waterfall": ablation,
    "roofline": components,
}
