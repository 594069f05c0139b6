"""Between mouth and file: sounds in the background, the room, the microphone's band, gain, distortion, coding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from reference_torch.audio import SAMPLE_RATE

from .draw import Draw, controls, decibels, quick_size, stretched
from .filters import random_curve
from .sources import harmonic, pulse_train

ROOM_SAMPLES = 12800
BEATS = 24


@dataclass
class Band:
    """A linear response ``[B, n / 2 + 1]`` to multiply with a transform of ``size`` samples."""

    response: torch.Tensor
    size: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, N]`` filtered; what rings on after the end is lost."""
        return torch.fft.irfft(torch.fft.rfft(x, self.size) * self.response, self.size)[:, : x.shape[1]]


def noise(draw: Draw, batch: int, samples: int) -> torch.Tensor:
    """White to brown, perhaps a band of it or of any colour, perhaps swelling: ``[B, N]``."""
    size = quick_size(samples, 2048)
    hz = torch.fft.rfftfreq(size, 1 / SAMPLE_RATE, device=draw.device)
    slope = torch.where(draw.chance(0.5, batch, 1), draw.uniform(-0.3, 2.2, batch, 1),
                        draw.pick(draw.table((1.0, 1.0, 1.0)), batch, 1).float())  # fmt: skip
    curve = -0.5 * slope * (hz.clamp(min=30) / 1000).log()
    curve = curve + random_curve(draw, batch, hz, draw.uniform(0, 0.8, batch, 1) * draw.chance(0.5, batch, 1))
    octaves = torch.log2(hz.clamp(min=1) / draw.log_uniform(100, 6000, batch, 1)) / draw.uniform(0.3, 1.5, batch, 1)
    curve = curve - 0.5 * octaves.square() * draw.chance(0.15, batch, 1)
    x = Band(curve.exp(), size)(draw.normal(batch, size))[:, :samples]
    swell = draw.uniform(0, 5, batch, 1) * draw.chance(0.4, batch, 1)
    wander = draw.wander(draw.log_uniform(0.3, 6, batch), controls(samples))
    return x * decibels(swell * stretched(wander, samples))


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
    for note in range(4):
        degree = steps[(chord + 2 * note) % 7] + (0 if note == 0 else 12)
        hz = 440 * torch.exp2((root + degree - 69) / 12).gather(1, index)
        phase = (hz.double() / SAMPLE_RATE).cumsum(1)
        decay = torch.exp(-since * draw.uniform(0, 6, batch, 1)) * (since / 0.005).clamp(max=1)
        tone = harmonic(phase) + draw.uniform(0, 0.5, batch, 1) * pulse_train(phase, hz)
        total = total + tone * decay * draw.uniform(0.2, 1, batch, 1) * (1.5 if note == 0 else 1)
    total = _duller(draw, total)
    hits = draw.chance(0.6, batch, BEATS).float().gather(1, index) * torch.exp(-since * draw.uniform(8, 60, batch, 1))
    kick = torch.sin(2 * math.pi * 12 * (1 - torch.exp(-since * 30))) * torch.exp(-since * 14)
    drums = hits * draw.normal(batch, samples) + 2 * kick * draw.chance(0.5, batch, BEATS).float().gather(1, index)
    return total * draw.chance(0.8, batch, 1) + drums * draw.uniform(0, 1.5, batch, 1)


def _duller(draw: Draw, x: torch.Tensor) -> torch.Tensor:
    """A slope of 3 to 15 dB an octave above some corner, as instruments have, ``[B, N]``."""
    batch, size = x.shape[0], quick_size(x.shape[1], 2048)
    hz = torch.fft.rfftfreq(size, 1 / SAMPLE_RATE, device=draw.device)
    above = torch.log2(hz.clamp(min=1) / draw.log_uniform(150, 2000, batch, 1)).clamp(min=0)
    return Band(decibels(-above * draw.uniform(3, 15, batch, 1)), size)(x)


def hum(draw: Draw, batch: int, samples: int) -> torch.Tensor:
    """Mains hum with its harmonics, ``[B, N]``."""
    mains = torch.where(draw.chance(0.5, batch, 1), 50.0, 60.0)
    turns = torch.arange(samples, device=draw.device) / SAMPLE_RATE * mains
    total = torch.zeros(batch, samples, device=draw.device)
    for k in (1, 2, 3, 4, 5, 6, 8, 10):
        level = draw.uniform(0, 1, batch, 1) / k
        total = total + level * torch.cos(2 * math.pi * (k * turns + draw.uniform(0, 1, batch, 1)))
    return total


def clicks(draw: Draw, batch: int, samples: int) -> torch.Tensor:
    """Single samples and their ringing, a few a second, ``[B, N]``."""
    x = draw.normal(batch, samples) * draw.chance(draw.log_uniform(1e-5, 4e-4, batch, 1), batch, samples)
    return x + 0.6 * x.roll(1, 1) - 0.5 * x.roll(3, 1)


def unit(x: torch.Tensor) -> torch.Tensor:
    """To an RMS of one; silence stays."""
    return x / x.square().mean(1, keepdim=True).sqrt().clamp(min=1e-7)


def room(draw: Draw, batch: int, probability: float) -> torch.Tensor:
    """Impulse responses ``[B, ROOM_SAMPLES]``: the direct sound at sample 0, reflections, a decaying tail."""
    time = torch.arange(ROOM_SAMPLES, device=draw.device) / SAMPLE_RATE
    decay = draw.log_uniform(0.08, 0.9, batch, 1)
    tail = draw.normal(batch, ROOM_SAMPLES) * torch.exp(-6.9 * time / decay)
    tail = tail * (time > draw.uniform(0.004, 0.03, batch, 1))
    tail = tail / tail.square().sum(1, keepdim=True).sqrt()
    early = torch.zeros(batch, ROOM_SAMPLES, device=draw.device)
    where = (draw.uniform(0.001, 0.04, batch, 7) * SAMPLE_RATE).long()
    early = early.scatter_add(1, where, draw.normal(batch, 7) * 0.35 * torch.exp(-where / (0.02 * SAMPLE_RATE)))
    direct_db = draw.uniform(-4, 18, batch, 1)
    wet = early * draw.uniform(0, 1, batch, 1) + tail * decibels(-direct_db)
    wet = wet * draw.chance(probability, batch, 1)
    return torch.cat([wet[:, :1] + 1, wet[:, 1:]], 1)


def _limits(draw: Draw, batch: int, hz: torch.Tensor, spare_low: torch.Tensor, probability: float) -> torch.Tensor:
    """Magnitude of band limits ``[B, bins]``; ``spare_low`` ``[B, 1]``: no high-pass there."""
    low, low_order = draw.log_uniform(2800, 7800, batch, 1), draw.uniform(4, 40, batch, 1)
    high, high_order = draw.log_uniform(30, 320, batch, 1), draw.uniform(1, 5, batch, 1)
    low_pass = torch.sigmoid(-low_order * torch.log2(hz.clamp(min=1) / low) * 2)
    high_pass = torch.sigmoid(high_order * torch.log2(hz.clamp(min=1) / high) * 1.4)
    low_pass = torch.where(draw.chance(0.6 * probability, batch, 1), low_pass, 1.0)
    use = draw.chance(0.7 * probability, batch, 1) & ~spare_low
    return low_pass * torch.where(use, high_pass, 1.0)


def microphone(draw: Draw, samples: int, spare_low: torch.Tensor, probability: float) -> Band:
    """Band limits and a smooth equaliser, common to voice and background; long enough for a room's tail."""
    batch, size = spare_low.shape[0], quick_size(samples + ROOM_SAMPLES, 2048)
    hz = torch.fft.rfftfreq(size, 1 / SAMPLE_RATE, device=draw.device)
    curve = random_curve(draw, batch, hz, draw.uniform(0, 0.6, batch, 1))
    return Band(curve.exp() * _limits(draw, batch, hz, spare_low, probability), size)


def through_room(draw: Draw, band: Band, probability: float) -> Band:
    """The band and a room in one."""
    return Band(band.response * torch.fft.rfft(room(draw, band.response.shape[0], probability), band.size), band.size)


def record(draw: Draw, x: torch.Tensor, probability: float) -> torch.Tensor:
    """Gain, its slow changes, compression or clipping, coding: ``[B, N]`` to within [-1, 1]."""
    batch, count = x.shape
    ride = draw.uniform(0, 4, batch, 1) * draw.wander(draw.uniform(0.1, 1, batch), controls(count))
    x = x * decibels(stretched(ride, count)) if probability else x
    x = x / x.abs().amax(1, keepdim=True).clamp(min=1e-6)
    drive = decibels(draw.uniform(0, 14, batch, 1))
    kind = draw.uniform(0, 1, batch, 1) / max(probability, 1e-9)
    x = torch.where(kind < 0.08, (x * drive).tanh(), x)
    x = torch.where((kind > 0.08) & (kind < 0.14), (x * drive.clamp(max=3)).clamp(-1, 1), x)
    # a poor resampler: every second sample held
    held = x[:, ::2].repeat_interleave(2, 1, output_size=count)
    x = torch.where((kind > 0.14) & (kind < 0.17), held, x)
    gain = torch.where(draw.chance(0.7, batch, 1), draw.uniform(-20, 0, batch, 1), draw.uniform(-45, 0, batch, 1))
    x = x * decibels(gain)
    coded = torch.where(kind < 0.5, _mu_law(x), (x * 128).round() / 128)
    coded = torch.where(gain > -18, coded, x)  # a quieter one would be all steps
    kind = draw.uniform(0, 1, batch, 1) / max(probability, 1e-9)
    return torch.where(kind < 0.06, coded, torch.where(kind < 0.5, (x * 32768).round() / 32768, x))


def _mu_law(x: torch.Tensor) -> torch.Tensor:
    """Through eight bits and back."""
    scale = math.log(256)
    code = (x.sign() * torch.log1p(255 * x.abs().clamp(max=1)) / scale * 127).round() / 127
    return code.sign() * torch.expm1(code.abs() * scale) / 255
