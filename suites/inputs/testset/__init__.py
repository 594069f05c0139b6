"""Singing and speech whose F0 is exactly known, clean, in noise, in a room, and at the ends of the range.

Only for measuring accuracy: no model is trained on it. A seed gives the same signal
everywhere, within the arithmetic of NumPy and SciPy.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from . import room, score, tract

RATE, HOP = room.RATE, 160
FRAMES_PER_S = RATE // HOP
LOW, MIDDLE, HIGH = (33.0, 79.0), (82.0, 780.0), (810.0, 1960.0)
# name: F0 range in Hz, SNR in dB, in a room
CONDITIONS: dict[str, tuple[tuple[float, float], float | None, bool]] = {
    "clean": (MIDDLE, None, False),
    "snr20": (MIDDLE, 20.0, False),
    "snr10": (MIDDLE, 10.0, False),
    "snr5": (MIDDLE, 5.0, False),
    "snr0": (MIDDLE, 0.0, False),
    "reverb": (MIDDLE, None, True),
    "low": (LOW, None, False),
    "high": (HIGH, None, False),
}
NOISES = ("white", "pink", "babble")
BABBLE_VOICES, BABBLE_S = 6, 12.0
# of the recording itself, in every condition
FLOOR_DB = 60.0
# from this voicing amplitude on a frame counts as voiced; so near an edge no frame counts
VOICED, EDGE_FRAMES = 0.1, 2


class Part(NamedTuple):
    """A phrase and the pause after it. ``samples [n]``, ``f0_hz`` and ``voicing`` at every frame of it."""

    samples: np.ndarray
    f0_hz: np.ndarray
    voicing: np.ndarray


class Sung(NamedTuple):
    """``samples [n]`` float32 at 16 kHz; per frame ``[1 + n // 160]``, the k-th centred on sample 160 k:
    ``f0_hz``, 0 where the glottis is silent; ``scored``, false within 20 ms of where it starts or stops."""

    samples: np.ndarray
    f0_hz: np.ndarray
    scored: np.ndarray


def make(condition: str, seconds: float, seed: int) -> Sung:
    """A condition of this length. Conditions of the same range hold the same voices."""
    span, snr_db, in_room = CONDITIONS[condition]
    parts = voices(span, seconds, seed)
    rng = np.random.default_rng([seed, 71])  # the same noise, and more of it
    if snr_db is not None:
        recorded = [in_noise(part, snr_db, seconds, seed, rng) for part in parts]
    else:
        recorded = [room.reverberant(part.samples, rng) if in_room else part.samples for part in parts]
    samples = np.concatenate(recorded)[: round(seconds * RATE)]
    samples = samples + rng.standard_normal(samples.size) * _level(parts) * 10 ** (-FLOOR_DB / 20)
    samples *= 0.9 / max(0.9, np.abs(samples).max())
    f0, voicing = (np.concatenate(track)[: 1 + samples.size // HOP] for track in list(zip(*parts, strict=True))[1:])
    voiced = voicing > VOICED
    return Sung(samples.astype(np.float32), np.where(voiced, f0, 0.0), ~near_edges(voiced))


def near_edges(voiced: np.ndarray) -> np.ndarray:
    """Frames ``[F]`` less than 20 ms from a change of voicing, which is half a frame before the first new one."""
    around = sliding_window_view(np.pad(voiced, EDGE_FRAMES, mode="edge"), 2 * EDGE_FRAMES + 1)
    return around.min(axis=1) != around.max(axis=1)


@functools.lru_cache(maxsize=32)
def voices(span: tuple[float, float], seconds: float, seed: int) -> tuple[Part, ...]:
    """Phrases, sung and spoken, until they are long enough."""
    parts: list[Part] = []
    frames = 0
    while frames <= seconds * FRAMES_PER_S:
        rng = np.random.default_rng([seed, 70, int(span[0]), len(parts)])
        parts.append(_part(rng, span))
        frames += parts[-1].f0_hz.size
    return tuple(parts)


def _part(rng: np.random.Generator, span: tuple[float, float]) -> Part:
    import soxr

    sung = span[0] >= HIGH[0] or bool(rng.random() < 0.5)
    tracks, larynx = score.phrase(rng, *span, sung)
    audio = soxr.resample(tract.utter(tracks, larynx, rng), tract.RATE, RATE, quality="VHQ")
    frames = int(np.ceil((audio.size + rng.uniform(0.15, 0.6) * RATE) / HOP))
    audio = np.pad(audio, (0, frames * HOP - audio.size))
    at = np.arange(frames) * tract.CONTROLS_PER_SECOND // FRAMES_PER_S
    last = tracks.f0_hz.size - 1
    voicing = np.where(at <= last, tracks.voicing[np.minimum(at, last)], 0.0)
    audio *= 10 ** (rng.uniform(-26, -18) / 20) / np.sqrt(_voiced_power(audio, voicing))
    return Part(audio, tracks.f0_hz[np.minimum(at, last)], voicing)


def _voiced_power(audio: np.ndarray, voicing: np.ndarray) -> float:
    return float(np.mean(np.square(audio[np.repeat(voicing > VOICED, HOP)])))


def _level(parts: tuple[Part, ...]) -> float:
    return float(np.sqrt(np.mean([_voiced_power(part.samples, part.voicing) for part in parts])))


def in_noise(part: Part, snr_db: float, seconds: float, seed: int, rng: np.random.Generator) -> np.ndarray:
    """The phrase and its pause with noise of one kind, ``snr_db`` below the phrase's mean power while it is voiced."""
    kind, count = NOISES[rng.integers(len(NOISES))], part.samples.size
    noise = {
        "white": lambda: rng.standard_normal(count),
        "pink": lambda: room.pink(count, rng),
        "babble": lambda: room.babble(_crowd(seed, seconds), count, rng),
    }[kind]()
    power = _voiced_power(part.samples, part.voicing) * 10 ** (-snr_db / 10)
    return part.samples + noise * np.sqrt(power / np.mean(noise**2))


@functools.lru_cache(maxsize=2)
def _crowd(seed: int, seconds: float) -> tuple[np.ndarray, ...]:
    """Voices that are nowhere else in the test set."""
    seeds = (seed * BABBLE_VOICES + i + 10**6 for i in range(BABBLE_VOICES))
    return tuple(
        np.concatenate([part.samples for part in voices(MIDDLE, min(BABBLE_S, seconds), own)]) for own in seeds
    )
