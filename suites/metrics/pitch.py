"""Pitch against the truth: the figures of ``mir_eval.melody`` and what they leave out; F0 annotations from a file.

F0 is ``[F]`` in Hz at 100 frames a second, 0 where unvoiced. Figures: Salamon, Gomez, Ellis and Richard, "Melody
extraction from polyphonic music signals" (2014); Raffel et al., "mir_eval" (2014).
"""

from __future__ import annotations

import warnings

import numpy as np

from .parity import Figures, NotComparable
from .registry import ACCURACY, HIGHER

FRAMES_PER_S = 100
# an estimate this near is right; a right one's precision is taken over all that are this near
TOLERANCE_CENTS, NEAR_CENTS = 50.0, 100.0
OCTAVE_CENTS = 1200.0
# of the figures, those of which more is better
SHARES = tuple(figure.name for figure in ACCURACY if figure.metric.better == HIGHER)


def accuracy(f0: np.ndarray, truth: np.ndarray, scored: np.ndarray | None = None) -> Figures:
    """Shares from 0 to 1 over the frames that are ``scored`` (None: all). A figure without frames is None.

    Of frames that are voiced in truth: ``rpa``, within 50 cents; ``rca``, within 50 cents of any octave of it;
    ``octave_errors``, within 50 cents of another octave; ``voicing_recall``, called voiced; one called unvoiced has no
    pitch and is wrong. Of frames that are unvoiced in truth: ``voicing_false_alarm``. Of all: ``overall_accuracy``.
    ``mean_cents``, ``p95_cents``: of the absolute error where both are voiced and less than a semitone apart.

    Raises ``NotComparable``: other lengths, nothing to score, negative values, NaN or infinity."""
    estimate, true = np.asarray(f0, np.float64), np.asarray(truth, np.float64)
    kept = np.ones(true.shape, bool) if scored is None else np.asarray(scored, bool)
    if estimate.ndim != 1 or not estimate.shape == true.shape == kept.shape:
        shapes = [list(array.shape) for array in (estimate, true, kept)]
        raise NotComparable(f"{shapes[0]} frames, {shapes[1]} in the truth, {shapes[2]} marked")
    for name, array in (("estimate", estimate), ("truth", true)):
        bad = np.count_nonzero(~((array >= 0) & np.isfinite(array)))
        if bad:
            raise NotComparable(f"the {name} has {bad} values that are negative, NaN or infinite")
    if not kept.any():
        raise NotComparable("no frame is scored")
    estimate, true = estimate[kept], true[kept]
    voiced = true > 0
    figures: Figures = {"frames": int(kept.size), "scored_frames": int(true.size), "voiced_frames": int(voiced.sum())}
    return figures | _shares(estimate, true) | _cents(estimate, true)


def _shares(estimate: np.ndarray, true: np.ndarray) -> Figures:
    from mir_eval import melody

    warnings.filterwarnings("ignore", "(Estimated|Reference) melody has no", UserWarning)  # the figures show it
    reference, voiced = true > 0, estimate > 0
    # 0 means to mir_eval what it means here; its base is below every F0
    cents = [melody.hz2cents(f0) for f0 in (true, estimate)]
    both = (reference, cents[0], voiced, cents[1])
    figures: Figures = dict.fromkeys(("rpa", "rca", "octave_errors", "voicing_recall", "voicing_false_alarm"))
    if reference.any():
        figures["rpa"] = float(melody.raw_pitch_accuracy(*both, cent_tolerance=TOLERANCE_CENTS))
        figures["rca"] = float(melody.raw_chroma_accuracy(*both, cent_tolerance=TOLERANCE_CENTS))
        figures["voicing_recall"] = float(melody.voicing_recall(reference, voiced))
        figures["octave_errors"] = float(_other_octave(estimate, true).sum() / reference.sum())
    if not reference.all():
        figures["voicing_false_alarm"] = float(melody.voicing_false_alarm(reference, voiced))
    figures["overall_accuracy"] = float(melody.overall_accuracy(*both, cent_tolerance=TOLERANCE_CENTS))
    return figures


def _distance(estimate: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Cents; NaN where one of them is unvoiced."""
    both = (estimate > 0) & (true > 0)
    found = np.full(true.size, np.nan)
    found[both] = OCTAVE_CENTS * np.log2(estimate[both] / true[both])
    return found


def _other_octave(estimate: np.ndarray, true: np.ndarray) -> np.ndarray:
    octaves = np.nan_to_num(_distance(estimate, true)) / OCTAVE_CENTS
    return (np.rint(octaves) != 0) & (np.abs(octaves - np.rint(octaves)) * OCTAVE_CENTS <= TOLERANCE_CENTS)


def _cents(estimate: np.ndarray, true: np.ndarray) -> Figures:
    distance = np.abs(_distance(estimate, true))
    near = distance[distance < NEAR_CENTS]
    figures: Figures = {"near_frames": int(near.size), "mean_cents": None, "p95_cents": None}
    if near.size:
        figures |= {"mean_cents": float(near.mean()), "p95_cents": float(np.percentile(near, 95))}
    return figures


def consensus(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Their geometric mean ``[F]``, and where it counts: both voiced and within 50 cents of each other."""
    agree = np.abs(np.nan_to_num(_distance(one, other), nan=np.inf)) <= TOLERANCE_CENTS
    return np.where(agree, np.sqrt(one * other), 0.0), agree


# ---------------------------------------------------------------------- annotations
