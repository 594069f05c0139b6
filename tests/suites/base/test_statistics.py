"""Comparisons of launches against known answers and by simulation."""

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
    holm,
    moderated,
    trimmed_mean,
)


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
    for _ in range(800):
        sds = 0.02 * spread ** rng.uniform(-1, 1, 20)
        found = of_gates(rng, sds, 6)
        hits += sum(one.p_above < 0.001 for one in moderated(found))
        plain += sum(one.p_above < 0.001 for one in found)
    assert hits / 16000 < 0.002
    assert plain / 16000 < 0.002


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
