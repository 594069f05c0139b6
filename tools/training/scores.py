"""Pitch and voicing on held-out synthetic voices, under fixed conditions.

The figures are those of MIREX melody extraction (Poliner et al., 2007), within 50 cents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from reference_torch.rmvpe import RMVPE
from tools.voices.batch import CLEAN, TRAINING, Conditions, make_batch
from tools.voices.draw import Draw

NOISY = (0.0, 0.6, 0.2, 0.0, 0.2)
STREAMS: dict[str, Conditions] = {
    "clean": CLEAN,
    "snr20": Conditions(NOISY, (20.0, 20.0), 0.0, 0.0),
    "snr10": Conditions(NOISY, (10.0, 10.0), 0.0, 0.0),
    "snr5": Conditions(NOISY, (5.0, 5.0), 0.0, 0.0),
    "snr0": Conditions(NOISY, (0.0, 0.0), 0.0, 0.0),
    "room": Conditions(CLEAN.kinds, None, 1.0, 0.0),
    "mixed": TRAINING,
}
HELD_OUT = 1  # key of the draws that no training step uses
TOLERANCE_CENTS = 50.0
THRESHOLD = 0.03


class Frames(NamedTuple):
    """Frames of a stream whose truth is unambiguous, ``[n]`` each: truth, estimate, highest salience."""

    cents: np.ndarray
    voiced: np.ndarray
    estimate: np.ndarray
    peak: np.ndarray


@torch.no_grad()
def evaluate_batches(model: RMVPE, seed: int, batch: int, frames: int, batches: int) -> dict[str, list[Frames]]:
    """The estimates of ``model`` per stream and batch; the streams depend only on ``seed`` and the sizes."""
    result: dict[str, list[Frames]] = {name: [] for name in STREAMS}
    for index, (name, conditions) in enumerate(STREAMS.items()):
        for i in range(batches):
            made = make_batch(Draw(model.device, seed, HELD_OUT, index, i), batch, frames, conditions)
            salience = model.salience(model.log_mel(made.audio).cpu().numpy()).reshape(-1, 360)
            decided = (made.truth.weight > 0.5).flatten().cpu().numpy()
            truth = (made.truth.cents.flatten().cpu().numpy(), made.truth.voiced.flatten().cpu().numpy())
            columns = (*truth, model.cents(salience, 0.0), salience.max(1))
            result[name].append(Frames(*(column[decided] for column in columns)))
    return result


def joined(parts: Sequence[Frames]) -> Frames:
    return Frames(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def evaluate(model: RMVPE, seed: int, batch: int, frames: int, batches: int) -> dict[str, Frames]:
    """``evaluate_batches`` with the batches of a stream joined."""
    return {name: joined(parts) for name, parts in evaluate_batches(model, seed, batch, frames, batches).items()}


def score(frames: Frames, threshold: float = THRESHOLD) -> dict[str, float | None]:
    """Shares from 0 to 1, and the mean error in cents of the frames within the tolerance."""
    detected = frames.peak > threshold
    error = np.abs(frames.estimate - frames.cents)
    octaves = np.abs(error - 1200 * np.round(error / 1200))
    right = detected & (error <= TOLERANCE_CENTS)
    voiced = frames.voiced.astype(bool)
    n_voiced, n_silent = max(voiced.sum(), 1), max((~voiced).sum(), 1)
    found = right & voiced
    return {
        "rpa": float(found.sum() / n_voiced),
        "rca": float((detected & (octaves <= TOLERANCE_CENTS) & voiced).sum() / n_voiced),
        "recall": float((detected & voiced).sum() / n_voiced),
        "false_alarm": float((detected & ~voiced).sum() / n_silent),
        "overall": float((found.sum() + (~detected & ~voiced).sum()) / max(voiced.size, 1)),
        "cents": float(error[found].mean()) if found.any() else None,
    }


class Difference(NamedTuple):
    """A figure of one model less that of another, and the standard error due to the choice of voices."""

    value: float
    error: float | None


def difference(one: Sequence[Frames], other: Sequence[Frames], figure: str) -> Difference:
    """``other``'s figure less ``one``'s over the same batches; the error by a jackknife over these (Efron, 1981)."""

    def of(kept: Sequence[int]) -> float:
        ours, theirs = (score(joined([parts[i] for i in kept]))[figure] for parts in (other, one))
        return float("nan") if ours is None or theirs is None else ours - theirs

    n = len(one)
    if n < 2:
        return Difference(of(range(n)), None)
    without = np.array([of([i for i in range(n) if i != gone]) for gone in range(n)])
    return Difference(of(range(n)), float(np.sqrt((n - 1) * without.var())))


def best_threshold(streams: dict[str, Frames], slack: float = 0.0005) -> float:
    """The lowest threshold whose mean overall accuracy is within ``slack`` of the best.

    The curve is flat near its maximum, and a lower threshold detects more of the voice.
    """
    grid = 1 / (1 + np.exp(-np.linspace(-7, 4, 111)))
    overall = np.array([[score(frames, t)["overall"] for frames in streams.values()] for t in grid], float).mean(1)
    return float(grid[np.argmax(overall >= overall.max() - slack)])
