"""Intervals and paired ratios against known answers and by simulation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from suites.base.statistics import (
    Difference,
    between_runs,
    detectable_rise,
    difference,
    estimate,
    fast_logs,
    holm,
    moderated,
    paired_ratio,
    trimmed_mean,
)

times = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40)


def test_nothing():
    assert estimate([]) is None
    assert paired_ratio({}, {0: 1.0}) is None


@pytest.mark.parametrize(("n", "coverage"), [(1, 0.0), (2, 0.5), (5, 0.9375), (6, 0.96875)])
def test_small_samples_give_their_range_and_say_what_it_covers(n, coverage):
    e = estimate(range(1, n + 1))
    assert (e.low, e.high) == (1, n)
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
    assert np.mean(hits) == pytest.approx(estimate(range(1, 13)).coverage, abs=0.015)


def test_pairing_cancels_the_machines_drift():
    drift = [1.0, 3.0, 0.5, 2.0, 1.5, 4.0]
    e = paired_ratio({i: 2 * d for i, d in enumerate(drift)}, dict(enumerate(drift)))
    assert (e.low, e.value, e.high) == (2, 2, 2)


def test_rounds_of_one_side_only_are_left_out():
    assert paired_ratio({0: 2.0, 1: 9.0, 3: 4.0}, {0: 1.0, 2: 7.0, 3: 2.0}).rounds == 2


def test_one_round_has_no_interval():
    from reports.render.document import estimate_of, words_of
    from reports.tables.cells import coverage

    one = estimate([0.5])
    assert estimate_of(one, ("here",), 1e3).text == "500"
    assert estimate_of(one, ("here",), unit="×").text == "0.50×"
    assert "without an interval" in words_of(coverage([one], ("here",)))


# ---------------------------------------------------------------------- over launches
def launches_of(rng, launches, rounds, between, within):
    logs = between * rng.standard_normal((launches, 1)) + within * rng.standard_normal((launches, rounds))
    return np.exp(logs).ravel().tolist(), np.repeat(np.arange(launches), rounds).tolist()


def test_the_interval_over_launches_covers_the_truth():
    """Where launches differ by more than calls within one, rounds alone would promise far too much."""
    rng, hits = np.random.default_rng(1), []
    for _ in range(800):
        e = estimate(*launches_of(rng, 5, 20, between=0.05, within=0.02))
        hits.append(e.low <= 1.0 <= e.high)
    assert np.mean(hits) == pytest.approx(0.95, abs=0.025)


def test_two_launches_fall_back_to_rounds():
    e = estimate([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1])
    assert (e.launches, e.detectable) == (2, None)


def test_unequal_launches_count_alike():
    e = estimate([1.0] * 50 + [2.0, 4.0], [0] * 50 + [1, 2])
    assert e.value == pytest.approx(2.0)


def test_what_two_runs_could_tell_apart_is_told_apart():
    """80 % of rises of the size that the first run calls detectable are significant at 5 %, one-sided."""
    rng, found = np.random.default_rng(2), []
    for _ in range(600):
        first = (0.02 * rng.standard_normal(8)).tolist()
        size = np.log1p(detectable_rise(0.02 * np.sqrt(2 / 8), 14, 0.05))
        second = (size + 0.02 * rng.standard_normal(8)).tolist()
        shift = np.mean(second) - np.mean(first)
        error = np.sqrt((np.var(first, ddof=1) + np.var(second, ddof=1)) / 8)
        found.append(stats.t.sf(shift / error, 14) < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


# ---------------------------------------------------------------------- fast times
def test_fast_times_forget_what_else_ran():
    quiet = [1.0 + 0.001 * i for i in range(20)]
    disturbed = quiet[:4] + [x + 0.5 for x in quiet[4:]]
    assert fast_logs(disturbed, [0] * 20)[0] == pytest.approx(fast_logs(quiet, [0] * 20)[0], abs=1e-3)


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=60), st.floats(1e-3, 1e3))
def test_fast_times_scale(samples, factor):
    one, other = (fast_logs(group, [0] * len(group))[0] for group in (samples, [factor * s for s in samples]))
    assert other - one == pytest.approx(np.log(factor), abs=1e-9)


# ---------------------------------------------------------------------- differences
groups = st.lists(st.floats(-1, 1), min_size=3, max_size=25)


@given(groups, groups)
def test_the_difference_is_scipys(first, second):
    own = difference(first, second)
    if own.error < 1e-3:  # scipy warns of what is nearly equal throughout
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = stats.ttest_ind(second, first, equal_var=False, trim=0.2, alternative="greater")
    assert own.p_above == pytest.approx(known.pvalue, abs=1e-9)


def test_one_wild_launch_hides_no_change():
    calm = [0.001 * (i % 3) for i in range(12)]
    wild = [*(0.05 + x for x in calm[:-1]), -0.6]
    assert difference(calm, wild).p_above < 1e-6
    assert trimmed_mean(wild) == pytest.approx(0.051, abs=0.002)


def test_equal_groups_do_not_differ():
    assert difference([1.0] * 5, [1.0] * 5).p_above == 1.0
    assert difference([1.0] * 5, [1.1] * 5).p_above == 0.0


def test_holm_on_a_worked_example():
    """Holm (1979): 0.01, 0.04, 0.03, 0.005 at 5 %: the first and the last."""
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05) == [True, False, False, True]


@given(st.lists(st.floats(0, 1), max_size=30))
def test_holm_is_between_bonferroni_and_none(values):
    found = holm(values, 0.05)
    assert all(hit for hit, p in zip(found, values, strict=True) if p <= 0.05 / max(1, len(values)))
    assert not any(hit for hit, p in zip(found, values, strict=True) if p > 0.05)


# ---------------------------------------------------------------------- what gates lend one another
def of_gates(rng, sds, launches, shifts=None):
    shifts = np.zeros(len(sds)) if shifts is None else shifts
    return [
        difference((sd * rng.standard_normal(launches)).tolist(), (shift + sd * rng.standard_normal(launches)).tolist())
        for sd, shift in zip(sds, shifts, strict=True)
    ]


@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_moderated_errors_keep_the_rate_of_false_alarms(spread):
    """Alike or not, at a level that a correction over many gates asks for."""
    rng, hits, plain = np.random.default_rng(3), 0, 0
    for _ in range(1500):
        sds = 0.02 * spread ** rng.uniform(-1, 1, 20)
        found = of_gates(rng, sds, 6)
        hits += sum(one.p_above < 0.001 for one in moderated(found))
        plain += sum(one.p_above < 0.001 for one in found)
    assert hits / 30000 < 0.002
    assert plain / 30000 < 0.002


def test_moderated_errors_see_more_where_launches_are_few():
    rng, caught, plain = np.random.default_rng(4), 0, 0
    for _ in range(200):
        found = of_gates(rng, np.full(15, 0.02), 6, np.full(15, 0.08))
        caught += sum(one.p_above < 0.0005 for one in moderated(found))
        plain += sum(one.p_above < 0.0005 for one in found)
    assert caught > 1.5 * plain


def test_few_gates_learn_nothing():
    found = [Difference(0.1, 0.02, 10.0)] * 4
    assert moderated(found) == found
    assert moderated([]) == []


def test_drift_between_runs_is_found_and_bounded():
    rng, found = np.random.default_rng(5), []
    for _ in range(100):
        drift = 0.03 * rng.standard_normal(20)
        found.append(between_runs(of_gates(rng, np.full(20, 0.02), 12, drift), 0.05))
    assert 0.02 < np.median(found) < 0.04
    assert between_runs([Difference(float(x), 0.001, 10.0) for x in range(9)], 0.05) == 0.05


def test_one_change_and_a_change_of_all_are_no_drift():
    steady = [Difference(0.0005 * (i % 2), 0.01, 20.0) for i in range(15)]
    assert between_runs([*steady[:-1], Difference(0.5, 0.01, 20.0)], 0.05) == 0.0
    assert between_runs([one._replace(shift=one.shift + 0.2) for one in steady], 0.05) == 0.0
