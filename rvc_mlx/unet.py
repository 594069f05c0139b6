"""The RMVPE U-Net as MLX's own convolutions, channels last: the plain path, and that for GPUs.

Stage names follow upstream's state-dict keys. With ``fold_norm`` the batch norms disappear into
the kernels and a residual block becomes one stage.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from rvc_common.config import RMVPEConfig
from rvc_common.stages import FEATURES, IMAGE, Carry, Stage, group, leaf, plus

from . import fused_conv, layers
from .fused_conv import FusedConv
from .layers import Weights, recording
from .packed import NORM_EPS, fold_norm
from .runtime import mx


def _relu(x: mx.array) -> mx.array:
    return mx.maximum(x, 0.0)


def _bias_relu(x: mx.array, bias: mx.array) -> mx.array:
    return mx.maximum(x + bias, 0.0)


def _bias_relu_add(x: mx.array, bias: mx.array, residual: mx.array) -> mx.array:
    return mx.maximum(x + bias, 0.0) + residual


def _mean_of_four(a: mx.array, b: mx.array, c: mx.array, d: mx.array) -> mx.array:
    return (a + b + c + d) * 0.25


class NativeUNet:
    """``mel [B, T, bands, 1] -> [B, T, 3 * bands]`` (norm, U-Net, ``cnn`` and flattening)."""

    def __init__(self, config: RMVPEConfig, bands: int, weights: Weights) -> None:
        self.weights, self.state, self.methods = weights, weights.state, weights.methods
        self.bands = bands
        self.bounded = "tile" in weights.methods
        self.bias_relu, self.bias_relu_add = weights.fused(_bias_relu), weights.fused(_bias_relu_add)
        self.stages = self._network(config.levels, config.blocks, config.inter_layers)
        del self.weights, self.state  # the stages hold their own arrays

    # ------------------------------------------------------------------ weights
    def _array(self, x: np.ndarray) -> mx.array:
        return self.weights.array(x)

    def _kernel(self, name: str, scale: np.ndarray | None = None) -> mx.array:
        """``[out, in, kh, kw]`` to MLX's ``[out, kh, kw, in]``."""
        kernel = self.weights.raw(f"{name}.weight").transpose(0, 2, 3, 1)
        return self._array(kernel if scale is None else kernel * scale[:, None, None, None])

    def _up_kernel(self, name: str, scale: np.ndarray | None = None) -> mx.array:
        """``[in, out, kh, kw]`` to MLX's ``[out, kh, kw, in]``."""
        kernel = self.weights.raw(f"{name}.weight").transpose(1, 2, 3, 0)
        return self._array(kernel if scale is None else kernel * scale[:, None, None, None])

    def _fused(self, kernel: np.ndarray, bias: np.ndarray, columns: int, *, up: bool = False) -> FusedConv | None:
        """``kernel [out, in, kh, kw]`` with the norm folded in, a ReLU after it; None where MLX's own has to serve."""
        if "fused_conv" not in self.methods:
            return None
        tile = fused_conv.tile_2d(kernel.shape[1], kernel.shape[0], columns, up=up)
        flat = kernel.reshape(*kernel.shape[:2], -1)
        kind = fused_conv.kind_of(self.weights.dtype)
        return fused_conv.make(tile, flat, bias, kind=kind, padding=0 if up else 1, then=fused_conv.LEAKY_RELU)

    def _norm(self, name: str, norm: str) -> Stage:
        leaves = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, var = (self._array(self.state[f"{norm}.{x}"]) for x in leaves)
        return leaf(name, lambda x: (x - mean) * mx.rsqrt(var + NORM_EPS) * weight + bias)

    # ------------------------------------------------------------------ stages
    def _network(self, levels: int, blocks: int, inter_layers: int) -> tuple[Stage, ...]:
        def stack(name: str, prefix: str, level: int) -> tuple[Stage, ...]:
            columns = self.bands >> level
            return tuple(self._block(f"{name}.{j}", f"{prefix}.{j}", columns) for j in range(blocks))

        encoder, mean = [self._norm("bn", "unet.encoder.bn")], self.weights.fused(_mean_of_four)
        for i in range(levels):
            parts = (*stack("conv", f"unet.encoder.layers.{i}.conv", i), _pool(f"skip.{i}", mean))
            encoder.append(group(f"layers.{i}", parts))
        intermediate = tuple(
            group(f"layers.{i}", stack("conv", f"unet.intermediate.layers.{i}.conv", levels))
            for i in range(inter_layers)
        )
        decoder = []
        for i in range(levels):
            prefix = f"unet.decoder.layers.{i}"
            level = levels - 1 - i
            up = self._up(f"{prefix}.conv1", level)
            parts = (up, _concat(f"skip.{level}"), *stack("conv2", f"{prefix}.conv2", level))
            decoder.append(group(f"layers.{i}", parts))
        unet = (group("encoder", tuple(encoder)), group("intermediate", intermediate), group("decoder", tuple(decoder)))
        kernel, bias = self._kernel("cnn"), self._array(self.state["cnn.bias"])
        return (
            group("unet", unet, axes=IMAGE),
            leaf("cnn", lambda x: mx.conv2d(x, kernel, padding=1) + bias, axes=IMAGE),
            leaf("flatten", lambda x: x.transpose(0, 1, 3, 2).flatten(2), axes=FEATURES),
        )

    def _block(self, name: str, prefix: str, columns: int) -> Stage:
        if "fold_norm" in self.methods:
            return self._folded_block(name, prefix, columns)
        return self._plain_block(name, prefix)

    def _plain_block(self, name: str, prefix: str) -> Stage:
        first, second = self._kernel(f"{prefix}.conv.0"), self._kernel(f"{prefix}.conv.3")

        parts = [
            leaf("conv.0", lambda x: mx.conv2d(x, first, padding=1), keep="residual"),
            self._norm("conv.1", f"{prefix}.conv.1"),
            leaf("conv.2", _relu),
            leaf("conv.3", lambda x: mx.conv2d(x, second, padding=1)),
            self._norm("conv.4", f"{prefix}.conv.4"),
            leaf("conv.5", _relu),
        ]
        if f"{prefix}.shortcut.weight" in self.state:
            kernel, bias = self._kernel(f"{prefix}.shortcut"), self._array(self.state[f"{prefix}.shortcut.bias"])
            parts.append(leaf("shortcut", lambda x: mx.conv2d(x, kernel) + bias, "residual"))
        return group(name, (*parts, plus("add", "residual")))

    def _folded_conv(self, name: str, norm: str, columns: int) -> Callable[..., mx.array]:
        """Of ``x``, and a residual or none: convolution, norm, ReLU, sum."""
        scale, shift = fold_norm(self.state, norm)
        raw = self.weights.raw(f"{name}.weight") * scale[:, None, None, None]
        if (fused := self._fused(raw, shift, columns)) is not None:
            return fused
        kernel, bias = self._kernel(name, scale), self._array(shift)

        def apply(x: mx.array, residual: mx.array | None = None) -> mx.array:
            y = mx.conv2d(x, kernel, padding=1)
            return self.bias_relu(y, bias) if residual is None else self.bias_relu_add(y, bias, residual)

        return apply

    def _folded_block(self, name: str, prefix: str, columns: int) -> Stage:
        first = self._folded_conv(f"{prefix}.conv.0", f"{prefix}.conv.1", columns)
        second = self._folded_conv(f"{prefix}.conv.3", f"{prefix}.conv.4", columns)
        shortcut = None
        if f"{prefix}.shortcut.weight" in self.state:
            kernel = self._array(self.state[f"{prefix}.shortcut.weight"][:, :, 0, 0].T)
            shortcut = (kernel, self._array(self.state[f"{prefix}.shortcut.bias"]))

        def apply(x: mx.array) -> mx.array:
            residual = x if shortcut is None else mx.addmm(shortcut[1], x, shortcut[0])
            y = second(first(x), residual)
            if self.bounded and y.nbytes >= layers.EVAL_BYTES and not recording.get():
                mx.eval(y)
            return y

        return leaf(name, apply)

    def _up(self, prefix: str, level: int) -> Stage:
        """Transposed convolution to twice the size (kernel 3, stride 2, padding 1, output padding 1), norm, ReLU."""
        if "fold_norm" in self.methods:
            scale, shift = fold_norm(self.state, f"{prefix}.1")
            whole = self._phases(f"{prefix}.0", scale)  # [down, right, in, row, column, out]
            kernel = whole.transpose(3, 4, 5, 2, 0, 1).reshape(-1, whole.shape[2], 2, 2)
            fused = self._fused(kernel, np.tile(shift, 4), self.bands >> (level + 1), up=True)
            if fused is not None:
                return leaf("conv1", fused)
            upsample, bias = self._upsampler(f"{prefix}.0", scale), self._array(shift)
            return leaf("conv1", lambda x: self.bias_relu(upsample(x), bias))
        norm = self._norm("1", f"{prefix}.1")
        return group("conv1", (leaf("0", self._upsampler(f"{prefix}.0", None)), norm, leaf("2", _relu)))

    def _upsampler(self, name: str, scale: np.ndarray | None) -> Callable[[mx.array], mx.array]:
        if "polyphase" in self.methods:
            whole = self._phases(name, scale)
            kernel = self._array(whole.reshape(4 * whole.shape[2], -1))
            return functools.partial(_polyphase, kernel=kernel)
        kernel = self._up_kernel(name, scale)
        return lambda x: mx.conv_transpose2d(x, kernel, stride=2, padding=1, output_padding=1)

    def _phases(self, name: str, scale: np.ndarray | None) -> np.ndarray:
        """``[2, 2, in, 2, 2, out]``: from the four neighbours at or after a position to its 2x2 outputs.

        An even output takes kernel tap 1 of its own input; an odd one tap 2 of its own and tap 0
        of the next, in rows and in columns.
        """
        k = np.asarray(self.state[f"{name}.weight"], np.float64).transpose(2, 3, 0, 1)
        k = k if scale is None else k * scale
        taps = {(0, 0): 1, (1, 0): 2, (1, 1): 0}  # (output parity, neighbour) -> tap
        c_in, c_out = k.shape[2:]
        whole = np.zeros((2, 2, c_in, 2, 2, c_out))
        for (row, down), i in taps.items():
            for (column, right), j in taps.items():
                whole[down, right, :, row, column] = k[i, j]
        return whole


def _polyphase(x: mx.array, kernel: mx.array) -> mx.array:
    """``[B, H, W, C] -> [B, 2H, 2W, O]`` as one matrix product and an interleave."""
    b, rows, columns, _ = x.shape
    padded = mx.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])
    neighbours = [padded[:, i : i + rows, j : j + columns] for i in (0, 1) for j in (0, 1)]
    y = (mx.concatenate(neighbours, axis=-1) @ kernel).reshape(b, rows, columns, 2, 2, -1)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * rows, 2 * columns, -1)


def _pool(skip: str, mean: Callable[..., mx.array]) -> Stage:
    def pool(x: mx.array) -> mx.array:
        # MLX's mean over two axes that are not the last took 7 % of the network's time on an H100
        return mean(*(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)))

    return leaf("pool", pool, keep=skip)


def _concat(skip: str) -> Stage:
    def apply(carry: Carry) -> None:
        carry["x"] = mx.concatenate([carry["x"], carry.pop(skip)], axis=-1)

    return Stage("concat", apply)
