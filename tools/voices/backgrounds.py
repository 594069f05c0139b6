"""Sounds in the background of the voice: noise, other voices, music, hum, clicks."""

from __future__ import annotations

import math

import torch

from reference_torch.audio import SAMPLE_RATE

from .draw import CONTROL_HZ, Draw, decibels, stretched
from .filters import random_curve
from .sources import pulse_train

CHORD = 4
BEATS = 24


def noise(draw: Draw, batch: int, samples: int) -> torch.Tensor:
    """White to brown, perhaps a band of it or of any colour, perhaps swelling: ``[B, N]``."""
    size = -(-samples // 2048) * 2048
    hz = torch.fft.rfftfreq(size, 1 / SAMPLE_RATE, device=draw.device)
    slope = torch.where(draw.chance(0.5, batch, 1), draw.uniform(-0.3, 2.2, batch, 1),
                        draw.pick(draw.table((1.0, 1.0, 1.0)), batch, 1).float())  # fmt: skip
    curve = -0.5 * slope * (hz.clamp(min=30) / 1000).log()
    curve = curve + random_curve(draw, batch, hz, draw.uniform(0, 0.8, batch, 1) * draw.chance(0.5, batch, 1))
    octaves = torch.log2(hz.clamp(min=1) / draw.log_uniform(100, 6000, batch, 1)) / draw.uniform(0.3, 1.5, batch, 1)
    curve = curve - 0.5 * octaves.square() * draw.chance(0.15, batch, 1)
    x = torch.fft.irfft(torch.fft.rfft(draw.normal(batch, size)) * curve.exp(), size)[:, :samples]
    swell = draw.uniform(0, 5, batch, 1) * draw.chance(0.4, batch, 1)
    return x * decibels(swell * _slow(draw, batch, samples, 0.3, 6))


def _slow(draw: Draw, batch: int, samples: int, low_hz: float, high_hz: float) -> torch.Tensor:
    control = -(-samples * CONTROL_HZ // SAMPLE_RATE) + 1
    wander = draw.wander(draw.log_uniform(low_hz, high_hz, batch), control)
    return stretched(wander, (control - 1) * SAMPLE_RATE // CONTROL_HZ)[:, :samples]


def babble(draw: Draw, voices: torch.Tensor) -> torch.Tensor:
    """Other items' voices ``[B, N]``, turned in time, three to five at once."""
    total = torch.zeros_like(voices)
    batch, samples = voices.shape
    for i in range(5):
        other = voices.roll((1 + i, (7919 * (i + 1)) % samples), (0, 1))
        loud = decibels(draw.uniform(-8, 0, batch, 1))
        total = total + other * loud * (draw.chance(0.5, batch, 1) if i > 2 else 1)
    return total


def music(draw: Draw, batch: int, samples: int) -> torch.Tensor:
    """Chords of soft tones over a bass, changing with the beat, and drums: ``[B, N]``."""
    time = torch.arange(samples, device=draw.device) / SAMPLE_RATE
    beat = draw.uniform(0.25, 0.7, batch, 1)
    place = time / beat
    index = place.floor().long().clamp(max=BEATS - 1)
    since = (place - index) * beat
    steps = draw.table((0.0, 2.0, 4.0, 5.0, 7.0, 9.0, 11.0))
    chord = draw.pick(draw.table((1.0,) * 7), batch, BEATS // 4).repeat_interleave(4, 1)
    root = draw.uniform(33, 44, batch, 1)
    total = torch.zeros(batch, samples, device=draw.device)
    for note in range(CHORD):
        degree = steps[(chord + 2 * note) % 7] + (0 if note == 0 else 12)
        hz = 440 * torch.exp2((root + degree - 69) / 12).gather(1, index)
        phase = (hz.double() / SAMPLE_RATE).cumsum(1)
        decay = torch.exp(-since * draw.uniform(0, 6, batch, 1)) * (since / 0.005).clamp(max=1)
        soft = torch.cos((2 * math.pi * (phase - phase.round())).float())
        tone = soft + draw.uniform(0, 0.5, batch, 1) * pulse_train(phase, hz)
        total = total + tone * decay * draw.uniform(0.2, 1, batch, 1) * (1.5 if note == 0 else 1)
    total = _duller(draw, total)
    hits = draw.chance(0.6, batch, BEATS).float().gather(1, index) * torch.exp(-since * draw.uniform(8, 60, batch, 1))
    kick = torch.sin(2 * math.pi * 12 * (1 - torch.exp(-since * 30))) * torch.exp(-since * 14)
    drums = hits * draw.normal(batch, samples) + 2 * kick * draw.chance(0.5, batch, BEATS).float().gather(1, index)
    return total * draw.chance(0.8, batch, 1) + drums * draw.uniform(0, 1.5, batch, 1)


def _duller(draw: Draw, x: torch.Tensor) -> torch.Tensor:
    """A slope of 3 to 15 dB an octave above some corner, as instruments have, ``[B, N]``."""
    batch, samples = x.shape
    size = -(-samples // 2048) * 2048
    hz = torch.fft.rfftfreq(size, 1 / SAMPLE_RATE, device=draw.device)
    above = torch.log2(hz.clamp(min=1) / draw.log_uniform(150, 2000, batch, 1)).clamp(min=0)
    slope = decibels(-above * draw.uniform(3, 15, batch, 1))
    return torch.fft.irfft(torch.fft.rfft(x, size) * slope, size)[:, :samples]


def hum(draw: Draw, batch: int, samples: int) -> torch.Tensor:
    """Mains hum with its harmonics, ``[B, N]``."""
    mains = torch.where(draw.chance(0.5, batch, 1), 50.0, 60.0)
    turns = torch.arange(samples, device=draw.device) / SAMPLE_RATE * mains
    total = torch.zeros(batch, samples, device=draw.device)
    for k in (1, 2, 3, 4, 5, 6, 8, 10):
        total = total + draw.uniform(0, 1, batch, 1) / k * torch.cos(
            2 * math.pi * (k * turns + draw.uniform(0, 1, batch, 1))
        )
    return total


def clicks(draw: Draw, batch: int, samples: int) -> torch.Tensor:
    """Single samples and their ringing, a few a second, ``[B, N]``."""
    x = draw.normal(batch, samples) * draw.chance(draw.log_uniform(1e-5, 4e-4, batch, 1), batch, samples)
    return x + 0.6 * x.roll(1, 1) - 0.5 * x.roll(3, 1)


def unit(x: torch.Tensor) -> torch.Tensor:
    """To an RMS of one; silence stays."""
    return x / x.square().mean(1, keepdim=True).sqrt().clamp(min=1e-7)
