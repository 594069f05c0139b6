"""Intervals and paired ratios against known answers and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.statistics import estimate, paired_ratio

times = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40)


def test_nothing():
    assert estimate([]) is None
    assert paired_ratio({}, {0: 1.0}) is None


@pytest.mark.parametrize(("n", "coverage"), [(1, 0.0), (2, 0.5), (5, 0.9375), (6, 0.96875)])
def test_small_samples_give_their_range_and_say_what_it_covers(n, coverage):
    e = estimate(range(n))
    assert (e.low, e.high) == (0, n - 1)
    assert e.coverage == pytest.approx(coverage)


def test_known_ranks():
    """n = 20: the 6th and 15th smallest, coverage 95.9 % (tables of the sign test)."""
    e = estimate(range(1, 21))
    assert (e.low, e.high) == (6, 15)
    assert e.coverage == pytest.approx(0.9586, abs=1e-4)


@given(times, st.floats(1e-3, 1e3))
def test_scaling_scales(samples, factor):
    a, b = estimate(samples), estimate([factor * s for s in samples])
    assert (b.value, b.low, b.high) == pytest.approx((factor * a.value, factor * a.low, factor * a.high))


@given(times)
def test_the_interval_holds_the_median(samples):
    e = estimate(samples)
    assert e.low <= e.value <= e.high


def test_coverage_is_what_it_says():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(2000):
        e = estimate(rng.exponential(size=12).tolist())
        hits.append(e.low <= np.log(2) <= e.high)
    assert np.mean(hits) == pytest.approx(estimate(range(12)).coverage, abs=0.015)


def test_pairing_cancels_the_machines_drift():
    drift = [1.0, 3.0, 0.5, 2.0, 1.5, 4.0]
    e = paired_ratio({i: 2 * d for i, d in enumerate(drift)}, dict(enumerate(drift)))
    assert (e.low, e.value, e.high) == (2, 2, 2)


def test_rounds_of_one_side_only_are_left_out():
    assert paired_ratio({0: 2.0, 1: 9.0, 3: 4.0}, {0: 1.0, 2: 7.0, 3: 2.0}).rounds == 2


def test_one_round_has_no_interval():
    from reports import tables

    one = estimate([0.5])
    assert tables.milliseconds(one) == "500"
    assert tables.ratio(one) == "0.50×"
    assert "without an interval" in tables.coverage_note([one])
