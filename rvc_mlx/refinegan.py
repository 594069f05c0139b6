"""Applio's RefineGAN decoder in MLX: the source is filtered down to frames and back up.

Method: Xu et al., "RefineGAN" (2021); behaviour and keys as in IAHispano/Applio, revision b9c0ccb.
Resampling: the Kaiser-windowed sinc of torchaudio. Shapes: B = batch, T = 10 ms frames, N = samples; channels last.
"""

from __future__ import annotations

import math

import numpy as np

from rvc_common.config import SynthesizerConfig
from rvc_common.stages import Carry, Stage, group, leaf

from .keys import REFINEGAN_DILATIONS as DILATIONS
from .keys import REFINEGAN_KERNELS as KERNELS
from .layers import Weights
from .runtime import mx
from .source import InterpolatedSource
from .vocoder import branches, condition, residual_stages

SLOPE = 0.2
SINC_ZEROS, ROLLOFF, KAISER_BETA = 64, 0.9475937167399596, 14.769656459379492


def sinc_kernel(rate: int) -> np.ndarray:
    """Low-pass filter for keeping every ``rate``-th sample, float64; taps from ``-width`` to ``width + rate - 1``."""
    width = math.ceil(SINC_ZEROS * rate / ROLLOFF)
    t = np.clip(np.arange(-width, width + rate) / rate * ROLLOFF, -SINC_ZEROS, SINC_ZEROS)
    window = np.i0(KAISER_BETA * np.sqrt(1 - (t / SINC_ZEROS) ** 2)) / np.i0(KAISER_BETA)
    return np.sinc(t) * window * ROLLOFF / rate


def decimate(x: mx.array, kernel: mx.array, rate: int) -> mx.array:
    """``[B, L, C] -> [B, ceil(L / rate), C]``."""
    batch, length, c = x.shape
    width = (kernel.size - rate) // 2
    rows = mx.pad(x.transpose(0, 2, 1).reshape(batch * c, length, 1), [(0, 0), (width, width + rate), (0, 0)])
    y = mx.conv1d(rows, kernel.reshape(1, -1, 1), stride=rate)[:, : -(-length // rate)]
    return y.reshape(batch, c, -1).transpose(0, 2, 1)


def stretch(x: mx.array, rate: int) -> mx.array:
    """``[B, T, C] -> [B, T * rate, C]``: linear, by the half-pixel rule, ends held."""
    frames = x.shape[1]
    at = np.clip((np.arange(frames * rate) + 0.5) / rate - 0.5, 0, frames - 1)
    left = np.floor(at).astype(np.int32)
    weight = mx.array((at - left).astype(np.float32))[:, None].astype(x.dtype)
    right = np.minimum(left + 1, frames - 1)
    return x[:, mx.array(left)] * (1 - weight) + x[:, mx.array(right)] * weight


def _injection(name: str, weights: Weights) -> tuple[Stage, ...]:
    """Adds noise, one level per channel, then a leaky ReLU (upstream calls it AdaIN)."""
    level, leaky_relu = weights.array(weights.state[f"{name}.weight"]), weights.leaky_relu(SLOPE)

    def inject(carry: Carry) -> None:
        x = carry["x"]
        batch, length, c = x.shape
        noise = mx.array(carry["draws"]("normal", (batch, c, length))).transpose(0, 2, 1).astype(x.dtype)
        carry["x"] = leaky_relu(x + level * noise)

    return (Stage(":injected", inject),)


def _parallel_blocks(name: str, weights: Weights) -> tuple[Stage, ...]:
    """A convolution, then three branches (noise, residual block, noise) and their mean."""
    names = [(f"convs1.{i}", f"convs2.{i}") for i in range(len(DILATIONS))]
    blocks = []
    for i, kernel in enumerate(KERNELS):
        prefix = f"{name}.blocks.{i}"
        residual = residual_stages(f"{prefix}.1", names, kernel, DILATIONS, SLOPE, weights)
        parts = (_injection(f"{prefix}.0", weights), residual, _injection(f"{prefix}.2", weights))
        blocks.append(tuple(group(str(j), part) for j, part in enumerate(parts)))
    first = leaf("input_conv", weights.conv(f"{name}.input_conv", padding=3))
    return (first, *branches([f"blocks.{i}" for i in range(len(KERNELS))], blocks, weights))


class RefineGAN:
    """``z [B, T, 192]``, ``f0 [B, T]``, speaker ``[B, 1, G]`` to audio ``[B, N, 1]`` in (-1, 1)."""

    def __init__(self, config: SynthesizerConfig, weights: Weights) -> None:
        self.config = config
        self.source = (group("m_source", InterpolatedSource(config, weights).stages(), product="source"),)
        count = len(config.upsample_rates)
        pre_conv, mel_conv = (weights.conv(f"dec.{name}", padding=3) for name in ("pre_conv", "mel_conv"))

        def enter(carry: Carry) -> None:
            carry["z"] = carry["x"]
            carry["x"] = pre_conv(carry["source"])

        def latent(carry: Carry) -> None:
            carry["down"] = carry["x"]
            carry["x"] = mel_conv(carry.pop("z"))

        self.stages = (
            Stage("pre_conv", enter),
            *(stage for i in range(count) for stage in self._down(i, weights)),
            Stage("mel_conv", latent),
            *condition(weights.linear("dec.cond")),
            _joined(":joined", "down"),
            *(stage for i in range(count) for stage in self._up(i, weights)),
            leaf(":last_relu", weights.leaky_relu(SLOPE)),
            leaf("conv_post", weights.conv("dec.conv_post", padding=3)),
            leaf("tanh", mx.tanh),
        )

    def _down(self, i: int, weights: Weights) -> tuple[Stage, ...]:
        rate = self.config.upsample_rates[-1 - i]
        kernel, leaky_relu = weights.array(sinc_kernel(rate)), weights.leaky_relu(SLOPE)

        def reduce(carry: Carry) -> None:
            carry[f"kept.{i}"] = leaky_relu(carry["x"])
            carry["x"] = decimate(carry[f"kept.{i}"], kernel, rate)

        name = f"downsample_blocks.{i}"
        return (Stage(f"{name}:input", reduce), leaf(name, weights.conv(f"dec.{name}", padding=3)))

    def _up(self, i: int, weights: Weights) -> tuple[Stage, ...]:
        rate, kept = self.config.upsample_rates[i], f"kept.{len(self.config.upsample_rates) - 1 - i}"

        name, leaky_relu = f"upsample_conv_blocks.{i}", weights.leaky_relu(SLOPE)
        block = _parallel_blocks(f"dec.{name}", weights)
        enlarge = leaf(f"upsample_blocks.{i}", lambda x: stretch(leaky_relu(x), rate))
        return (enlarge, _joined(f"{name}:input", kept), group(name, block))


def _joined(name: str, entry: str) -> Stage:
    def join(carry: Carry) -> None:
        carry["x"] = mx.concatenate([carry["x"], carry.pop(entry)], axis=-1)

    return Stage(name, join)
