"""Whether two groups of process launches differ, and the size of change that could have been seen. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import exp, log, sqrt
from statistics import fmean, median, stdev
from typing import NamedTuple

POWER = 0.8
# of the launches, at either end
TRIMMED_SHARE = 0.2
# a device that works on for longer after the clock has stopped had not computed every output
LARGEST_REST_SHARE, LARGEST_REST_S = 0.05, 1e-3
# degrees of freedom that the other gates of a comparison may lend to one
MOST_SHARED_DF = 30.0


def largest_rest_s(seconds: float) -> float:
    """How long a device may seem to go on after calls that took ``seconds`` together."""
    return max(LARGEST_REST_S, LARGEST_REST_SHARE * seconds)


def _by_launch(values: Iterable[float], launches: Iterable[int]) -> dict[int, list[float]]:
    groups: dict[int, list[float]] = {}
    for value, launch in zip(values, launches, strict=True):
        groups.setdefault(launch, []).append(value)
    return dict(sorted(groups.items()))


def paired_logs(own: Mapping[int, float], theirs: Mapping[int, float], launches: Mapping[int, int]) -> dict[int, float]:
    """Per launch the median over rounds of the logarithm of one time over the other."""
    both = [number for number in sorted(own) if number in theirs]
    groups = _by_launch([log(own[n] / theirs[n]) for n in both], [launches[n] for n in both])
    return {launch: median(group) for launch, group in groups.items()}


class Difference(NamedTuple):
    """Of two groups of launches, on logarithms: ``shift`` (second minus first), its error and degrees of freedom."""

    shift: float
    error: float
    df: float

    @property
    def p_above(self) -> float:
        """One-sided: the probability of such a rise, or a larger one, where nothing changed."""
        return self._tail(self.shift)

    @property
    def p_below(self) -> float:
        return self._tail(-self.shift)

    def _tail(self, shift: float) -> float:
        from scipy.special import stdtr

        if self.error == 0:  # equal samples throughout: any shift is certain
            return 0.0 if shift > 0 else 1.0
        return float(stdtr(self.df, -shift / self.error))


def difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Yuen's comparison of trimmed means; both of at least two logarithms.

    A launch in which something else took the machine differs by tens of per cent from all others: a fifth
    of the launches is left out at either end, and the variance is that of the winsorised rest (Yuen, "The
    two-sample trimmed t for unequal population variances", Biometrika 1974). Below five launches nothing
    can be left out, and this is Welch's test.
    """
    (centre_a, part_a, free_a), (centre_b, part_b, free_b) = (_trimmed(group) for group in (first, second))
    total = part_a + part_b
    weights = part_a**2 / free_a + part_b**2 / free_b
    return Difference(centre_b - centre_a, sqrt(total), total**2 / weights if weights else free_a + free_b)


def trimmed_mean(values: Sequence[float]) -> float:
    """Without the lowest and the highest fifth."""
    return _trimmed(values)[0]


def _trimmed(values: Sequence[float]) -> tuple[float, float, float]:
    """Trimmed mean, its squared error, and its degrees of freedom."""
    ordered, cut = sorted(values), int(TRIMMED_SHARE * len(values))
    inner = ordered[cut : len(ordered) - cut]
    held = [inner[0]] * cut + inner + [inner[-1]] * cut
    kept = len(inner)
    mean = fmean(held)
    squares = sum((value - mean) ** 2 for value in held)
    return fmean(inner), squares / (kept * (kept - 1)), kept - 1.0


def detectable_rise(error: float, df: float, level: float, smallest: float = 0.0, power: float = POWER) -> float:
    """The smallest relative rise that a one-sided comparison at ``level`` calls with probability ``power``.

    ``error``: of the difference of logarithms. A rise below ``smallest`` is never called.

    The power of a t-test by the normal approximation of the non-central t (Johnson and Welch,
    "Applications of the non-central t-distribution", Biometrika 1940).
    """
    bound, quantile = t_quantile(1 - level, df), _normal_quantile(power)
    shift = bound * (1 - 1 / (4 * df)) + quantile * sqrt(1 + bound**2 / (2 * df))
    seen = log(1 + smallest) + t_quantile(power, df) * error if smallest else 0.0
    return exp(min(max(shift * error, seen), 50.0)) - 1.0


@cache
def t_quantile(probability: float, df: float) -> float:
    """Student's; a report asks for the same few some thousand times."""
    from scipy.special import stdtrit  # scipy.stats gives the same, and takes far longer to import

    return float(stdtrit(df, probability))


@cache
def _normal_quantile(probability: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(probability))


def moderated(differences: Sequence[Difference]) -> list[Difference]:
    """With errors that share what is known of the spread: all gates of a comparison ran on the same machine.

    A handful of launches estimates its own spread poorly, and a test that is strict enough for many
    gates then sees nothing. How alike the spreads are is estimated from themselves; the more alike, the
    more each one counts for all (Smyth, "Linear models and empirical Bayes methods for assessing
    differential expression", 2004: the moderated t; limma's estimator).
    """
    from scipy.special import digamma, polygamma

    known = [one for one in differences if one.error > 0 and one.df > 0]
    if len(known) < 5:
        return list(differences)
    logs = [2 * log(one.error) - float(digamma(one.df / 2)) + log(one.df / 2) for one in known]
    excess = stdev(logs) ** 2 - fmean(float(polygamma(1, one.df / 2)) for one in known)
    prior_df = min(MOST_SHARED_DF, 2 * _inverse_trigamma(excess)) if excess > 0 else MOST_SHARED_DF
    prior = exp(fmean(logs) + float(digamma(prior_df / 2)) - log(prior_df / 2))

    def shared(one: Difference) -> Difference:
        squared = (prior_df * prior + one.df * one.error**2) / (prior_df + one.df)
        return one._replace(error=sqrt(squared), df=one.df + prior_df) if one.error > 0 else one

    return [shared(one) for one in differences]


def _inverse_trigamma(value: float) -> float:
    from scipy.optimize import brentq
    from scipy.special import polygamma

    return float(brentq(lambda x: float(polygamma(1, x)) - value, 1e-3, 1e6))


def between_runs(differences: Sequence[Difference], largest: float) -> float:
    """How much farther apart the components' shifts are than their launches explain: the standard deviation of what
    differs from run to run, at most ``largest``.
    Robust, so that a few components that did change do not enter it: the median absolute deviation from the median
    shift (the empirical null of Efron, "Large-scale simultaneous hypothesis testing", JASA 2004)."""
    if len(differences) < 3:
        return 0.0
    shifts = [one.shift for one in differences]
    centre = median(shifts)
    spread = 1.4826 * median(abs(shift - centre) for shift in shifts)
    return min(largest, sqrt(max(0.0, spread**2 - median(one.error**2 for one in differences))))


def holm(values: Sequence[float], level: float) -> list[bool]:
    """Which of these p-values are significant, the probability of any false one being at most ``level``.
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979."""
    found = [False] * len(values)
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if values[i] > level / (len(values) - rank):
            break
        found[i] = True
    return found


def share_with_interval(count: int, total: int) -> str:
    """A share in per cent with its 95 % interval (Wilson's)."""
    from scipy.stats import binomtest

    low, high = binomtest(count, total).proportion_ci(method="wilson")
    interval = f"95 % interval {100 * low:.1f} to {100 * high:.1f} %"
    return f"{count} of {total} ({100 * count / total:.1f} %, {interval})"
