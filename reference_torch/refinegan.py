"""Applio's RefineGAN decoder in PyTorch: the source is filtered down to frames and back up.

Method: Xu et al., "RefineGAN" (2021); behaviour and keys as in IAHispano/Applio, revision b9c0ccb.
Resampling: the Kaiser-windowed sinc of torchaudio. Shapes: B = batch, T = 10 ms frames, N = samples.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate, leaky_relu, pad

from rvc_common.config import SynthesizerConfig
from rvc_common.stages import Carry, Stage, group, leaf

from .layers import weight_normed
from .source import InterpolatedSource
from .vocoder import ResidualBlock, averaged, condition

SLOPE = 0.2
KERNELS, DILATIONS = (3, 7, 11), (1, 3, 5)
SINC_ZEROS, ROLLOFF, KAISER_BETA = 64, 0.9475937167399596, 14.769656459379492


def sinc_kernel(rate: int) -> np.ndarray:
    """Low-pass filter for keeping every ``rate``-th sample, float64; taps from ``-width`` to ``width + rate - 1``."""
    width = math.ceil(SINC_ZEROS * rate / ROLLOFF)
    t = np.clip(np.arange(-width, width + rate) / rate * ROLLOFF, -SINC_ZEROS, SINC_ZEROS)
    window = np.i0(KAISER_BETA * np.sqrt(1 - (t / SINC_ZEROS) ** 2)) / np.i0(KAISER_BETA)
    return np.sinc(t) * window * ROLLOFF / rate


def decimate(x: torch.Tensor, rate: int) -> torch.Tensor:
    """``[B, C, L] -> [B, C, ceil(L / rate)]``."""
    kernel = torch.from_numpy(sinc_kernel(rate)).to(x)
    width = (kernel.shape[0] - rate) // 2
    batch, channels, length = x.shape
    rows = pad(x.reshape(batch * channels, 1, length), (width, width + rate))
    y = nn.functional.conv1d(rows, kernel[None, None], stride=rate)
    return y.reshape(batch, channels, -1)[..., : -(-length // rate)]


class NoiseInjection(nn.Module):
    """Adds noise, one level per channel, then a leaky ReLU (upstream calls it AdaIN)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))

    def stages(self) -> tuple[Stage, ...]:
        def inject(carry: Carry) -> None:
            x = carry["x"]
            noise = carry["convert"](carry["draws"]("normal", tuple(x.shape))).to(x.dtype)
            carry["x"] = leaky_relu(x + self.weight[:, None] * noise, SLOPE)

        return (Stage(":injected", inject),)


class ParallelBlocks(nn.Module):
    """A convolution, then three branches (noise, residual block, noise) and their mean."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.input_conv = nn.Conv1d(c_in, c_out, 7, padding=3)
        self.blocks = nn.ModuleList(
            nn.Sequential(NoiseInjection(c_out), ResidualBlock(c_out, k, DILATIONS, SLOPE), NoiseInjection(c_out))
            for k in KERNELS
        )

    def stages(self) -> tuple[Stage, ...]:
        parts = [tuple(group(str(j), m.stages()) for j, m in enumerate(block)) for block in self.blocks]
        return (leaf("input_conv", self.input_conv), *averaged([f"blocks.{i}" for i in range(len(KERNELS))], parts))


class RefineGAN(nn.Module):
    """``z [B, 192, T]``, ``f0 [B, T]``, speaker ``[B, G, 1]`` to audio ``[B, 1, N]`` in (-1, 1)."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.config = config
        half = config.upsample_initial_channel // 2
        down = config.reduced_channels
        self.m_source = InterpolatedSource(config.sample_rate, config.hop_samples)
        self.pre_conv = weight_normed(nn.Conv1d(1, down[0], 7, padding=3))
        self.downsample_blocks = nn.ModuleList(
            weight_normed(nn.Conv1d(a, b, 7, padding=3)) for a, b in itertools.pairwise(down)
        )
        self.mel_conv = weight_normed(nn.Conv1d(config.inter_channels, half, 7, padding=3))
        self.cond = nn.Conv1d(config.gin_channels, half, 1)
        # a stage's input is the upsampled value concatenated with the skip of its level
        self.upsample_conv_blocks = nn.ModuleList(ParallelBlocks(2 * c + c // 2, c) for c in config.channels)
        self.conv_post = weight_normed(nn.Conv1d(config.channels[-1], 1, 7, padding=3, bias=False))

    def source(self) -> tuple[Stage, ...]:
        return (group("m_source", self.m_source.stages(), product="source"),)

    def stages(self) -> tuple[Stage, ...]:
        """From ``x`` (z), ``speaker``, ``source [B, N, 1]``, ``draws`` and ``convert``."""
        count = len(self.config.upsample_rates)

        def enter(carry: Carry) -> None:
            carry["z"] = carry["x"]
            carry["x"] = self.pre_conv(carry["source"].transpose(1, 2))

        def latent(carry: Carry) -> None:
            carry["down"] = carry["x"]
            carry["x"] = self.mel_conv(carry.pop("z"))

        return (
            Stage("pre_conv", enter),
            *(stage for i in range(count) for stage in self._down(i)),
            Stage("mel_conv", latent),
            *condition(self.cond),
            _joined(":joined", "down"),
            *(stage for i in range(count) for stage in self._up(i)),
            leaf(":last_relu", lambda x: leaky_relu(x, SLOPE)),
            leaf("conv_post", self.conv_post),
            leaf("tanh", torch.tanh),
        )

    def _down(self, i: int) -> tuple[Stage, ...]:
        rate = self.config.upsample_rates[-1 - i]

        def reduce(carry: Carry) -> None:
            carry[f"kept.{i}"] = leaky_relu(carry["x"], SLOPE)
            carry["x"] = decimate(carry[f"kept.{i}"], rate)

        reduced = Stage(f"downsample_blocks.{i}:input", reduce)
        return (reduced, leaf(f"downsample_blocks.{i}", self.downsample_blocks[i]))

    def _up(self, i: int) -> tuple[Stage, ...]:
        rate, kept = self.config.upsample_rates[i], f"kept.{len(self.config.upsample_rates) - 1 - i}"

        def enlarge(x: torch.Tensor) -> torch.Tensor:
            return interpolate(leaky_relu(x, SLOPE), scale_factor=rate, mode="linear")

        block = self.upsample_conv_blocks[i].stages()
        name = f"upsample_conv_blocks.{i}"
        return (leaf(f"upsample_blocks.{i}", enlarge), _joined(f"{name}:input", kept), group(name, block))


def _joined(name: str, entry: str) -> Stage:
    def join(carry: Carry) -> None:
        carry["x"] = torch.cat([carry["x"], carry.pop(entry)], dim=1)

    return Stage(name, join)
