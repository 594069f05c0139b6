"""The exponential of one's own, beside float64."""

from __future__ import annotations

import functools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rvc_mlx.exponential import SMALLEST, exponential, gate
from rvc_mlx.runtime import mx

EXP, GATE = functools.cache(exponential), functools.cache(gate)  # compiled once


@given(st.lists(st.floats(-200, 0, width=32), min_size=1, max_size=50))
def test_exponential(values):
    with mx.stream(mx.cpu):
        got = np.array(EXP()(mx.array(values, mx.float32)), np.float64)
    want = np.exp(np.maximum(np.array(values), SMALLEST))
    assert np.abs(got / want - 1).max() < 1.2e-7
    assert (got[np.array(values) == 0] == 1).all()


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=4, max_size=40), st.integers(0, 3))
def test_gate(values, seed):
    """Flat far out, and as exact as float32 allows near 0."""
    first, second, offset, other = (np.resize(np.roll(values, i), (2, 8)).astype(np.float32) for i in range(4))
    offset, other = (x[:1] * (seed / 300) for x in (offset, other))
    with mx.stream(mx.cpu):
        got = np.array(GATE()(*(mx.array(x) for x in (first, second, offset, other))), np.float64)
    sums = [np.float64(a + b) for a, b in ((first, offset), (second, other))]
    want = np.tanh(sums[0]) / (1 + np.exp(-np.clip(sums[1], -700, None)))
    assert np.abs(got - want).max() < 3e-7


def test_a_value_that_is_no_number_is_not_hidden():
    x = [mx.array([float("nan"), 1.0]), mx.array([1.0, float("nan")]), mx.zeros(2), mx.zeros(2)]
    with mx.stream(mx.cpu):
        assert np.isnan(np.array(GATE()(*x))).all()
