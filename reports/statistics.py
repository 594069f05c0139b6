"""Medians with intervals, and paired ratios. Pure functions of samples.

Interval of a median: distribution-free, from order statistics (David and Nagaraja, "Order
Statistics", 3rd ed., 7.1): the interval between the k-th smallest and k-th largest sample
covers the median with probability 1 - 2 P(Binomial(n, 1/2) < k). With fewer than six samples
no such interval reaches 95 %; then the range is given, with the coverage that it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from statistics import median
from typing import NamedTuple

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A median and an interval that covers the true one with probability ``coverage``."""

    median: float
    low: float
    high: float
    coverage: float
    rounds: int


def estimate(samples: Sequence[float]) -> Estimate | None:
    """None where there are no samples."""
    ordered = sorted(samples)
    n = len(ordered)
    if n == 0:
        return None
    k = max((k for k in range(1, n // 2 + 1) if _coverage(n, k) >= CONFIDENCE), default=1)
    return Estimate(median(ordered), ordered[k - 1], ordered[n - k], _coverage(n, k), n)


def _coverage(n: int, k: int) -> float:
    return max(0.0, 1.0 - 2.0 * sum(comb(n, i) for i in range(k)) / 2**n)


def paired_ratio(reference: Mapping[int, float], other: Mapping[int, float]) -> Estimate | None:
    """Speed-up of ``other``: the median over rounds of reference time / its time.

    Both map rounds to seconds. Pairing by round cancels what slowed the machine in that round.
    """
    return estimate([reference[i] / other[i] for i in sorted(reference) if i in other])
