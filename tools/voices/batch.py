"""A batch of recordings: contour, source, filter, room, background, file; and their truth: pitch, voicing, weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from reference_torch.audio import HOP_SAMPLES, SAMPLE_RATE
from reference_torch.rmvpe import CENTS_FIRST_BIN, CENTS_PER_BIN, N_BINS

from . import filters, rooms
from .contours import BURST, EVENTS, FRICATIVE, LOWEST_CENTS, WHISPER, Contour, make_contour
from .draw import CONTROL_HZ, Draw, controls, decibels, smooth, stretched
from .sources import Source, make_source

NONE, NOISE, BABBLE, MUSIC, BOTH = range(5)
BLUR_CENTS = 25.0
# of every second pulse: weaker by less than the first, F0 stays; by more than the second, it is an octave lower
HALVED = (0.3, 0.78)
IRREGULAR_JITTER = 0.025
FADING_GATE = 0.15
TAIL_WEIGHT = 0.25


@dataclass(frozen=True)
class Conditions:
    """What may befall a voice. ``kinds``: weights of none, noise, babble, music, noise and babble."""

    kinds: tuple[float, ...] = (0.34, 0.36, 0.09, 0.13, 0.08)
    snr_db: tuple[float, float] | None = None  # None: by the kind of background
    room: float = 0.3
    recording: float = 0.5


TRAINING = Conditions()
CLEAN = Conditions(kinds=(1.0, 0.0, 0.0, 0.0, 0.0), room=0.0, recording=0.0)


class Truth(NamedTuple):
    """``[B, T]`` each: cents above 10 Hz, voicing, weight in the loss (0: not decidable)."""

    cents: torch.Tensor
    voiced: torch.Tensor
    weight: torch.Tensor


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
    return torch.where(power > 0, x / power.sqrt().clamp(min=1e-12), 0.0)


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
    breathing = draw.chance(0.2, batch, 1)
    level = torch.where(breathing, draw.uniform(-18, -4, batch, 1), draw.uniform(-55, -15, batch, 1))
    aspirated = open_glottis * breathy * decibels(level) * ~source.plain
    whispered = _gate(contour.kind, WHISPER, ends, samples) * decibels(draw.uniform(-32, -8, batch, 1))
    breath = filters.resynthesise(filters.analyse(source.breath) * tract.exp(), samples)
    breath = rooms.unit(breath) * loudness * (aspirated + whispered)
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
    return rooms.unit(filters.resynthesise(noise, samples)) * gate * loudness


def _background(draw: Draw, conditions: Conditions, voices: torch.Tensor) -> torch.Tensor:
    """Noise, babble, music at a signal-to-noise ratio below voices of RMS one, ``[B, N]``."""
    batch, samples = voices.shape
    kind = draw.pick(draw.table(conditions.kinds), batch, 1)
    unit = rooms.unit
    noise, music = unit(rooms.noise(draw, batch, samples)), unit(rooms.music(draw, batch, samples))
    babble = unit(rooms.babble(draw, voices))
    hard = draw.chance(0.45, batch, 1)
    low, high = draw.uniform(-5, 15, batch, 1), draw.uniform(10, 45, batch, 1)
    noise_db, other_db = torch.where(hard, low, high), draw.uniform(4, 32, batch, 1)
    if conditions.snr_db:
        noise_db = other_db = draw.uniform(*conditions.snr_db, batch, 1)
    total = torch.where(kind == NOISE, noise * decibels(-noise_db), 0.0)
    total = torch.where(kind == BABBLE, babble * decibels(-other_db), total)
    total = torch.where(kind == MUSIC, music * decibels(-other_db), total)
    return torch.where(kind == BOTH, unit(noise + 0.7 * babble) * decibels(-(noise_db + other_db) / 2), total)


def _floor(draw: Draw, batch: int, samples: int, probability: float) -> torch.Tensor:
    """A recorder's own noise, hum and clicks, below voices of RMS one."""
    floor = draw.normal(batch, samples) * decibels(draw.uniform(-80, -38, batch, 1)) * draw.chance(0.65, batch, 1)
    mains = rooms.unit(rooms.hum(draw, batch, samples)) * decibels(draw.uniform(-45, -8, batch, 1))
    clicks = rooms.clicks(draw, batch, samples) * decibels(draw.uniform(-15, 12, batch, 1))
    share = 0.16 * probability
    return floor + mains * draw.chance(share, batch, 1) + clicks * draw.chance(share, batch, 1)


def make_batch(draw: Draw, batch: int, frames: int, conditions: Conditions = TRAINING) -> Batch:
    """``batch`` recordings of ``frames`` frames of log-mel; see ``Batch``."""
    samples = HOP_SAMPLES * (frames - 1)
    contour = make_contour(draw, batch, controls(samples))
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
    rest = path(unvoiced) * torch.where(gain > 0, gain, 1.0)
    background = _background(draw, conditions, voiced + unvoiced)
    own_room = rooms.unit(band(background)) * background.square().mean(1, keepdim=True).sqrt()
    rest = rest + own_room + _floor(draw, batch, samples, conditions.recording)
    audio = rooms.record(draw, wet + rest, conditions.recording)
    return Batch(audio, truth(contour, wet, rest), wet, contour)


# ---------------------------------------------------------------------- truth on the frames of the log-mel


def salience(cents: torch.Tensor, voiced: torch.Tensor) -> torch.Tensor:
    """``[B, T, 360]``: one at the pitch, blurred over neighbouring bins; nothing where unvoiced."""
    bins = CENTS_FIRST_BIN + CENTS_PER_BIN * torch.arange(N_BINS, device=cents.device, dtype=cents.dtype)
    distance = (cents[..., None] - bins) / BLUR_CENTS
    return torch.exp(-0.5 * distance.square()) * voiced[..., None]


def frame_energy(x: torch.Tensor) -> torch.Tensor:
    """Mean square within a hop of each frame's centre, ``[B, N]`` to ``[B, T]``."""
    return nn.functional.avg_pool1d(x.square()[:, None], 2 * HOP_SAMPLES, HOP_SAMPLES, HOP_SAMPLES)[:, 0]


def truth(contour: Contour, voice: torch.Tensor, rest: torch.Tensor) -> Truth:
    """What frame k, centred on sample 160 k, holds.

    ``voice``: the voiced part as it reaches the file, of RMS about one while it sounds; ``rest``: everything else.
    """
    step = HOP_SAMPLES * CONTROL_HZ // SAMPLE_RATE
    halving, jitter, gate = (t[:, ::step] for t in (contour.halving, contour.jitter, contour.gate))
    voiced = contour.voiced[:, ::step]
    octave_down = voiced & (halving > HALVED[1])
    cents = contour.cents[:, ::step] - 1200 * octave_down
    loud, other = frame_energy(voice), frame_energy(rest)
    undecided = (halving > HALVED[0]) & (halving <= HALVED[1]) | (jitter > IRREGULAR_JITTER)
    undecided = undecided | (cents < LOWEST_CENTS - 50) | (gate < FADING_GATE)
    inaudible = (loud < 3e-5) | (loud < 0.015 * other)
    # a room rings on, or another event overlaps: audible, though the glottis is at rest
    ringing = (loud > 3e-3) & (loud > 0.1 * other)
    edge = _near_edge(contour.voiced)[:, ::step]
    weight = torch.where(voiced, 1 - (undecided | inaudible).float(), 1 - (1 - TAIL_WEIGHT) * ringing.float())
    return Truth(cents, voiced, weight * ~edge)


def _near_edge(voiced: torch.Tensor, reach: int = 5) -> torch.Tensor:
    """Within ``reach`` control points of a change of voicing."""
    x = voiced.float()[:, None]
    most = nn.functional.max_pool1d(x, 2 * reach + 1, 1, reach)
    least = -nn.functional.max_pool1d(-x, 2 * reach + 1, 1, reach)
    return (most != least)[:, 0]
