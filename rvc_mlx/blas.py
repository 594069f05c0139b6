"""Which BLAS library MLX's matrix products on a Linux CPU go to: by measurement, where there are several.

oneMKL is the fastest on Intel's processors and stays off its best code on others; OpenBLAS may take a
processor for an older one. So each is timed once, in a process of its own because a loaded library stays,
and the times are kept in the cache folder for this processor and these libraries.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import importlib.metadata
import json
import math
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rvc_common.processor import processor

# rows, inputs and outputs of products that the models make
SHAPES = ((32768, 16, 16), (8192, 64, 64), (2048, 256, 256), (512, 768, 768))
SECONDS = 0.06  # of each shape
TIMEOUT_S = 20.0
# the first one stays unless another is faster by more than what two measurements of the same differ by
MARGIN = 1.1
CORE_VARIABLE = "OPENBLAS_CORETYPE"
MEASURE = "import sys; from rvc_mlx.blas import gflops; print(gflops(sys.argv[1]))"


class Library(NamedTuple):
    """``path``: what is opened. ``version``: what changes where the file does. ``core``: for ``OPENBLAS_CORETYPE``."""

    path: str
    version: str = ""
    core: str | None = None

    @property
    def name(self) -> str:
        return Path(self.path).name


def installed() -> list[Library]:
    """The libraries of this machine, in the order in which they are taken where nothing is measured."""
    try:
        mkl = importlib.metadata.distribution("mkl")
        files = [str(Path(str(f.locate())).resolve()) for f in mkl.files or [] if f.name.startswith("libmkl_rt.so")]
        found = [Library(path, mkl.version) for path in files]
    except importlib.metadata.PackageNotFoundError:
        found = []
    if system := ctypes.util.find_library("openblas"):
        found.append(Library(system, _file_of(system), os.environ.get(CORE_VARIABLE) or _openblas_core()))
    return found


def _openblas_core() -> str | None:
    """OpenBLAS takes AMD's processors with AVX-512 that it does not know for ones without."""
    found = processor() or {}
    return "SKYLAKEX" if found.get("vendor") == "AuthenticAMD" and "avx512bw" in found["flags"] else None


def _file_of(name: str) -> str:
    """The file that the loader will most likely take, whose real name ends in the version; else the name."""
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    folders += [f"/lib/{sysconfig.get_config_var('MULTIARCH')}", "/usr/local/lib", "/lib64", "/usr/lib"]
    files = (Path(folder, name) for folder in folders if folder)
    return next((str(file.resolve()) for file in files if file.is_file()), name)


def chosen(libraries: Sequence[Library]) -> tuple[list[Library], str]:
    """The libraries, the one to take first, and how that was found."""
    if len(libraries) < 2:
        return list(libraries), "the only one installed" if libraries else "none is installed"
    rates = _known_rates(libraries)
    best = max(rates)
    if not best:
        return list(libraries), f"the first of {len(libraries)}; they could not be measured"
    first = 0 if rates[0] * MARGIN >= best else rates.index(best)
    told = ", ".join(f"{one.name} {rate:.0f}" for one, rate in zip(libraries, rates, strict=True))
    ordered = sorted(range(len(libraries)), key=lambda i: (i != first, i))
    return [libraries[i] for i in ordered], f"measured, GFLOP/s: {told}"


def _known_rates(libraries: Sequence[Library]) -> list[float]:
    """GFLOP/s of each, from the cache or now; 0 of one that failed. Never raises."""
    threads = os.environ.get("MKL_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS")
    key = json.dumps([processor(), os.cpu_count(), threads, libraries], sort_keys=True)
    stored: dict[str, list[float]] = {}
    file = None
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        file = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rvc-parity" / "blas.json"
        found = json.loads(file.read_text())
        stored = found if isinstance(found, dict) else {}
    rates = stored.get(key)
    if (
        isinstance(rates, list)
        and len(rates) == len(libraries)
        and all(isinstance(x, int | float) and math.isfinite(x) and x >= 0 for x in rates)
    ):
        return rates
    rates = [_measured(one) for one in libraries]
    if file is not None and all(rates):
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f"{file.name}.{os.getpid()}")
            part.write_text(json.dumps(stored | {key: rates}))
            part.replace(file)
    return rates


def _measured(library: Library) -> float:
    own = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(Path.cwd())]))}
    own |= {CORE_VARIABLE: library.core} if library.core else {}
    command = [sys.executable, "-c", MEASURE, library.path]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, env=own, stdin=subprocess.DEVNULL
        )
        rate = float(done.stdout.split()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0.0
    return rate if math.isfinite(rate) and rate > 0 else 0.0


def gflops(path: str) -> float:
    """The geometric mean over ``SHAPES`` of this library's best rates, in this process."""
    multiply = ctypes.CDLL(path).cblas_sgemm
    multiply.restype = None
    rates = []
    for rows, inner, columns in SHAPES:
        a, b, c = ((ctypes.c_float * n)() for n in (rows * inner, inner * columns, rows * columns))
        for values in (a, b):
            values[:] = [0.5] * len(values)
        one, zero = ctypes.c_float(1.0), ctypes.c_float(0.0)
        best, until = math.inf, time.perf_counter() + SECONDS
        while time.perf_counter() < until or best == math.inf:
            start = time.perf_counter()
            # row-major, neither transposed
            multiply(101, 111, 111, rows, columns, inner, one, a, inner, b, columns, zero, c, columns)
            best = min(best, time.perf_counter() - start)
        rates.append(2e-9 * rows * inner * columns / best)
    return math.exp(math.fsum(map(math.log, rates)) / len(rates))


class _MklVersion(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("major", "minor", "update")),
        *((name, ctypes.c_char_p) for name in ("status", "build", "processor", "platform")),
    ]


def core_of(process: ctypes.CDLL) -> str | None:
    """The kind of processor that the library in this process computes for; None where it does not tell."""
    if hasattr(process, "openblas_get_corename"):
        process.openblas_get_corename.restype = ctypes.c_char_p
        return str(process.openblas_get_corename().decode())
    if hasattr(process, "mkl_get_version"):
        version = _MklVersion()
        process.mkl_get_version(ctypes.byref(version))
        return str(version.processor.decode().partition(" with ")[0])
    return None
