"""Work of known size, through a real worker: what must hold on any machine, however busy."""

from __future__ import annotations

import pytest

from suites.base.errors import UserError
from suites.definitions.known import SLEEP_S
from suites.selftest import known
from suites.selftest.known import Reading


def test_a_reading_is_off_where_it_exceeds_what_is_allowed():
    assert Reading("x", "1", "1", 0.02, 0.02).passed
    assert not Reading("x", "1", "1", -0.021, 0.02).passed


def test_all_are_read(monkeypatch):
    """Times are not judged here: other tests run meanwhile. Memory is."""
    for name, value in (("ROUNDS", 3), ("WATCHED_CALLS", 1), ("ALLOCATED_BYTES", 1 << 28)):
        monkeypatch.setattr(known, name, value)
    found = {one.what: one for one in known.readings("mlx_cpu")}
    assert len(found) == 5
    assert found["a sleep"].error >= 0  # a sleep is never shorter
    assert found["memory"].known == "256 MiB"
    assert found["memory"].passed


def test_a_slowdown_of_known_size_is_as_long_as_it_says(tmp_path):
    with known._started("mlx_cpu", tmp_path / "log", 1) as worker:
        worker.ask("slow", 60, shares={"sleep": 1.0})
        assert known._time(worker, sleep=1)["sleep"] >= 2 * SLEEP_S
        assert known._time(worker, work=1)["work"] > 0  # the others are as they were


def test_options():
    with pytest.raises(UserError, match="backend=torch_tpu; did you mean 'torch_cpu'"):
        known.known(["backend=torch_tpu"])
