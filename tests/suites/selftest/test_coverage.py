"""The self-test of intervals: which runs hold the long-run value is counted, on made samples."""

from __future__ import annotations

import subprocess
import time

import numpy as np
import psutil
import pytest
from made_runs import make_run

from suites.base.errors import UserError
from suites.selftest import coverage

KEY = "synthetic-1s f0 mlx_cpu"


def made(ratio: float, seed: int, launches: int = 6, rounds: int = 6) -> coverage.Pairs:
    rng = np.random.default_rng(seed)
    own = np.exp(rng.normal(0, 0.01, (launches, 1, 2)) + abs(rng.normal(0, 0.01, (launches, rounds, 2))))
    return {KEY: (own * (ratio, 1.0)).tolist()}


def test_intervals_that_hold_are_counted():
    quiet = [made(0.6, 0, 12), made(0.6, 1, 12)]
    runs = [made(0.6, n) for n in range(2, 12)]
    truth = coverage.speed_up([launch for run in quiet for launch in run[KEY]]).value
    holding = sum(one.low <= truth <= one.high for one in (coverage.speed_up(run[KEY]) for run in runs))
    text, good = coverage.coverage_summary(quiet, runs, ["suite"])
    assert holding > 5
    assert good == (holding >= 9)
    assert f"hold the long-run value: {holding} of 10" in text
    assert truth == pytest.approx(0.6, rel=0.01)


def test_intervals_around_another_value_are_counted_as_misses():
    quiet = [made(0.6, 0, 12), made(0.6, 1, 12)]
    runs = [made(0.6, 2), *(made(0.9, n) for n in range(3, 6))]
    text, good = coverage.coverage_summary(quiet, runs, ["suite"])
    assert not good
    assert "hold the long-run value: 1 of 4" in text
    assert "| 1 of 4 |" in text


def test_samples_of_a_run_are_paired_by_round_and_launch(tmp_path):
    slow = {("f0", "mlx_cpu"): 2.0}
    pairs = coverage.pairs_of(make_run(tmp_path / "run", 0, slow, noise=0.001))
    assert all(key.endswith("mlx_cpu") for key in pairs)
    launches = pairs[KEY]
    assert len(launches) > 1
    assert coverage.speed_up(launches).value == pytest.approx(
        coverage.speed_up(pairs[KEY.replace("f0", "mel")]).value / 2, rel=0.05
    )


@pytest.mark.parametrize("word", ["busy=x", "busy=1.5", "busy=-1", "busy=nan"])
def test_a_share_that_is_none(word):
    with pytest.raises(UserError, match="busy="):
        coverage.coverage([word])


def test_other_work_takes_its_share_and_ends(monkeypatch):
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*args, **kwargs):
        started.append(real(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(coverage.subprocess, "Popen", popen)
    with coverage.other_work(1.0):
        process = psutil.Process(started[0].pid)
        deadline = time.monotonic() + 20
        while process.cpu_times().user < 0.2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.cpu_times().user >= 0.2
    assert started[0].poll() is not None
    with coverage.other_work(0.0):
        assert len(started) == 1
