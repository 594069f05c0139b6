"""What the models share: weights brought into MLX's layout once, and one-dimensional convolutions.

Arrays are channels last, ``[B, T, C]``. On CPUs MLX's dilated and transposed convolutions are
naive loops; with ``gemm_conv`` a convolution is a chain of matrix products on shifted views, and
with ``polyphase`` a transposed one is one product per overlapping input and an interleave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import numpy as np

from rvc_common.stages import Carry, Stage, leaf

from . import fused_conv
from .fused_conv import FusedConv
from .runtime import gpu_kind, mx

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
# rows of a strided view that are gathered at a time by ``_unfolded``: bounds its memory
UNFOLD_VALUES = 1 << 23
# frames of a block in ``_grouped_blocks``: wide products, for three frames more of taps that are zero
BLOCK_FRAMES = 4

# From this size on an array is worth a synchronisation: MLX keeps the intermediates of all work that
# it has queued, and on a GPU queues far ahead.
EVAL_BYTES = 32 * 2**20

# While a graph is recorded (``compile_network``) its arrays have no values to wait for.
recording: ContextVar[bool] = ContextVar("recording", default=False)

Layer = Callable[[mx.array], mx.array]


class Weights:
    """A state dict in PyTorch's layouts, from which it makes MLX arrays and layers of one type.

    ``methods``: names of the optimisations in use.
    """

    def __init__(self, state: Mapping[str, np.ndarray], dtype: mx.Dtype, methods: frozenset[str] = frozenset()) -> None:
        self.state, self.dtype, self.methods = state, dtype, methods

    def array(self, value: np.ndarray) -> mx.array:
        return mx.array(np.ascontiguousarray(value, dtype=np.float32)).astype(self.dtype)

    def raw(self, name: str) -> np.ndarray:
        """A weight in PyTorch's layout, as it is; weight norm is folded in float64: ``g * v / |v|``."""
        if f"{name}_g" not in self.state:
            return self.state[name]
        g, v = (np.asarray(self.state[f"{name}_{end}"], np.float64) for end in "gv")
        axes = tuple(axis for axis, n in enumerate(g.shape) if n == 1)
        return g * v / np.sqrt((v * v).sum(axis=axes, keepdims=True))

    def bias(self, name: str) -> mx.array | None:
        key = f"{name}.bias"
        return self.array(self.state[key]) if key in self.state else None

    def linear(self, *names: str, then: int = fused_conv.NONE) -> Layer:
        """``[.., in] -> [.., out]``; a convolution of kernel 1 is the same thing. Results of several names lie side by
        side; ``then``: what a fused kernel does after it, and no other layer."""
        raw = np.concatenate([w.reshape(w.shape[:2]) for w in (self.raw(f"{name}.weight") for name in names)])
        biases = [b for b in map(self._raw_bias, names) if b is not None]
        bias = np.concatenate(biases) if biases else None
        if (fused := self._fused(raw[:, :, None], bias, then=then)) is not None:
            return fused
        weight = self.array(raw.T)
        # not addmm: on CPUs it spreads the bias over the rows first, slower than the sum afterwards
        return _plus(lambda x: x @ weight, None if bias is None else self.array(bias))

    def projections(self, name: str, pattern: str) -> tuple[Stage, ...]:
        """Stages from ``x`` to q, k and v: with ``fused_conv`` in one product, whose parts then have a stage each.

        ``pattern``: of the layers' names inside ``name``, ``{}`` for the letter."""
        stages = [pattern.format(part) for part in "qkv"]
        names = [f"{name}.{stage}" for stage in stages]
        together = self.linear(*names) if "fused_conv" in self.methods else None
        if together is None or not isinstance(together, FusedConv):
            layers = map(self.linear, names)
            return tuple(leaf(*given, of="x") for given in zip(stages, layers, "qkv", strict=True))

        def project(carry: Carry) -> None:
            carry["q"], carry["k"], carry["v"] = mx.split(together(carry["x"]), 3, axis=-1)

        same = (leaf(stage, lambda part: part, part) for stage, part in zip(stages[1:], "kv", strict=True))
        return (Stage(stages[0], project, product="q"), *same)

    def leaky_relu(self, slope: float) -> Layer:
        """``max(x, slope * x)``; one kernel instead of two with ``fuse_elementwise``."""
        return self.fused(lambda x: mx.maximum(x, x * slope))

    def fused(self, function: Callable[..., mx.array]) -> Callable[..., mx.array]:
        """A chain of elementwise operations as one kernel, where that optimisation is in use."""
        return mx.compile(function, shapeless=True) if "fuse_elementwise" in self.methods else function

    def settle(self, x: mx.array) -> None:
        """Wait for a big array, where ``tile`` asks for bounded memory."""
        if "tile" in self.methods and x.nbytes >= EVAL_BYTES and not recording.get():
            mx.eval(x)

    def norm(self, name: str, eps: float, keys: tuple[str, str] = ("weight", "bias")) -> Layer:
        """Layer norm over the last axis."""
        weight, bias = (self.array(self.state[f"{name}.{key}"]) for key in keys)
        return lambda x: mx.fast.layer_norm(x, weight, bias, eps)

    def conv(
        self,
        name: str,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        slope: float = 1.0,
        then: int = fused_conv.NONE,
        after: Layer | None = None,
        long: bool = False,
    ) -> Layer:
        """``[B, T, in] -> [B, T', out]``; PyTorch's kernel ``[out, in / groups, K]``.

        ``slope``: of a leaky ReLU before it; ``then``: what a fused kernel does after it, and any other layer by
        ``after``; ``long``: see ``fused_conv``."""
        kernel = self.raw(f"{name}.weight")
        sizes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        fused = self._fused(kernel, self._raw_bias(name), slope=slope, then=then, long=long, **sizes)
        if fused is not None:
            return fused
        layer = self._plain_conv(name, kernel, **sizes)
        layer = layer if slope == 1.0 else _after(self.leaky_relu(slope), layer)
        return layer if after is None else _after(layer, after)

    def _fused(
        self,
        kernel: np.ndarray,
        bias: np.ndarray | None,
        *,
        groups: int = 1,
        long: bool = False,
        **options: Any,
    ) -> FusedConv | None:
        if "fused_conv" not in self.methods:
            return None
        kind = fused_conv.kind_of(self.dtype)
        tile = fused_conv.tile_1d(kernel.shape[1], kernel.shape[0] // groups, kind, long=long)
        return fused_conv.make(tile, kernel, bias, kind=kind, groups=groups, **options)

    def _raw_bias(self, name: str) -> np.ndarray | None:
        return self.state.get(f"{name}.bias")

    def _plain_conv(
        self, name: str, kernel: np.ndarray, stride: int, padding: int, dilation: int, groups: int
    ) -> Layer:
        bias = self.bias(name)
        if kernel.shape[2] == 1 and stride == groups == 1 and padding == 0:
            return self.linear(name)
        possible = stride == dilation == 1 or (groups == 1 and 1 in (stride, dilation))
        if possible and ("gemm_conv" in self.methods or (groups > 1 and _computes_on_cuda())):
            return self._gemm_conv(kernel, bias, stride, padding, dilation, groups)
        weight = self.array(kernel.transpose(0, 2, 1))
        return _plus(lambda x: mx.conv1d(x, weight, stride, padding, dilation, groups), bias)

    def _gemm_conv(
        self, kernel: np.ndarray, bias: mx.array | None, stride: int, padding: int, dilation: int, groups: int
    ) -> Layer:
        c_out, c_in, taps = kernel.shape
        if groups > 1 and "block_groups" in self.methods:
            blocks = [self.array(block) for block in frame_blocks(kernel, groups)]
            return _plus(_each(lambda x: _grouped_blocks(x, blocks, groups, taps, padding)), bias)
        if groups > 1:
            split = self.array(kernel.reshape(groups, c_out // groups, c_in, taps).transpose(0, 3, 2, 1))
            return _plus(lambda x: _grouped(x, split, padding), bias)
        if dilation == 1 and (stride > 1 or c_in == 1):
            flat = self.array(kernel.transpose(2, 1, 0).reshape(taps * c_in, c_out))
            return _plus(lambda x: _strided(x, flat, taps, stride, padding), bias)
        if c_out == 1:
            rows = self.array(kernel[0].T)  # [K, in]
            return _plus(lambda x: _to_one_channel(x, rows, padding, dilation), bias)
        slices = [self.array(kernel[:, :, k].T) for k in range(taps)]
        return _plus(_each(lambda x: _shifted_products(x, slices, padding, dilation)), bias)

    def conv_transpose(self, name: str, *, stride: int, padding: int, output_padding: int, slope: float = 1.0) -> Layer:
        """``[B, T, in] -> [B, T', out]``; PyTorch's kernel ``[in, out, K]``. ``slope``: of a leaky ReLU before it."""
        if "fused_conv" in self.methods:
            fused = self._fused_transpose(name, stride, padding, output_padding, slope)
            if fused is not None:
                return fused
        layer = self._plain_transpose(name, stride, padding, output_padding)
        return layer if slope == 1.0 else _after(self.leaky_relu(slope), layer)

    def _fused_transpose(self, name: str, stride: int, padding: int, output_padding: int, slope: float) -> Layer | None:
        """All outputs of one input row side by side: a convolution of ``ceil(K / stride)`` taps, then a crop."""
        raw, bias = self.raw(f"{name}.weight"), self._raw_bias(name)
        phases = self._phases(raw, stride)
        count, _, outs = phases.shape
        extra = raw.shape[2] - stride - 2 * padding + output_padding
        if padding + extra > (count - 1) * stride:  # an output padding beyond the last overlap
            return None
        kernel = phases[::-1].transpose(2, 1, 0)  # the last tap reads the row itself
        rows = None if bias is None else np.tile(bias, stride)
        layer = self._fused(kernel, rows, padding=count - 1, slope=slope, long=True)
        if layer is None:
            return None

        def upsample(x: mx.array) -> mx.array:
            y = layer(x).reshape(x.shape[0], -1, outs // stride)
            return y[:, padding : padding + x.shape[1] * stride + extra]

        return upsample

    @staticmethod
    def _phases(kernel: np.ndarray, stride: int) -> np.ndarray:
        """``[in, out, K]`` to ``[count, in, stride * out]``.

        Output ``q * stride + r`` of the uncropped result takes kernel tap ``r + m * stride`` of input ``q - m``."""
        c_in, c_out, taps = kernel.shape
        count = -(-taps // stride)
        whole = np.zeros((c_in, c_out, count * stride))
        whole[:, :, :taps] = kernel
        return whole.reshape(c_in, c_out, count, stride).transpose(2, 0, 3, 1).reshape(count, c_in, stride * c_out)

    def _plain_transpose(self, name: str, stride: int, padding: int, output_padding: int) -> Layer:
        kernel, bias = self.raw(f"{name}.weight"), self.bias(name)
        if "polyphase" not in self.methods:
            weight = self.array(kernel.transpose(1, 2, 0))
            return _plus(lambda x: mx.conv_transpose1d(x, weight, stride, padding, 1, output_padding), bias)
        taps = kernel.shape[2]
        phases = [self.array(phase) for phase in self._phases(kernel, stride)]
        crop = (padding, taps - stride - 2 * padding + output_padding)
        return _each(lambda x: _polyphase(x, phases, bias, stride, *crop))


def _computes_on_cuda() -> bool:
    """There cuDNN 9 writes out of bounds in a grouped convolution.

    Of 128 taps, 16 groups of 48 channels and 64 frames on an H200: ``nhwcToNchwKernel`` under compute-sanitizer.
    """
    return gpu_kind() == "cuda" and mx.default_device() == mx.Device(mx.gpu)


def _after(first: Layer, second: Layer) -> Layer:
    return lambda x: second(first(x))


def _plus(layer: Layer, bias: mx.array | None) -> Layer:
    return layer if bias is None else lambda x: layer(x) + bias


def _each(layer: Layer) -> Layer:
    """A layer of ``[T, C]`` on every item of a batch."""
    return lambda x: layer(x[0])[None] if x.shape[0] == 1 else mx.stack([layer(item) for item in x])


def _pad_time(x: mx.array, left: int, right: int) -> mx.array:
    return mx.pad(x, [*[(0, 0)] * (x.ndim - 2), (left, right), (0, 0)]) if left or right else x


def _shifted_products(x: mx.array, slices: list[mx.array], padding: int, dilation: int) -> mx.array:
    """``[T, in] -> [T', out]``: per tap one product of a shifted view, summed in place by ``addmm``."""
    x = _pad_time(x, padding, padding)
    length = x.shape[0] - dilation * (len(slices) - 1)
    total = x[:length] @ slices[0]
    for k, weight in enumerate(slices[1:], 1):
        total = mx.addmm(total, x[k * dilation : k * dilation + length], weight)
    return total


def _strided(x: mx.array, weight: mx.array, taps: int, stride: int, padding: int) -> mx.array:
    """``[B, T, in] -> [B, T', out]``: the windows as rows of one matrix, block by block."""
    x = mx.contiguous(_pad_time(x, padding, padding))
    batch, length, c = x.shape
    count = (length - taps) // stride + 1
    step = max(1, UNFOLD_VALUES // (taps * c))
    parts = []
    for start in range(0, count, step):
        rows = min(step, count - start)
        shape, strides = (batch, rows, taps * c), (length * c, stride * c, 1)
        parts.append(mx.as_strided(x, shape, strides, start * stride * c) @ weight)
    return mx.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def _to_one_channel(x: mx.array, rows: mx.array, padding: int, dilation: int) -> mx.array:
    """``[B, T, in] -> [B, T', 1]``: all taps in one product, then a sum of shifted rows."""
    partial = rows @ _pad_time(x, padding, padding).transpose(0, 2, 1)  # [B, K, T + 2 * padding]
    length = partial.shape[2] - dilation * (rows.shape[0] - 1)
    total = partial[:, 0, :length]
    for k in range(1, rows.shape[0]):
        total = total + partial[:, k, k * dilation : k * dilation + length]
    return total[..., None]


def _grouped(x: mx.array, weight: mx.array, padding: int) -> mx.array:
    """``[B, T, G * in] -> [B, T', G * out]`` with ``weight [G, K, in, out]``: windows per group as rows."""
    groups, taps, c_in, c_out = weight.shape
    weight = weight.reshape(groups, taps * c_in, c_out)
    items = []
    for item in _pad_time(x, padding, padding):
        split = mx.contiguous(item.reshape(-1, groups, c_in).transpose(1, 0, 2))
        length = split.shape[1]
        count, step = length - taps + 1, max(1, UNFOLD_VALUES // (groups * taps * c_in))
        parts = []
        for start in range(0, count, step):
            shape, strides = (groups, min(step, count - start), taps * c_in), (length * c_in, c_in, 1)
            parts.append(mx.as_strided(split, shape, strides, start * c_in) @ weight)
        items.append(mx.concatenate(parts, axis=1).transpose(1, 0, 2).reshape(count, groups * c_out))
    return mx.stack(items)


def frame_blocks(kernel: np.ndarray, groups: int) -> list[np.ndarray]:
    """PyTorch's kernel as matrices ``[G, F * in, F * out]`` from block m of F frames on to the F outputs of block 0."""
    c_out, c_in, taps = kernel.shape
    by_tap = kernel.reshape(groups, c_out // groups, c_in, taps).transpose(0, 3, 2, 1)
    count = -(-(taps + BLOCK_FRAMES - 1) // BLOCK_FRAMES)
    whole = np.zeros((groups, count * BLOCK_FRAMES, c_in, BLOCK_FRAMES, c_out // groups))
    for j in range(BLOCK_FRAMES):
        whole[:, j : j + taps, :, j] = by_tap
    return [part.reshape(groups, BLOCK_FRAMES * c_in, -1) for part in np.split(whole, count, axis=1)]


def _grouped_blocks(x: mx.array, blocks: list[mx.array], groups: int, taps: int, padding: int) -> mx.array:
    """``[T, G * in] -> [T', G * out]``: frames of a block side by side are one row, so that windows need no copies."""
    frames, width = x.shape[0], x.shape[1] // groups
    count = frames + 2 * padding - taps + 1
    rows = -(-count // BLOCK_FRAMES)
    total_rows = rows + len(blocks) - 1
    x = _pad_time(x, padding, total_rows * BLOCK_FRAMES - frames - padding)
    x = mx.contiguous(x.reshape(-1, groups, width).transpose(1, 0, 2)).reshape(groups, total_rows, -1)
    total = x[:, :rows] @ blocks[0]
    for m, block in enumerate(blocks[1:], 1):
        total = mx.addmm(total, x[:, m : m + rows], block)
    return total.reshape(groups, rows * BLOCK_FRAMES, -1)[:, :count].transpose(1, 0, 2).reshape(count, -1)


def _polyphase(
    x: mx.array, phases: list[mx.array], bias: mx.array | None, stride: int, left: int, extra: int
) -> mx.array:
    """``[T, in] -> [T', out]``: all outputs of one input row side by side, overlapping rows summed."""
    frames, count = x.shape[0], len(phases)
    padded = _pad_time(x, count - 1, count - 1)
    rows = frames + count - 1
    total = padded[count - 1 : count - 1 + rows] @ phases[0]
    for m in range(1, count):
        total = mx.addmm(total, padded[count - 1 - m : count - 1 - m + rows], phases[m])
    c_out = phases[0].shape[1] // stride
    length = frames * stride + extra
    y = total.reshape(rows * stride, c_out)
    missing = left + length - y.shape[0]
    if missing > 0:  # an output padding beyond the last overlap
        y = _pad_time(y, 0, missing)
    y = y[left : left + length]
    return y if bias is None else y + bias
