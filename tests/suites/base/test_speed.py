"""The estimator: what it does with noise that only ever adds time, and whether its intervals hold the truth."""

from __future__ import annotations

from itertools import product
from math import exp, log
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from suites.base.speed import Estimate, estimate, fast_logs, paired_ratio

TRUE_RATIO = 0.6


class Noise(NamedTuple):
    """``busy``: share of the time in a burst of other work. ``suffer``: how many times as much a burst adds to the
    reference. ``shown``: of disturbed calls the share that is seen as such, and taken again up to twice. Launches
    differ by ``spread`` on each side, and by 5 % on both."""

    busy: float = 0.0
    suffer: float = 1.0
    shown: float = 0.0
    spread: float = 0.012


def noisy_run(
    rng: np.random.Generator, launches: int, rounds: int, noise: Noise
) -> tuple[dict[int, float], dict[int, float], dict[int, int]]:
    """Seconds of two backends by round, and launches: bursts, lasting about 10 s, lengthen most calls."""
    sides: tuple[dict[int, float], dict[int, float]] = ({}, {})
    numbers: dict[int, int] = {}
    now, burst, until = 0.0, rng.random() < noise.busy, rng.exponential(10.0)
    for launch in range(launches):
        now += 6.0
        own = np.exp(rng.normal(0, noise.spread, 2) + rng.normal(0, 0.05)) * (TRUE_RATIO, 1.0)
        for n, side in product(range(launch * rounds, (launch + 1) * rounds), (0, 1)):
            numbers[n] = launch
            for _ in range(3):
                while now > until:
                    burst = not burst
                    until += rng.exponential(20.0 * (noise.busy if burst else 1.0 - noise.busy))
                taken, disturbed = own[side] * exp(abs(rng.normal(0, 0.004))), burst and rng.random() < 0.7
                if disturbed:
                    taken *= 1.0 + rng.uniform(0.15, 1.0) * (1.0 if side else noise.suffer)
                now += 0.5 * taken
                if not (disturbed and rng.random() < noise.shown):
                    break
            sides[side][n] = taken
    return *sides, numbers


def stopped_run(rng: np.random.Generator, least: int, most: int, rounds: int, noise: Noise) -> Estimate:
    """What a run gives that ends one launch after its interval is narrower than 2 %."""
    reference, other, numbers = noisy_run(rng, most, rounds, noise)
    known = False
    for count in range(least, most + 1):
        both = ({n: t for n, t in side.items() if numbers[n] < count} for side in (reference, other))
        found = paired_ratio(*both, numbers)
        if known:
            break
        known = found.half_width <= 0.02
    return found


@pytest.mark.parametrize(
    ("least", "most", "rounds", "noise"),
    [
        (6, 6, 6, Noise()),
        (4, 6, 6, Noise()),
        (5, 8, 2, Noise(spread=0.04)),
        (4, 6, 6, Noise(0.5)),
        (5, 5, 8, Noise(0.5)),
        (8, 8, 4, Noise(0.3)),
        (5, 8, 2, Noise(0.5, suffer=2, shown=0.8, spread=0.04)),
        (5, 8, 2, Noise(0.5, suffer=4, shown=0.8, spread=0.04)),
        (5, 8, 2, Noise(0.9, suffer=3, shown=0.8)),
        (5, 8, 3, Noise(0.5, suffer=1 / 3)),
    ],
)
def test_intervals_hold_the_true_ratio_under_one_sided_noise(least, most, rounds, noise):
    rng = np.random.default_rng(least)
    found = [stopped_run(rng, least, most, rounds, noise) for _ in range(200)]
    assert sum(one.low <= TRUE_RATIO <= one.high for one in found) >= 0.92 * len(found)


@pytest.mark.parametrize(
    ("rounds", "noise", "within", "width"), [(6, Noise(0.5), 0.03, 0.03), (3, Noise(0.5, 3, 0.8, 0.04), 0.06, 0.1)]
)
def test_a_busy_machine_moves_the_ratio_little(rounds, noise, within, width):
    rng = np.random.default_rng(0)
    found = [paired_ratio(*noisy_run(rng, 8, rounds, noise)) for _ in range(100)]
    assert np.quantile([abs(log(one.value / TRUE_RATIO)) for one in found], 0.95) < within
    assert np.median([one.half_width for one in found]) < width


def test_a_launch_that_was_slow_throughout_does_not_count():
    times = {n: 1.0 + 0.001 * n for n in range(24)}
    slow = {n: t * (3.0 if n < 6 else 1.0) for n, t in times.items()}
    launches = {n: n // 6 for n in times}
    assert paired_ratio(times, slow, launches).value == pytest.approx(1.0, abs=0.01)
    assert estimate(list(slow.values()), list(launches.values())).value < 1.02


def test_what_slows_both_sides_of_a_launch_cancels():
    drift = [1.0, 1.15, 0.95, 1.1, 1.05]
    found = paired_ratio({n: 2 * d for n, d in enumerate(drift)}, dict(enumerate(drift)), {n: n for n in range(5)})
    assert (found.low, found.value, found.high) == pytest.approx((2, 2, 2))


def test_launches_that_differ_widely_all_count():
    times = [1.0, 1.3, 1.6, 2.0, 2.5]
    assert estimate(times, list(range(5))).value == pytest.approx(np.exp(np.mean(np.log(times))))


def test_the_interval_is_students():
    logs = [0.0, 0.02, 0.05, 0.03, -0.01]
    found = paired_ratio(dict(enumerate(np.exp(logs))), dict.fromkeys(range(5), 1.0), {n: n for n in range(5)})
    known = stats.t.interval(0.95, 4, np.mean(logs), stats.sem(logs))
    assert (log(found.low), log(found.high)) == pytest.approx(known)


def test_nothing_gives_nothing():
    assert estimate([]) is None
    assert paired_ratio({0: 1.0}, {1: 1.0}) is None


def test_one_sample_is_its_own_interval():
    assert estimate([2.0]) == pytest.approx(Estimate(2.0, 2.0, 2.0, 1, 1, None), abs=1e-12)


def test_one_launch_says_nothing_of_what_could_be_seen():
    found = estimate([1.0, 1.1, 1.2])
    assert found.launches == 1
    assert found.detectable is None
    assert 1.0 < found.value < 1.2


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=12), st.integers(1, 4), st.floats(1e-3, 1e3))
def test_estimates_scale_and_lie_in_their_interval(samples, launches, factor):
    numbers = [i % launches for i in range(len(samples))]
    found, scaled = estimate(samples, numbers), estimate([factor * s for s in samples], numbers)
    assert found.low <= found.value <= found.high
    assert min(samples) * (1 - 1e-9) <= found.value <= max(samples) * (1 + 1e-9)
    assert scaled.value == pytest.approx(factor * found.value)
    assert scaled.high == pytest.approx(factor * found.high)


@given(st.lists(st.floats(0.01, 10), min_size=4, max_size=12))
def test_the_ratio_of_equal_times_is_one(samples):
    times = dict(enumerate(samples))
    found = paired_ratio(times, times, {n: n % 3 for n in times})
    assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)


@given(st.lists(st.floats(1e-3, 10), min_size=1, max_size=30))
def test_samples_longer_than_the_fast_ones_change_nothing(samples):
    more = [*samples, *[2 * max(samples)] * (0 if len(samples) < 5 else 3)]
    kept = [max(1, round(0.1 * len(s))) for s in (samples, more)]
    if kept[0] == kept[1]:
        assert fast_logs(samples, [0] * len(samples)) == fast_logs(more, [0] * len(more))


def test_the_same_samples_give_the_same_interval():
    samples, launches = [1.0, 1.2, 1.1, 1.3, 1.05, 1.4], [0, 0, 1, 1, 2, 2]
    assert estimate(samples, launches) == estimate(samples, launches)


def test_pairing_cancels_the_machines_drift():
    drift = [1.0, 3.0, 0.5, 2.0, 1.5, 4.0]
    e = paired_ratio({i: 2 * d for i, d in enumerate(drift)}, dict(enumerate(drift)))
    assert (e.low, e.value, e.high) == pytest.approx((2, 2, 2))


def test_rounds_of_one_side_only_are_left_out():
    assert paired_ratio({0: 2.0, 1: 9.0, 3: 4.0}, {0: 1.0, 2: 7.0, 3: 2.0}).rounds == 2


def test_one_round_has_no_interval():
    from reports.render.document import estimate_of, words_of
    from reports.tables.cells import coverage

    one = estimate([0.5])
    assert estimate_of(one, ("here",), 1e3).text == "500"
    assert estimate_of(one, ("here",), unit="×").text == "0.50×"
    assert "without an interval" in words_of(coverage([one], ("here",)))


def test_the_interval_over_launches_covers_the_truth():
    """Where launches differ by more than calls within one, rounds alone would promise far too much."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(200):
        logs = 0.05 * rng.standard_normal((6, 2, 1)) + 0.02 * np.abs(rng.standard_normal((6, 2, 20)))
        ours, theirs = (dict(enumerate(np.exp(logs[:, side]).ravel())) for side in (0, 1))
        found = paired_ratio(ours, theirs, {i: i // 20 for i in ours})
        hits += found.low <= 1.0 <= found.high
    assert hits / 200 == pytest.approx(0.95, abs=0.04)


def test_fast_times_forget_what_else_ran():
    quiet = [1.0 + 0.001 * i for i in range(20)]
    disturbed = quiet[:4] + [x + 0.5 for x in quiet[4:]]
    assert fast_logs(disturbed, [0] * 20)[0] == pytest.approx(fast_logs(quiet, [0] * 20)[0], abs=1e-3)


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=60), st.floats(1e-3, 1e3))
def test_fast_times_scale(samples, factor):
    one, other = (fast_logs(group, [0] * len(group))[0] for group in (samples, [factor * s for s in samples]))
    assert other - one == pytest.approx(np.log(factor), abs=1e-9)
