"""The fused convolution without a GPU: its CUDA source runs on stand-ins, its wiring on its definition in NumPy."""

from __future__ import annotations

import ctypes
import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
from metal_stand_in import compiled

from rvc_mlx import fused_conv
from rvc_mlx.fused_conv import BFLOAT16, DTYPES, FLOAT16, FLOAT32, GELU, HALVES, LEAKY_RELU, TF32, FusedConv, Tile
from rvc_mlx.fused_conv_cuda import SOURCE, SUM_SOURCE
from rvc_mlx.fused_conv_device import COMMON
from rvc_mlx.runtime import mx

HEADER = Path(__file__).with_name("cuda_stand_in.h")
ARGUMENTS = "const float* x, const float* w, const float* bias, const float* residual, const float* running"
MAIN = """
struct Half { uint16_t bits; };
static const X* x;
static const W* w;
static const RESIDUAL* residual;
static const RUNNING* running;
static OUT* out;
static const float *bias, *slopes, *parts;
static const int *sizes, *x_shape;
static void kernel() { BODY }
static void sum_kernel() { SUM }
extern "C" void launch(const float** in, const long* counts, const float* factors, const int* numbers,
                       const int* shape, float* result, const int* grid, int threads, int shared, int order,
                       int summing) {
  x = (const X*)in[0]; parts = in[0]; w = (const W*)in[1]; bias = in[2];
  residual = (const RESIDUAL*)in[3]; running = (const RUNNING*)in[4];
  slopes = factors; sizes = numbers; x_shape = shape; out = (OUT*)result;
  for (int i = 0; i < 2; i++) stand_in::inputs[i] = {(const char*)in[i], (const char*)(in[i] + counts[i])};
  stand_in::threads = threads;
  stand_in::shared_bytes = shared;
  stand_in::body = summing ? sum_kernel : kernel;
  stand_in::grid = {unsigned(grid[0]), unsigned(grid[1]), unsigned(grid[2])};
  for (int z = 0; z < grid[2]; z++) for (int y = 0; y < grid[1]; y++) for (int i = 0; i < grid[0]; i++) {
    stand_in::block_index = {unsigned(i), unsigned(y), unsigned(z)};
    stand_in::run_block(order);
  }
}
"""


@functools.cache
def variant(folder: Path, tile: Tile, kind: int, warpgroups: bool, halves: tuple[bool, ...]) -> ctypes.CDLL:
    """``halves``: which arrays have two bytes a value: a GPU's compiler would see pointers of that type."""
    values = zip(
        ("BM", "BN", "BK", "WARPS_M", "WARPS_N", "KIND"),
        (tile.outputs, tile.channels, tile.depth, *tile.warps, kind),
        strict=True,
    )
    body = "".join(f"constexpr int {name} = {value};\n" for name, value in values) + SOURCE
    main = MAIN.replace("BODY", body).replace("SUM", SUM_SOURCE)
    names = ("X", "W", "RESIDUAL", "RUNNING", "OUT")
    types = "".join(f"#define {name} {'Half' if half else 'float'}\n" for name, half in zip(names, halves, strict=True))
    program = f'#include "{HEADER.name}"\n#define WARPGROUPS {int(warpgroups)}\n{COMMON}\n{types}{main}'
    return compiled(program, folder, HEADER, ("-std=c++17",))


@pytest.fixture
def emulated(tmp_path_factory, monkeypatch):
    """``mx.fast.cuda_kernel`` runs its source on stand-ins; returns the order of threads to set, and whether there are
    products of warpgroups."""
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    order, folder = {"now": 0, "warpgroups": True}, tmp_path_factory.getbasetemp() / "cuda"
    folder.mkdir(exist_ok=True)

    def launch(layer_of, shared, summing):
        def call(inputs, grid, threadgroup, output_shapes, output_dtypes, template=()):
            values = dict(template)
            if not summing:
                tile = Tile(*(values[k] for k in ("BM", "BN", "BK")), (values["WARPS_M"], values["WARPS_N"]))
                halves = (*(inputs[i].dtype in HALVES for i in (0, 1, 3, 4)), inputs[0].dtype in HALVES)
                layer_of["library"] = variant(folder, tile, values["KIND"], order["warpgroups"], halves)
            library = layer_of["library"]
            arrays = [np.array(a.view(mx.uint16) if a.dtype in HALVES else a, order="C") for a in inputs]
            if summing:
                arrays.insert(1, arrays[0])
            *five, slopes, sizes = arrays
            shape = np.array(inputs[0].shape, np.int32)
            (dtype,) = output_dtypes
            out = np.full(output_shapes[0], *((0xFFFF, np.uint16) if dtype in HALVES else (np.nan, np.float32)))
            blocks = np.array([grid[0] // threadgroup[0], grid[1], grid[2]], np.int32)
            pointers = (ctypes.c_void_p * 5)(*(a.ctypes.data for a in five))
            counts = np.array([a.nbytes // 4 for a in five], np.int64)
            library.launch(
                pointers, *(ctypes.c_void_p(a.ctypes.data) for a in (counts, slopes, sizes, shape, out, blocks)),
                threadgroup[0], shared, order["now"], int(summing),
            )  # fmt: skip
            return [mx.array(out).view(dtype)]

        return call

    state: dict[str, ctypes.CDLL] = {}
    monkeypatch.setattr(fused_conv, "gpu_kind", lambda: "cuda")
    monkeypatch.setattr(fused_conv, "_kernel", lambda shared: launch(state, shared, False))
    monkeypatch.setattr(fused_conv, "_sum_kernel", lambda: launch(state, 0, True))
    return order


KINDS = FLOAT16, BFLOAT16
WIDE = Tile(128, 32, 16, (4, 1))
CASES = {
    "dilated": (WIDE, 32, 32, 3, {"padding": 3, "dilation": 3}, (1, 150, 32)),
    "one tap, two items": (WIDE, 32, 64, 1, {}, (2, 131, 32)),
    "one tap, five chunks": (Tile(64, 64, 16, (2, 2)), 80, 64, 1, {}, (1, 70, 80)),
    "one channel": (WIDE, 32, 1, 7, {"padding": 3}, (1, 140, 32)),
    "strided": (WIDE, 16, 32, 3, {"stride": 2}, (1, 300, 16)),
    "image": (WIDE._replace(columns=8), 16, 32, 9, {"padding": 1}, (1, 19, 16, 16)),
    "image, four wide": (WIDE._replace(columns=4), 32, 32, 9, {"padding": 1}, (1, 5, 4, 32)),
    "transposed image": (WIDE._replace(columns=16, up=True), 16, 64, 4, {}, (1, 9, 32, 16)),
    "groups": (Tile(64, 48, 16, (4, 1)), 48, 96, 5, {"padding": 2, "groups": 2}, (1, 70, 96)),
    "rows of many channels": (Tile(64, 32, 32, (2, 2)), 64, 64, 3, {"padding": 1}, (1, 70, 64)),
}


@pytest.mark.parametrize(
    ("name", "warpgroups"),
    [
        *((name, True) for name in CASES),
        *((name, False) for name in ("dilated", "image", "groups", "one tap, five chunks")),
    ],
)
def test_the_kernel_computes_its_definition(name, warpgroups, emulated):
    """In float32, with everything that surrounds it, in one go and in shares, for two orders of threads."""
    emulated["warpgroups"] = warpgroups
    tile, c_in, c_out, taps, options, shape = CASES[name]
    rng = np.random.default_rng(1)
    kernel = (rng.standard_normal((c_out, c_in, taps)) / np.sqrt(c_in * taps)).astype(np.float32)
    bias = rng.standard_normal(c_out).astype(np.float32)
    if tile.up:
        bias = np.tile(bias[: c_out // 4], 4)
    layer = FusedConv(tile, kernel, bias, slope=0.1, then=LEAKY_RELU, then_slope=0.2, kind=FLOAT32, **options)
    x = rng.standard_normal(shape).astype(np.float32)
    want = grouped(x, kernel, bias, layer)
    residual, running = (rng.standard_normal(want.shape).astype(np.float32) for _ in range(2))
    want = (want + residual + running) * 0.5
    for order, shares in ((0, 1), (1, 1), (0, 4)):
        emulated["now"], layer.shares = order, shares
        got = np.array(layer(mx.array(x), mx.array(residual), mx.array(running), 0.5))
        assert got.shape == want.shape
        assert np.abs(got - want).max() < 1e-6, (order, shares)


@pytest.mark.parametrize(
    ("name", "kind", "warpgroups"),
    [
        *((name, FLOAT16, True) for name in ("one tap, five chunks", "one channel", "strided", "image", "groups")),
        *((name, kind, name == "transposed image") for name in ("dilated", "transposed image") for kind in KINDS),
    ],
)
def test_halves_are_rounded_once(name, kind, warpgroups, emulated):
    """Every value is within half a unit in its last place of the result in float64, in one go and in shares."""
    emulated["warpgroups"] = warpgroups
    tile, c_in, c_out, taps, options, shape = CASES[name]
    rng, unit = np.random.default_rng(1), 2.0 ** (-11 if kind == FLOAT16 else -8)

    def drawn(*sizes: int) -> np.ndarray:
        values = mx.array(rng.standard_normal(sizes).astype(np.float32))
        return np.array(values.astype(DTYPES[kind]).astype(mx.float32))

    kernel, bias = drawn(c_out, c_in, taps), rng.standard_normal(c_out).astype(np.float32)
    if tile.up:
        bias = np.tile(bias[: c_out // 4], 4)
    slope = 0.125  # what it is multiplied by is no longer a half, and is rounded
    layer = FusedConv(tile, kernel, bias, slope=slope, then=LEAKY_RELU, then_slope=0.2, kind=kind, **options)
    x = drawn(*shape)
    want = grouped(x, kernel, bias, layer)
    residual, running = (drawn(*want.shape) for _ in range(2))
    want = (want + residual + running) * 0.5
    found = []
    for order, shares in ((0, 1), (1, 1), (0, 4)):
        emulated["now"], layer.shares = order, shares
        given = (mx.array(array).astype(DTYPES[kind]) for array in (x, residual, running))
        got = layer(*given, 0.5)
        assert (got.dtype, got.shape) == (DTYPES[kind], want.shape)
        found.append(np.array(got.astype(mx.float32)))
        assert (np.abs(found[-1] - want) <= 1.01 * unit * np.abs(want) + 1e-5).all(), (order, shares)
    assert np.array_equal(found[0], found[1])


def grouped(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, layer: FusedConv) -> np.ndarray:
    if layer.groups == 1:
        return fused_conv.expected(x, kernel, bias, layer)
    parts = zip(
        np.split(x, layer.groups, -1), np.split(kernel, layer.groups), np.split(bias, layer.groups), strict=True
    )
    return np.concatenate([fused_conv.expected(*part, layer) for part in parts], axis=-1)


def test_what_half_precision_cannot_hold_is_not_hidden(emulated):
    """Weights of any size, inputs up to 65504; beyond that a result that is no number."""
    rng = np.random.default_rng(4)
    kernel = rng.standard_normal((32, 32, 1)).astype(np.float32)
    for size in (1e-44, 1e-30, 1e30):
        tiny = FusedConv(Tile(64, 32, 32, (2, 2)), np.float32(size) * kernel, None, kind=FLOAT32)
        assert np.isfinite(np.array(tiny(mx.ones((1, 70, 32))))).all()
    kernel *= np.float32(1e6)
    layer = FusedConv(Tile(64, 32, 32, (2, 2)), kernel, None, kind=FLOAT32)
    x = rng.standard_normal((1, 70, 32)).astype(np.float32)
    for largest in (1e-4, 65504):
        scaled = x * np.float32(largest / np.abs(x).max())
        want = fused_conv.expected(scaled, kernel, np.zeros(32), layer)
        assert np.abs(np.array(layer(mx.array(scaled))) - want).max() < 1e-6 * np.abs(want).max()
    x[0, 40, 3] = 7e4
    got = np.array(layer(mx.array(x)))
    assert not np.isfinite(got[0, 40]).any()
    assert np.isfinite(np.delete(got[0], 40, axis=0)).all()


def test_tf32_rounds_its_operands_and_no_more(emulated):
    rng = np.random.default_rng(2)
    kernel = (rng.standard_normal((32, 32, 3)) / 10).astype(np.float32)
    x = rng.standard_normal((1, 70, 32)).astype(np.float32)
    layer = FusedConv(Tile(64, 32, 32, (2, 2)), kernel, None, padding=1, then=GELU, kind=TF32)
    plain = np.array(layer(mx.array(x)))
    layer.then = LEAKY_RELU  # slope 0: a ReLU
    want = fused_conv.expected(x, kernel, np.zeros(32), layer)
    error = np.abs(np.array(layer(mx.array(x))) - want).max()
    assert 1e-5 < error < 3e-3
    positive = want > 1
    assert np.abs(plain - want)[positive].max() < 0.2  # GELU is close to the identity there


def test_a_variant_that_is_wrong_is_not_used(emulated, monkeypatch):
    fused_conv.works.cache_clear()
    tile = Tile(64, 32, 32, (2, 2))
    shared = tile.shared_bytes(3, 1, 1, FLOAT32)
    whole, right = FusedConv.__call__, []
    monkeypatch.setattr(FusedConv, "__call__", lambda *given: right.append(whole(*given)) or right[-1])
    assert fused_conv.works(tile, shared, FLOAT32, 3)
    assert len(right) == 2
    again = iter(right)
    monkeypatch.setattr(FusedConv, "__call__", lambda *_: next(again) * 1.0001)
    fused_conv.works.cache_clear()
    with pytest.warns(UserWarning, match=r"differs from float64 by \d.*: not used"):
        assert not fused_conv.works(tile, shared, FLOAT32, 3)
    monkeypatch.setattr(FusedConv, "__call__", lambda self, *given: (_ for _ in ()).throw(RuntimeError("no such GPU")))
    fused_conv.works.cache_clear()
    with pytest.warns(UserWarning, match="cannot run here: no such GPU"):
        assert not fused_conv.works(tile, shared, FLOAT32, 3)
    fused_conv.works.cache_clear()
