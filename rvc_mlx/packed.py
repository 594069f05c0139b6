"""The RMVPE U-Net for CPUs: every convolution a chain of matrix products without copies.

MLX's CPU convolutions spend their time copying patches. Here an image of H rows (time) and W
columns (bands) is a *packed* matrix ``(positions, channels)``, positions row by row with one
zero column at the right end of each row. A tap of a 3x3 kernel is then a plain offset into the
matrix, so a convolution is nine products accumulated in place by ``addmm``.

A packed array covers positions ``[-halo, H * (W + 1) + halo)``; each convolution uses up
``W + 2`` positions of halo on both sides. Positions outside the image must be zero before every
convolution: the accumulator starts at the bias inside and at -1e30 outside, and the ReLU makes
that an exact zero.

Batch norms are folded into the kernels (in float64). Float32 only.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rvc_common.config import RMVPEConfig
from rvc_common.stages import FEATURES, IMAGE, Carry, Stage, group, leaf

from .runtime import mx

OUTSIDE = -1e30
NORM_EPS = 1e-5
TAPS = [(i, j) for i in range(3) for j in range(3)]

Weights = Mapping[str, np.ndarray]


def _array(x: np.ndarray) -> mx.array:
    return mx.array(np.ascontiguousarray(x, dtype=np.float32))


def fold_norm(state: Weights, norm: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift, float64 ``[C]`` each, that a batch norm applies when evaluated."""
    weight, bias, mean, var = (
        np.asarray(state[f"{norm}.{leaf}"], np.float64) for leaf in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / np.sqrt(var + NORM_EPS)
    return scale, bias - mean * scale


def _scaled(kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Kernels times a scale per output channel, in float32 or wider. The products are computed in float64, a few at a
    time: the largest kernels would take most of the time to load at that size."""
    found = np.array(kernel, np.promote_types(kernel.dtype, np.float32), order="C")
    return np.multiply(found, scale, out=found, dtype=np.float64, casting="same_kind")


class _Conv(NamedTuple):
    """Per input its kernels (nine, or one where 1x1), and bias rows ``[[bias], [outside]]``."""

    kernels: list[list[mx.array]]
    start: mx.array


class _Block(NamedTuple):
    first: _Conv
    second: _Conv
    shortcut: _Conv | None


class _Up(NamedTuple):
    even: list[mx.array]
    odd: list[mx.array]
    start: mx.array


def _conv(state: Weights, conv: str, norm: str, inputs: tuple[int, ...]) -> _Conv:
    scale, shift = fold_norm(state, norm)
    kernel = _scaled(state[f"{conv}.weight"].transpose(2, 3, 1, 0), scale)
    edges = np.cumsum((0, *inputs))
    kernels = [[_array(kernel[i, j, a:b]) for i, j in TAPS] for a, b in itertools.pairwise(edges)]
    return _Conv(kernels, _array(np.stack([shift, np.full_like(shift, OUTSIDE)])))


def _block(state: Weights, name: str, inputs: tuple[int, ...] | None = None) -> _Block:
    inputs = inputs or (state[f"{name}.conv.0.weight"].shape[1],)
    first = _conv(state, f"{name}.conv.0", f"{name}.conv.1", inputs)
    c_out = first.start.shape[1]
    second = _conv(state, f"{name}.conv.3", f"{name}.conv.4", (c_out,))
    if f"{name}.shortcut.weight" not in state:
        return _Block(first, second, None)
    kernel, bias = state[f"{name}.shortcut.weight"][:, :, 0, 0].T, state[f"{name}.shortcut.bias"]
    edges = np.cumsum((0, *inputs))
    kernels = [[_array(kernel[a:b])] for a, b in itertools.pairwise(edges)]
    return _Block(first, second, _Conv(kernels, _array(np.stack([bias, np.zeros_like(bias)]))))


def _up(state: Weights, name: str) -> _Up:
    """Transposed convolution, stride 2, padding 1, output padding 1, by output parity.

    Output row 2j takes kernel row 1 of input row j; row 2j + 1 takes row 2 of j and row 0 of
    j + 1, and columns likewise; the products make even and odd columns side by side, which interleaves
    them in memory at no cost.
    """
    scale, shift = fold_norm(state, f"{name}.1")
    k = _scaled(state[f"{name}.0.weight"].transpose(2, 3, 0, 1), scale)
    zero = np.zeros_like(k[0, 0])

    def pair(even: np.ndarray, odd: np.ndarray) -> mx.array:
        return _array(np.concatenate([even, odd], axis=1))

    twice = np.concatenate([shift, shift])
    return _Up(
        even=[pair(k[1, 1], k[1, 2]), pair(zero, k[1, 0])],
        odd=[pair(k[2, 1], k[2, 2]), pair(zero, k[2, 0]), pair(k[0, 1], k[0, 2]), pair(zero, k[0, 0])],
        start=_array(np.stack([twice, np.full_like(twice, OUTSIDE)])),
    )


class PackedUNet:
    """``mel [T, bands] -> [1, T, 3 * bands]`` (norm, U-Net, ``cnn`` and flattening).

    T must be a multiple of 2 ** levels; ``state`` holds upstream's keys.
    """

    def __init__(self, state: Weights, config: RMVPEConfig) -> None:
        def stack(name: str, inputs: tuple[int, ...] | None = None) -> list[_Block]:
            return [_block(state, f"{name}.{j}", None if j else inputs) for j in range(config.blocks)]

        scale, shift = fold_norm(state, "unet.encoder.bn")
        self.levels, self.input_norm = config.levels, (float(scale[0]), float(shift[0]))
        self.encoder = [stack(f"unet.encoder.layers.{i}.conv") for i in range(self.levels)]
        self.intermediate = [stack(f"unet.intermediate.layers.{i}.conv") for i in range(config.inter_layers)]
        self.up = [_up(state, f"unet.decoder.layers.{i}.conv1") for i in range(self.levels)]
        widths = [up.start.shape[1] // 2 for up in self.up]
        self.decoder = [stack(f"unet.decoder.layers.{i}.conv2", (c, c)) for i, c in enumerate(widths)]
        # (taps * 3, C): one product makes all 27 partial images
        self.cnn_kernel = _array(state["cnn.weight"].transpose(2, 3, 0, 1).reshape(27, -1))
        self.cnn_bias = [float(b) for b in state["cnn.bias"]]
        self._masks: dict[tuple[int, int, int], mx.array] = {}

    # ------------------------------------------------------------------ stages
    def stages(self, rows: int, bands: int) -> tuple[Stage, ...]:
        """The stages for an image of this size; the carry's ``x`` goes from ``[T, bands]`` to ``[1, T, 3 * bands]``."""
        sizes = [(rows >> i, bands >> i) for i in range(self.levels + 1)]
        encoder = [Stage("bn", lambda carry: self._enter(carry, sizes[0]))]
        for i, layer in enumerate(self.encoder):
            pool = Stage("pool", functools.partial(self._pool, skip=f"skip.{i}", size=sizes[i]))
            encoder.append(group(f"layers.{i}", (*self._blocks("conv", layer, sizes[i]), pool)))
        bottom = sizes[-1]
        intermediate = [
            group(f"layers.{i}", self._blocks("conv", layer, bottom)) for i, layer in enumerate(self.intermediate)
        ]
        decoder = []
        for i, (up, layer) in enumerate(zip(self.up, self.decoder, strict=True)):
            level = self.levels - 1 - i
            concat = Stage("concat", functools.partial(self._concat, skip=f"skip.{level}"))
            parts = (self._up_stage(up, sizes[level]), concat, *self._blocks("conv2", layer, sizes[level]))
            decoder.append(group(f"layers.{i}", parts))
        unet = (
            group("encoder", tuple(encoder)),
            group("intermediate", tuple(intermediate)),
            group("decoder", tuple(decoder)),
        )
        cnn = Stage("cnn", lambda carry: self._exit(carry, sizes[0]), axes=IMAGE)
        return (
            group("unet", unet, axes=IMAGE),
            cnn,
            leaf("flatten", lambda x: x.reshape(1, x.shape[0], -1), axes=FEATURES),
        )

    def _blocks(self, name: str, blocks: list[_Block], size: tuple[int, int]) -> tuple[Stage, ...]:
        rows, width = size[0], size[1] + 1
        need = 2 * (width + 1)
        # one halo for all blocks while it is small compared with the image, else one per block
        span = len(blocks) if need * len(blocks) * 16 < rows * width else 1

        def stage(index: int, block: _Block) -> Stage:
            def apply(carry: Carry) -> None:
                if index % span == 0:
                    halo = need * min(span, len(blocks) - index)
                    inputs = [carry["x"], carry.pop("concat")] if "concat" in carry else [carry["x"]]
                    carry["x"] = [self._extend(x, halo) for x in inputs]
                    carry["halo"] = halo
                carry["x"] = [self._residual(carry["x"], block, size, carry["halo"])]
                carry["halo"] -= need
                if carry["halo"] == 0:
                    carry["x"] = carry["x"][0]
                    mx.async_eval(carry["x"])

            return Stage(f"{name}.{index}", apply)

        return tuple(stage(i, block) for i, block in enumerate(blocks))

    # ------------------------------------------------------------------ arithmetic
    def _mask(self, size: tuple[int, int], halo: int) -> mx.array:
        """``[positions, 2]``: (1, 0) inside the image and (0, 1) outside."""
        rows, bands = size
        key = (rows, bands, halo)
        if key not in self._masks:
            inside = np.zeros((rows, bands + 1, 1), np.float32)
            inside[:, :bands] = 1
            inside = np.pad(inside.reshape(-1, 1), ((halo, halo), (0, 0)))
            self._masks[key] = _array(np.concatenate([inside, 1 - inside], axis=1))
        return self._masks[key]

    def _extend(self, x: mx.array, halo: int) -> mx.array:
        border = mx.zeros((halo, x.shape[1]))
        return mx.concatenate([border, x, border])

    def _start(self, conv: _Conv, size: tuple[int, int], halo: int) -> mx.array:
        return self._mask(size, halo) @ conv.start

    def _convolve(self, inputs: list[mx.array], conv: _Conv, size: tuple[int, int], halo: int) -> mx.array:
        """3x3; inputs with ``halo + W + 2`` positions around the image, the result with ``halo``."""
        width = size[1] + 1
        total = self._start(conv, size, halo)
        count = total.shape[0]
        if inputs[0].shape[1] == 1:  # one channel: nine products of width 1 would be all overhead
            flat = inputs[0].reshape(-1)
            taps = mx.stack([flat[i * width + j :][:count] for i, j in TAPS], axis=1)
            return mx.addmm(total, taps, mx.concatenate(conv.kernels[0]))
        for x, kernels in zip(inputs, conv.kernels, strict=True):
            for (i, j), kernel in zip(TAPS, kernels, strict=True):
                offset = i * width + j
                total = mx.addmm(total, x[offset : offset + count], kernel)
        return total

    def _residual(self, inputs: list[mx.array], block: _Block, size: tuple[int, int], halo: int) -> mx.array:
        step = size[1] + 2
        y = mx.maximum(self._convolve(inputs, block.first, size, halo - step), 0.0)
        y = mx.maximum(self._convolve([y], block.second, size, halo - 2 * step), 0.0)
        kept = [x[2 * step : x.shape[0] - 2 * step] for x in inputs]
        if block.shortcut is None:
            return y + kept[0]
        short = self._start(block.shortcut, size, halo - 2 * step)
        for x, kernels in zip(kept, block.shortcut.kernels, strict=True):
            short = mx.addmm(short, x, kernels[0])
        return y + short

    def _enter(self, carry: Carry, size: tuple[int, int]) -> None:
        scale, shift = self.input_norm
        carry["x"] = mx.pad(carry["x"] * scale + shift, [(0, 0), (0, 1)]).reshape(-1, 1)

    def _pool(self, carry: Carry, skip: str, size: tuple[int, int]) -> None:
        rows, bands = size
        x = carry[skip] = carry["x"]
        c = x.shape[1]
        pairs = x.reshape(rows // 2, 2, bands + 1, c)
        pairs = pairs[:, 0] + pairs[:, 1]
        pairs = mx.as_strided(pairs, (rows // 2, bands // 2, 2, c), ((bands + 1) * c, 2 * c, c, 1))
        pooled = (pairs[:, :, 0] + pairs[:, :, 1]) * 0.25
        carry["x"] = mx.pad(pooled, [(0, 0), (0, 1), (0, 0)]).reshape(-1, c)

    def _concat(self, carry: Carry, skip: str) -> None:
        """Kept apart: the next convolution takes two inputs."""
        carry["concat"] = carry.pop(skip)

    def _up_stage(self, up: _Up, size: tuple[int, int]) -> Stage:
        rows, bands = size[0] // 2, size[1] // 2
        width = bands + 1

        def apply(carry: Carry) -> None:
            x = mx.pad(carry["x"], [(0, width + 1), (0, 0)])  # the row below the last, and one
            start = self._mask((rows, bands), 0) @ up.start
            offsets = (0, 1, width, width + 1)
            halves = []
            for kernels in (up.even, up.odd):
                total = start
                for offset, kernel in zip(offsets, kernels, strict=False):
                    total = mx.addmm(total, x[offset : offset + rows * width], kernel)
                # 2 * (bands + 1) columns were made; the image has 2 * bands and one zero column
                c = kernels[0].shape[1] // 2
                total = mx.maximum(total, 0.0).reshape(rows, 1, 2 * width * c)
                halves.append(total[:, :, : (2 * bands + 1) * c])
            carry["x"] = mx.concatenate(halves, axis=1).reshape(-1, c)

        return Stage("conv1", apply)

    def _exit(self, carry: Carry, size: tuple[int, int]) -> None:
        rows, bands = size
        width = bands + 1
        x = self._extend(carry["x"], width + 1)
        partial = self.cnn_kernel @ x.T
        count = rows * width
        channels = []
        for channel, bias in enumerate(self.cnn_bias):
            parts = [partial[tap * 3 + channel, i * width + j :][:count] for tap, (i, j) in enumerate(TAPS)]
            image = sum(parts[1:], parts[0]) + bias
            channels.append(image.reshape(rows, 1, width)[:, :, :bands])
        carry["x"] = mx.concatenate(channels, axis=1)


def unpack(x: mx.array, rows: int, bands: int) -> mx.array:
    """A packed array without halo as ``[1, C, rows, bands]`` (PyTorch's layout)."""
    return x.reshape(rows, bands + 1, -1)[:, :bands].transpose(2, 0, 1)[None]


def pack(image: np.ndarray, halo: int) -> mx.array:
    """The inverse, with ``halo`` positions of zeros around it."""
    with_column = np.pad(image[0].transpose(1, 2, 0), ((0, 0), (0, 1), (0, 0)))
    return _array(np.pad(with_column.reshape(-1, image.shape[1]), ((halo, halo), (0, 0))))
