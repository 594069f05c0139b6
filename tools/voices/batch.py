"""A batch of recordings with their truth: contour, source, filter, room, background, file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from reference_torch.audio import HOP_SAMPLES, SAMPLE_RATE

from . import backgrounds, filters, rooms
from .contours import BURST, EVENTS, FRICATIVE, WHISPER, Contour, make_contour
from .draw import CONTROL_HZ, Draw, decibels, smooth, stretched
from .labels import Truth, truth
from .sources import Source, make_source

NONE, NOISE, BABBLE, MUSIC, BOTH = range(5)


@dataclass(frozen=True)
class Conditions:
    """What may befall a voice. ``kinds``: weights of none, noise, babble, music, noise and babble."""

    kinds: tuple[float, ...] = (0.34, 0.36, 0.09, 0.13, 0.08)
    snr_db: tuple[float, float] | None = None  # None: by the kind of background
    room: float = 0.3
    recording: float = 0.5


TRAINING = Conditions()
CLEAN = Conditions(kinds=(1.0, 0.0, 0.0, 0.0, 0.0), room=0.0, recording=0.0)


class Batch(NamedTuple):
    """``audio`` ``[B, N]`` within [-1, 1]; ``voice``: only the voiced part as it reaches the file, unscaled."""

    audio: torch.Tensor
    truth: Truth
    voice: torch.Tensor
    contour: Contour


def _gate(kind: torch.Tensor, which: int, seconds: torch.Tensor, samples: int) -> torch.Tensor:
    return stretched(smooth((kind == which).float(), seconds), samples)


def _scaled(x: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """To an RMS of one over the samples where ``active``; where there are none, zero."""
    power = (x.square() * active).sum(1, keepdim=True) / active.sum(1, keepdim=True).clamp(min=1)
    return torch.where(power > 0, x / power.sqrt().clamp(min=1e-12), torch.zeros_like(x))


def _filtered(draw: Draw, contour: Contour, source: Source, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The voiced part and the breath of every voice, ``[B, N]`` each, the former of RMS one while voiced."""
    batch = contour.event.shape[0]
    gate, loudness = stretched(contour.gate, samples), stretched(contour.loudness, samples)
    tract = filters.vocal_tract(draw, contour, samples)
    slope = filters.glottal_slope(source, contour, samples)
    curve = filters.random_curve(draw, batch, filters.bins_hz(draw.device), draw.uniform(0, 0.5, batch, 1))
    phase = filters.dispersion(draw, batch, filters.bins_hz(draw.device))
    envelope = tract * ~source.plain[..., None] * ~source.thin[..., None]
    voiced = filters.analyse(source.pulses * gate * loudness) * (envelope + slope + curve[:, None]).clamp(-20, 6).exp()
    voiced = filters.resynthesise(voiced * phase, samples)
    ends = draw.uniform(0.002, 0.03, batch)
    open_glottis = stretched(smooth(contour.voiced.float(), ends), samples)
    breathy = stretched(decibels(6 * draw.wander(draw.uniform(0.5, 4, batch), contour.gate.shape[1])), samples)
    level = decibels(
        torch.where(draw.chance(0.2, batch, 1), draw.uniform(-18, -4, batch, 1), draw.uniform(-55, -15, batch, 1))
    )
    aspirated = open_glottis * breathy * level * ~source.plain
    whispered = _gate(contour.kind, WHISPER, ends, samples) * decibels(draw.uniform(-32, -8, batch, 1))
    breath = filters.resynthesise(filters.analyse(source.breath) * tract.exp(), samples)
    breath = backgrounds.unit(breath) * loudness * (aspirated + whispered)
    return _scaled(voiced, gate > 0), breath


def _unvoiced(draw: Draw, contour: Contour, samples: int) -> torch.Tensor:
    """Fricatives and bursts, ``[B, N]``; some last into the voice, as voiced fricatives do."""
    batch = contour.event.shape[0]
    spread = draw.uniform(0.001, 0.02, batch)
    gate = _gate(contour.kind, FRICATIVE, spread, samples) * decibels(draw.uniform(-32, -2, batch, 1))
    buzz = (draw.chance(0.06, batch, EVENTS) & draw.chance(0.5, batch, 1)).float().gather(1, contour.event)
    gate = gate + stretched(smooth(buzz, spread), samples) * decibels(draw.uniform(-35, -12, batch, 1))
    gate = gate + _gate(contour.kind, BURST, spread * 0.05, samples) * decibels(draw.uniform(-25, 2, batch, 1))
    noise = filters.analyse(draw.normal(batch, samples)) * filters.consonants(draw, contour, samples).exp()
    loudness = stretched(contour.loudness, samples)
    return backgrounds.unit(filters.resynthesise(noise, samples)) * gate * loudness


def _background(draw: Draw, conditions: Conditions, voices: torch.Tensor) -> torch.Tensor:
    """Noise, babble, music at a signal-to-noise ratio below voices of RMS one, ``[B, N]``."""
    batch, samples = voices.shape
    kind = draw.pick(draw.table(conditions.kinds), batch, 1)
    unit = backgrounds.unit
    noise, music = unit(backgrounds.noise(draw, batch, samples)), unit(backgrounds.music(draw, batch, samples))
    babble = unit(backgrounds.babble(draw, voices))
    hard = draw.chance(0.45, batch, 1)
    low, high = draw.uniform(-5, 15, batch, 1), draw.uniform(10, 45, batch, 1)
    noise_db, other_db = torch.where(hard, low, high), draw.uniform(4, 32, batch, 1)
    if conditions.snr_db:
        noise_db = other_db = draw.uniform(*conditions.snr_db, batch, 1)
    total = torch.where(kind == NOISE, noise * decibels(-noise_db), torch.zeros_like(noise))
    total = torch.where(kind == BABBLE, babble * decibels(-other_db), total)
    total = torch.where(kind == MUSIC, music * decibels(-other_db), total)
    return torch.where(kind == BOTH, unit(noise + 0.7 * babble) * decibels(-(noise_db + other_db) / 2), total)


def _floor(draw: Draw, batch: int, samples: int, probability: float) -> torch.Tensor:
    """A recorder's own noise, hum and clicks, below voices of RMS one."""
    floor = draw.normal(batch, samples) * decibels(draw.uniform(-80, -38, batch, 1)) * draw.chance(0.65, batch, 1)
    mains = backgrounds.unit(backgrounds.hum(draw, batch, samples)) * decibels(draw.uniform(-45, -8, batch, 1))
    clicks = backgrounds.clicks(draw, batch, samples) * decibels(draw.uniform(-15, 12, batch, 1))
    share = 0.16 * probability
    return floor + mains * draw.chance(share, batch, 1) + clicks * draw.chance(share, batch, 1)


def make_batch(draw: Draw, batch: int, frames: int, conditions: Conditions = TRAINING) -> Batch:
    """``batch`` recordings of ``frames`` frames of log-mel; see ``Batch``."""
    samples = HOP_SAMPLES * (frames - 1)
    contour = make_contour(draw, batch, samples * CONTROL_HZ // SAMPLE_RATE + 1)
    source = make_source(draw, contour, samples)
    voiced, breath = _filtered(draw, contour, source, samples)
    unvoiced = breath + _unvoiced(draw, contour, samples)
    band = rooms.microphone(draw, samples, source.thin | source.plain, conditions.recording)
    path = rooms.through_room(draw, band, conditions.room)
    active = stretched(contour.gate, samples) > 0
    voice = path(voiced)
    wet = _scaled(voice, active)
    # what is lost or won by the path is the same for the rest of the mouth
    gain = wet.abs().amax(1, keepdim=True) / voice.abs().amax(1, keepdim=True).clamp(min=1e-9)
    gain = torch.where(gain > 0, gain, torch.ones_like(gain))
    rest = path(unvoiced) * gain
    background = _background(draw, conditions, voiced + unvoiced)
    own_room = backgrounds.unit(band(background)) * background.square().mean(1, keepdim=True).sqrt()
    rest = rest + own_room + _floor(draw, batch, samples, conditions.recording)
    audio = rooms.record(draw, wet + rest, conditions.recording)
    return Batch(audio, truth(contour, wet, rest), wet, contour)
