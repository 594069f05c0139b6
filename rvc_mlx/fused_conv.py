"""``fused_conv``: a convolution and what surrounds it as one GPU kernel, channels last.

``(then(conv(leaky_relu(x)) + bias) + residual + running) * scale``: the leaky ReLU on the way in and all that follows
cost no pass over memory of their own. In one dimension with any kernel, dilation, stride and groups, as a transposed
convolution (by phases), and in two dimensions 3x3 and transposed by 2.

Tiles are chosen by shape from measurements on an H200. A variant is checked against float64 when a model first needs
it; one that cannot run here or is wrong is not used, with a warning. The kernel for Metal has the same sizes and was
never run on Metal.
"""

from __future__ import annotations

import functools
import math
import os
import warnings
from typing import Any, NamedTuple

import numpy as np

from . import fused_conv_metal
from .fused_conv_cuda import SOURCE, SUM_SOURCE
from .fused_conv_device import HEADER
from .runtime import gpu_kind, mx

NONE, LEAKY_RELU, GELU, TANH = range(4)
# what products are made of, and arrays: KIND in ``fused_conv_cuda``
TF32, FLOAT32, FLOAT16, BFLOAT16 = range(4)
HALVES = {mx.float16: FLOAT16, mx.bfloat16: BFLOAT16}
DTYPES = {TF32: mx.float32, FLOAT32: mx.float32} | {kind: dtype for dtype, kind in HALVES.items()}
# of values near 1: three products keep float32, one TF32 product ten bits; halves are rounded to 11 and 8 bits
TOLERANCE = {TF32: 1e-2, FLOAT32: 2e-5, FLOAT16: 1e-2, BFLOAT16: 8e-2}
# as in ``fused_conv_cuda``: what a half leaves of a value is scaled by it
REST_SCALE = 2.0**11
# an H100's; too many or too few cost speed only
MULTIPROCESSORS = 132
MOST_SHARES = 16
# what a block may use of a multiprocessor's 228 kB where 3, 2 or 1 blocks share it; each takes 1 kB more, and
# registers allow no more than three
SHARED_BYTES = tuple(1024 * (228 // blocks - 1) for blocks in (3, 2, 1))


class Tile(NamedTuple):
    """Outputs and channels of a block, input channels at a time, warps; ``columns``: of a patch, 0 in 1-D."""

    outputs: int
    channels: int
    depth: int
    warps: tuple[int, int]
    columns: int = 0
    up: bool = False

    @property
    def threads(self) -> int:
        return 32 * self.warps[0] * self.warps[1]

    def halo_rows(self, taps: int, dilation: int, stride: int) -> int:
        """Input positions that a block reads."""
        if not self.columns:
            return (self.outputs - 1) * stride + (taps - 1) * dilation + 1
        more = 1 if self.up else 2
        return (self.outputs // self.columns + more) * (self.columns + more)

    def shared_bytes(self, taps: int, dilation: int, stride: int, kind: int) -> int:
        """Rounded up as far as no fewer blocks fit: each size is a variant of its own to compile. 0: too much."""
        rows = self.halo_rows(taps, dilation, stride)
        if gpu_kind() == "metal":
            if self.columns and self.outputs // self.columns % 8:  # a matrix has eight outputs of a column
                return 0
            strip = 8 * self.warps[0] * (self.channels + 4)
            return fused_conv_metal.threadgroup_bytes(4 * max(rows * (self.depth + 4), strip))
        size = 4 if kind in (TF32, FLOAT32) else 2
        # in float32 two halves instead of a float
        row = {TF32: 4 * (self.depth + 4), FLOAT32: 4 * (self.depth + 8)}.get(kind, 2 * (self.depth + 8))
        raw = size * rows * self.depth * (2 if taps == 1 else 1)
        weights = 3 * size * self.channels * self.depth
        need = max(raw + row * rows + weights, 4 * self.outputs * (self.channels + 4))
        return next((size for size in SHARED_BYTES if need <= size), 0)


def kind_of(dtype: mx.Dtype) -> int:
    """Of a network's arrays. Whether float32 products may be rounded to TF32, MLX reads once; Metal's kernel never
    does."""
    if dtype in HALVES:
        return HALVES[dtype]
    return FLOAT32 if gpu_kind() == "metal" or os.environ.get("MLX_ENABLE_TF32", "1") == "0" else TF32


def is_available(dtype: mx.Dtype = mx.float32) -> bool:
    """On Metal where ``RVC_MLX_METAL_CONV=1`` asks for it, and in float32: nobody has timed it there."""
    asked = os.environ.get("RVC_MLX_METAL_CONV") == "1" and dtype not in HALVES
    wanted = gpu_kind() == "cuda" or (gpu_kind() == "metal" and asked)
    return wanted and mx.default_device() == mx.Device(mx.gpu)


# in half precision, of few and of many frames: for channels that 32, 64 and 128 divide
HALF_TILES = {
    False: (Tile(64, 32, 32, (2, 2)), Tile(64, 64, 32, (2, 2)), Tile(64, 64, 32, (2, 2))),
    True: (Tile(128, 32, 32, (4, 2)), Tile(128, 64, 32, (4, 2)), Tile(128, 128, 32, (4, 2))),
}


def tile_1d(c_in: int, c_out: int, kind: int, *, long: bool) -> Tile | None:
    """``long``: tens of thousands of frames, so that big tiles still give every multiprocessor work."""
    if c_in % 16 or (c_out % 16 and c_out > 1):
        return None
    depth = 16 if c_in % 32 else 32
    if c_out % 32 and c_out > 1:
        return Tile(64, 48, 16, (4, 1)) if c_out % 48 == 0 else None
    if kind in (FLOAT16, BFLOAT16):
        narrow, wide, most = HALF_TILES[long]
        tile = narrow if c_out % 64 else most if c_out % 128 == 0 else wide
        return tile._replace(depth=min(depth, tile.depth))
    if c_out % 64:
        return Tile(64, 32, depth, (2, 2))
    return Tile(128, 64, depth, (4, 2)) if long and kind != FLOAT32 else Tile(64, 64, depth, (2, 2))


def tile_2d(c_in: int, c_out: int, columns: int, *, up: bool = False) -> Tile | None:
    if c_in % 16 or c_out % 16 or columns % 4:
        return None
    wide = next(n for n in (16, 8, 4) if columns % n == 0)
    depth = 16 if c_in % 32 else 32
    if c_out % 32:
        return Tile(128, 16, 16, (4, 1), wide, up)
    if wide == 4 and c_out % 64 == 0:
        return Tile(64, 64, depth, (2, 2), wide, up)
    return Tile(128, 32, depth, (4, 1), wide, up)


class FusedConv:
    """Of ``x [B, T, groups * in]`` or ``[B, H, W, in]``; ``residual`` and ``running`` have the result's shape.

    ``kernel [groups * out, in, taps]``, PyTorch's order; in two dimensions its rows and columns are flattened.
    ``slope``: of the leaky ReLU on the way in, 1 for none; ``then``: what follows the bias.
    """

    def __init__(
        self,
        tile: Tile,
        kernel: np.ndarray,
        bias: np.ndarray | None,
        *,
        padding: int = 0,
        dilation: int = 1,
        stride: int = 1,
        groups: int = 1,
        slope: float = 1.0,
        then: int = NONE,
        then_slope: float = 0.0,
        kind: int = FLOAT32,
    ) -> None:
        self.kind = kind
        self.tile, self.padding, self.dilation, self.stride, self.groups = tile, padding, dilation, stride, groups
        self.c_out, self.c_in, self.taps = kernel.shape[0] // groups, kernel.shape[1], kernel.shape[2]
        factor = _weight_scale(kernel) if kind == FLOAT32 and gpu_kind() == "cuda" else 1.0
        self.weight, self.padded = _packed(kernel, groups, tile, kind, factor)
        self.unscale = 1 / factor
        bias = np.zeros(kernel.shape[0]) if bias is None else bias
        self.bias = mx.array(np.ascontiguousarray(bias, np.float32))
        self.shares: int | None = None  # see ``_shares``
        self.slopes, self.then = (slope, then_slope), then
        self.shared = tile.shared_bytes(self.taps, dilation, stride, kind)
        if not self.shared:
            raise ValueError("more shared memory than a multiprocessor has")
        self._constants: dict[tuple[float, ...], mx.array] = {}

    def __call__(
        self, x: mx.array, residual: mx.array | None = None, running: mx.array | None = None, scale: float = 1.0
    ) -> mx.array:
        tile, batch, dtype = self.tile, x.shape[0], DTYPES[self.kind]
        x = x.astype(dtype)
        residual, running = (None if more is None else more.astype(dtype) for more in (residual, running))
        shape: tuple[int, ...]
        if tile.columns:
            rows, columns = x.shape[1:3]
            blocks = -(-rows // (tile.outputs // tile.columns)) * (columns // tile.columns)
            shape = (batch, 2 * rows, 2 * columns, self.c_out // 4) if tile.up else (batch, rows, columns, self.c_out)
        else:
            frames = (x.shape[1] + 2 * self.padding - self.dilation * (self.taps - 1) - 1) // self.stride + 1
            blocks, shape = -(-frames // tile.outputs), (batch, frames, self.c_out * self.groups)
        beside = self.groups * (self.padded // tile.channels)
        shares = self._shares(blocks * beside * batch)
        adds = (residual is not None) + 2 * (running is not None)
        slopes = self._on_device(*map(float, self.slopes), float(scale), self.unscale)
        sizes = self._on_device(
            self.taps, self.dilation, self.padding, self.c_in, self.c_out, self.padded, self.groups, self.stride,
            0 if shares > 1 else adds, self.then, shares, tile.columns, int(tile.up),
        )  # fmt: skip
        values = (tile.outputs, tile.channels, tile.depth, *tile.warps, self.kind)
        template = list(zip(("BM", "BN", "BK", "WARPS_M", "WARPS_N", "KIND"), values, strict=True))
        # an array that is not added is never read; of another type it would be a variant of its own to compile, as
        # would shares of a sum: in half precision each is kept in two values
        unused = x
        parts = shape if shares == 1 else (shares, *shape[:-1], shape[-1] * 4 // dtype.size)
        y = _kernel(self.shared)(
            inputs=[x, self.weight, self.bias, unused if residual is None else residual,
                    unused if running is None else running, slopes, sizes],
            template=template, grid=(blocks * tile.threads, beside, batch * shares),
            threadgroup=(tile.threads, 1, 1), output_shapes=[parts], output_dtypes=[dtype],
        )[0]  # fmt: skip
        if shares == 1:
            return y
        sizes = self._on_device(shares, math.prod(shape), shape[-1], adds, self.then, self.kind)
        return _sum_kernel()(
            inputs=[y, self.bias, unused if residual is None else residual, unused if running is None else running,
                    slopes, sizes],
            grid=(-(-math.prod(shape) // 256) * 256, 1, 1), threadgroup=(256, 1, 1),
            output_shapes=[shape], output_dtypes=[dtype],
        )[0]  # fmt: skip

    def _shares(self, blocks: int) -> int:
        """Among how many blocks the input channels of one output are divided, so that most multiprocessors work."""
        chunks = self.c_in // self.tile.depth
        if self.shares is not None:
            return min(self.shares, chunks)
        if self.tile.columns:
            return max(1, min(MULTIPROCESSORS // blocks, chunks // 2, MOST_SHARES))
        # two blocks on each hide each other's waiting; the sum costs more than it gains where a share is small
        return max(1, min(2 * MULTIPROCESSORS // blocks, chunks * self.taps // 8, chunks, MOST_SHARES))

    def _on_device(self, *values: float) -> mx.array:
        """The kernels' sizes (whole numbers) or factors, copied once."""
        if values not in self._constants:
            whole = all(isinstance(value, int) for value in values)
            if len(self._constants) > 64:  # sizes of many lengths
                self._constants.clear()
            self._constants[values] = mx.array(list(values), dtype=mx.int32 if whole else mx.float32)
            mx.eval(self._constants[values])
        return self._constants[values]


@functools.cache
def _sum_kernel() -> Any:
    if gpu_kind() == "metal":
        return mx.fast.metal_kernel(
            name="fused_conv_sum", input_names=["parts", "bias", "residual", "running", "slopes", "sizes"],
            output_names=["out"], source=fused_conv_metal.SUM_SOURCE, header=fused_conv_metal.HEADER,
        )  # fmt: skip
    return mx.fast.cuda_kernel(
        name="fused_conv_sum", input_names=["parts", "bias", "residual", "running", "slopes", "sizes"],
        output_names=["out"], source=SUM_SOURCE, header=HEADER,
    )  # fmt: skip


@functools.cache
def _kernel(shared: int) -> Any:
    if gpu_kind() == "metal":
        return mx.fast.metal_kernel(
            name=f"fused_conv_{shared // 1024}kb",
            input_names=["x", "w", "bias", "residual", "running", "slopes", "sizes"], output_names=["out"],
            source=f"  constexpr int SHARED = {shared // 4};{fused_conv_metal.SOURCE}", header=fused_conv_metal.HEADER,
        )  # fmt: skip
    # MLX tells the driver of a kernel's shared memory once per name
    return mx.fast.cuda_kernel(
        name=f"fused_conv_{shared // 1024}kb",
        input_names=["x", "w", "bias", "residual", "running", "slopes", "sizes"],
        output_names=["out"], source=SOURCE, header=HEADER, shared_memory=shared,
    )  # fmt: skip


def _packed(kernel: np.ndarray, groups: int, tile: Tile, kind: int, factor: float) -> tuple[mx.array, int]:
    """``[groups * out, in, taps]`` to ``[groups][chunk][tap][block]``, and ``out`` padded to whole blocks.

    A block has ``[2][BK / 8][BN][8]`` halves of the weights times ``factor``: heads, then rests times 2^11. With TF32
    it has ``[BK / 4][BN][4]`` rounded weights, in half precision ``[BK / 8][BN][8]`` of the weights themselves, and so
    on Metal, where it has ``[BK][BN]``."""
    c_out, c_in, taps = kernel.shape[0] // groups, kernel.shape[1], kernel.shape[2]
    padded = -(-c_out // tile.channels) * tile.channels
    weights = mx.array(np.ascontiguousarray(kernel, np.float32)).reshape(groups, c_out, c_in, taps)
    weights = mx.pad(weights, [(0, 0), (0, padded - c_out), (0, 0), (0, 0)])
    blocks = weights.reshape(groups, padded // tile.channels, tile.channels, c_in // tile.depth, tile.depth, taps)
    if gpu_kind() == "metal":
        packed = mx.contiguous(blocks.transpose(0, 3, 5, 1, 4, 2)).reshape(-1)
        mx.eval(packed)
        return packed, padded
    blocks = blocks.transpose(0, 3, 5, 1, 2, 4).reshape(-1, tile.channels, tile.depth)
    if kind in (FLOAT16, BFLOAT16):
        packed = _columns_first(blocks.astype(DTYPES[kind]), 8).view(mx.float32)
    elif kind == FLOAT32:
        scaled = blocks * factor
        head = scaled.astype(mx.float16)
        rest = ((scaled - head.astype(mx.float32)) * REST_SCALE).astype(mx.float16)
        packed = mx.concatenate([_columns_first(half, 8) for half in (head, rest)], axis=1).view(mx.float32)
    else:
        bits = mx.contiguous(blocks).view(mx.uint32)
        rounded = ((bits + mx.array(0x1000, mx.uint32)) & mx.array(0xFFFFE000, mx.uint32)).view(mx.float32)
        packed = _columns_first(rounded, 4)
    packed = packed.reshape(-1)
    mx.eval(packed)
    return packed, padded


def _columns_first(blocks: mx.array, width: int) -> mx.array:
    """``[n, BN, BK]`` to ``[n, BK / width * BN * width]``: 16 bytes of each row, then the next 16 of each."""
    count, rows, depth = blocks.shape
    return blocks.reshape(count, rows, depth // width, width).transpose(0, 2, 1, 3).reshape(count, -1)


def _weight_scale(kernel: np.ndarray) -> float:
    """A power of two that brings the largest weight to between 2^13 and 2^14: well inside half precision's range.

    Of next to no weights no more than float32 can hold."""
    largest = float(np.abs(kernel).max(initial=0.0))
    return 2.0 ** min(14 - math.frexp(largest)[1], 100) if largest > 0 else 1.0


def make(
    tile: Tile | None, kernel: np.ndarray, bias: np.ndarray | None, *, kind: int = FLOAT32, **options: Any
) -> FusedConv | None:
    """None where there is no tile for this shape, or its kernel does not work on this machine."""
    if tile is None:
        return None
    sizes = kernel.shape[2], options.get("dilation", 1), options.get("stride", 1), kind
    if gpu_kind() == "metal":  # an H100's tile, with what depth fits: a guess, nothing was measured on Metal
        tile = next((t for t in (tile._replace(depth=d) for d in (16, 8)) if t.shared_bytes(*sizes)), tile)
    shared = tile.shared_bytes(*sizes)
    if not shared or not works(tile, shared, kind, min(3, kernel.shape[2])):
        return None
    return FusedConv(tile, kernel, bias, kind=kind, **options)


@functools.cache
def works(tile: Tile, shared: int, kind: int, taps: int) -> bool:
    """Whether this variant gives the right numbers here: odd sizes, every extra, against float64."""
    try:
        error = _error(tile, shared, kind, taps)
    except (RuntimeError, ValueError) as fault:
        warnings.warn(f"fused_conv cannot run here: {fault!s:.300}", stacklevel=3)
        return False
    if not error <= TOLERANCE[kind]:
        warnings.warn(f"fused_conv with {tile} differs from float64 by {error:.1e}: not used", stacklevel=3)
        return False
    return True


def _error(tile: Tile, shared: int, kind: int, taps: int) -> float:
    rng = np.random.default_rng(0)
    c_in, c_out = 4 * tile.depth, 4 * tile.channels if tile.up else tile.channels
    if tile.columns:
        taps = 4 if tile.up else 9
    kernel = rng.standard_normal((c_out, c_in, taps)).astype(np.float32) / np.sqrt(np.float32(c_in * taps))
    bias = rng.standard_normal(c_out).astype(np.float32)
    if tile.up:  # the four phases share it
        bias = np.tile(bias[: c_out // 4], 4)
    shape = (2, 2 * tile.outputs // tile.columns - 3, 2 * tile.columns, c_in) if tile.columns else (2, 301, c_in)
    x = rng.standard_normal(shape).astype(np.float32)
    layer = FusedConv(
        tile, kernel, bias, padding=0 if tile.up else 1, slope=0.1, then=LEAKY_RELU, then_slope=0.2, kind=kind
    )
    layer.shared = shared
    want = expected(x, kernel, bias, layer)
    residual, running = (rng.standard_normal(want.shape).astype(np.float32) for _ in range(2))
    want = (want + residual + running) * 0.5
    worst = 0.0
    for layer.shares in (1, 4):
        given = [mx.array(array).astype(DTYPES[kind]) for array in (x, residual, running)]
        got = np.array(layer(given[0], given[1], given[2], 0.5).astype(mx.float32))
        worst = max(worst, float(np.abs(got - want).max(initial=0.0, where=np.isfinite(got))))
        if not np.isfinite(got).all():
            return float("inf")
    return worst


def expected(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, layer: FusedConv) -> np.ndarray:
    """What ``layer(x)`` should be, in float64; one group."""
    wide = x.astype(np.float64)
    wide = np.maximum(wide, wide * layer.slopes[0])
    side = 2 if layer.tile.up else 3
    if layer.tile.columns:
        before = 0 if layer.tile.up else 1
        padded = np.pad(wide, [(0, 0), (before, 1), (before, 1), (0, 0)])
        rows, columns = x.shape[1:3]
        views = [padded[:, i : i + rows, j : j + columns] for i in range(side) for j in range(side)]
    else:
        padded = np.pad(wide, [(0, 0), (layer.padding, layer.padding), (0, 0)])
        frames = padded.shape[1] - layer.dilation * (layer.taps - 1)
        views = [padded[:, k * layer.dilation :][:, : frames : layer.stride] for k in range(layer.taps)]
    y = sum(view @ kernel[:, :, k].T.astype(np.float64) for k, view in enumerate(views)) + bias
    y = np.maximum(y, y * layer.slopes[1]) if layer.then == LEAKY_RELU else y
    if layer.tile.up:
        b, rows, columns, c = y.shape
        y = y.reshape(b, rows, columns, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * rows, 2 * columns, -1)
    return y
