"""Every optimisation against the plain path, and the mechanisms behind them."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
from command import ROOT

from rvc_mlx import RMVPE, gru, rmvpe
from rvc_mlx.optimize import OPTIMIZATIONS, resolve
from rvc_mlx.runtime import gpu_kind, mx
from suites.inputs import recipe
from suites.inputs.weights import reduced_manifest

DEVICES = ["cpu", *(["gpu"] if gpu_kind() else [])]


def mels(frames: int) -> np.ndarray:
    return (np.random.default_rng(1).standard_normal((128, frames)) * 2 - 5).astype(np.float32)


@pytest.fixture(scope="module")
def plain(tiny_state):
    return RMVPE.from_state_dict(tiny_state, device="cpu", optimize="none").salience(mels(100))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", OPTIMIZATIONS)
def test_each_alone_equals_plain(tiny_state, plain, name, device):
    model = RMVPE.from_state_dict(tiny_state, device=device, optimize=[name])
    assert np.abs(model.salience(mels(100)) - plain).max() < 2e-6


@pytest.mark.parametrize("device", DEVICES)
def test_all_together_equal_plain(tiny_state, plain, device):
    model = RMVPE.from_state_dict(tiny_state, device=device)
    assert np.abs(model.salience(mels(100)) - plain).max() < 2e-6


@pytest.fixture(scope="module")
def narrow_state():
    """The tiny network reaches as far as the full one; tiles need long audio, and this one half the width."""
    return recipe.make_state_dict(reduced_manifest(2, 16), 7)


@pytest.mark.parametrize("optimize", [["tile", "compile_gru", "gemm_conv"], ["tile", "compile_gru", "fold_norm"]])
def test_tiles_change_nothing(narrow_state, monkeypatch, optimize):
    """The overlap covers the network's whole reach, so tiling is exact up to rounding."""
    mel = mels(2700)
    whole = RMVPE.from_state_dict(narrow_state, device="cpu", optimize=optimize[1:]).salience(mel)
    monkeypatch.setattr(rmvpe, "TILE_FRAMES", 928)
    tiled = RMVPE.from_state_dict(narrow_state, device="cpu", optimize=optimize)
    calls = []
    unet = tiled._unet
    monkeypatch.setattr(tiled, "_unet", lambda x: calls.append(x.shape[1]) or unet(x))
    assert np.abs(tiled.salience(mel) - whole).max() < 2e-6
    assert len(calls) == 3
    assert max(calls) <= 928 + 2 * tiled.config.halo_frames


def test_a_smaller_overlap_would_show(narrow_state, monkeypatch):
    """The test above can fail: with too little overlap, it does."""
    mel = mels(960)
    whole = RMVPE.from_state_dict(narrow_state, device="cpu").salience(mel)
    monkeypatch.setattr(rmvpe, "TILE_FRAMES", 320)
    monkeypatch.setattr(rmvpe.RMVPEConfig, "halo_frames", 64)
    tiled = RMVPE.from_state_dict(narrow_state, device="cpu")
    assert np.abs(tiled.salience(mel) - whole).max() > 2e-6


def test_names_are_resolved():
    assert resolve("none", "rmvpe", gpu=False, dtype="float32") == frozenset()
    assert "gemm_conv" in resolve("all", "rmvpe", gpu=False, dtype="float32")
    assert "gemm_conv" not in resolve("all", "rmvpe", gpu=False, dtype="float16")
    assert "gru_kernel" not in resolve("all", "rmvpe", gpu=False, dtype="float32")
    assert resolve(["tile"], "rmvpe", gpu=True, dtype="float32") == {"tile"}
    assert resolve(["tile", "polyphase"], "hubert", gpu=True, dtype="float32") == frozenset()
    with pytest.raises(ValueError, match="unknown optimisation 'tiles'"):
        resolve(["tiles"], "rmvpe", gpu=False, dtype="float32")


def test_no_compiler_means_the_plain_steps(tiny_state, plain, monkeypatch):
    monkeypatch.setattr(gru, "has_compiler", lambda: False)
    model = RMVPE.from_state_dict(tiny_state, device="cpu")
    assert np.abs(model.salience(mels(100)) - plain).max() < 2e-6


def bigru_state(hidden: int, c_in: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "weight_ih": (3 * hidden, c_in),
        "weight_hh": (3 * hidden, hidden),
        "bias_ih": (3 * hidden,),
        "bias_hh": (3 * hidden,),
    }
    return {
        f"g.{leaf}_l0{end}": rng.standard_normal(shape).astype(np.float32) * 0.3
        for leaf, shape in shapes.items()
        for end in ("", "_reverse")
    }


@pytest.mark.parametrize("steps", [1, 31, 32, 77])
@pytest.mark.parametrize("optimize", [frozenset(), frozenset({"compile_gru"})])
def test_bigru_equals_torchs(steps, optimize):
    import torch

    state = bigru_state(64, 24)
    theirs = torch.nn.GRU(24, 64, batch_first=True, bidirectional=True)
    theirs.load_state_dict({k.removeprefix("g."): torch.from_numpy(v) for k, v in state.items()})
    x = np.random.default_rng(1).standard_normal((2, steps, 24)).astype(np.float32)
    with torch.no_grad():
        want = theirs(torch.from_numpy(x))[0].numpy()
    with mx.stream(mx.cpu):
        got = np.array(gru.BiGRU(state, "g", mx.float32, optimize)(mx.array(x)))
    assert np.abs(got - want).max() < 2e-6


@pytest.mark.parametrize("error", [1.0, float("nan"), float("inf")])
def test_a_wrong_kernel_is_not_used(monkeypatch, error):
    """The check at loading decides; what is not used is not claimed."""
    monkeypatch.setattr(gru, "_kernel_error", lambda kind, hidden: error)
    monkeypatch.setattr(gru, "gpu_kind", lambda: "metal")
    with pytest.warns(UserWarning, match="not used"):
        model = gru.BiGRU(bigru_state(64, 24), "g", mx.float32, frozenset({"gru_kernel"}))
    assert model.used == frozenset()


@pytest.mark.skipif(sys.platform != "linux", reason="a temporary folder is made unusable")
def test_a_temporary_folder_in_which_nothing_can_be_built(tmp_path):
    """In a process of its own: a build that works once is kept."""
    (tmp_path / "file").touch()
    code = """
import os, sys, warnings
warnings.simplefilter("always")
from rvc_mlx import gru
for place in sys.argv[1:]:
    os.environ["TMPDIR"] = place
    gru.compiler_fault.cache_clear()
    print(gru.has_compiler())
"""
    places = [str(tmp_path / "none"), str(tmp_path / "file"), *([str(tmp_path)] if shutil.which("g++") else [])]
    done = subprocess.run([sys.executable, "-c", code, *places], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False", "True"][: len(places)], done.stderr
    for i, place in enumerate(places):
        assert (f"programs in the temporary folder (TMPDIR, here {place})" in done.stderr) == (i < 2)


def test_without_gplusplus_nothing_is_built(monkeypatch):
    monkeypatch.setattr(gru.shutil, "which", lambda name: None)
    monkeypatch.setattr(gru.sys, "platform", "linux")
    gru.compiler_fault.cache_clear()
    with pytest.warns(UserWarning, match=r"needs g\+\+.*: there is no g\+\+"):
        assert not gru.has_compiler()
    gru.compiler_fault.cache_clear()


def test_a_missing_compiler_is_not_claimed(tiny_state, monkeypatch):
    assert "compile_gru" in RMVPE.from_state_dict(tiny_state, device="cpu").optimize or not gru.has_compiler()
    monkeypatch.setattr(gru, "has_compiler", lambda: False)
    assert "compile_gru" not in RMVPE.from_state_dict(tiny_state, device="cpu").optimize


@pytest.mark.skipif(gpu_kind() is None, reason="no GPU that MLX can use")
@pytest.mark.parametrize("hidden", [64, 128, 256])
def test_kernel_equals_plain_steps(hidden):
    assert gru._kernel_error(str(gpu_kind()), hidden) < 5e-6
