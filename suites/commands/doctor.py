"""``doctor``: what this machine has, what is missing, and what slows it down."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from ..base import environment
from ..base.backends import BACKENDS, impossible
from ..base.files import scratch_folder
from ..inputs.weights import cache_folder
from ..measure.launch import Worker, WorkerError, WorkerLost
from ..measure.session import HELLO_TIMEOUT_S

HELP = "what this machine has, and what slows it down"
OK, MISSING, SLOW = "ok", "--", "!!"


def run(args: argparse.Namespace) -> int:
    """Print the findings; exit code 0 where at least one backend works, else 2."""
    facts = environment.describe()
    print(f"{facts['cpu']}, {facts['cores_physical']} cores, {facts['memory_bytes'] / 2**30:.0f} GiB, {facts['os']}")
    print("Python", facts["python"] + ";", ", ".join(f"{k} {v}" for k, v in facts["packages"].items()))
    working = sum(_backend(name, facts["cores_physical"]) for name in BACKENDS)
    _surroundings(facts)
    return 0 if working else 2


def _line(mark: str, text: str) -> None:
    print(f"  {mark}  {text}")


def _backend(name: str, threads: int) -> bool:
    reason = impossible(name)
    if reason is None:
        with scratch_folder() as folder, Worker(name, "fp32", threads, folder / "log") as worker:
            try:
                facts = worker.ask("hello", HELLO_TIMEOUT_S, threads=threads)
                reason = None if facts["available"] else facts["reason"]
            except (WorkerError, WorkerLost) as error:
                reason = f"cannot be started: {error}"
    if reason is not None:
        _line(MISSING, f"{name}: {reason}")
        return False
    parts = [f"{k} {facts[k]}" for k in (BACKENDS[name].framework, "gpu_name", "blas", "blas_gflops") if facts.get(k)]
    _line(OK, f"{name}: {', '.join(parts)}")
    if facts.get("slow_blas"):
        _line(SLOW, f"{name} runs on MLX's slow reference BLAS (30 to 50 times slower): pip install mkl")
    return True


def _surroundings(facts: dict[str, object]) -> None:
    if sys.platform == "linux" and shutil.which("g++") is None:
        _line(
            SLOW, "no g++: MLX compiles CPU kernels at run time; without it the GRU steps are slower (apt install g++)"
        )
    load = float(str(facts["load_average_1min"]))
    if load > 0.5 * (os.cpu_count() or 1):
        _line(SLOW, f"load average {load:.1f}: other programs are running, and times will scatter")
    cache = cache_folder(None)
    nearest = next(p for p in (cache, *cache.parents) if p.exists())
    free = shutil.disk_usage(nearest).free
    _line(OK if free > 2**30 else SLOW, f"weights cache {cache}: {free / 2**30:.0f} GiB free")
