"""What a voice does over time: its events, its pitch, its loudness."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .draw import CONTROL_HZ, Draw, decibels, smooth

EVENTS = 72
SILENCE, VOICED, FRICATIVE, WHISPER, BURST = range(5)
SPEECH, SINGING, GLIDING, STEADY, EXTREME, NOTHING = range(6)
STYLE_WEIGHTS = (0.35, 0.28, 0.09, 0.07, 0.18, 0.03)
#                silence voiced fricative whisper burst
TYPE_WEIGHTS = (
    (0.13, 0.54, 0.20, 0.05, 0.08),
    (0.15, 0.75, 0.06, 0.02, 0.02),
    (0.22, 0.70, 0.04, 0.02, 0.02),
    (0.20, 0.78, 0.01, 0.01, 0.00),
    (0.18, 0.76, 0.03, 0.02, 0.01),
    (0.50, 0.00, 0.25, 0.15, 0.10),
)
# shortest and longest event in seconds, by type (rows as above) where the style does not say otherwise
SECONDS = ((0.05, 0.7), (0.05, 0.4), (0.03, 0.2), (0.05, 0.35), (0.004, 0.025))
VOICED_SECONDS = ((0.04, 0.40), (0.08, 2.5), (0.3, 4.0), (0.3, 5.0), (0.08, 3.0), (0.1, 0.2))


def _cents(hz: float) -> float:
    return 1200 * math.log2(hz / 10)


LOWEST_CENTS, HIGHEST_CENTS = _cents(32.7), _cents(1975)


@dataclass
class Contour:
    """Control tracks ``[B, C]`` of a batch, and the events that they come from."""

    kind: torch.Tensor  # SILENCE ... BURST
    event: torch.Tensor  # index of the event
    voiced: torch.Tensor  # bool: the glottis vibrates
    gate: torch.Tensor  # 0 to 1: the fades of the voiced stretches, nothing outside
    loudness: torch.Tensor  # amplitude of whatever sounds
    cents: torch.Tensor  # true pitch, also where unvoiced
    jitter: torch.Tensor  # relative period perturbation
    halving: torch.Tensor  # amplitude of every second pulse is 1 - halving
    style: torch.Tensor  # [B]


def by_style(draw: Draw, style: torch.Tensor, ranges: tuple[tuple[float, float], ...]) -> torch.Tensor:
    """A uniform draw per item from the range of its style, ``[B]``."""
    return draw.between(draw.table(ranges)[style], style.shape[0])


def _events(draw: Draw, style: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Kinds ``[B, EVENTS]``, the event of every control point and the seconds since it began, ``[B, C]``."""
    batch = style.shape[0]
    weights = draw.table(TYPE_WEIGHTS)[style]
    kinds = draw.pick(weights, batch, EVENTS)
    limits = draw.table(SECONDS).log()[kinds]
    own = draw.table(VOICED_SECONDS).log()[style][:, None]
    limits = torch.where((kinds == VOICED)[..., None], own, limits)
    # some items are one long voiced stretch
    seconds = draw.between(limits, batch, EVENTS).exp()
    seconds = torch.where(draw.chance(0.04, batch, 1) & (kinds == VOICED), seconds * 8, seconds)
    ends = seconds.cumsum(1) - draw.uniform(0, 0.4, batch, 1)
    time = (torch.arange(count, device=draw.device) / CONTROL_HZ).expand(batch, -1).contiguous()
    event = torch.searchsorted(ends.contiguous(), time, right=True).clamp(max=EVENTS - 1)
    return kinds, event, time - (ends - seconds).gather(1, event)


def _centre(draw: Draw, style: torch.Tensor) -> torch.Tensor:
    """The middle of an item's range in cents ``[B, 1]``: speakers low and high, singers, everything."""
    ranges = ((75, 330), (90, 700), (70, 700), (60, 1100), (33, 1960), (100, 200))
    limits = tuple((_cents(low), _cents(high)) for low, high in ranges)
    centre = by_style(draw, style, limits)[:, None]
    # the ends of the range, which a uniform draw seldom reaches
    ends = torch.where(draw.chance(0.5, *centre.shape), draw.uniform(2060, 3500, *centre.shape),
                       draw.uniform(7500, 9100, *centre.shape))  # fmt: skip
    return torch.where((style == EXTREME)[:, None] & draw.chance(0.6, *centre.shape), ends, centre)


def _steps(draw: Draw, style: torch.Tensor) -> torch.Tensor:
    """Offset of every event's note in cents ``[B, EVENTS]``."""
    batch = style.shape[0]
    spread = by_style(draw, style, ((50, 350), (150, 700), (100, 900), (0, 0.1), (100, 900), (0, 1)))[:, None]
    steps = draw.normal(batch, EVENTS) * spread
    in_tune = (style == SINGING)[:, None] & draw.chance(0.7, batch, 1)
    steps = torch.where(in_tune, (steps / 100).round() * 100 + 12 * draw.normal(batch, EVENTS), steps)
    jumps = draw.pick(draw.table((1.0, 14.0, 1.0)), batch, EVENTS) - 1
    return steps + 1200 * jumps * draw.chance(0.2, batch, 1)


def _vibrato(draw: Draw, style: torch.Tensor, since: torch.Tensor) -> torch.Tensor:
    """Cents ``[B, C]``, 3 to 9 Hz, growing after a note has begun."""
    batch, count = since.shape
    probability = draw.table((0.05, 0.6, 0.2, 0.0, 0.5, 0.0))[style][:, None]
    depth = draw.log_uniform(10, 200, batch, 1) * draw.chance(probability, batch, 1)
    rate = draw.uniform(3, 9, batch, 1) * (1 + 0.06 * draw.wander(draw.uniform(0.5, 2, batch), count))
    phase = 2 * math.pi * (rate.cumsum(1) / CONTROL_HZ + draw.uniform(0, 1, batch, 1))
    onset = ((since - draw.uniform(0, 0.4, batch, 1)) / draw.uniform(0.05, 0.5, batch, 1)).clamp(0, 1)
    onset = smooth(onset, torch.full((batch,), 0.02, device=draw.device))
    return depth * onset * phase.sin()


def _pitch(draw: Draw, style: torch.Tensor, event: torch.Tensor, since: torch.Tensor) -> torch.Tensor:
    """True pitch in cents ``[B, C]``."""
    batch, count = event.shape
    ports = ((0.01, 0.05), (0.003, 0.07), (0.02, 0.15), (0.002, 0.01), (0.003, 0.06), (0.01, 0.02))
    port = by_style(draw, style, ports)
    notes = smooth(_steps(draw, style).gather(1, event), port)
    # speech falls along each syllable or phrase; a note may scoop or sag
    slope = by_style(draw, style, ((-500, 200), (-60, 60), (-300, 300), (0, 0.1), (-100, 100), (0, 1)))[:, None]
    falling = smooth(slope * since.clamp(max=1.5), port)
    cutoff = by_style(draw, style, ((1.0, 5.0), (0.3, 3.0), (0.2, 1.5), (0.2, 0.5), (0.3, 2.0), (1, 2)))
    amount = by_style(draw, style, ((60, 450), (3, 40), (300, 1500), (0, 3), (5, 500), (0, 1)))[:, None]
    drift = amount * draw.wander(cutoff, count)
    drift = drift + draw.uniform(0, 12, batch, 1) * draw.wander(draw.uniform(4, 12, batch), count)
    drift = torch.where((style == STEADY)[:, None], amount * draw.wander(cutoff, count), drift)
    cents = _centre(draw, style) + notes + falling + drift + _vibrato(draw, style, since)
    # folded back, not cut off: a limit that is reached would be a flat stretch
    span = HIGHEST_CENTS - LOWEST_CENTS
    folded = (cents - LOWEST_CENTS).remainder(2 * span)
    return LOWEST_CENTS + torch.minimum(folded, 2 * span - folded)


def _creak(draw: Draw, style: torch.Tensor, event: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Jitter and halving ``[B, C]``: small per item, large in single events of speech."""
    batch = style.shape[0]
    jitter = draw.log_uniform(0.0005, 0.012, batch, 1) * draw.chance(0.8, batch, 1) * (style != STEADY)[:, None]
    creaks = draw.chance(0.10, batch, EVENTS) & (style <= SINGING)[:, None] & draw.chance(0.35, batch, 1)
    irregular = creaks & draw.chance(0.4, batch, EVENTS)
    jitters = torch.where(irregular, draw.uniform(0.03, 0.15, batch, EVENTS), jitter.expand(-1, EVENTS))
    halving = draw.uniform(0.05, 1.0, batch, EVENTS) * (creaks & ~irregular)
    return jitters.gather(1, event), halving.gather(1, event)


def make_contour(draw: Draw, batch: int, count: int) -> Contour:
    """Events, pitch and loudness of ``batch`` voices over ``count`` control points."""
    style = draw.pick(draw.table(STYLE_WEIGHTS), batch)
    kinds, event, since = _events(draw, style, count)
    kind = kinds.gather(1, event)
    voiced = kind == VOICED
    fade = draw.log_uniform(0.0008, 0.02, batch)
    gate = (2 * smooth(voiced.float(), fade) - 1.002).clamp(min=0) / 0.998 * voiced
    level = draw.uniform(-10, 4, batch, EVENTS).gather(1, event)
    # notes that die away like plucked ones, and some that swell
    level = level + (draw.uniform(-45, 10, batch, EVENTS) * draw.chance(0.25, batch, 1)).gather(1, event) * since
    level = smooth(level.clamp(-35, 8), draw.log_uniform(0.004, 0.04, batch))
    level = level + draw.uniform(0, 4, batch, 1) * draw.wander(draw.uniform(0.5, 5, batch), count)
    jitter, halving = _creak(draw, style, event)
    cents = _pitch(draw, style, event, since)
    return Contour(kind, event, voiced, gate, decibels(level), cents, jitter, halving, style)
