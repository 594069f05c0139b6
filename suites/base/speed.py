"""The estimator of times and speed-ups: fast times, with intervals by resampling. Pure functions of samples.

Other work on a machine only ever makes a call longer, so the fastest calls say most about the code (Chen and Revels,
"Robust benchmarking in noisy environments", 2016). On logarithms of seconds:

1. The *fast time* of a process launch is the mean of its fastest tenth of samples, of one at least.
2. A time is the mean over the faster half of the launches: another program may hold the machine for a whole launch.
3. A speed-up is the difference of two times, over rounds that both backends have.

Calls of one process share what it happened to get, such as the layout of its memory, so they are not independent
(Kalibera and Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013). Intervals therefore come from resampling
launches, and within each its rounds; both backends keep the same draws, because what slows the machine in a round hits
both. Percentiles of few launches are too narrow and are taken further out, as Student's distribution tells (Hesterberg,
"What Teachers Should Know About the Bootstrap", The American Statistician 2015). Two degrees of freedom are taken off
instead of one, because the launches that count are chosen by their times. Fewer than ``LEAST_LAUNCHES`` launches say
nothing of what differs between processes: then rounds alone are resampled.

Launches that end as soon as an interval is narrow end more often where it is narrow by chance. So whoever stops by
precision takes one more launch afterwards; without it, intervals held the true value in 87 % of simulated runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import exp, sqrt
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
LEAST_LAUNCHES = 3
FAST_SHARE = 0.1
REPLICATES = 1000


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
    return _estimate(np.asarray(samples, float)[:, None], launches or [0] * len(samples)) if samples else None


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
    if not both:
        return None
    pairs = np.array([(reference[i], other[i]) for i in both])
    return _estimate(pairs, [launches[i] if launches else 0 for i in both])


def fast_logs(samples: Sequence[float], launches: Sequence[int]) -> dict[int, float]:
    """The logarithm of each launch's fast time."""
    groups = _by_launch(np.asarray(samples, float)[:, None], launches)
    return {launch: float(_fast(group)[0]) for launch, group in groups.items()}


def _by_launch(samples: np.ndarray, launches: Iterable[int]) -> dict[int, np.ndarray]:
    """Logarithms by launch."""
    numbers, logs = np.array(list(launches)), np.log(samples)
    return {int(launch): logs[numbers == launch] for launch in np.unique(numbers)}


def _fast(logs: np.ndarray) -> np.ndarray:
    """Mean of the fastest share over rounds ``[..., rounds, sides]``."""
    kept = max(1, round(FAST_SHARE * logs.shape[-2]))
    return np.sort(logs, axis=-2)[..., :kept, :].mean(axis=-2)


def _typical(fast: np.ndarray) -> np.ndarray:
    """Mean of the faster half over launches ``[..., launches, sides]``; of two sides, the first minus the second."""
    kept = (fast.shape[-2] + 1) // 2
    sides = np.sort(fast, axis=-2)[..., :kept, :].mean(axis=-2)
    return sides[..., 0] - (sides[..., 1] if sides.shape[-1] == 2 else 0.0)


def _estimate(samples: np.ndarray, launches: Sequence[int]) -> Estimate:
    groups = list(_by_launch(samples, launches).values())
    count = len(groups)
    value = float(_typical(np.stack([_fast(group) for group in groups])))
    several = count >= LEAST_LAUNCHES
    draws = _typical(_resampled(groups, several))
    outside = _outside(count if several else min(map(len, groups)))
    low, high = np.quantile(draws, [outside, 1.0 - outside])
    low, high = min(float(low), value), max(float(high), value)
    seen = _detectable((high - low) / 2, count) if several else None
    return Estimate(exp(value), exp(low), exp(high), len(samples), count, seen)


def _resampled(groups: Sequence[np.ndarray], several: bool) -> np.ndarray:
    """Fast times ``[replicates, launches, sides]`` of resampled rounds, and of ``several`` launches resampled too."""
    generator = np.random.default_rng(0)
    fast = []
    for group in groups:
        rounds = generator.integers(len(group), size=(REPLICATES, len(group)))
        fast.append(_fast(group[rounds]))
    table = np.stack(fast, axis=1)
    if not several:
        return table
    drawn = generator.integers(len(groups), size=(REPLICATES, len(groups)))
    # a launch that is drawn twice brings its rounds from another replicate
    replicate = generator.integers(REPLICATES, size=drawn.shape)
    return table[replicate, drawn]


@cache
def _outside(count: int) -> float:
    """The share of replicates beyond each end of an interval from ``count`` launches or rounds."""
    from scipy.stats import norm, t

    if count < 2:
        return 0.0
    return float(norm.cdf(-sqrt(count / (count - 1)) * t.ppf(0.5 + CONFIDENCE / 2, max(1, count - 2))))


def _detectable(reach: float, launches: int) -> float:
    """From half of an interval on logarithms: its launches' error, by Student's quantile."""
    from scipy.stats import t

    from .statistics import detectable_rise

    error = reach / float(t.ppf(0.5 + CONFIDENCE / 2, launches - 1))
    return detectable_rise(sqrt(2) * error, 2 * launches - 2, 0.05)
