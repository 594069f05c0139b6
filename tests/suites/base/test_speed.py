"""The estimator: what it does with noise that only ever adds time, and whether its intervals hold the truth."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.base.speed import Estimate, estimate, fast_logs, paired_ratio

TRUE_RATIO = 0.6


def noisy_run(
    rng: np.random.Generator, launches: int, rounds: int, busy: float
) -> tuple[dict[int, float], dict[int, float], dict[int, int]]:
    """Seconds of two backends by round, and launches: bursts of other work, lasting about 10 s, lengthen most calls.

    ``busy``: share of the time in a burst. Launches differ by 1.2 %.
    """
    reference, other, numbers = {}, {}, {}
    now, burst, until = 0.0, rng.random() < busy, rng.exponential(10.0)
    for launch in range(launches):
        now += 6.0
        own = np.exp(rng.normal(0, 0.012, 2)) * (TRUE_RATIO, 1.0)
        for n in range(launch * rounds, (launch + 1) * rounds):
            numbers[n] = launch
            for side, taken in enumerate((reference, other)):
                while now > until:
                    burst = not burst
                    until += rng.exponential(20.0 * (busy if burst else 1.0 - busy))
                taken[n] = own[side] * exp(abs(rng.normal(0, 0.004)))
                if burst and rng.random() < 0.7:
                    taken[n] *= 1.0 + rng.uniform(0.15, 1.0)
                now += 0.5 * taken[n]
    return reference, other, numbers


def stopped_run(rng: np.random.Generator, least: int, most: int, rounds: int, busy: float) -> Estimate:
    """What a run gives that ends one launch after its interval is narrower than 2 %."""
    reference, other, numbers = noisy_run(rng, most, rounds, busy)
    known = False
    for count in range(least, most + 1):
        both = ({n: t for n, t in side.items() if numbers[n] < count} for side in (reference, other))
        found = paired_ratio(*both, numbers)
        if known:
            break
        known = found.half_width <= 0.02
    return found


@pytest.mark.parametrize(
    ("least", "most", "rounds", "busy"),
    [(6, 6, 6, 0.0), (4, 6, 6, 0.0), (4, 6, 6, 0.5), (4, 6, 12, 0.0), (4, 6, 3, 0.5), (5, 5, 8, 0.5), (8, 8, 4, 0.3)],
)
def test_intervals_hold_the_true_ratio_under_one_sided_noise(least, most, rounds, busy):
    rng = np.random.default_rng(least)
    found = [stopped_run(rng, least, most, rounds, busy) for _ in range(200)]
    assert sum(one.low <= TRUE_RATIO <= one.high for one in found) >= 0.92 * len(found)


def test_a_busy_machine_moves_the_ratio_little():
    rng = np.random.default_rng(0)
    errors = [abs(log(paired_ratio(*noisy_run(rng, 6, 6, 0.5)).value / TRUE_RATIO)) for _ in range(100)]
    assert np.quantile(errors, 0.95) < 0.03


def test_a_launch_that_was_slow_throughout_does_not_count():
    times = {n: 1.0 + 0.001 * n for n in range(18)}
    slow = {n: t * (3.0 if n < 6 else 1.0) for n, t in times.items()}
    launches = {n: n // 6 for n in times}
    assert paired_ratio(times, slow, launches).value == pytest.approx(1.0, abs=0.01)
    assert estimate(list(slow.values()), list(launches.values())).value < 1.01


def test_nothing_gives_nothing():
    assert estimate([]) is None
    assert paired_ratio({0: 1.0}, {1: 1.0}) is None


def test_one_sample_is_its_own_interval():
    assert estimate([2.0]) == pytest.approx(Estimate(2.0, 2.0, 2.0, 1, 1, None), abs=1e-12)


def test_one_launch_says_nothing_of_what_could_be_seen():
    found = estimate([1.0, 1.1, 1.2])
    assert found.launches == 1
    assert found.detectable is None
    assert found.value == pytest.approx(1.0)


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=12), st.integers(1, 4), st.floats(1e-3, 1e3))
def test_estimates_scale_and_lie_in_their_interval(samples, launches, factor):
    numbers = [i % launches for i in range(len(samples))]
    found, scaled = estimate(samples, numbers), estimate([factor * s for s in samples], numbers)
    assert found.low <= found.value <= found.high
    assert min(samples) * (1 - 1e-9) <= found.low
    assert found.high <= max(samples) * (1 + 1e-9)
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
