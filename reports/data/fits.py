"""Straight lines through measured values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEAST_DURATIONS = 3


class Line(NamedTuple):
    """``value = intercept + slope * duration``."""

    intercept: float
    slope: float

    def at(self, durations: np.ndarray) -> np.ndarray:
        return self.intercept + self.slope * durations


def line(durations: Sequence[float], values: Sequence[float]) -> Line | None:
    """Least squares of relative errors: each value weighs 1/value².

    None where there are fewer than three durations: a line through two points fits whatever they are. Times that bend
    can make the intercept negative.

    Raises ``ValueError``: a value that is not positive, which has no relative error."""
    if min(values, default=1.0) <= 0:
        raise ValueError("relative errors need positive values")
    if len(set(durations)) < LEAST_DURATIONS:
        return None
    y = np.asarray(values, np.float64)
    made = np.stack([np.ones_like(y), np.asarray(durations, np.float64)], axis=1) / y[:, None]
    (intercept, slope), *_ = np.linalg.lstsq(made, np.ones_like(y), rcond=None)
    return Line(float(intercept), float(slope))
