"""The fused convolution's Metal kernel on a CPU: the same geometries as CUDA's, its limits, and planted faults."""

from __future__ import annotations

import numpy as np
import pytest
from metal_stand_in import Fault, in_place
from test_fused_conv import CASES, WIDE, grouped

from rvc_mlx import fused_conv
from rvc_mlx.fused_conv import GELU, LEAKY_RELU, TANH, FusedConv, Tile
from rvc_mlx.runtime import mx


@pytest.fixture
def metal(tmp_path_factory, monkeypatch):
    caches = (fused_conv._kernel, fused_conv._sum_kernel, fused_conv.works)
    yield from in_place(fused_conv, caches, tmp_path_factory, monkeypatch)


# two chunks of channels, two blocks of them, and an end within a tile
SMALL = (Tile(32, 16, 16, (2, 1)), 32, 32, 3, {"padding": 2, "dilation": 2}, (2, 40, 32))


def layer_and_arrays(name: str, **more):
    tile, c_in, c_out, taps, options, shape = SMALL if name == "faults" else CASES[name]
    tile = tile._replace(depth=min(tile.depth, 16))
    rng = np.random.default_rng(1)
    kernel = (rng.standard_normal((c_out, c_in, taps)) / np.sqrt(c_in * taps)).astype(np.float32)
    bias = rng.standard_normal(c_out).astype(np.float32)
    if tile.up:
        bias = np.tile(bias[: c_out // 4], 4)
    layer = FusedConv(tile, kernel, bias, **({"slope": 0.1, "then": LEAKY_RELU, "then_slope": 0.2} | options | more))
    x = rng.standard_normal(shape).astype(np.float32)
    want = grouped(x, kernel, bias, layer)
    residual, running = (rng.standard_normal(want.shape).astype(np.float32) for _ in range(2))
    return layer, (mx.array(x), mx.array(residual), mx.array(running), 0.5), (want + residual + running) * 0.5


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_computes_its_definition(name, metal):
    """With everything that surrounds it, in one go and in shares, for two orders of threads."""
    layer, given, want = layer_and_arrays(name)
    for metal.reversed, shares in ((False, 1), (True, 1), (False, 4)):
        layer.shares = shares
        got = np.array(layer(*given))
        assert got.shape == want.shape
        assert np.abs(got - want).max() < 1e-6, (metal.reversed, shares)


@pytest.mark.parametrize(("said", "used"), [(None, False), ("0", False), ("1", True)])
def test_on_metal_it_is_used_where_it_is_asked_for(said, used, metal, monkeypatch):
    monkeypatch.delenv("RVC_MLX_METAL_CONV", raising=False)
    if said is not None:
        monkeypatch.setenv("RVC_MLX_METAL_CONV", said)
    monkeypatch.setattr(fused_conv.mx, "default_device", lambda: mx.Device(mx.gpu))
    assert fused_conv.is_available() is used
    assert not fused_conv.is_available(mx.float16)  # no kernel for halves there


def test_every_kernel_stays_within_metals_limits(metal):
    """The stand-in asserts them for each call; here that what a tile says is what its kernel has."""
    layer, given, _ = layer_and_arrays("rows of many channels")
    layer.shares = 2
    layer(*given)  # in two shares, whose sum takes no threadgroup memory
    assert metal.used == [(128, layer.shared), (256, 0)]


@pytest.mark.parametrize("then", [GELU, TANH])
def test_what_follows_the_bias(then, metal):
    """Also of values near 0 and of large ones, where tanh and erf are 1."""
    import torch

    layer, (x, *_), _ = layer_and_arrays("dilated", slope=1.0, then=fused_conv.NONE)
    x = x * mx.array([0.01, 1.0, 100.0] * 50).reshape(1, 150, 1)
    plain = torch.from_numpy(np.array(layer(x)))
    layer.then = then
    want = torch.nn.functional.gelu(plain) if then == GELU else torch.tanh(plain)
    assert np.abs(np.array(layer(x)) - want.numpy()).max() < 1e-6 * max(1.0, float(want.abs().max()))


BARRIER = "threadgroup_barrier(mem_flags::mem_threadgroup);"
READ, WROTE = "writes what another read since", "uses what another wrote since"
# what is changed, into what, at which of its places, and what is found: a number where nothing else is
FAULTS = {
    "no barrier before a chunk is loaded": (BARRIER, "", 0, READ),
    "no barrier after a chunk is loaded": (BARRIER, "", 1, WROTE),
    "no barrier before outputs are stored": (BARRIER, "", 2, READ),
    "no barrier before outputs are read": (BARRIER, "", 3, WROTE),
    "a barrier that orders no memory": ("mem_flags::mem_threadgroup", "mem_flags::mem_none", 1, WROTE),
    "a barrier for some": ("threadgroup_barrier", "if (tid < 40) threadgroup_barrier", 1, "wait for others"),
    "one frame beyond the input": ("r < inputs", "r <= inputs", 0, "reads outside"),
    "one frame before the input": ("r >= 0", "r >= -1", 0, "reads outside"),
    "one output too many": ("r >= outputs", "r > outputs", 0, "written twice|reads outside"),
    "one row too few": ("i < rows * (BK / 4)", "i < (rows - 1) * (BK / 4)", 0, "differs by nan"),
    "too many rows": ("(BM - 1) * stride", "BM * stride * 2", 0, "writes outside"),
    "another tap": ("tap * dilation", "(taps - 1 - tap) * dilation", 0, "differs by 1"),
    "each tap one too far": ("tap * dilation", "(tap + 1) * dilation", 0, "differs by nan"),
    "a block's neighbour": ("n0 + q % BN", "q % BN", 0, "written twice"),
    "a row that is not aligned": ("ROW = BK + 4", "ROW = BK + 3", 0, "not aligned"),
    "matrices that differ": ("xt + a_at[i] + k,", "xt + a_at[i] + k + tid % 2,", 0, "between the lanes"),
    "a constant's address": (
        "bias[group * c_out + col]",
        "*(const device float*)(bias + col)",
        0,
        "no matching function",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_stand_in_finds(name, metal):
    """In both orders of threads."""
    old, new, which, finding = FAULTS[name]

    def edit(body: str) -> str:
        parts = body.split(old)
        return old.join(parts[: which + 1]) + new + old.join(parts[which + 1 :])

    metal.edit = edit
    layer, given, want = layer_and_arrays("one channel" if "constant" in name else "faults")
    for metal.reversed in (False, True):
        with pytest.raises(Fault, match=finding):
            raise Fault(f"differs by {np.abs(np.array(layer(*given)) - want).max():.1f}")


def test_a_variant_is_checked_and_refused_aloud(metal):
    tile = Tile(64, 32, 16, (2, 2))
    shared = tile.shared_bytes(3, 1, 1, fused_conv.FLOAT32)
    assert fused_conv.works(tile, shared, fused_conv.FLOAT32, 3)
    fused_conv._kernel.cache_clear()
    fused_conv.works.cache_clear()
    metal.edit = lambda body: body.replace("tap * dilation", "0")
    with pytest.warns(UserWarning, match=r"differs from float64 by \d.*: not used"):
        assert not fused_conv.works(tile, shared, fused_conv.FLOAT32, 3)
    fused_conv._kernel.cache_clear()
    fused_conv.works.cache_clear()
    metal.edit = lambda body: body.replace("slopes[0]", "no_such_name")
    with pytest.warns(UserWarning, match="cannot run here: .*no_such_name"):
        assert fused_conv.make(tile, np.ones((32, 32, 3), np.float32), None) is None


def test_a_geometry_that_does_not_fit_has_no_kernel(metal, monkeypatch):
    """Whatever tile was chosen for CUDA gets the depth that fits, or none."""
    monkeypatch.setattr(fused_conv, "works", lambda *given: True)
    kernels = {taps: np.ones((32, 32, taps), np.float32) for taps in (3, 10, 200)}
    made = [
        fused_conv.make(WIDE._replace(depth=32), kernels[taps], None, stride=stride)
        for taps, stride in ((3, 1), (3, 2), (10, 5), (200, 10))
    ]
    assert [(layer.tile.depth, layer.shared >> 10) if layer else None for layer in made] == [
        (16, 12), (16, 24), (8, 32), None,
    ]  # fmt: skip
    assert fused_conv.make(Tile(64, 32, 16, (2, 2), 16), kernels[3], None) is None  # columns of four outputs


@pytest.mark.parametrize("columns", [4, 8, 16, 32, 64, 128])
@pytest.mark.parametrize("up", [False, True])
def test_every_tile_of_an_image_fits(columns, up, metal, monkeypatch):
    monkeypatch.setattr(fused_conv, "works", lambda *given: True)
    for c_in in (16, 32, 512):
        for c_out in (16, 32, 64, 512):
            tile = fused_conv.tile_2d(c_in, c_out, columns, up=up)
            layer = fused_conv.make(tile, np.ones((c_out, c_in, 4 if up else 9), np.float32), None)
            assert layer is not None
            assert 0 < layer.shared <= 32 * 1024
