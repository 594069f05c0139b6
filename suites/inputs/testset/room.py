"""What a recording adds to a voice: noise of three kinds, and a room."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

RATE = 16000
SOUND_M_PER_S = 343.0
# pink noise has no power below
PINK_LOW_HZ = 30.0


def pink(count: int, rng: np.random.Generator) -> np.ndarray:
    """``[count]``: 3 dB less an octave."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hz = np.fft.rfftfreq(count, 1 / RATE)
    return np.fft.irfft(np.where(hz < PINK_LOW_HZ, 0.0, spectrum / np.sqrt(np.maximum(hz, PINK_LOW_HZ))), count)


def babble(voices: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """``[count]``: all voices at once, each at the same level, from a place of its own on and in a circle."""
    total = np.zeros(count)
    for voice in voices:
        at = (np.arange(count) + rng.integers(voice.size)) % voice.size
        total += voice[at] / np.sqrt(np.mean(voice**2))
    return total


def reverberant(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The audio ``[n]`` in a room of seeded size; the direct sound is where and as loud as it was."""
    from scipy.signal import fftconvolve

    return fftconvolve(audio, response(rng))[: audio.size]


def response(rng: np.random.Generator) -> np.ndarray:
    """A shoebox room by image sources (Allen and Berkley, 1979), from the direct sound on, which is 1.
    3 to 8 m wide, 60 dB of decay in 0.25 to 0.6 s by Sabine's formula, the source 0.7 to 1.5 m away."""
    size = rng.uniform([3.5, 3, 2.4], [8, 6, 3.5])
    decay_s = rng.uniform(0.25, 0.6)
    surface = 2 * (size[0] * size[1] + size[1] * size[2] + size[0] * size[2])
    reflected = np.sqrt(1 - min(0.99, 0.161 * size.prod() / (surface * decay_s)))
    ear = size * rng.uniform(0.35, 0.65, 3)
    direction = rng.standard_normal(3) * [1, 1, 0.2]
    mouth = np.clip(ear + rng.uniform(0.7, 1.5) * direction / np.linalg.norm(direction), 0.3, size - 0.3)
    squares, walls = [], []  # per axis: how far off the images are, and how many walls they have met
    for at, place, length in zip(ear, mouth, size, strict=True):
        reach = int(np.ceil(SOUND_M_PER_S * decay_s / (2 * length)))
        turns = 2 * np.arange(-reach, reach + 1)
        squares.append((np.concatenate([turns * length + place, turns * length - place]) - at) ** 2)
        walls.append(np.concatenate([np.abs(turns), np.abs(turns - 1)]))
    distance = np.sqrt(functools.reduce(np.add.outer, squares))
    direct = float(np.linalg.norm(mouth - ear))
    delay = np.rint((distance - direct) / SOUND_M_PER_S * RATE).astype(int).ravel()
    gain = (reflected ** functools.reduce(np.add.outer, walls) * direct / distance).ravel()
    kept = (delay >= 0) & (delay < int(decay_s * RATE))
    return np.bincount(delay[kept], gain[kept])
