"""Who took the processors while a run measured."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest

from suites.measure import session
from suites.measure.session import Session


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def of(before, now, spent_s=50.0):
        monkeypatch.setattr(session, "cpu_by_process", lambda: now)
        return Session.others(SimpleNamespace(_begun=time.monotonic() - spent_s, _processes=before))

    return of


def test_the_busiest_processes_are_named(told):
    text = told({(7, "old"): 10.0}, {(7, "old"): 30.0, (8, "new"): 5.0, (os.getpid(), "python"): 40.0})
    assert text == "other work took 25 % of the processors' time: old (process 7) 20 %, new (process 8) 5 %"


def test_little_is_not_worth_a_line(told):
    assert told({}, {(7, "small"): 4.0}) == ""
