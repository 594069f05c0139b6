"""The time left, with a clock of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from suites.measure.runner import START_WEIGHT, UNKNOWN_SECONDS, Pace, weight_of


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_told_before_a_case_has_been_measured():
    clock = Clock()
    pace = Pace([10.0, 10.0, 10.0], clock)
    clock.now = 50.0
    assert pace.left() == ""
    pace.ended(measured=False)  # resumed: it was there
    assert pace.left_s() is None
    clock.now = 80.0
    pace.ended(measured=True)
    assert pace.left_s() == 30.0
    clock.now = 90.0
    assert pace.left() == "about 00:20 left"
    clock.now = 200.0
    assert pace.left_s() == 0.0  # a case that takes longer than the others


def test_longer_audio_weighs_more_and_a_start_weighs_something():
    assert weight_of(30.0) > weight_of(None) == UNKNOWN_SECONDS + START_WEIGHT > weight_of(0.5) > 0


@given(st.lists(st.floats(1, 100), min_size=2, max_size=8), st.floats(0.01, 100), st.data())
def test_an_even_pace_is_told_exactly(weights, rate, data):
    clock = Clock()
    pace = Pace(weights, clock)
    count = data.draw(st.integers(1, len(weights)))
    for one in weights[:count]:
        clock.now += rate * one
        pace.ended(measured=True)
    left = rate * sum(weights[count:])
    assert abs(pace.left_s() - left) <= 1e-6 * (1 + left)
