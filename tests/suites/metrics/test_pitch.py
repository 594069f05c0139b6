"""Figures of accuracy: what is wrong must show where it is wrong; annotations in files, good and bad."""

from __future__ import annotations

import numpy as np
import pytest

from rvc_common.contour import on_frames
from suites.base.errors import UserError
from suites.inputs.annotations import read_f0
from suites.metrics.parity import NotComparable
from suites.metrics.pitch import accuracy, consensus


@pytest.fixture
def truth():
    """A glide over an octave and a half, with pauses: a shift in time is a shift in cents."""
    t = np.arange(600) / 100
    return np.where((t % 1) < 0.7, 150 * 2 ** (t % 1 * 1.5), 0.0)


def test_what_is_right_is_perfect(truth):
    found = accuracy(truth, truth)
    assert found["rpa"] == found["rca"] == found["voicing_recall"] == found["overall_accuracy"] == 1
    assert found["octave_errors"] == found["voicing_false_alarm"] == found["mean_cents"] == found["p95_cents"] == 0
    assert (found["frames"], found["voiced_frames"], found["near_frames"]) == (600, 420, 420)


def test_another_octave(truth):
    for factor in (0.25, 0.5, 2.0, 2.04):
        found = accuracy(truth * factor, truth)
        assert (found["rpa"], found["rca"], found["octave_errors"], found["near_frames"]) == (0, 1, 1, 0)
        assert found["voicing_recall"] == 1
        assert found["overall_accuracy"] == pytest.approx(0.3)
    half = np.where(np.arange(600) % 2, truth * 2, truth)
    assert accuracy(half, truth)["octave_errors"] == pytest.approx(0.5)


def test_shifted_by_30_ms(truth):
    found = accuracy(np.roll(truth, 3), truth)
    # 18 cents a frame, so 54 in three
    assert found["rpa"] == 0
    assert found["mean_cents"] == pytest.approx(54, abs=0.1)
    assert found["voicing_recall"] == pytest.approx(67 / 70)
    assert found["voicing_false_alarm"] == pytest.approx(3 / 30)


def test_inverted_voicing(truth):
    found = accuracy(np.where(truth > 0, 0.0, 200.0), truth)
    assert (found["voicing_recall"], found["voicing_false_alarm"], found["overall_accuracy"]) == (0, 1, 0)
    assert (found["rpa"], found["rca"], found["mean_cents"]) == (0, 0, None)


@pytest.mark.parametrize(("cents", "right"), [(40, 1), (-40, 1), (60, 0), (-60, 0)])
def test_fifty_cents_are_the_limit(truth, cents, right):
    found = accuracy(truth * 2 ** (cents / 1200), truth)
    assert (found["rpa"], found["rca"], found["octave_errors"]) == (right, right, 0)
    assert found["mean_cents"] == pytest.approx(abs(cents))


def test_gross_errors_are_not_in_the_cents(truth):
    wrong = truth.copy()
    wrong[:50] *= 1.5
    wrong[100:110] *= 2 ** (30 / 1200)
    found = accuracy(wrong, truth)
    assert found["near_frames"] == 370
    assert found["mean_cents"] == pytest.approx(300 / 370)
    assert found["rpa"] == pytest.approx(370 / 420)


def test_frames_that_do_not_count(truth):
    scored = np.arange(600) >= 50
    wrong = np.where(scored, truth, truth * 2)
    assert accuracy(wrong, truth)["rpa"] < 1
    found = accuracy(wrong, truth, scored)
    assert (found["rpa"], found["scored_frames"], found["frames"]) == (1, 550, 600)


def test_figures_without_frames_are_none(truth):
    voiced = accuracy(truth, truth, truth > 0)
    assert voiced["voicing_false_alarm"] is None
    silent = accuracy(truth, truth, truth == 0)
    assert silent["rpa"] is silent["rca"] is silent["octave_errors"] is silent["voicing_recall"] is None
    assert silent["voicing_false_alarm"] == 0
    assert silent["overall_accuracy"] == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_no_figures_of_what_is_no_f0(truth, bad):
    wrong = truth.copy()
    wrong[[7, 9]] = bad
    with pytest.raises(NotComparable, match="estimate has 2 values"):
        accuracy(wrong, truth)
    with pytest.raises(NotComparable, match="truth has 2 values"):
        accuracy(truth, wrong)


def test_no_figures_of_other_lengths_or_of_nothing(truth):
    with pytest.raises(NotComparable, match=r"\[599\] frames, \[600\] in the truth"):
        accuracy(truth[1:], truth)
    with pytest.raises(NotComparable, match="no frame is scored"):
        accuracy(truth, truth, np.zeros(600, bool))


def test_consensus_is_where_both_agree():
    one = np.array([100.0, 100.0, 100.0, 0.0, 0.0, 200.0])
    other = np.array([102.0, 104.0, 0.0, 100.0, 0.0, 100.0])
    found, agree = consensus(one, other)
    assert agree.tolist() == [True, False, False, False, False, False]
    assert found[0] == pytest.approx(np.sqrt(100 * 102))
    assert not found[1:].any()


# ---------------------------------------------------------------------- annotations
def test_frames_between_annotations():
    times = np.array([0.0, 0.02, 0.04, 0.06])
    f0 = np.array([100.0, 200.0, 0.0, 0.0])
    found = on_frames(times, f0, 9)
    # between two voiced ones the geometric mean; then the nearest decides, and after the end there is nothing
    np.testing.assert_allclose(found, [100, np.sqrt(20000), 200, 200, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("hop_s", [0.005, 0.0058, 0.01, 0.0128])
def test_any_step_of_time(hop_s):
    def curve(t):
        return np.where((t % 1) < 0.7, 150 * 2 ** (t % 1), 0.0)

    times, frames = np.arange(0, 3, hop_s), np.arange(290) / 100
    found = on_frames(times, curve(times), 290)
    settled = (np.abs(frames % 1 - 0.7) > hop_s) & (np.abs((frames + 0.5) % 1 - 0.5) > hop_s)
    np.testing.assert_allclose(found[settled], curve(frames)[settled], rtol=1e-3)


def test_lines_that_are_left_out_are_silence():
    times = np.array([0.00, 0.01, 0.02, 0.50, 0.51])
    found = on_frames(times, np.full(5, 100.0), 60)
    assert np.flatnonzero(found).tolist() == [0, 1, 2, 3, 49, 50, 51, 52]


def test_one_annotation_alone():
    assert np.flatnonzero(on_frames(np.array([0.05]), np.array([100.0]), 20)).tolist() == [4, 5, 6]


GOOD = {
    "plain": "0.00,100\n0.01,0\n0.02,110.5\n",
    "header": "time_s,f0_hz\n0.00,100\n0.01,0\n0.02,110.5\n",
    "spaces": "\n# made by hand\n0.00 100\n0.01 0\n0.02 110.5",
    "tabs and a third column": "0.00\t100\t1\n0.01\t0\t0\n0.02\t110.5\t1\n",
    "unvoiced below 0": "0.00;100\r\n0.01;-90\r\n0.02;110.5\r\n",
    "byte order mark": "\ufefftime,f0\n0.00,100\n0.01,0\n0.02,110.5\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_files_of_f0(tmp_path, name):
    (tmp_path / "a.csv").write_text(GOOD[name], encoding="utf-8")
    times, f0 = read_f0(tmp_path / "a.csv")
    assert times.tolist() == [0.0, 0.01, 0.02]
    assert f0.tolist() == [100.0, 0.0, 110.5]


BAD = {
    "missing": (None, "no such file"),
    "empty": ("", "holds no line"),
    "header alone": ("time,f0\n", "holds no line"),
    "one column": ("0.0\n0.1\n", "has one column; time_s,f0_hz are two"),
    "words": ("0.0,100\n0.1,high\n", ":2: '0.1,high' is not time_s,f0_hz"),
    "NaN": ("0.0,100\n0.1,nan\n", ":2: '0.1,nan' is not"),
    "two headers": ("time,f0\ntime,f0\n0,100\n", ":2: 'time,f0' is not"),
    "back in time": ("0.0,100\n0.2,100\n0.1,100\n", "times must rise.*0.1 does not"),
    "the same time": ("0.0,100\n0.0,100\n", "times must rise"),
    "before the start": ("-1,100\n0,100\n", "-1 does not"),
    "columns exchanged": ("100,0.0\n9000,0.1\n9001,9002\n", "9002 Hz is no F0"),
    "silence": ("0,0\n0.1,0\n", "no frame is voiced"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_of_f0(tmp_path, name):
    text, message = BAD[name]
    if text is not None:
        (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_f0(tmp_path / "a.csv")
    assert str(caught.value).startswith(f"suite.f0={tmp_path}/a.csv")
    assert "\n" not in str(caught.value)


def test_a_file_of_sound_is_no_file_of_f0(tmp_path):
    (tmp_path / "a.wav").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match="is not text"):
        read_f0(tmp_path / "a.wav")
