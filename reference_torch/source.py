"""The harmonic source of the NSF vocoders in PyTorch.

Method: Wang et al., "Neural source-filter waveform models" (2019); behaviour as in
IAHispano/Applio, revision b9c0ccb. Shapes: B = batch, T = 10 ms frames, N = samples, K = components.

The running sum of the phase is kept in float64 and reduced to one cycle before it meets float32:
unreduced, its rounding would be the largest error of the whole source.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from rvc_common.noise import start_phases
from rvc_common.stages import Carry, Stage, leaf

SINE_AMPLITUDE, NOISE_DEVIATION = 0.1, 0.003

Convert = Callable[[np.ndarray], torch.Tensor]


def frame_phase(f0: np.ndarray, sample_rate: int, hop: int, components: int) -> np.ndarray:
    """Cycles in [0, 1) before each frame: ``[B, T] -> [B, T, K]``, float64, of f0 times 1 .. K."""
    cycles = f0.astype(np.float64)[..., None] * np.arange(1, components + 1) * hop / sample_rate
    before = np.cumsum(cycles % 1.0, axis=1) - cycles % 1.0
    return before % 1.0


def sine(f0: np.ndarray, sample_rate: int, hop: int, start: np.ndarray, convert: Convert) -> torch.Tensor:
    """Sines of f0, constant within a frame, and its multiples: ``[B, T] -> [B, N, K]``.

    ``start [B or 1, K]``: phases in cycles. The first sample already has one increment.
    """
    components = start.shape[-1]
    offset = convert((frame_phase(f0, sample_rate, hop, components) + start[:, None]) % 1.0)
    step = convert(f0.astype(np.float64)[..., None] * np.arange(1, components + 1) / sample_rate)
    position = torch.arange(1, hop + 1, dtype=step.dtype, device=step.device)[:, None]
    phase = step.unsqueeze(2) * position + offset.unsqueeze(2)
    return torch.sin(2 * torch.pi * phase.frac()).flatten(1, 2)


def sine_of_samples(f0: np.ndarray, sample_rate: int, start: np.ndarray, convert: Convert) -> torch.Tensor:
    """One sine of an f0 that changes with every sample: ``[B, N] -> [B, N, 1]``; ``start [B, 1]``."""
    phase = np.cumsum(f0.astype(np.float64) / sample_rate, axis=1) + start
    return torch.sin(2 * torch.pi * convert((phase % 1.0)[..., None]))


def with_noise(sines: torch.Tensor, voiced: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Sines where voiced, with a little noise; noise alone elsewhere. ``voiced [B, N, 1]`` is 0 or 1."""
    deviation = voiced * NOISE_DEVIATION + (1 - voiced) * (SINE_AMPLITUDE / 3)
    return SINE_AMPLITUDE * sines * voiced + deviation * noise


class HarmonicSource(nn.Module):
    """``f0 [B, T] -> [B, N, 1]`` after tanh, for HiFi-GAN (one component) and MRF HiFi-GAN (nine)."""

    def __init__(self, sample_rate: int, hop: int, components: int, profile: str) -> None:
        super().__init__()
        self.sample_rate, self.hop, self.components, self.profile = sample_rate, hop, components, profile
        self.l_linear = nn.Linear(components, 1)

    def stages(self) -> tuple[Stage, ...]:
        """From ``f0`` (NumPy), ``draws`` and ``convert``."""
        return (
            Stage("l_sin_gen:voiced", self._voiced, product="voiced"),
            Stage("l_sin_gen", self._generate, product="source"),
            leaf("l_linear", lambda x: self.l_linear(x.to(self.l_linear.weight.dtype)), product="source"),
            leaf("l_tanh", torch.tanh, product="source"),
        )

    def _voiced(self, carry: Carry) -> None:
        voiced = (carry["f0"] > 0).astype(np.float32)[..., None]
        carry["voiced"] = carry["convert"](np.repeat(voiced, self.hop, axis=1))

    def _generate(self, carry: Carry) -> None:
        batch, frames = carry["f0"].shape
        # Applio draws the single component's phase once for the whole batch, MRF's for each item, as the WebUI does
        once = self.components == 1 and self.profile == "applio"
        shape = (1, 1, 1) if once else (batch, self.components)
        start = start_phases(carry["draws"], shape).reshape(-1, self.components)
        sines = sine(carry["f0"], self.sample_rate, self.hop, start, carry["convert"])
        noise = carry["convert"](carry["draws"]("normal", (batch, frames * self.hop, self.components)))
        carry["source"] = with_noise(sines, carry.pop("voiced"), noise)


class InterpolatedSource(nn.Module):
    """``f0 [B, T] -> [B, N, 1]`` after tanh, for RefineGAN: f0 itself is interpolated to samples."""

    def __init__(self, sample_rate: int, hop: int) -> None:
        super().__init__()
        self.sample_rate, self.hop = sample_rate, hop
        self.merge = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh())

    def stages(self) -> tuple[Stage, ...]:
        """From ``f0`` (NumPy), ``draws`` and ``convert``."""
        return (
            Stage(":sines", self._generate, product="source"),
            leaf("merge.0", lambda x: self.merge[0](x.to(self.merge[0].weight.dtype)), product="source"),
            leaf("merge.1", torch.tanh, product="source"),
        )

    def _generate(self, carry: Carry) -> None:
        f0 = interpolate(carry["f0"], self.hop)
        start = start_phases(carry["draws"], (f0.shape[0], 1))
        sines = sine_of_samples(f0, self.sample_rate, start, carry["convert"])
        noise = carry["convert"](carry["draws"]("normal", (*f0.shape, 1)))
        voiced = carry["convert"]((f0 > 0).astype(np.float32)[..., None])
        carry["source"] = with_noise(sines, voiced, noise)


def interpolate(values: np.ndarray, factor: int) -> np.ndarray:
    """Linear, by the half-pixel rule, ends held: ``[B, T] -> [B, T * factor]`` in float64."""
    frames = values.shape[1]
    at = (np.arange(frames * factor) + 0.5) / factor - 0.5
    at = np.clip(at, 0, frames - 1)
    left = np.minimum(at.astype(int), max(frames - 2, 0))
    right, weight = np.minimum(left + 1, frames - 1), at - left
    values = values.astype(np.float64)
    return values[:, left] * (1 - weight) + values[:, right] * weight
