"""The worker's clock: what it counts, when it calls a call warm."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.child.clock import clock, is_steady, time, timed
from suites.definitions.base import Steps
from suites.measure.session import poor_clock
from suites.measure.timed import TimedCase


def nothing() -> None:
    return None


class Hand:
    """A clock that moves when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def hand(monkeypatch):
    found = Hand()
    monkeypatch.setattr(time, "perf_counter", found)
    return found


def test_a_sample_is_the_mean_of_its_calls(hand):
    waits = iter([0.1, 0.2, 0.6])
    found = timed(lambda: hand.wait(next(waits)), 3, nothing)
    assert found.seconds == pytest.approx(0.3)
    assert found.rest_s == 0


def test_the_last_result_is_kept_and_parts_are_means():
    results = []

    def call() -> Steps:
        steps = Steps()
        steps.seconds["part"] = float(len(results))
        results.append(steps)
        return steps

    found = timed(call, 3, nothing)
    assert found.result is results[-1]
    assert found.parts == {"part": 1.0}


def test_work_that_goes_on_after_the_call_is_seen(hand):
    """As on a device whose outputs nobody waited for; what was queued before the call is not the call's."""
    waits = iter([5.0, 0.01, 0.0, 0.0])
    found = timed(lambda: hand.wait(0.002), 1, lambda: hand.wait(next(waits)))
    assert found.seconds == pytest.approx(0.002)
    assert found.rest_s == pytest.approx(0.01)


@pytest.mark.parametrize("idle", [(0.004, 0.004), (0.001, 0.005)])
def test_waiting_for_an_idle_device_is_no_work(hand, idle):
    """A busy processor makes every wait longer, also those with nothing to wait for."""
    waits = iter([0.0, 0.004, *idle])
    assert timed(nothing, 1, lambda: hand.wait(next(waits))).rest_s == 0


def test_garbage_is_collected_before_and_never_during():
    seen = []
    timed(lambda: seen.append(gc.isenabled()), 2, nothing)
    assert seen == [False, False]
    assert gc.isenabled()


def test_an_error_leaves_the_collector_on():
    def fails() -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        timed(fails, 1, nothing)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("seconds", "steady"),
    [([], False), ([1.0], False), ([1.0, 1.0], False), ([1.0, 1.0, 1.0], True), ([9.0, 1.0, 1.0], False),
     ([9.0, 1.0, 1.0, 1.0], True), ([4.0, 3.0, 2.0, 1.0], False), ([1.0, 5.0, 1.02], True)],
)  # fmt: skip
def test_warm(seconds, steady):
    assert is_steady(seconds) is steady


@given(st.floats(1e-6, 10), st.integers(3, 20))
def test_equal_calls_are_steady(seconds, count):
    assert is_steady([seconds] * count)


def test_the_clock_tells_its_step_and_its_cost():
    found = clock()
    assert found["resolution_s"] > 0
    assert found["overhead_s"] >= 0


def test_a_poor_clock_is_told():
    assert poor_clock(None) is None
    assert poor_clock({"resolution_s": 1e-7, "overhead_s": 3e-7}) is None
    assert "samples of 1 ms are coarse" in poor_clock({"resolution_s": 1e-3, "overhead_s": 3e-7})


def test_a_call_that_times_its_parts_is_repeated_by_its_own_length():
    parts = {"blend": 0.0001, "convert": 0.9}
    warmups = {(name, backend): [{"seconds": [s, 2 * s]}] for name, s in parts.items() for backend in ("a", "b")}
    warmups["convert", "b"][0]["seconds"] = [0.5]
    case = SimpleNamespace(warmups=warmups, suite=SimpleNamespace(call_of=lambda component: "convert"))
    assert TimedCase._fastest(case, "convert") == 0.5
    assert TimedCase._fastest(case, "another") is None
