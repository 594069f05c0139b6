"""The estimator of times and speed-ups: fast times, paired by launch, with Student's intervals. Pure functions.

Other work on a machine only ever makes a call longer, so the fastest calls say most about the code (Chen and Revels,
"Robust benchmarking in noisy environments", 2016). Calls of one process share what it happened to get, such as the
layout of its memory, so a launch counts once (Kalibera and Jones, "Rigorous Benchmarking in Reasonable Time", ISMM
2013). On logarithms of seconds:

1. The *fast time* of a process launch is the mean of its fastest tenth of samples, of one at least.
2. A launch is left out where its fast time, on either side, is above the mean of that side's faster half of launches by
   more than ``OUTLYING``, and by more than twice the range of the faster half: something else held the machine all the
   time. ``LEAST_LAUNCHES`` always stay.
3. A time is the mean of the fast times. A speed-up is the mean of their differences within each launch: what slows both
   sides of a launch, such as the machine's clock, cancels.
4. The interval is Student's for the mean of as many values as there are launches left.

Launches are left out by their times, but only where these are far from ordinary, and on both sides by the same rule, so
that no degree of freedom is taken off for the choice (docs/measurement.md has what simulation says). What other work
took of the processors has chosen the sample of each round before (suites/measure/timed.py). It chooses no launches:
systems count it in steps of 10 ms, which is much of a short call, and not all that disturbs a call is in it.

Fewer than ``LEAST_LAUNCHES`` launches say nothing of what differs between processes: then rounds take their place.

Launches that end as soon as an interval is narrow end more often where it is narrow by chance. So whoever stops by
precision takes one more launch afterwards; without it, intervals held the true value in 91.5 % of some simulated runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log1p, sqrt
from typing import NamedTuple

import numpy as np

from .statistics import detectable_rise, t_quantile

CONFIDENCE = 0.95
LEAST_LAUNCHES = 3
FAST_SHARE = 0.1
OUTLYING = 0.2


class Estimate(NamedTuple):
    """A value and the ends of its interval.

    ``detectable``: the smallest relative change that two such measurements would distinguish in 80 % of cases;
    None where the launches are too few to say.
    """

    value: float
    low: float
    high: float
    rounds: int
    launches: int
    detectable: float | None = None

    @property
    def half_width(self) -> float:
        """Of the interval, relative to the value."""
        return sqrt(self.high / self.low) - 1.0


def estimate(samples: Sequence[float], launches: Sequence[int] | None = None) -> Estimate | None:
    """The time of positive samples; ``launches``: the process launch of each. None where there are none."""
    return _estimate([samples], launches or [0] * len(samples)) if samples else None


def paired_ratio(
    reference: Mapping[int, float], other: Mapping[int, float], launches: Mapping[int, int] | None = None
) -> Estimate | None:
    """Speed-up of ``other``: the reference's time over its own.

    Args:
        reference: seconds by round.
        other: seconds by round.
        launches: process launch by round; None: all rounds are of one.
    """
    both = [i for i in sorted(reference) if i in other]
    sides = [[side[i] for i in both] for side in (reference, other)]
    return _estimate(sides, [launches[i] if launches else 0 for i in both]) if both else None


def fast_logs(samples: Sequence[float], launches: Sequence[int]) -> dict[int, float]:
    """The logarithm of each launch's fast time."""
    numbers, logs = np.asarray(launches), np.log(np.asarray(samples, float))
    return {int(launch): _fast(logs[numbers == launch]) for launch in np.unique(numbers)}


def _fast(logs: np.ndarray) -> float:
    return float(np.sort(logs)[: max(1, round(FAST_SHARE * len(logs)))].mean())


def _estimate(sides: Sequence[Sequence[float]], launches: Sequence[int]) -> Estimate:
    """Of one side its time, of two the first one's over the second's."""
    rounds, count = len(launches), len(set(launches))
    several = count >= LEAST_LAUNCHES
    groups = launches if several else range(rounds)
    fast = np.array([list(fast_logs(side, groups).values()) for side in sides])
    values = fast[0] - fast[1] if len(sides) == 2 else fast[0]
    values = values[_ordinary(fast)]
    value, df = float(values.mean()), len(values) - 1
    error = float(values.std(ddof=1)) / sqrt(len(values)) if df else 0.0
    reach = min(50.0, t_quantile(0.5 + CONFIDENCE / 2, df) * error) if error else 0.0
    seen = detectable_rise(sqrt(2) * error, 2 * df, 0.05) if several else None
    return Estimate(exp(value), exp(value - reach), exp(value + reach), rounds, count, seen)


def _ordinary(fast: np.ndarray) -> np.ndarray:
    """Which launches count, of fast times ``[sides, launches]``."""
    half = np.sort(fast)[:, : (fast.shape[1] + 1) // 2]
    above = (fast - half.mean(axis=1, keepdims=True)).max(axis=0)
    limit = max(log1p(OUTLYING), 2 * float(np.ptp(half, axis=1).max()))
    return above <= max(limit, np.sort(above)[:LEAST_LAUNCHES][-1])
