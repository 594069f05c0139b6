"""How far two results are apart. Pure functions of NumPy arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Figures = dict[str, Any]


class NotComparable(ValueError):
    """The two results cannot be compared; the message says why."""


def checked(value: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64. Raises ``NotComparable``: other shapes, nothing, NaN or infinity."""
    a, b = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    if a.shape != b.shape:
        raise NotComparable(f"shapes differ: {list(a.shape)} and {list(b.shape)} in the reference")
    if a.size == 0:
        raise NotComparable("nothing to compare: the results are empty")
    for name, x in (("result", a), ("reference", b)):
        if math.isfinite(_norm(x)):  # one pass without a copy
            continue
        bad = np.count_nonzero(~np.isfinite(x))
        if bad:
            raise NotComparable(f"the {name} has {bad} NaN or infinite values")
    return a, b


def _norm(x: np.ndarray) -> float:
    """The root of the sum of squares."""
    flat = x.ravel(order="K")
    return math.sqrt(np.dot(flat, flat))


def distance(a: np.ndarray, b: np.ndarray) -> Figures:
    """max_abs and rmse of two ``checked`` arrays."""
    difference = a - b
    largest = float(max(difference.max(), -difference.min()))
    return {"max_abs": largest, "rmse": _norm(difference) / math.sqrt(a.size)}


def compare(value: np.ndarray, reference: np.ndarray) -> Figures:
    """max_abs, rmse, snr_db (of the reference over the difference), corr (None where constant).

    Raises ``NotComparable``: other shapes, nothing, NaN or infinity."""
    return _compared(*checked(value, reference))


def _compared(a: np.ndarray, b: np.ndarray) -> Figures:
    found = distance(a, b)
    rmse, level = found["rmse"], _norm(b) / math.sqrt(b.size)
    return found | {
        # equal results have no noise to measure: None, not infinity
        "snr_db": float(20 * np.log10(level / rmse)) if rmse > 0 and level > 0 else None,
        "corr": cosine(a - a.mean(), b - b.mean()),
        "values": int(a.size),
    }


def cosine(value: np.ndarray, reference: np.ndarray) -> float | None:
    """Of the angle between both; None where one of them is zero throughout."""
    a, b = np.asarray(value, np.float64).ravel(), np.asarray(reference, np.float64).ravel()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else None


def relative(figures: Figures, reference: np.ndarray) -> float | None:
    """The root mean square error over the reference's; None of a silent reference."""
    rms = _norm(np.asarray(reference, np.float64)) / math.sqrt(max(1, np.size(reference)))
    return figures["rmse"] / rms if rms > 0 else None


def argmax_changes(value: np.ndarray, reference: np.ndarray) -> int:
    """Rows of the last axis whose largest value is elsewhere."""
    return int(np.count_nonzero(value.argmax(axis=-1) != reference.argmax(axis=-1)))


def figures(value: np.ndarray, reference: np.ndarray, argmax: bool = False) -> Figures:
    """The figures of a stage; where they cannot be computed, ``reason`` says why.
    ``argmax``: count the rows of the last axis whose largest value is elsewhere."""
    try:
        a, b = checked(value, reference)
    except NotComparable as error:
        return {"reason": str(error)}
    found = _compared(a, b)
    found |= {"cosine": cosine(a, b), "relative": relative(found, b)}
    if argmax:
        found["argmax_changes"] = argmax_changes(value, reference)
    return found


def level(figures: Figures, name: str) -> float:
    """A figure to be judged: where ``compare`` knows none, equal results are perfect and others worthless."""
    if figures[name] is not None:
        return float(figures[name])
    equal = figures["rmse"] == 0
    return (np.inf if equal else -np.inf) if name == "snr_db" else (1.0 if equal else -1.0)


def compare_mel(value: np.ndarray, reference: np.ndarray) -> Figures:
    """``[128, F]`` natural-log mel; adds ``relative_max``, a band's error over the loudest band of its frame.

    The logarithm of a quiet band magnifies rounding without bound, so ``max_abs`` says more about the audio than about
    the implementation.
    """
    figures = compare(value, reference)
    a, b = np.exp(np.asarray(value, np.float64)), np.exp(np.asarray(reference, np.float64))
    figures["relative_max"] = float((np.abs(a - b) / b.max(axis=0, keepdims=True)).max())
    return figures


def compare_f0(value: np.ndarray, reference: np.ndarray) -> Figures:
    """``[F]`` Hz, 0 where unvoiced: voicing mismatches, and cents where both are voiced."""
    a, b = checked(value, reference)
    both = (a > 0) & (b > 0)
    cents = np.abs(1200.0 * np.log2(a[both] / b[both]))
    return {
        "frames": int(a.size),
        "voiced_frames": int(np.count_nonzero(b > 0)),
        "voicing_mismatches": int(np.count_nonzero((a > 0) != (b > 0))),
        "max_cents": float(cents.max()) if cents.size else 0.0,
        "mean_cents": float(cents.mean()) if cents.size else 0.0,
        "max_abs": float(np.abs(a - b).max()),
        "rmse": float(np.sqrt(np.mean((a - b) ** 2))),
    }


def undecided_frames(salience: np.ndarray, threshold: float, error: float) -> np.ndarray:
    """Frames ``[F]`` at the voicing threshold, or with a tie of the two best bins, within ``error``: any correct
    float32 implementation may decide these otherwise."""
    best = np.partition(salience, -2, axis=1)[:, -2:]
    at_threshold = np.abs(best[:, 1] - threshold) <= error
    return at_threshold | ((best[:, 1] - best[:, 0] <= 2 * error) & (best[:, 1] > threshold))
