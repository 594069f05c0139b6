"""The figures of pitch between two results, tested with differences of known size."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.inputs.voice import synthesize
from suites.metrics.audio import compare_pitch

few = settings(max_examples=20, deadline=None)


def test_voicing_errors_are_told_apart():
    reference = np.array([100.0, 100.0, 0.0, 0.0, 0.0, 100.0, 100.0, 100.0])
    value = np.array([0.0, 100.0, 90.0, 80.0, 0.0, 100.0, 100.0, 100.0])
    figures = compare_pitch(value, reference)
    assert figures["voicing_false_alarms"] == 2
    assert figures["voicing_misses"] == 1
    assert figures["voicing_mismatches"] == 3
    assert figures["voicing_error_rate"] == pytest.approx(3 / 8)
    assert figures["both_voiced_frames"] == 4


def test_octave_errors_are_counted():
    reference = np.full(100, 200.0)
    value = reference.copy()
    value[[3, 40]] = 400.0
    value[70] = 100.0
    value[80] = 200.0 * 2 ** (601 / 1200)
    value[81] = 200.0 * 2 ** (599 / 1200)
    value[90] = 0.0  # unvoiced is a miss and no octave
    figures = compare_pitch(value, reference)
    assert figures["octave_errors"] == 4
    assert figures["max_cents"] == pytest.approx(1200)


@given(st.integers(1, 60), st.floats(-590, 590))
@few
def test_a_transposition_is_read_in_cents(frames, cents):
    f0 = np.random.default_rng(frames).uniform(80, 800, frames)
    figures = compare_pitch(f0 * 2 ** (cents / 1200), f0)
    for name in ("rms_cents", "p95_cents", "max_cents", "edge_start_max_cents", "edge_end_max_cents"):
        assert figures[name] == pytest.approx(abs(cents), abs=1e-6), name
    assert figures["octave_errors"] == figures["voicing_false_alarms"] == figures["voicing_misses"] == 0
    json.dumps(figures, allow_nan=False)


def test_a_percentile_leaves_rare_errors_out():
    reference = np.full(1000, 200.0)
    value = reference * 2 ** (10 / 1200)
    value[500:510] *= 2
    figures = compare_pitch(value, reference)
    assert figures["p95_cents"] == pytest.approx(10)
    assert figures["rms_cents"] == pytest.approx(np.sqrt(0.99 * 10**2 + 0.01 * 1210**2))


def test_edges_of_pitch_are_their_own():
    reference = np.full(50, 200.0)
    value = reference.copy()
    value[9] = 0.0
    value[10] = 300.0  # just inside
    value[40] = 200.0 * 2 ** (30 / 1200)
    figures = compare_pitch(value, reference)
    assert figures["edge_start_voicing_mismatches"] == 1
    assert figures["edge_start_max_cents"] == 0
    assert figures["edge_end_voicing_mismatches"] == 0
    assert figures["edge_end_max_cents"] == pytest.approx(30)


def test_no_common_voice_has_no_cents():
    figures = compare_pitch(np.zeros(4), np.full(4, 100.0))
    assert figures["both_voiced_frames"] == figures["rms_cents"] == figures["p95_cents"] == 0
    assert figures["voicing_error_rate"] == 1


def test_the_truth_of_the_synthetic_voice_equals_itself():
    f0 = synthesize(2.0, seed=1).f0_hz
    figures = compare_pitch(f0, f0)
    assert {value for name, value in figures.items() if not name.endswith("frames")} == {0}
