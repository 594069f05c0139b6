"""The GRU's Metal kernel on a CPU, against NumPy in float64; the plain ways are in test_optimize.py."""

from __future__ import annotations

import numpy as np
import pytest
from metal_stand_in import Fault, in_place

from rvc_mlx import gru
from rvc_mlx.runtime import mx


@pytest.fixture
def metal(tmp_path_factory, monkeypatch):
    caches = (gru._kernel, gru._kernel_error)
    yield from in_place(gru, caches, tmp_path_factory, monkeypatch)


def weights(hidden: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = {"weight_ih": (3 * hidden, 5), "weight_hh": (3 * hidden, hidden)}
    shapes |= {"bias_ih": (3 * hidden,), "bias_hh": (3 * hidden,)}
    return {
        f"g.{leaf}_l0{end}": (rng.standard_normal(shape) / np.sqrt(hidden)).astype(np.float32)
        for leaf, shape in shapes.items()
        for end in ("", "_reverse")
    }


def by_numpy(state: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """PyTorch's GRU of ``x [T, in]`` in both directions, in float64."""

    def sigmoid(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v))

    found = []
    for end in ("", "_reverse"):
        w_ih, w_hh, b_ih, b_hh = (
            state[f"g.{leaf}_l0{end}"].astype(np.float64) for leaf in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h, out = np.zeros(w_hh.shape[1]), []
        for row in x[::-1] if end else x:
            i_r, i_z, i_n = np.split(w_ih @ row + b_ih, 3)
            h_r, h_z, h_n = np.split(w_hh @ h + b_hh, 3)
            r, z = sigmoid(i_r + h_r), sigmoid(i_z + h_z)
            n = np.tanh(i_n + r * h_n)
            h = (1 - z) * n + z * h
            out.append(h)
        found.append(np.array(out[::-1] if end else out))
    return np.concatenate(found, axis=-1)


@pytest.mark.parametrize(("hidden", "steps"), [(64, 1), (64, 40), (256, 5)])
def test_the_metal_kernel_takes_torchs_steps(hidden, steps, metal):
    """For two items of a batch and two orders of threads; a threadgroup and its memory are what Metal allows."""
    state = weights(hidden)
    model = gru.BiGRU(state, "g", mx.float32, frozenset())
    model._kernel_kind = "metal"
    x = np.random.default_rng(4).standard_normal((2, steps, 5)).astype(np.float32)
    want = np.stack([by_numpy(state, item) for item in x])
    for metal.reversed in (False, True):
        assert np.abs(np.array(model(mx.array(x))) - want).max() < 1e-6
    assert set(metal.used) == {(3 * hidden, 16 * hidden)}


def test_the_check_at_loading_uses_it(metal):
    assert gru.BiGRU(weights(64), "g", mx.float32, frozenset({"gru_kernel"})).used == {"gru_kernel"}
    assert 0 < gru._kernel_error("metal", 64) < 5e-6


BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_barrier_is_needed(which, metal):
    def edit(body: str) -> str:
        parts = body.split(BARRIER)
        return BARRIER.join(parts[: which + 1]) + BARRIER.join(parts[which + 1 :])

    metal.edit = edit
    assert len(metal.edit(gru.METAL_SOURCE)) == len(gru.METAL_SOURCE) - len(BARRIER)
    for metal.reversed in (False, True):
        gru._kernel.cache_clear()
        model = gru.BiGRU(weights(64), "g", mx.float32, frozenset())
        model._kernel_kind = "metal"
        with pytest.raises(Fault, match=r"what another (read|wrote) since the last barrier"):
            model(mx.zeros((1, 4, 5)))


def test_a_faulty_kernel_is_dropped_aloud(metal):
    metal.edit = lambda body: body.replace("if (row < H) state", "if (row <= H) state")
    outside = r"cannot run here \(thread \d+ .* writes outside an array"
    with pytest.warns(UserWarning, match="not used"), pytest.warns(UserWarning, match=outside):
        model = gru.BiGRU(weights(64), "g", mx.float32, frozenset({"gru_kernel"}))
    assert model.used == frozenset()
