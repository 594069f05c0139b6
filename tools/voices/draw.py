"""Seeded random draws on a device, and smoothing along time."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import nn

from reference_torch.audio import SAMPLE_RATE

CONTROL_HZ = 1000


@functools.cache
def constant(values: tuple[Any, ...], device: torch.device) -> torch.Tensor:
    """A table on the device; copied once, since a copy waits for the device."""
    return torch.tensor(values, dtype=torch.float32, device=device)


class Draw:
    """Draws that depend only on (seed, keys); ``shape`` always begins with the batch."""

    def __init__(self, device: str, *keys: int) -> None:
        seed = np.random.SeedSequence(keys).generate_state(2, np.uint32)
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(int(seed[0]) << 31 | int(seed[1]) >> 1)

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)

    def between(self, limits: torch.Tensor, *shape: int) -> torch.Tensor:
        """Uniform, each from limits of its own ``[..., 2]``."""
        return limits[..., 0] + (limits[..., 1] - limits[..., 0]) * self.uniform(0, 1, *shape)

    def log_uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def chance(self, probability: float | torch.Tensor, *shape: int) -> torch.Tensor:
        return self.uniform(0, 1, *shape) < probability

    def table(self, values: tuple[Any, ...]) -> torch.Tensor:
        return constant(values, self.device)

    def pick(self, weights: torch.Tensor, *shape: int) -> torch.Tensor:
        """Indices by weight: ``[K]`` for all, or ``[B, K]``, one row an item."""
        cumulative = (weights / weights.sum(-1, keepdim=True)).cumsum(-1)
        chosen = self.uniform(0, 1, *shape)
        edges = cumulative if weights.ndim > 1 else cumulative.expand(shape[0], -1)
        found = torch.searchsorted(edges.contiguous(), chosen.reshape(shape[0], -1).contiguous())
        return found.clamp(max=weights.shape[-1] - 1).reshape(shape)

    def wander(self, cutoff_hz: torch.Tensor, count: int) -> torch.Tensor:
        """``[B, count]`` of smooth noise of unit variance; ``cutoff_hz`` ``[B]``: its band's standard deviation."""
        size = quick_size(count + 2 * CONTROL_HZ)  # longer: a transform is periodic
        spectrum = torch.fft.rfft(self.normal(cutoff_hz.shape[0], size))
        hz = torch.fft.rfftfreq(size, 1 / CONTROL_HZ, device=self.device)
        gain = torch.exp(-0.5 * (hz / cutoff_hz[:, None]).square())
        power = (2 * gain.square().sum(1, keepdim=True) - 1) / size
        return torch.fft.irfft(spectrum * gain / power.sqrt(), size)[:, :count]


def smooth(x: torch.Tensor, seconds: torch.Tensor) -> torch.Tensor:
    """``[B, ..., n]`` under a Gaussian along the last axis; ``seconds`` ``[B]``: its standard deviation."""
    margin, count = CONTROL_HZ // 2, x.shape[-1]
    size = quick_size(count + 2 * margin)
    flat = x.reshape(x.shape[0], -1, count)
    flat = nn.functional.pad(flat, (margin, size - count - margin), mode="replicate")
    hz = torch.fft.rfftfreq(size, 1 / CONTROL_HZ, device=x.device)
    gain = torch.exp(-0.5 * (2 * math.pi * hz * seconds[:, None]).square())
    smoothed = torch.fft.irfft(torch.fft.rfft(flat) * gain[:, None], size)
    return smoothed[..., margin : margin + count].reshape(x.shape)


def quick_size(count: int, step: int = 512) -> int:
    """A size not below ``count`` whose transform is quick."""
    return -(-count // step) * step


def controls(samples: int) -> int:
    """Control points of so many samples, a multiple of 16."""
    return samples * CONTROL_HZ // SAMPLE_RATE + 1


def stretched(x: torch.Tensor, count: int) -> torch.Tensor:
    """Control points ``[B, C]`` to ``[B, count]`` samples: linear, point i on sample i * count / (C - 1)."""
    return nn.functional.interpolate(x[:, None], count + 1, mode="linear", align_corners=True)[:, 0, :count]


def decibels(x: torch.Tensor) -> torch.Tensor:
    """Decibels to an amplitude."""
    return torch.exp(x * (math.log(10) / 20))
