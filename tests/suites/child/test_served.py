"""Requests, adapters, and what a worker imports before it is asked for anything."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from suites.base.backends import BACKENDS, Backend
from suites.child import served
from suites.child.adapters import ADAPTERS, load_adapter
from suites.child.adapters.base import Adapter
from suites.child.server import serve

ROOT = Path(__file__).parents[3]
# what only some requests need
HEAVY = (
    "torch", "mlx", "scipy", "soundfile", "yaml", "mir_eval", "psutil", "hydra", "jsonschema",
    "rvc_mlx", "reference_torch", "suites.definitions", "suites.inputs", "suites.metrics", "suites.faults",
)  # fmt: skip


def asked() -> set[str]:
    """Every request that the parent's side of the harness makes by name."""
    suites = ROOT / "suites"
    files = [path for path in suites.rglob("*.py") if path.relative_to(suites).parts[0] != "child"]
    pattern = re.compile(r"""\bask(?:_timed)?\(\s*(?:[\w.\[\]]+,\s*)?"(\w+)",|\bdo(?:: str ?| ?)= ?"(\w+)\"""")
    return {"".join(names) for path in files for names in pattern.findall(path.read_text())}


def answers(model: served.ServedModel, *requests: dict) -> list[dict]:
    out = io.StringIO()
    serve(model, [json.dumps(request) for request in requests], out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_every_request_that_is_made_has_a_method():
    assert {"hello", "load", "prepare", "time", "trace_next", "trace_judge", "peaks", "rounding"} <= asked()
    assert asked() <= set(served.REQUESTS)


def test_an_error_is_an_answer():
    broken, unknown, private = answers(
        served.ServedModel("torch_cpu", "fp32"), {"do": "prepare"}, {"do": "dance"}, {"do": "_exact"}
    )
    assert broken == {"ok": False, "kind": "KeyError", "message": "'inputs'"}
    assert unknown["message"] == "unknown request 'dance'"
    assert private["message"] == "unknown request '_exact'"


def test_every_backend_has_an_adapter():
    assert {backend.framework for backend in BACKENDS.values() if backend.port is None} == set(ADAPTERS)


def test_an_unknown_framework_is_an_error_by_name(monkeypatch):
    monkeypatch.setitem(BACKENDS, "other", Backend("port", "jax", "cpu", "jax"))
    with pytest.raises(ValueError, match="unknown framework 'jax': one of torch, mlx"):
        served.ServedModel("other", "fp32")


@pytest.fixture(params=ADAPTERS)
def adapter(request) -> Adapter:
    if request.param == "mlx":
        pytest.importorskip("mlx.core")
    return load_adapter(request.param, "cpu")


def test_an_adapter_describes_its_framework(adapter):
    adapter.configure("fp32", 1)
    facts = json.loads(json.dumps(adapter.describe()))
    assert facts["available"]
    assert facts["blas"]
    assert adapter.load_options("float32", "all").items() >= {"dtype": "float32", "device": "cpu"}.items()
    adapter.synchronize()


def test_a_device_that_is_not_there_has_a_reason(adapter):
    other = {"torch": "mps", "mlx": "gpu"}[adapter.__module__.rpartition(".")[2]]
    facts = type(adapter)(other).describe()
    assert facts["available"] or "sees no" in facts["reason"]
    assert facts["available"] or facts.keys() == {"available", "reason"}


def test_mlx_counts_its_memory_and_torch_none_on_a_cpu():
    mx = pytest.importorskip("mlx.core")
    mlx, torch = load_adapter("mlx", "cpu"), load_adapter("torch", "cpu")
    mlx.reset_peak_memory()
    held = mx.zeros(1 << 20)
    mx.eval(held)
    assert mlx.peak_memory() >= 4 << 20
    assert set(mlx.memory()) == {"active_bytes", "peak_bytes", "cache_bytes"}
    assert torch.memory() is None
    assert torch.peak_memory() is None


def test_small_pieces_are_undone():
    pytest.importorskip("mlx.core")
    from rvc_mlx import audio, synthesizer

    def sizes() -> tuple[int, int]:
        return audio.BLOCK_FRAMES, synthesizer.TILE_FRAMES

    real = sizes()
    with load_adapter("mlx", "cpu").small_pieces():
        small = sizes()
    assert small == (50, 40)
    assert sizes() == real != small
    assert load_adapter("torch", "cpu").small_pieces() is None


def test_a_framework_that_counts_no_work_says_so(adapter):
    if type(adapter).count is Adapter.count:
        with pytest.raises(NotImplementedError, match="MlxAdapter counts no FLOPs"):
            adapter.count(lambda: None)
    else:
        assert adapter.count(lambda: np.ones(3)) == {"flops_products": 0, "flops_other": 0, "bytes": 0}


def test_a_model_on_another_device_is_not_measured(adapter):
    class Elsewhere:
        device = "cuda:0"

    if adapter.device_of.__module__.endswith("torch"):
        assert adapter.device_of(Elsewhere()) == "cuda"
    else:
        import mlx.core as mx

        Elsewhere.device = mx.Device(mx.gpu)
        assert adapter.device_of(Elsewhere()) == "gpu"


def test_a_worker_starts_without_what_it_may_not_need():
    code = f"import sys, suites.child.server; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
