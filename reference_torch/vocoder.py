"""HiFi-GAN decoders in PyTorch: with a harmonic source (NSF), without pitch, and Applio's MRF variant.

Method: Kong et al., "HiFi-GAN" (2020), with the source of Wang et al. (2019); behaviour and keys
as in IAHispano/Applio, revision b9c0ccb. Shapes: B = batch, T = 10 ms frames, N = samples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import leaky_relu

from rvc_common.config import HARMONICS_MRF, MRF, SynthesizerConfig
from rvc_common.stages import Stage, branches, group, leaf, plus

from .layers import weight_normed
from .source import HarmonicSource

SLOPE, LAST_SLOPE = 0.1, 0.01


def dilated(channels: int, kernel: int, dilation: int) -> nn.Conv1d:
    """A weight-normed convolution that keeps the length."""
    padding = dilation * (kernel - 1) // 2
    return weight_normed(nn.Conv1d(channels, channels, kernel, padding=padding, dilation=dilation))


def residual_stages(names: list[tuple[str, str]], layers: list[tuple[nn.Module, nn.Module]], slope: float) -> tuple:
    """Per pair: leaky ReLU, dilated convolution, leaky ReLU, convolution, sum with the pair's input."""

    def after_relu(layer: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: layer(leaky_relu(x, slope))

    stages: list[Stage] = []
    for (first_name, second_name), (first, second) in zip(names, layers, strict=True):
        stages.append(leaf(first_name, after_relu(first), keep="residual"))
        stages += [leaf(second_name, after_relu(second)), plus(f"{second_name}:sum", "residual")]
    return tuple(stages)


class ResidualBlock(nn.Module):
    """HiFi-GAN's block: keys ``convs1.i`` and ``convs2.i``."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...], slope: float = SLOPE) -> None:
        super().__init__()
        self.slope = slope
        self.convs1 = nn.ModuleList(dilated(channels, kernel, d) for d in dilations)
        self.convs2 = nn.ModuleList(dilated(channels, kernel, 1) for _ in dilations)

    def stages(self) -> tuple[Stage, ...]:
        pairs = list(zip(self.convs1, self.convs2, strict=True))
        return residual_stages([(f"convs1.{i}", f"convs2.{i}") for i in range(len(pairs))], pairs, self.slope)


class MRFLayer(nn.Module):
    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = dilated(channels, kernel, dilation)
        self.conv2 = dilated(channels, kernel, 1)


class MRFBlock(nn.Module):
    """The same block under other keys: ``layers.i.conv1`` and ``layers.i.conv2``."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MRFLayer(channels, kernel, d) for d in dilations)

    def stages(self) -> tuple[Stage, ...]:
        names = [(f"layers.{i}.conv1", f"layers.{i}.conv2") for i in range(len(self.layers))]
        return residual_stages(names, [(layer.conv1, layer.conv2) for layer in self.layers], SLOPE)


def averaged(names: list[str], blocks: list[tuple[Stage, ...]]) -> tuple[Stage, ...]:
    """Blocks that all start from the same value, then their mean."""
    return branches(names, blocks, lambda total: total / len(blocks))


class HiFiGAN(nn.Module):
    """``z [B, 192, T]``, ``f0 [B, T]``, speaker ``[B, G, 1]`` to audio ``[B, 1, N]`` in (-1, 1)."""

    def __init__(self, config: SynthesizerConfig, profile: str) -> None:
        super().__init__()
        self.config = config
        self.mrf = config.vocoder == MRF
        first, channels = config.upsample_initial_channel, config.channels
        pre = nn.Conv1d(config.inter_channels, first, 7, padding=3)
        post = nn.Conv1d(channels[-1], 1, 7, padding=3, bias=self.mrf)
        if config.has_f0:
            components = HARMONICS_MRF if self.mrf else 1
            self.m_source = HarmonicSource(config.sample_rate, config.hop_samples, components, profile)
            self.noise_convs = nn.ModuleList(self._noise_conv(i, profile) for i in range(len(channels)))
        self.conv_pre = weight_normed(pre) if self.mrf else pre
        self.conv_post = weight_normed(post) if self.mrf else post
        self.cond = nn.Conv1d(config.gin_channels, first, 1)
        ups = nn.ModuleList(self._up(i, profile) for i in range(len(channels)))
        pairs = list(zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True))
        if self.mrf:
            self.upsamples = ups
            self.mrfs = nn.ModuleList(nn.ModuleList(MRFBlock(c, k, d) for k, d in pairs) for c in channels)
        else:
            self.ups = ups
            self.resblocks = nn.ModuleList(ResidualBlock(c, k, d) for c in channels for k, d in pairs)

    def _up(self, i: int, profile: str) -> nn.Module:
        c, config = self.config.channels[i], self.config
        kernel, rate = config.upsample_kernel_sizes[i], config.upsample_rates[i]
        padding, output_padding = (kernel - rate) // 2, 0
        if config.has_f0 and profile == "applio" and rate % 2 == 1:
            padding, output_padding = rate // 2 + 1, 1
        return weight_normed(nn.ConvTranspose1d(2 * c, c, kernel, rate, padding, output_padding))

    def _noise_conv(self, i: int, profile: str) -> nn.Module:
        """From the source's rate to that of the i-th level; the last level has the source's rate already."""
        c, last = self.config.channels[i], len(self.config.channels) - 1
        if i == last:
            return nn.Conv1d(1, c, 1)
        stride = 1
        for rate in self.config.upsample_rates[i + 1 :]:
            stride *= rate
        if profile == "webui":
            return nn.Conv1d(1, c, 2 * stride, stride, stride // 2)
        kernel = 2 * stride - stride % 2
        return nn.Conv1d(1, c, kernel, stride, (kernel - stride) // 2)

    def source(self) -> tuple[Stage, ...]:
        return (group("m_source", self.m_source.stages(), product="source"),) if self.config.has_f0 else ()

    def stages(self) -> tuple[Stage, ...]:
        """From ``x`` (z), ``speaker`` and, with pitch, ``source [B, N, 1]``."""
        levels = [stage for i in range(len(self.config.channels)) for stage in self._level(i)]
        last = leaf(":last_relu", lambda x: leaky_relu(x, LAST_SLOPE))
        post = (last, leaf("conv_post", self.conv_post), leaf("tanh", torch.tanh))
        return (leaf("conv_pre", self.conv_pre), *condition(self.cond), *levels, *post)

    def _level(self, i: int) -> tuple[Stage, ...]:
        ups, blocks = (self.upsamples, self.mrfs[i]) if self.mrf else (self.ups, self._blocks(i))
        names = [f"mrfs.{i}.{j}" if self.mrf else f"resblocks.{i * len(blocks) + j}" for j in range(len(blocks))]

        def noise(source: torch.Tensor) -> torch.Tensor:
            return self.noise_convs[i](source.transpose(1, 2))

        up = leaf(f"upsamples.{i}" if self.mrf else f"ups.{i}", lambda x: ups[i](leaky_relu(x, SLOPE)))
        inject = (leaf(f"noise_convs.{i}", noise, "injected", of="source"), plus(f"noise_convs.{i}:sum", "injected"))
        return (up, *(inject if self.config.has_f0 else ()), *averaged(names, [b.stages() for b in blocks]))

    def _blocks(self, i: int) -> list[ResidualBlock]:
        count = len(self.config.resblock_kernel_sizes)
        return list(self.resblocks[i * count : (i + 1) * count])


def condition(layer: nn.Module) -> tuple[Stage, Stage]:
    """The speaker's offset, and its sum with the main value."""
    return leaf("cond", layer, "offset", of="speaker"), plus("cond:sum", "offset")
