"""The backends, and which one each is compared with."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .errors import UserError
from .ports import PEERS, WRITTEN, Port, needed_by, port_of


class Backend(NamedTuple):
    """``package``: the port. ``framework``: a name in ``child.adapters.ADAPTERS``.
    ``requires``: the module whose absence means that the framework is not installed. ``timed_against``: the backends on
    the same kind of device whose time a ratio may name; the first one that is present. ``port``: of a backend that an
    adapter makes, a user's or one that ships."""

    package: str
    framework: str
    device: str
    requires: str
    timed_against: tuple[str, ...] = ()
    port: Port | None = None


BACKENDS = {
    "torch_cpu": Backend("reference_torch", "torch", "cpu", "torch"),
    "torch_cuda": Backend("reference_torch", "torch", "cuda", "torch"),
    "torch_mps": Backend("reference_torch", "torch", "mps", "torch"),
    "mlx_cpu": Backend("rvc_mlx", "mlx", "cpu", "mlx.core", ("torch_cpu",)),
    "mlx_gpu": Backend("rvc_mlx", "mlx", "gpu", "mlx.core", ("torch_cuda", "torch_mps")),
}

PORTED = "port"
GPU_REFERENCES = ("torch_cuda", "torch_mps")


def register_ports(ports: Mapping[str, Any]) -> None:
    """Make backends of a configuration's ``ports`` known, and of those that ship.

    Raises ``UserError``: one of them cannot be, or has the name of another backend."""
    for name, given in ({name: {} for name in PEERS} | dict(ports)).items():
        port = port_of(name, given)
        if name in BACKENDS and BACKENDS[name].port is None:
            raise UserError(f"{WRITTEN}.{name}: is one of the backends already; give yours another name")
        against = ("torch_cpu",) if port.device == "cpu" else GPU_REFERENCES
        BACKENDS[name] = Backend(name, PORTED, port.device, needed_by(port), against, port)


register_ports({})


def is_port(name: str) -> bool:
    return name in BACKENDS and BACKENDS[name].port is not None


THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# what Linux calls a GPU that these frameworks can use: NVIDIA's, also under WSL and on Jetson, and AMD's
GPU_DEVICES = ("nvidia[0-9]*", "dxg", "nvmap", "nvhost-gpu", "kfd")
DTYPES = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def device_of(name: str) -> str:
    """Of a backend; external estimators run on the CPU."""
    return BACKENDS[name].device if name in BACKENDS else "cpu"


def speed_reference(backend: str, present: list[str]) -> str | None:
    """The backend on the same device whose time a ratio may name; None: there is none."""
    against = BACKENDS[backend].timed_against if backend in BACKENDS else ()
    return next((name for name in against if name in present), None)


def parity_reference(present: list[str]) -> str:
    """The backend that the others are compared with: PyTorch, on the CPU where that is present, else the first."""
    return next((name for name in ("torch_cpu", *GPU_REFERENCES) if name in present), present[0])


def impossible(name: str) -> str | None:
    """Why a backend cannot run here, as far as is known without importing a framework."""
    backend = BACKENDS[name]
    if backend.port is not None and backend.port.python is not None:
        return None  # its adapter will tell
    if not _installed(backend.requires):
        if backend.port is None or backend.requires == "torch":
            return f"{backend.framework if backend.port is None else backend.requires} is not installed"
        return f"{backend.requires} is not installed: pip install -e '.[peers]'"
    if backend.port is not None:
        return None
    if name == "torch_mps" and sys.platform != "darwin":
        return "MPS exists on macOS only"
    if name == "torch_cuda" and sys.platform == "darwin":
        return "CUDA does not exist on macOS"
    if backend.device in ("cuda", "gpu") and sys.platform == "linux" and not _has_gpu():
        return "this machine shows no GPU (nothing such as /dev/nvidia0)"
    return None


def _has_gpu() -> bool:
    return any(any(Path("/dev").glob(pattern)) for pattern in GPU_DEVICES)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def worker_environment(precision: str, threads: int) -> dict[str, str]:
    """Environment of a worker process: what must be set before a framework is imported."""
    from rvc_common.waiting import set_waiting  # here: a worker in another interpreter has no rvc_common

    own = dict(os.environ)
    set_waiting(own)
    if place := own.get("TMPDIR"):  # the worker has another working folder
        own["TMPDIR"] = str(Path(place).absolute())
    return own | {
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        "MLX_ENABLE_TF32": "1" if precision == "tf32" else "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }
