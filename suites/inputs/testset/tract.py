"""A voice from its control tracks: glottal pulses one by one, through formants that move.

Source: the flow derivative of KLGLOTT88 (Klatt and Klatt, "Analysis, synthesis, and perception of voice quality
variations among female and male talkers", 1990) with an exponential return phase, sampled at each pulse's own time,
and noise that is loudest while the glottis is open. Filter: Klatt's cascade of second-order resonators; the noise of
consonants goes past it. All at 48 kHz, where pulses of 2 kHz hardly alias.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RATE = 48000
CONTROLS_PER_SECOND = 1000
# the filter's coefficients are constant for so many samples
BLOCK = 120
# below this the glottis does not vibrate
LEAST_VOICING = 0.05


class Tracks(NamedTuple):
    """What a voice does, every millisecond. ``[n]`` each; ``formants_hz``, ``bandwidths_hz``: ``[n, formants]``.
    ``voicing``, ``aspiration``, ``frication``: amplitudes from 0 to 1; ``noise_hz``: where frication is loudest."""

    f0_hz: np.ndarray
    voicing: np.ndarray
    aspiration: np.ndarray
    frication: np.ndarray
    noise_hz: np.ndarray
    formants_hz: np.ndarray
    bandwidths_hz: np.ndarray


class Larynx(NamedTuple):
    """``open_quotient`` and ``return_share``: of a period; ``breath``: noise over pulses; ``jitter``: of a period, the
    spread of a pulse around its due time; ``shimmer``: of its amplitude."""

    open_quotient: float
    return_share: float
    breath: float
    jitter: float
    shimmer: float


def utter(tracks: Tracks, larynx: Larynx, rng: np.random.Generator) -> np.ndarray:
    """``[n]`` at ``RATE``, of no particular level.
    A pulse is due when the running sum of ``f0_hz`` reaches a whole number, and comes ``jitter`` sooner or later. The
    deviations do not add up, so the F0 of the pulses is that of the track."""
    count = tracks.f0_hz.size * RATE // CONTROLS_PER_SECOND
    time = np.arange(count) / RATE
    known = np.arange(tracks.f0_hz.size) / CONTROLS_PER_SECOND
    noise = rng.standard_normal(count)
    pulses, is_open = _pulses(tracks, larynx, time, known, rng)
    aspiration = np.interp(time, known, tracks.aspiration)
    voicing = np.interp(time, known, tracks.voicing)
    breath = noise * (aspiration + larynx.breath * voicing * (0.3 + 0.7 * is_open))
    frication = np.interp(time, known, tracks.frication)
    hiss = _through(noise * frication, tracks.noise_hz[:, None], np.full((known.size, 1), 1500.0))
    return _through(pulses + 0.3 * breath, tracks.formants_hz, tracks.bandwidths_hz) + 2.0 * hiss


def _pulses(
    tracks: Tracks, larynx: Larynx, time: np.ndarray, known: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The flow derivative, and how far the glottis is open: ``[n]`` each."""
    f0 = np.interp(time, known, tracks.f0_hz)
    phase = np.concatenate([[0.0], np.cumsum(f0)[:-1]]) / RATE
    numbers = np.arange(int(phase[-1]) + 1)
    due = np.interp(numbers, phase, time)
    period = 1.0 / np.interp(due, time, f0)
    starts = due + period * larynx.jitter * np.clip(rng.standard_normal(due.size), -2.5, 2.5)
    level = np.interp(starts, known, tracks.voicing)
    level = np.where(level > LEAST_VOICING, level, 0.0) * (1 + larynx.shimmer * rng.standard_normal(level.size))
    lengths = np.append(np.diff(starts), period[-1])
    own = np.clip(np.searchsorted(starts, time, side="right") - 1, 0, None)
    place = np.clip((time - starts[own]) / lengths[own], 0.0, None)
    wave, is_open = _pulse(place, larynx.open_quotient, larynx.return_share)
    return wave * level[own], is_open * (level[own] > 0)


def _pulse(place: np.ndarray, open_quotient: float, return_share: float) -> tuple[np.ndarray, np.ndarray]:
    """One period of the flow derivative by the place in it, from 0 to 1; without a mean."""
    within = np.minimum(place / open_quotient, 1.0)
    opening = 2 * within - 3 * within**2 + 6 * within * (1 - within) * return_share / open_quotient
    closing = -np.exp(-np.maximum(place - open_quotient, 0.0) / return_share)
    return np.where(place < open_quotient, opening, closing), np.sin(np.pi * within) * (place < open_quotient)


def _through(signal: np.ndarray, centres_hz: np.ndarray, bandwidths_hz: np.ndarray) -> np.ndarray:
    """Resonators in a row, each with unit gain at 0 Hz; tracks ``[controls, resonators]``."""
    from scipy.signal import sosfilt

    blocks = -(-signal.size // BLOCK)
    at = np.minimum((np.arange(blocks) * BLOCK + BLOCK // 2) * CONTROLS_PER_SECOND // RATE, centres_hz.shape[0] - 1)
    radius = np.exp(-np.pi * bandwidths_hz[at] / RATE)
    a1, a2 = -2 * radius * np.cos(2 * np.pi * centres_hz[at] / RATE), radius**2
    sections = np.zeros((blocks, centres_hz.shape[1], 6))
    sections[..., 0], sections[..., 3], sections[..., 4], sections[..., 5] = 1 + a1 + a2, 1.0, a1, a2
    out, state = np.empty_like(signal), np.zeros((centres_hz.shape[1], 2))
    for i in range(blocks):
        part = slice(i * BLOCK, (i + 1) * BLOCK)
        out[part], state = sosfilt(sections[i], signal[part], zi=state)
    return out
