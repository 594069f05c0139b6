"""The harmonic source of the NSF vocoders in MLX.

Method: Wang et al., "Neural source-filter waveform models" (2019); behaviour as in
IAHispano/Applio, revision b9c0ccb. Shapes: B = batch, T = 10 ms frames, N = samples, K = components.

The running sum of the phase is made on the host in float64 and reduced to one cycle: MLX
accumulates in float32, which loses the phase of a long clip.
"""

from __future__ import annotations

import math

import numpy as np

from rvc_common.config import SynthesizerConfig
from rvc_common.noise import start_phases
from rvc_common.stages import Carry, Stage, leaf

from .layers import Weights
from .runtime import mx

SINE_AMPLITUDE, NOISE_DEVIATION = 0.1, 0.003


def sine(f0: np.ndarray, sample_rate: int, hop: int, start: np.ndarray) -> mx.array:
    """Sines of f0, constant within a frame, and its multiples: ``[B, T] -> [B, N, K]``.

    ``start [B or 1, K]``: phases in cycles. The first sample already has one increment.
    """
    step = f0.astype(np.float64)[..., None] * np.arange(1, start.shape[-1] + 1) / sample_rate
    after = np.cumsum(step * hop % 1.0, axis=1)
    before = np.concatenate([np.zeros_like(after[:, :1]), after[:, :-1]], axis=1)
    offset = (before + start[:, None]) % 1.0
    position = mx.arange(1, hop + 1, dtype=mx.float32)[:, None]
    step_mx, offset_mx = (mx.array(a, dtype=mx.float32)[:, :, None] for a in (step, offset))
    phase = step_mx * position + offset_mx
    sines = mx.sin((2 * math.pi) * (phase - mx.floor(phase)))
    return sines.reshape(f0.shape[0], -1, start.shape[-1])


def sine_of_samples(f0: np.ndarray, sample_rate: int, start: np.ndarray) -> mx.array:
    """One sine of an f0 that changes with every sample: ``[B, N] -> [B, N, 1]``; ``start [B, 1]``."""
    phase = (np.cumsum(f0 / sample_rate, axis=1) + start) % 1.0
    return mx.sin((2 * math.pi) * mx.array(phase, dtype=mx.float32))[..., None]


def with_noise(sines: mx.array, voiced: mx.array, noise: mx.array) -> mx.array:
    """Sines where voiced, with a little noise; noise alone elsewhere. ``voiced [B, N, 1]`` is 0 or 1."""
    deviation = voiced * NOISE_DEVIATION + (1 - voiced) * (SINE_AMPLITUDE / 3)
    return SINE_AMPLITUDE * sines * voiced + deviation * noise


class HarmonicSource:
    """``f0 [B, T] -> [B, N, 1]`` after tanh, for HiFi-GAN (one component) and MRF HiFi-GAN (nine)."""

    def __init__(self, config: SynthesizerConfig, components: int, profile: str, weights: Weights) -> None:
        self.sample_rate, self.hop, self.components = config.sample_rate, config.hop_samples, components
        self.profile = profile
        self.linear, self.dtype = weights.linear("dec.m_source.l_linear"), weights.dtype

    def stages(self) -> tuple[Stage, ...]:
        """From ``f0`` (NumPy) and ``draws``."""
        return (
            Stage("l_sin_gen:voiced", self._voiced, product="voiced"),
            Stage("l_sin_gen", self._generate, product="source"),
            leaf("l_linear", lambda x: self.linear(x.astype(self.dtype)), product="source"),
            leaf("l_tanh", mx.tanh, product="source"),
        )

    def _voiced(self, carry: Carry) -> None:
        carry["voiced"] = mx.repeat(mx.array((carry["f0"] > 0).astype(np.float32))[..., None], self.hop, axis=1)

    def _generate(self, carry: Carry) -> None:
        batch, frames = carry["f0"].shape
        # Applio draws the single component's phase once for the whole batch, MRF's for each item, as the WebUI does
        once = self.components == 1 and self.profile == "applio"
        shape = (1, 1, 1) if once else (batch, self.components)
        start = start_phases(carry["draws"], shape).reshape(-1, self.components)
        sines = sine(carry["f0"], self.sample_rate, self.hop, start)
        noise = mx.array(carry["draws"]("normal", (batch, frames * self.hop, self.components)))
        carry["source"] = with_noise(sines, carry.pop("voiced"), noise)


class InterpolatedSource:
    """``f0 [B, T] -> [B, N, 1]`` after tanh, for RefineGAN: f0 itself is interpolated to samples."""

    def __init__(self, config: SynthesizerConfig, weights: Weights) -> None:
        self.sample_rate, self.hop = config.sample_rate, config.hop_samples
        self.merge, self.dtype = weights.linear("dec.m_source.merge.0"), weights.dtype

    def stages(self) -> tuple[Stage, ...]:
        """From ``f0`` (NumPy) and ``draws``."""
        return (
            Stage(":sines", self._generate, product="source"),
            leaf("merge.0", lambda x: self.merge(x.astype(self.dtype)), product="source"),
            leaf("merge.1", mx.tanh, product="source"),
        )

    def _generate(self, carry: Carry) -> None:
        f0 = np.stack([interpolate(item, self.hop) for item in carry["f0"]])
        start = start_phases(carry["draws"], (f0.shape[0], 1))
        sines = sine_of_samples(f0, self.sample_rate, start)
        noise = mx.array(carry["draws"]("normal", (*f0.shape, 1)))
        carry["source"] = with_noise(sines, mx.array((f0 > 0).astype(np.float32))[..., None], noise)


def interpolate(values: np.ndarray, factor: int) -> np.ndarray:
    """Linear, by the half-pixel rule, ends held: ``[T] -> [T * factor]`` in float64."""
    at = (np.arange(values.size * factor) + 0.5) / factor - 0.5
    return np.interp(at, np.arange(values.size), values.astype(np.float64))
