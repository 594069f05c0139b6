"""The time left, with a clock of its own; and what is shown where no one looks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.measure.progress import REPORT_S, START_WEIGHT, UNKNOWN_SECONDS, Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_told_before_a_case_has_been_measured():
    clock = Clock()
    progress = Progress([10.0, 10.0, 10.0], False, clock)
    clock.now = 50.0
    assert progress.left_s() is None
    progress.case_ended(measured=False)  # resumed: it was there
    assert progress.left_s() is None
    clock.now = 80.0
    progress.case_ended(measured=True)
    assert progress.left_s() == 30.0
    clock.now = 90.0
    assert progress.left_s() == 20.0
    clock.now = 200.0
    assert progress.left_s() == 0.0  # a case that takes longer than the others


def test_longer_audio_weighs_more_and_a_start_weighs_something():
    long, unknown, short = Progress([30.0, None, 0.5], False).weights
    assert long > unknown == UNKNOWN_SECONDS + START_WEIGHT > short > 0


@given(st.lists(st.floats(1, 100), min_size=2, max_size=8), st.floats(0.01, 100), st.data())
def test_an_even_pace_is_told_exactly(seconds, rate, data):
    clock = Clock()
    progress = Progress(seconds, False, clock)
    count = data.draw(st.integers(1, len(seconds)))
    for one in progress.weights[:count]:
        clock.now += rate * one
        progress.case_ended(measured=True)
    left = rate * sum(progress.weights[count:])
    assert abs(progress.left_s() - left) <= 1e-6 * (1 + left)


def test_the_bar_is_the_share_of_the_time(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    clock = Clock()
    with Progress([10.0], True, clock) as progress:
        clock.now = 40.0
        progress("launch 2: speech", 60.0 - REPORT_S)
        assert progress._bar.n / progress._bar.total == pytest.approx(0.4)
    assert "about 01:00 left" in capsys.readouterr().err


def test_without_a_terminal_nothing_is_shown(capsys):
    with Progress([10.0], True) as progress:
        progress("launch 1", 10.0)
    assert capsys.readouterr().err == ""
