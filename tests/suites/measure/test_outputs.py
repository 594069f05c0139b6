"""What a case's samples say of themselves: work that went on after the clock had stopped."""

from __future__ import annotations

import pytest

from suites.base.lines import SCHEMA, Sample
from suites.measure.outputs import late_work


def samples(*rests: float, seconds: float = 0.01, calls: int = 1) -> list[Sample]:
    key = {"schema": SCHEMA, "case": "a", "component": "mel", "backend": "mlx_cpu"}
    return [Sample(**key, round=i, seconds=seconds, launch=0, calls=calls, rest_s=rest) for i, rest in enumerate(rests)]


def test_work_left_in_every_round_is_a_fault():
    assert "went on for 5 ms" in late_work(samples(*[0.005] * 10))


@pytest.mark.parametrize("busy", [0.005, 5.0])
def test_a_processor_that_is_busy_in_most_rounds_is_none(busy):
    assert late_work(samples(*[busy] * 8, 0.0, 0.0)) is None


@pytest.mark.parametrize("rest", [0.0, 0.0009])
def test_short_rests_are_none(rest):
    assert late_work(samples(*[rest] * 10)) is None


def test_the_limit_is_a_share_of_all_calls_of_a_sample():
    assert late_work(samples(0.003, 0.003, seconds=0.05, calls=1)) is not None
    assert late_work(samples(0.003, 0.003, seconds=0.05, calls=2)) is None


def test_no_samples_no_fault():
    assert late_work([]) is None
