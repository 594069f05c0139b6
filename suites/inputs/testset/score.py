"""The content of speech and song: phrases of syllables by seeded speakers, as control tracks for ``tract``.

Phones have targets; the tracks are those targets, smoothed over as long as the articulators take (coarticulation).
Formants and consonants are round textbook values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .tract import CONTROLS_PER_SECOND, Larynx, Tracks

# the first three formants in Hz, of a man
VOWELS = (
    (280, 2250, 2900), (400, 2000, 2550), (550, 1800, 2450), (680, 1700, 2400), (730, 1100, 2440),
    (580, 880, 2450), (450, 800, 2400), (310, 870, 2250), (500, 1450, 2450), (620, 1200, 2400),
)  # fmt: skip
HIGHER = (3400.0, 4400.0, 5400.0, 6400.0, 7400.0)
BANDWIDTHS = np.array((70.0, 95.0, 140.0, 220.0, 300.0, 400.0, 500.0, 600.0))


Formants = tuple[int, int, int]


class Phone(NamedTuple):
    """``seconds``: shortest and longest. ``formants``: None takes the vowel's. ``damping``: of all but the first."""

    seconds: tuple[float, float]
    voicing: float = 0.0
    aspiration: float = 0.0
    frication: float = 0.0
    noise_hz: float = 4000.0
    formants: Formants | None = None
    damping: float = 1.0


def _stop(seconds: tuple[float, float], frication: float, noise_hz: float) -> tuple[Phone, ...]:
    """Closure, burst, aspiration."""
    return Phone((0.05, 0.09)), Phone(seconds, 0.0, 0.0, frication, noise_hz), Phone((0.02, 0.05), aspiration=0.3)


def _voiced_stop(
    formants: Formants, seconds: tuple[float, float], frication: float, noise_hz: float
) -> tuple[Phone, ...]:
    closure = Phone((0.04, 0.07), 0.3, formants=formants, damping=5.0)
    return closure, Phone(seconds, 0.4, 0.0, frication, noise_hz)


# each consonant as the phones that it is made of
CONSONANTS: dict[str, tuple[Phone, ...]] = {
    "none": (),
    "m": (Phone((0.05, 0.1), 0.6, formants=(270, 1000, 2200), damping=3.0),),
    "n": (Phone((0.05, 0.1), 0.6, formants=(280, 1600, 2600), damping=3.0),),
    "l": (Phone((0.05, 0.09), 0.75, formants=(350, 1200, 2700), damping=1.5),),
    "r": (Phone((0.05, 0.09), 0.75, formants=(400, 1250, 1700), damping=1.5),),
    "w": (Phone((0.04, 0.08), 0.8, formants=(300, 700, 2200)),),
    "y": (Phone((0.04, 0.08), 0.8, formants=(270, 2200, 2900)),),
    "v": (Phone((0.05, 0.09), 0.5, frication=0.02, noise_hz=5500, formants=(300, 1100, 2100), damping=2.0),),
    "z": (Phone((0.06, 0.1), 0.5, frication=0.06, noise_hz=6000, formants=(280, 1600, 2500), damping=2.0),),
    "f": (Phone((0.06, 0.13), frication=0.05, noise_hz=6500),),
    "s": (Phone((0.07, 0.15), frication=0.25, noise_hz=6200),),
    "sh": (Phone((0.07, 0.15), frication=0.25, noise_hz=3200),),
    "h": (Phone((0.05, 0.1), aspiration=0.25),),
    "p": _stop((0.006, 0.01), 0.1, 1200),
    "t": _stop((0.006, 0.01), 0.3, 4500),
    "k": _stop((0.01, 0.02), 0.25, 2000),
    "b": _voiced_stop((200, 900, 2200), (0.004, 0.008), 0.05, 1000),
    "d": _voiced_stop((200, 1700, 2600), (0.004, 0.008), 0.12, 4200),
    "g": _voiced_stop((200, 1900, 2300), (0.006, 0.012), 0.1, 1900),
}


class Speaker(NamedTuple):
    """``f0_hz``: of rest; ``tract``: formants over those of a man; ``range_st``: of speech melody, in semitones."""

    f0_hz: float
    tract: float
    range_st: float
    larynx: Larynx


def phrase(rng: np.random.Generator, low_hz: float, high_hz: float, sung: bool) -> tuple[Tracks, Larynx]:
    """One phrase of one speaker, its F0 between the two."""
    speaker = _speaker(rng, low_hz, high_hz, sung)
    syllables = [_syllable(rng, sung) for _ in range(rng.integers(3, 7 if sung else 11))]
    ends = np.cumsum([sum(seconds for seconds, *_ in syllable) for syllable in syllables]) + MARGIN_S
    steps = [step for syllable in syllables for step in syllable]
    count = round(float(ends[-1] + MARGIN_S) * CONTROLS_PER_SECOND)
    semitones = (_sung if sung else _spoken)(rng, speaker, count, ends)
    f0 = np.clip(speaker.f0_hz * 2 ** (semitones / 12), low_hz, high_hz)
    return _tracks(rng, speaker, steps, count, f0), speaker.larynx


# before the first phone and after the last one
MARGIN_S = 0.05
Step = tuple[float, Phone, Formants]  # seconds, phone, the syllable's vowel


def _speaker(rng: np.random.Generator, low_hz: float, high_hz: float, sung: bool) -> Speaker:
    """The resting F0 leaves room for the melody; a higher voice has the shorter tract, as a rule."""
    room = 2 ** (6 / 12) if high_hz / low_hz > 3 else 1.15
    f0 = float(np.exp(rng.uniform(np.log(low_hz * room), np.log((high_hz if sung else min(high_hz, 420)) / room))))
    tract = float(np.clip(1 + 0.22 * np.log2(f0 / 120), 0.9, 1.3) * rng.uniform(0.95, 1.05))
    open_quotient = rng.uniform(0.45, 0.75)
    return_share = min(rng.uniform(0.015, 0.08), (1 - open_quotient) / 4)
    breath, jitter, shimmer = float(rng.choice([0.02, 0.06, 0.2])), rng.uniform(0.001, 0.006), rng.uniform(0.01, 0.06)
    return Speaker(f0, tract, rng.uniform(2, 5), Larynx(open_quotient, return_share, breath, jitter, shimmer))


def _syllable(rng: np.random.Generator, sung: bool) -> list[Step]:
    """Perhaps a consonant, a vowel or two, perhaps a consonant."""
    consonants = list(CONSONANTS.values())
    vowel = VOWELS[rng.integers(len(VOWELS))]
    onset = consonants[rng.integers(len(consonants))]
    coda = consonants[rng.integers(len(consonants))] if rng.random() < (0.15 if sung else 0.3) else ()
    nucleus = [(rng.uniform(0.25, 1.1) if sung else rng.uniform(0.07, 0.22), Phone((0, 0), 1.0), vowel)]
    if rng.random() < 0.25:  # a diphthong
        glide = VOWELS[rng.integers(len(VOWELS))]
        nucleus.append((rng.uniform(0.06, 0.15), Phone((0, 0), 0.9), glide))
    around = [[(rng.uniform(*phone.seconds), phone, vowel) for phone in part] for part in (onset, coda)]
    return [*around[0], *nucleus, *around[1]]


# ---------------------------------------------------------------------- melody, in semitones over the speaker's rest
def _spoken(rng: np.random.Generator, speaker: Speaker, count: int, ends: np.ndarray) -> np.ndarray:
    """Declination, accents on some syllables, and a fall or a question at the end."""
    t = np.arange(count) / CONTROLS_PER_SECOND
    curve = rng.uniform(0.5, 1.0) * speaker.range_st * (0.5 - t / t[-1])
    for end in ends:
        if rng.random() < 0.5:
            width = rng.uniform(0.06, 0.14)
            curve += speaker.range_st * rng.uniform(0.3, 1.0) * np.exp(-0.5 * ((t - end + 0.12) / width) ** 2)
    last = np.clip((t - ends[-1] + 0.25) / 0.25, 0.0, 1.0)
    curve += last**2 * (rng.uniform(2, 6) if rng.random() < 0.25 else rng.uniform(-4, -1))
    return curve + _flutter(rng, t, 0.12)


def _sung(rng: np.random.Generator, speaker: Speaker, count: int, ends: np.ndarray) -> np.ndarray:
    """A note a syllable, mostly by steps, slid into; vibrato that sets in late."""
    t = np.arange(count) / CONTROLS_PER_SECOND
    notes = np.cumsum(rng.choice([-5, -3, -2, -1, 0, 1, 2, 3, 5], ends.size))
    notes = np.abs((notes + 6) % 24 - 12) - 6 + rng.uniform(-0.2, 0.2, ends.size)  # folded: at most six either way
    stepped = notes[np.minimum(np.searchsorted(ends, t, side="right"), ends.size - 1)]
    curve = smoothed(stepped, rng.uniform(0.06, 0.14))
    rate, depth = rng.uniform(4.5, 6.8), rng.choice([0.0, 0.25, 0.5, 0.7])
    since = t - np.concatenate([[0.0], ends])[np.searchsorted(ends, t, side="right")]
    swell = smoothed(np.clip((since - rng.uniform(0.1, 0.3)) / 0.25, 0.0, 1.0), 0.05)
    return curve + depth * swell * np.sin(2 * np.pi * rate * t + rng.uniform(0, 2 * np.pi)) + _flutter(rng, t, 0.06)


def _flutter(rng: np.random.Generator, t: np.ndarray, depth: float) -> np.ndarray:
    """The slow unsteadiness of every voice: three sines, as in KLGLOTT88."""
    phases = rng.uniform(0, 2 * np.pi, 3)
    return depth * sum(np.sin(2 * np.pi * hz * t + p) for hz, p in zip((12.7, 7.1, 4.7), phases, strict=True)) / 1.5


# ---------------------------------------------------------------------- tracks
def _tracks(rng: np.random.Generator, speaker: Speaker, steps: list[Step], count: int, f0: np.ndarray) -> Tracks:
    silent = Phone((0, 0))
    steps = [(MARGIN_S, silent, steps[0][2]), *steps, (2 * MARGIN_S, silent, steps[-1][2])]
    ends = np.cumsum([seconds for seconds, *_ in steps])
    own = np.minimum(np.searchsorted(ends, np.arange(count) / CONTROLS_PER_SECOND, side="right"), len(steps) - 1)
    table = np.array([[p.voicing, p.aspiration, p.frication, p.noise_hz, p.damping] for _, p, _ in steps])[own]
    targets = np.array([[*(p.formants or vowel), *HIGHER] for _, p, vowel in steps])[own]
    articulation = rng.uniform(0.05, 0.09)
    formants = np.stack([smoothed(column, articulation) for column in targets.T], axis=1) * speaker.tract
    formants[:, 0] = np.maximum(formants[:, 0], 1.02 * f0)  # high voices open the mouth: F1 follows F0
    formants = np.maximum.accumulate(formants + np.arange(formants.shape[1]), axis=1)
    damping = smoothed(table[:, 4], 0.02)[:, None]
    widths = BANDWIDTHS * np.concatenate([np.ones_like(damping), np.repeat(damping, BANDWIDTHS.size - 1, axis=1)], 1)
    voicing, aspiration = smoothed(table[:, 0], 0.024), smoothed(table[:, 1], 0.012)
    return Tracks(f0, voicing, aspiration, smoothed(table[:, 2], 0.006), table[:, 3], formants, widths)


def smoothed(track: np.ndarray, seconds: float) -> np.ndarray:
    """Its mean under a Hann window of this length; the ends go on as they are."""
    half = max(1, int(seconds * CONTROLS_PER_SECOND / 2))
    window = np.hanning(2 * half + 3)[1:-1]
    return np.convolve(np.pad(track, half, mode="edge"), window / window.sum(), mode="valid")
