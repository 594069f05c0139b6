"""Suites that measure each model in processes of its own: memory, first calls, optimisations."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from typing import Any

from rvc_mlx.optimize import OPTIMIZATIONS

from ..base.backends import BACKENDS
from .config import AblationOptions, MemoryOptions
from .stack import Stack

# model: the call that shows what an optimisation does to time and result
SHOWN = {"rmvpe": "network", "hubert": "features", "synthesizer": "infer"}
MEL, BLAS, EVERYTHING = "mel", "blas", "all"
ON, OFF = "on", "off"


class OneProcess(Stack):
    """Compares no results."""

    takes_index = True
    about_parity = ""
    judged = ()
    details = ()


class Memory(OneProcess):
    name = "memory"
    title = "Memory"
    subject = "memory"
    order = 6
    sections = ("memory",)
    options = MemoryOptions
    protocol = "memory"
    headlines = ("rmvpe", "pipeline")
    about_time = "One call of the whole model, host to host, after the first one"


class ColdStart(OneProcess):
    name = "cold_start"
    title = "First run"
    subject = "first calls"
    order = 7
    sections = ("first_run",)
    protocol = "cold_start"
    about_time = "One call of the whole model, host to host, after the warm-up"


class Ablation(OneProcess):
    """Components are ``MODEL.OPTIMISATION.on`` and ``.off``."""

    name = "ablation"
    title = "Optimisations"
    subject = "optimisations"
    order = 8
    sections = ("ablation",)
    options = AblationOptions
    protocol = "ablation"
    about_time = "One call, host to host"

    def components(self, configured: tuple[str, ...], facts: Mapping[str, Any]) -> tuple[str, ...]:
        found = []
        for model in configured:
            own = [name for name, it in OPTIMIZATIONS.items() if model in it.models]
            found += [f"{model}.{name}" for name in ([*own, EVERYTHING, BLAS] if model != MEL else ["device"])]
        return tuple(f"{name}.{side}" for name in found for side in (ON, OFF))

    def impossible(self, component: str, backend: str) -> str | None:
        model, name, _ = component.split(".")
        device = BACKENDS[backend].device
        if BACKENDS[backend].framework != "mlx":
            return "optimisations are rvc_mlx's alone"
        if model == MEL and importlib.util.find_spec("librosa") is None:
            return "librosa is not installed: pip install -e '.[compare]'"
        if name == BLAS and (device != "cpu" or sys.platform != "linux"):
            return "MLX chooses its BLAS by itself, except on Linux's CPU"
        if name in OPTIMIZATIONS and not getattr(OPTIMIZATIONS[name], device):
            return f"there is no such path on the {device.upper()}"
        return None
