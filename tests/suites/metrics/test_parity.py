"""The comparers, tested with faults that they must show and inputs that they must refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from suites.metrics.parity import NotComparable, compare, compare_f0, compare_mel, undecided_frames

finite = st.floats(-1e3, 1e3, allow_nan=False, width=32)
arrays = hnp.arrays(np.float32, hnp.array_shapes(min_side=1, max_dims=3), elements=finite)

COMPARERS = [compare, compare_f0]


@pytest.mark.parametrize("compare_any", COMPARERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["result", "reference", "both"])
def test_nan_and_infinity_never_compare(compare_any, bad, place):
    a, b = np.ones(5), np.ones(5)
    if place != "reference":
        a[2] = bad
    if place != "result":
        b[2] = bad
    with pytest.raises(NotComparable, match="1 NaN or infinite"):
        compare_any(a, b)


@pytest.mark.parametrize("compare_any", COMPARERS)
def test_shapes_must_agree(compare_any):
    with pytest.raises(NotComparable, match=r"\[5\] and \[6\]"):
        compare_any(np.ones(5), np.ones(6))


@pytest.mark.parametrize("compare_any", COMPARERS)
def test_nothing_is_no_agreement(compare_any):
    with pytest.raises(NotComparable, match="empty"):
        compare_any(np.ones(0), np.ones(0))


@given(arrays)
def test_a_thing_equals_itself(x):
    figures = compare(x, x)
    assert figures["max_abs"] == figures["rmse"] == 0
    assert figures["snr_db"] is None


@given(arrays, st.floats(0.001, 100))
def test_a_constant_shift_is_its_own_error(x, shift):
    figures = compare(x.astype(np.float64) + shift, x)
    assert figures["max_abs"] == pytest.approx(shift, rel=1e-6)
    assert figures["rmse"] == pytest.approx(shift, rel=1e-6)


def test_a_gain_shows_in_snr_though_not_in_correlation():
    x = np.random.default_rng(0).standard_normal(1000)
    figures = compare(x * 10 ** (0.5 / 20), x)
    assert figures["corr"] == pytest.approx(1.0)
    assert figures["snr_db"] == pytest.approx(24.5, abs=0.1)


def test_correlation_of_a_constant_is_not_a_number():
    assert compare(np.ones(4), np.ones(4))["corr"] is None


def test_small_integers_do_not_wrap():
    assert compare(np.array([0], np.uint8), np.array([255], np.uint8))["max_abs"] == 255


def test_mel_error_is_relative_to_the_frames_loudest_band():
    reference = np.log(np.array([[1.0, 1e-5], [1e-4, 1e-5]]))
    value = reference.copy()
    value[1, 0] = np.log(2e-4)  # a doubling 80 dB below the loudest band
    figures = compare_mel(value, reference)
    assert figures["max_abs"] == pytest.approx(np.log(2))
    assert figures["relative_max"] == pytest.approx(1e-4)


def test_f0_counts_voicing_and_cents_apart():
    reference = np.array([100.0, 200.0, 0.0, 0.0, 300.0])
    value = np.array([200.0, 200.0, 50.0, 0.0, 0.0])
    figures = compare_f0(value, reference)
    assert figures["voicing_mismatches"] == 2
    assert figures["max_cents"] == pytest.approx(1200)
    assert figures["frames"] == 5


@given(hnp.arrays(np.float64, 8, elements=st.floats(40, 1500)), st.floats(-500, 500))
def test_a_transposition_is_read_in_cents(f0, cents):
    assert compare_f0(f0 * 2 ** (cents / 1200), f0)["max_cents"] == pytest.approx(abs(cents), abs=1e-6)


def test_undecided_frames():
    salience = np.zeros((4, 360), np.float32)
    salience[0, 7] = 0.03 + 1e-7  # at the threshold
    salience[1, [7, 200]] = 0.5, 0.5 - 1e-7  # a tie
    salience[2, [7, 200]] = 0.5, 0.4
    salience[3, [7, 200]] = 0.01, 0.01  # a tie of an unvoiced frame decides nothing
    assert undecided_frames(salience, 0.03, 1e-6).tolist() == [True, True, False, False]
    assert not undecided_frames(salience, 0.03, 0.0).any()
