"""The glottis: band-limited pulse trains of exactly known phase, and breath."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from reference_torch.audio import SAMPLE_RATE

from .contours import EXTREME, GLIDING, STEADY, Contour
from .draw import Draw, stretched

HIGHEST_HARMONIC_HZ = 7900.0
LOW_HARMONICS = 4


@dataclass
class Source:
    """Excitations ``[B, N]`` before any filter; the voice's properties that the filters use ``[B, 1]``."""

    pulses: torch.Tensor
    breath: torch.Tensor
    slope_db: torch.Tensor  # per octave above F0
    tilt_db: torch.Tensor  # more of it above tilt_hz
    tilt_hz: torch.Tensor
    thin: torch.Tensor  # bool: the first harmonic carries the pitch, so nothing may remove it
    plain: torch.Tensor  # bool: no vocal tract; a tone, an instrument


def pulse_train(phase: torch.Tensor, hz: torch.Tensor) -> torch.Tensor:
    """Sum of cos(2 pi k phase) over all harmonics k below the limit, in closed form; float64 phase in cycles.

    The last harmonic fades in and out as F0 moves, so that none appears at once.
    """
    count = HIGHEST_HARMONIC_HZ / hz
    whole = count.floor()
    x = (math.pi * (phase - phase.round())).float()
    below = x.sin()
    near = below.abs() < 1e-5
    ratio = torch.where(near, whole, (whole * x).sin() / torch.where(near, torch.ones_like(x), below))
    return ratio * ((whole + 1) * x).cos() + (count - whole) * (2 * (whole + 1) * x).cos()


def harmonic(phase: torch.Tensor, k: int = 1) -> torch.Tensor:
    """The cosine of the k-th; float64 phase in cycles."""
    return torch.cos((2 * math.pi * k * (phase - phase.round())).float())


def _by_cycle(draw: Draw, count: int, cycle: torch.Tensor) -> torch.Tensor:
    """A bounded normal draw per cycle, at ``[B, N]``; they come again after ``count`` cycles."""
    return draw.normal(cycle.shape[0], count).clamp(-2.5, 2.5).gather(1, cycle.remainder(count))


def glottal_phase(draw: Draw, contour: Contour, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Phase in cycles (float64) and F0 in Hz without jitter, ``[B, N]``."""
    hz = 10 * torch.exp2(stretched(contour.cents, samples) / 1200)
    phase = (hz.double() / SAMPLE_RATE).cumsum(1) + draw.uniform(0, 1, hz.shape[0], 1).double()
    # a period's error is drawn once per period; the next one does not make up for it
    error = _by_cycle(draw, 509, phase.floor().long())
    jittered = hz * (1 + stretched(contour.jitter, samples) * error)
    return (jittered.double() / SAMPLE_RATE).cumsum(1) + phase[:, :1], hz


def _shape(draw: Draw, phase: torch.Tensor, hz: torch.Tensor, odd: torch.Tensor) -> torch.Tensor:
    """Pulses of closing and of opening; ``odd`` ``[B, 1]``: odd harmonics only, as in a square."""
    batch = phase.shape[0]
    quotient = torch.where(odd, 0.5, draw.uniform(0.25, 0.85, batch, 1))
    opening = torch.where(odd, -1.0, draw.uniform(-0.7, 0.2, batch, 1) * draw.chance(0.7, batch, 1))
    return pulse_train(phase, hz) + opening * pulse_train(phase + quotient.double(), hz)


def make_source(draw: Draw, contour: Contour, samples: int) -> Source:
    """Excitations of every voice, without the gate of its fades."""
    phase, hz = glottal_phase(draw, contour, samples)
    batch, style = phase.shape[0], contour.style[:, None]
    plain = draw.chance(0.45, batch, 1) & ((style >= GLIDING) & (style <= EXTREME)) | draw.chance(0.05, batch, 1)
    odd = plain & draw.chance(0.25, batch, 1)
    slope = torch.where(plain, draw.uniform(0, 40, batch, 1), draw.uniform(2, 12, batch, 1))
    slope = torch.where(draw.chance(0.06, batch, 1), draw.uniform(18, 30, batch, 1), slope)
    thin = slope > 14
    pulses = _shape(draw, phase, hz, odd)
    # the first harmonics are stronger than, weaker than, or absent from the pulse's
    usual = torch.exp(0.35 * draw.normal(batch, LOW_HARMONICS))
    highest = contour.cents.amax(1, keepdim=True)
    absent = draw.chance(0.15, batch, 1) & ~thin & ~odd & (slope < 9) & (highest < 7000)
    how_many = draw.pick(draw.table((0.5, 0.3, 0.2)), batch)[:, None] + 1
    how_many = torch.where(highest > 5400, how_many.clamp(max=1), how_many)
    order = torch.arange(1, LOW_HARMONICS + 1, device=phase.device)
    weight = torch.where(absent & (order <= how_many), draw.uniform(0, 0.15, batch, 1), usual)
    weight = torch.where(thin | odd, 1.0, weight)
    for k in range(LOW_HARMONICS):
        pulses = pulses + (weight[:, k, None] - 1) * harmonic(phase, k + 1)
    shimmer = draw.uniform(0, 0.12, batch, 1) * draw.chance(0.7, batch, 1) * (style != STEADY)
    cycle = (phase + 0.5).floor().long()
    strength = 1 + shimmer * _by_cycle(draw, 503, cycle)
    strength = strength * (1 - stretched(contour.halving, samples) * cycle.remainder(2))
    modulation = 1 + draw.uniform(0, 1, batch, 1) * harmonic(phase)
    breath = draw.normal(batch, samples) * modulation
    # a constant-power pulse train: its harmonics lie as far apart as F0
    pulses = pulses * strength * (hz / 200).sqrt()
    tilt, tilt_hz = draw.uniform(0, 18, batch, 1), draw.log_uniform(700, 4000, batch, 1)
    return Source(pulses, breath, slope, tilt, tilt_hz, thin, plain)
