"""Prepares the process for MLX; every module here takes ``mx`` from this one.

Four things must happen before the first ``import mlx.core``:

* **BLAS.** MLX's Linux CPU wheel links the unoptimised reference BLAS but calls ``cblas_sgemm``
  by symbol, so an optimised library opened earlier with ``RTLD_GLOBAL`` takes over (30 to 50
  times faster). ``RVC_MLX_BLAS`` chooses: ``auto`` (default: the ``mkl`` package from PyPI or a
  system OpenBLAS, the faster one of both: see ``blas``), ``reference`` (none), or the path of a
  library. In a process that also uses PyTorch, import that first: what is loaded later may bind to
  this library as well.
* **TF32.** MLX rounds float32 matrix inputs to TF32 on GPUs that can. Here float32 means
  float32: ``MLX_ENABLE_TF32`` defaults to 0 and is read by MLX once, at import.
* **Plans on CUDA.** MLX counts the convolutions, attentions and graphs that it has had to plan, and
  raises from twice the size of its cache on, ever after ("cache thrashing"): a process that is
  given audio of many lengths stops working. ``MLX_ENABLE_CACHE_THRASHING_CHECK`` defaults to 0.
* **Work for a GPU.** MLX hands it over so many operations at a time, and CUDA's part of MLX prepares them on the host:
  the GPU waits meanwhile. ``MLX_MAX_OPS_PER_BUFFER`` defaults to 16 on Linux. HuBERT for 13.5 s on an H200: 8.7 ms with
  200 at a time, 7.4 with MLX's own number, 6.2 with 16, 6.3 with 8.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from rvc_common.waiting import set_waiting

from . import blas

REFERENCE_BLAS = "reference BLAS bundled with MLX (slow)"
_mlx_was_imported = "mlx.core" in sys.modules
_blas_choice = "mlx.core was imported before rvc_mlx"


def _candidates(choice: str) -> tuple[list[blas.Library], str]:
    """What to open, the best first, and how that was found."""
    if choice == "reference" or sys.platform != "linux":
        return [], choice
    if choice != "auto":
        return [blas.Library(choice)], "RVC_MLX_BLAS"
    return blas.chosen(blas.installed())


def _preload_blas() -> str:
    """Open a library; how it was chosen."""
    choice = os.environ.get("RVC_MLX_BLAS", "auto")
    found, how = _candidates(choice)
    for one in found:
        if one.core:
            os.environ.setdefault(blas.CORE_VARIABLE, one.core)
        try:
            ctypes.CDLL(one.path, mode=ctypes.RTLD_GLOBAL)
            return how
        except OSError as error:
            if choice != "auto":
                raise ImportError(f"RVC_MLX_BLAS={choice}: cannot be loaded ({error})") from None
    return how


class _DlInfo(ctypes.Structure):
    _fields_ = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]


def blas_library() -> str:
    """The library that answers MLX's ``cblas_sgemm`` in this process, by asking the loader."""
    if sys.platform == "darwin":
        return "Accelerate"
    if sys.platform != "linux" or _mlx_was_imported:
        return REFERENCE_BLAS
    process = ctypes.CDLL(None)
    try:
        address = ctypes.cast(process.cblas_sgemm, ctypes.c_void_p)
    except AttributeError:
        return REFERENCE_BLAS
    info = _DlInfo()
    process.dladdr.argtypes = [ctypes.c_void_p, ctypes.POINTER(_DlInfo)]
    if not process.dladdr(address, ctypes.byref(info)):
        return REFERENCE_BLAS
    return Path(info.file.decode()).name


def is_slow_blas() -> bool:
    """True where matrix products on the CPU run 30 to 50 times slower than they could."""
    return blas_library() == REFERENCE_BLAS


if not _mlx_was_imported:
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
    os.environ.setdefault("MLX_ENABLE_CACHE_THRASHING_CHECK", "0")
    if sys.platform == "linux":  # Metal's number is Apple's to choose
        os.environ.setdefault("MLX_MAX_OPS_PER_BUFFER", "16")
    set_waiting()
    _blas_choice = _preload_blas()

import mlx.core as mx  # noqa: E402  (the order is this module's purpose)

__all__ = [
    "blas_library", "describe", "gpu_kind", "is_slow_blas", "mx", "resolve_device", "warn_if_half", "warn_if_slow",
]  # fmt: skip


def gpu_kind() -> str | None:
    """``"metal"``, ``"cuda"``, or None where this MLX build or machine has no GPU."""
    if mx.metal.is_available():
        return "metal"
    cuda = getattr(mx, "cuda", None)
    return "cuda" if cuda is not None and cuda.is_available() else None


def resolve_device(name: str | None) -> mx.Device:
    """``"cpu"``, ``"gpu"`` or None (the best that this machine has) to an MLX device."""
    if name not in (None, "cpu", "gpu"):
        raise ValueError(f"unknown device {name!r}: cpu or gpu")
    if name == "gpu" and gpu_kind() is None:
        raise ValueError("this machine has no GPU that MLX can use")
    return mx.Device(mx.gpu if name == "gpu" or (name is None and gpu_kind()) else mx.cpu)


def warn_if_slow(device: mx.Device) -> None:
    if device == mx.Device(mx.cpu) and is_slow_blas():
        warnings.warn(
            "MLX runs on its slow reference BLAS (30 to 50 times slower): "
            "pip install mkl, and import rvc_mlx before mlx.core",
            RuntimeWarning,
            stacklevel=5,
        )


def warn_if_half(device: mx.Device, dtype: mx.Dtype) -> None:
    """MLX has no fast products of halves on a Linux CPU; on macOS Accelerate's are taken."""
    if sys.platform == "linux" and device == mx.Device(mx.cpu) and dtype in (mx.float16, mx.bfloat16):
        warnings.warn(
            "half precision is several times slower than float32 on MLX's CPU, and less exact: use float32",
            UserWarning,
            stacklevel=5,
        )


def describe() -> dict[str, Any]:
    """Facts for records: versions, GPU, BLAS and its threads, TF32."""
    return {
        "mlx": importlib.metadata.version("mlx"),
        "gpu": gpu_kind(),
        "gpu_name": mx.device_info(mx.gpu).get("device_name") if gpu_kind() else None,
        "blas": blas_library(),
        "blas_core": None if is_slow_blas() else blas.core_of(ctypes.CDLL(None)),
        "blas_choice": _blas_choice if sys.platform == "linux" else None,
        "blas_threads": os.environ.get("MKL_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS"),
        "tf32": os.environ.get("MLX_ENABLE_TF32", "1") != "0",
    }
