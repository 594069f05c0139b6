"""HiFi-GAN decoders in MLX: with a harmonic source (NSF), without pitch, and Applio's MRF variant.

Method: Kong et al., "HiFi-GAN" (2020), with the source of Wang et al. (2019); behaviour and keys
as in IAHispano/Applio, revision b9c0ccb. Shapes: B = batch, T = 10 ms frames, N = samples; channels last.
"""

from __future__ import annotations

import math

from rvc_common import stages
from rvc_common.config import HARMONICS_MRF, MRF, SynthesizerConfig
from rvc_common.stages import Carry, Stage, group, leaf, plus

from .fused_conv import FusedConv
from .keys import noise_convolution
from .layers import Layer, Weights
from .runtime import mx
from .source import HarmonicSource

SLOPE, LAST_SLOPE = 0.1, 0.01


def residual_stages(
    prefix: str, names: list[tuple[str, str]], kernel: int, dilations: tuple[int, ...], slope: float, weights: Weights
) -> tuple[Stage, ...]:
    """Per pair: leaky ReLU, dilated convolution, leaky ReLU, convolution, sum with the pair's input."""

    def after_relu(name: str, dilation: int) -> Layer:
        padding = dilation * (kernel - 1) // 2
        return weights.conv(f"{prefix}.{name}", padding=padding, dilation=dilation, slope=slope, long=True)

    found: list[Stage] = []
    for (first_name, second_name), d in zip(names, dilations, strict=True):
        found.append(leaf(first_name, after_relu(first_name, d), keep="residual"))
        second = after_relu(second_name, 1)
        if isinstance(second, FusedConv):
            found.append(_sum_in_kernel(f"{second_name}:sum", second))
        else:
            found += [leaf(second_name, second), plus(f"{second_name}:sum", "residual")]
    return tuple(found)


def _sum_in_kernel(name: str, layer: FusedConv) -> Stage:
    def apply(carry: Carry) -> None:
        carry["x"] = layer(carry["x"], carry.pop("residual"))

    return Stage(name, apply)


def branches(names: list[str], blocks: list[tuple[Stage, ...]], weights: Weights) -> tuple[Stage, ...]:
    """Blocks that all start from the same value, then their mean."""
    return stages.branches(names, blocks, lambda total: total * (1 / len(blocks)), weights.settle)


def upsampling(config: SynthesizerConfig, i: int, profile: str) -> tuple[int, int]:
    """Padding and output padding of the i-th transposed convolution.

    Odd rates of Applio's voices with pitch get an output padding of 1; the excess of the kernel and
    the output padding over the rate is cut off both ends.
    """
    rate, kernel = config.upsample_rates[i], config.upsample_kernel_sizes[i]
    extra = rate % 2 if config.has_f0 and profile == "applio" else 0
    # upstream's rule for odd rates takes the kernel to be twice the rate, whatever it is
    excess = rate + extra if extra else kernel - rate
    return excess // 2, extra


class HiFiGAN:
    """``z [B, T, 192]``, ``f0 [B, T]``, speaker ``[B, 1, G]`` to audio ``[B, N, 1]`` in (-1, 1)."""

    def __init__(self, config: SynthesizerConfig, profile: str, weights: Weights) -> None:
        self.config, self.profile, self.mrf = config, profile, config.vocoder == MRF
        components = HARMONICS_MRF if self.mrf else 1
        self.source: tuple[Stage, ...] = ()
        if config.has_f0:
            m_source = HarmonicSource(config, components, profile, weights).stages()
            self.source = (group("m_source", m_source, product="source"),)
        levels = [self._level(i, weights) for i in range(len(config.channels))]
        # in two parts, so that long audio can take the second, whose arrays are large, in small pieces
        self.coarse = (
            leaf("conv_pre", weights.conv("dec.conv_pre", padding=3)),
            *condition(weights.linear("dec.cond")),
            *levels[0],
        )
        self.fine = (
            *(stage for level in levels[1:] for stage in level),
            leaf(":last_relu", weights.leaky_relu(LAST_SLOPE)),
            leaf("conv_post", weights.conv("dec.conv_post", padding=3, long=True)),
            leaf("tanh", mx.tanh),
        )
        self.stages = (*self.coarse, *self.fine)
        self.coarse_halo = math.ceil(3 + self._reach(0))
        self.fine_halo = math.ceil(sum(map(self._reach, range(1, len(levels)))) + 3 / config.hop_samples)

    def _reach(self, i: int) -> float:
        """Frames on either side that a value after the i-th level depends on through that level."""
        config = self.config
        before = math.prod(config.upsample_rates[:i])
        up = -(-config.upsample_kernel_sizes[i] // config.upsample_rates[i]) / before
        pairs = zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
        blocks = max(sum((k // 2) * (d + 1) for d in dilations) for k, dilations in pairs)
        return up + blocks / (before * config.upsample_rates[i])

    def _level(self, i: int, weights: Weights) -> tuple[Stage, ...]:
        config = self.config
        padding, extra = upsampling(config, i, self.profile)
        name = f"upsamples.{i}" if self.mrf else f"ups.{i}"
        up = weights.conv_transpose(
            f"dec.{name}", stride=config.upsample_rates[i], padding=padding, output_padding=extra, slope=SLOPE
        )
        stages = [leaf(name, up)]
        if config.has_f0:
            stages += self._noise(i, weights)
        pairs = list(zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True))
        count = len(pairs)
        names = [f"mrfs.{i}.{j}" if self.mrf else f"resblocks.{i * count + j}" for j in range(count)]
        inner = "layers.{0}.conv1 layers.{0}.conv2" if self.mrf else "convs1.{0} convs2.{0}"
        blocks = []
        for block, (kernel, dilations) in zip(names, pairs, strict=True):
            keys = [inner.format(j).split() for j in range(len(dilations))]
            blocks.append(residual_stages(f"dec.{block}", [(a, b) for a, b in keys], kernel, dilations, SLOPE, weights))
        return (*stages, *branches(names, blocks, weights))

    def _noise(self, i: int, weights: Weights) -> tuple[Stage, Stage]:
        _, stride, padding = noise_convolution(self.config, i, self.profile)
        conv = weights.conv(f"dec.noise_convs.{i}", stride=stride, padding=padding)
        return leaf(f"noise_convs.{i}", conv, "injected", of="source"), plus(f"noise_convs.{i}:sum", "injected")


def condition(layer: Layer) -> tuple[Stage, Stage]:
    """The speaker's offset, and its sum with the main value."""
    return leaf("cond", layer, "offset", of="speaker"), plus("cond:sum", "offset")
