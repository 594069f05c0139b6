"""How MLX is made ready, each in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rvc_mlx import runtime

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux's MLX comes with a slow BLAS")


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=os.environ | env)


def test_tf32_is_off_unless_asked_for():
    tell = "from rvc_mlx import runtime; print(runtime.describe()['tf32'])"
    assert python("import os; os.environ.pop('MLX_ENABLE_TF32', None); " + tell).stdout.strip() == "False"
    assert python(tell, MLX_ENABLE_TF32="1").stdout.strip() == "True"


def test_what_mlx_reads_at_import_is_set_unless_the_user_has_set_it():
    """MLX on CUDA raises for ever once it has planned twice what its cache holds."""
    names = ("MLX_ENABLE_CACHE_THRASHING_CHECK", "MLX_MAX_OPS_PER_BUFFER")
    tell = f"import os; from rvc_mlx import runtime; print(*(os.environ.get(name) for name in {names}))"
    ours = "0 16" if sys.platform == "linux" else "0 None"
    assert python(f"import os; [os.environ.pop(name, None) for name in {names}]; {tell}").stdout.strip() == ours
    assert python(tell, **dict.fromkeys(names, "1")).stdout.strip() == "1 1"


@linux
def test_a_fast_blas_answers_by_default():
    assert not runtime.is_slow_blas(), "install the extra 'mlx', or a system OpenBLAS"


@linux
def test_the_reference_blas_is_named_and_warned_about():
    code = "from rvc_mlx import runtime as r; print(r.blas_library()); r.warn_if_slow(r.mx.Device(r.mx.cpu))"
    done = python(code, RVC_MLX_BLAS="reference")
    assert done.stdout.strip() == runtime.REFERENCE_BLAS
    assert "pip install mkl" in done.stderr


@linux
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_on_a_cpu_is_warned_about(name):
    cpu = runtime.mx.Device(runtime.mx.cpu)
    with pytest.warns(UserWarning, match="several times slower than float32 on MLX's CPU"):
        runtime.warn_if_half(cpu, getattr(runtime.mx, name))


def test_float32_and_gpus_are_not(recwarn):
    runtime.warn_if_half(runtime.mx.Device(runtime.mx.cpu), runtime.mx.float32)
    runtime.warn_if_half(runtime.mx.Device(runtime.mx.gpu), runtime.mx.float16)
    assert not recwarn


@linux
def test_mlx_imported_first_is_told_honestly():
    assert (
        python("import mlx.core; from rvc_mlx import runtime; print(runtime.is_slow_blas())").stdout.strip() == "True"
    )


@linux
def test_a_library_that_cannot_be_loaded():
    done = python("import rvc_mlx.runtime", RVC_MLX_BLAS="/nowhere/libblas.so")
    assert done.returncode != 0
    assert "RVC_MLX_BLAS=/nowhere/libblas.so: cannot be loaded" in done.stderr
