"""A synthetic voice with exactly known F0: singing and speech, breaths, consonants, silences.

Source-filter synthesis by adding harmonics: the phase is the float64 running sum of the F0
curve, so the truth at any sample is the curve itself. NumPy only, seeded, any duration; a
longer voice of the same seed begins with the shorter one (but for the noise level).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SAMPLE_RATE = 16000
HOP_SAMPLES = 160
# vowels as formant frequencies in Hz, with bandwidths: a, e, i, o, u (round textbook values)
VOWELS_HZ = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))
BANDWIDTHS_HZ = (90.0, 110.0, 160.0)
# shortest and longest in seconds, amplitude
UNVOICED = {"consonant": (0.03, 0.12, 0.06), "breath": (0.2, 0.5, 0.015), "silence": (0.1, 0.6, 0.0)}


class Voice(NamedTuple):
    """``audio [n]`` float32 at 16 kHz; ``f0_hz [1 + n // 160]`` float64, 0 where unvoiced."""

    audio: np.ndarray
    f0_hz: np.ndarray


def synthesize(seconds: float, seed: int = 0, snr_db: float = 30.0) -> Voice:
    """A voice of this length; with white noise ``snr_db`` below its mean power."""
    total = round(seconds * SAMPLE_RATE)
    events = np.random.default_rng([seed, 1])
    texture = np.random.default_rng([seed, 2])
    audio, f0 = np.zeros((2, total))
    position, last_hz = 0, 220.0
    while position < total:
        kind = events.choice(["sung", "spoken", "consonant", "breath", "silence"], p=[0.4, 0.25, 0.15, 0.08, 0.12])
        if kind in ("sung", "spoken"):
            curve = _sung(events, last_hz) if kind == "sung" else _spoken(events)
            wave, voiced = _voiced(events, curve)
            last_hz = float(curve[-1])
        else:
            wave = _unvoiced(str(kind), events, texture)
            curve, voiced = np.zeros_like(wave), np.zeros(wave.size, bool)
        count = min(wave.size, total - position)
        audio[position : position + count] = wave[:count]
        f0[position : position + count] = np.where(voiced, curve, 0.0)[:count]
        position += count
    noise = np.random.default_rng([seed, 3]).standard_normal(total)
    audio += noise * np.sqrt(np.mean(audio**2)) * 10.0 ** (-snr_db / 20.0)
    peak = np.abs(audio).max(initial=1e-9)
    # frame t is centred on sample 160 t; the last one may be just past the end
    at_frames = np.append(f0, 0.0)[np.minimum(np.arange(1 + total // HOP_SAMPLES) * HOP_SAMPLES, total)]
    return Voice((audio * (0.9 / max(peak, 0.9))).astype(np.float32), at_frames)


def _sung(rng: np.random.Generator, last_hz: float) -> np.ndarray:
    """A note: glide from the last one, then vibrato that sets in late."""
    t = np.arange(int(rng.uniform(0.3, 1.4) * SAMPLE_RATE)) / SAMPLE_RATE
    target = 110.0 * 2.0 ** (rng.integers(0, 30) / 12.0)
    semitones = 12.0 * np.log2(last_hz / target) * np.exp(-t / rng.uniform(0.02, 0.08))
    depth, rate, onset = rng.uniform(0.15, 0.7), rng.uniform(4.5, 6.5), rng.uniform(0.1, 0.4)
    vibrato = depth * np.clip((t - onset) / 0.2, 0.0, 1.0) * np.sin(2 * np.pi * rate * (t - onset))
    return target * 2.0 ** ((semitones + vibrato) / 12.0)


def _spoken(rng: np.random.Generator) -> np.ndarray:
    """A syllable: a falling or rising contour."""
    t = np.linspace(0.0, 1.0, int(rng.uniform(0.1, 0.35) * SAMPLE_RATE))
    slope, bend = rng.uniform(-6.0, 3.0), rng.uniform(-2.0, 2.0)
    return rng.uniform(90.0, 260.0) * 2.0 ** ((slope * t + bend * np.sin(np.pi * t)) / 12.0)


def _voiced(rng: np.random.Generator, f0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Harmonics of ``f0`` through formants, with onset and release; also where it counts as voiced."""
    phase = 2.0 * np.pi * np.cumsum(f0 / SAMPLE_RATE)
    formants = VOWELS_HZ[rng.integers(len(VOWELS_HZ))]
    tilt = rng.uniform(1.0, 1.8)
    wave = np.zeros(f0.size)
    for k in range(1, int(7600.0 / f0.min()) + 1):
        hz = k * f0
        gain = sum(1.0 / (1.0 + ((hz - f) / b) ** 2) for f, b in zip(formants, BANDWIDTHS_HZ, strict=True)) + 0.02
        wave += np.where(hz < 7600.0, gain * k**-tilt, 0.0) * np.sin(k * phase)
    places = np.arange(f0.size)
    envelope = np.clip(np.minimum(places, places[::-1]) / (0.015 * SAMPLE_RATE), 0.0, 1.0)
    return wave * envelope * rng.uniform(0.1, 0.35) / (np.sqrt(np.mean(wave**2)) + 1e-9), envelope > 0.1


def _unvoiced(kind: str, rng: np.random.Generator, texture: np.random.Generator) -> np.ndarray:
    low, high, level = UNVOICED[kind]
    n = int(rng.uniform(low, high) * SAMPLE_RATE)
    noise = texture.standard_normal(n + 2)
    # a difference is bright like a fricative, a mean dull like a breath
    shaped = noise[2:] - noise[1:-1] if kind == "consonant" else (noise[2:] + noise[1:-1] + noise[:-2]) / 1.7
    return shaped * level * np.hanning(n)
