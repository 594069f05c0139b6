"""Facts of the machine and of the software, kept with every run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from rvc_common.processor import numbers, processor
from rvc_common.waiting import waiting

from . import plugins, provenance
from .backends import worker_environment

PACKAGES = ("mlx", "mlx-cpu", "mlx-metal", "mlx-cuda-12", "mlx-cuda-13", "mkl", "torch", "numpy", "hydra-core")


def physical_cores() -> int:
    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor()
    return platform.processor() or platform.machine()


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, Any]:
    """The machine; the frameworks' own facts come from the workers that import them."""
    return {
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "processor": processor(),
        "cores_physical": physical_cores(),
        "cores_logical": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "waiting": waiting(worker_environment("fp32", physical_cores())),
        "python": platform.python_version(),
        "packages": versions(),
        **provenance.package(),
        **provenance.working_repository(),
        **({"plugins": list(plugins.names())} if plugins.names() else {}),
        "load_average_1min": os.getloadavg()[0],
    }


def cpu_text(facts: Mapping[str, Any]) -> str | None:
    """The processor's name, with its family, model and stepping where they were recorded."""
    name, more = facts.get("cpu"), facts.get("processor")
    return f"{name} ({numbers(more)})" if name and isinstance(more, Mapping) else name


def fingerprint(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What must agree before two environments count as the same machine; see ``completed``."""
    names = ("machine", "cpu", "processor", "cores_physical", "memory_bytes", "waiting", "python", "packages")
    return {name: environment.get(name) for name in names}


def completed(fingerprints: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """To be compared by what they have: older ones lack ``processor``, and take that of the first with their name."""
    known: dict[str, Any] = {}
    for one in fingerprints:
        if one.get("processor"):
            known.setdefault(str(one.get("cpu")), one["processor"])
    return [{**one, "processor": one.get("processor") or known.get(str(one.get("cpu")))} for one in fingerprints]
