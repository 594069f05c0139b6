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
    before = {(7, 1.0): ("old", 10.0)}
    now = {(7, 1.0): ("old", 30.0), (8, 2.0): ("new", 5.0), (os.getpid(), 1.0): ("python", 40.0)}
    assert (
        told(before, now) == "other work took 25 % of the processors' time: old (process 7) 20 %, new (process 8) 5 %"
    )


def test_a_process_that_changed_its_name_is_counted_from_the_start(told):
    text = told({(7, 1.0): ("kworker-a", 1000.0)}, {(7, 1.0): ("kworker-b", 1030.0)})
    assert text == "other work took 30 % of the processors' time: kworker-b (process 7) 30 %"


def test_a_number_that_came_again_is_another_process(told):
    text = told({(7, 1.0): ("old", 50.0)}, {(7, 9.0): ("new", 20.0)})
    assert text == "other work took 20 % of the processors' time: new (process 7) 20 %"


def test_little_is_not_worth_a_line(told):
    assert told({}, {(7, 1.0): ("small", 4.0)}) == ""
