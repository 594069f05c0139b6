"""The recording chain from mouth to file: the room, the microphone's band, gain, distortion, coding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from reference_torch.audio import SAMPLE_RATE

from .draw import Draw, decibels, stretched
from .filters import random_curve

ROOM_SAMPLES = 12800


@dataclass
class Band:
    """A linear response ``[B, n / 2 + 1]`` to multiply with a transform of ``size`` samples."""

    response: torch.Tensor
    size: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, N]`` filtered; what rings on after the end is lost."""
        return torch.fft.irfft(torch.fft.rfft(x, self.size) * self.response, self.size)[:, : x.shape[1]]


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
    low = draw.log_uniform(2800, 7800, batch, 1)
    low_order = draw.uniform(4, 40, batch, 1)
    high = draw.log_uniform(30, 320, batch, 1)
    high_order = draw.uniform(1, 5, batch, 1)
    low_pass = torch.sigmoid(-low_order * torch.log2(hz.clamp(min=1) / low) * 2)
    high_pass = torch.sigmoid(high_order * torch.log2(hz.clamp(min=1) / high) * 1.4)
    low_pass = torch.where(draw.chance(0.6 * probability, batch, 1), low_pass, torch.ones_like(low_pass))
    use = draw.chance(0.7 * probability, batch, 1) & ~spare_low
    return low_pass * torch.where(use, high_pass, torch.ones_like(high_pass))


def microphone(draw: Draw, samples: int, spare_low: torch.Tensor, probability: float) -> Band:
    """Band limits and a smooth equaliser, common to voice and background."""
    batch, size = spare_low.shape[0], _size(samples)
    hz = torch.fft.rfftfreq(size, 1 / SAMPLE_RATE, device=draw.device)
    curve = random_curve(draw, batch, hz, draw.uniform(0, 0.6, batch, 1))
    return Band(curve.exp() * _limits(draw, batch, hz, spare_low, probability), size)


def through_room(draw: Draw, band: Band, probability: float) -> Band:
    """The band and a room in one."""
    return Band(band.response * torch.fft.rfft(room(draw, band.response.shape[0], probability), band.size), band.size)


def _size(samples: int) -> int:
    """A length whose transform is quick and that holds the room's tail without wrapping round."""
    return -(-(samples + ROOM_SAMPLES) // 2048) * 2048


def record(draw: Draw, x: torch.Tensor, probability: float) -> torch.Tensor:
    """Gain, its slow changes, compression or clipping, coding: ``[B, N]`` to within [-1, 1]."""
    batch, count = x.shape
    control = -(-count // 16) + 1
    ride = draw.uniform(0, 4, batch, 1) * draw.wander(draw.uniform(0.1, 1, batch), control)
    x = x * decibels(stretched(ride, 16 * (control - 1))[:, :count]) if probability else x
    x = x / x.abs().amax(1, keepdim=True).clamp(min=1e-6)
    drive = decibels(draw.uniform(0, 14, batch, 1))
    kind = draw.uniform(0, 1, batch, 1) / max(probability, 1e-9)
    x = torch.where(kind < 0.08, (x * drive).tanh(), x)
    x = torch.where((kind > 0.08) & (kind < 0.14), (x * drive.clamp(max=3)).clamp(-1, 1), x)
    # a poor resampler: every second sample held
    held = x[:, ::2].repeat_interleave(2, 1, output_size=2 * ((count + 1) // 2))[:, :count]
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
