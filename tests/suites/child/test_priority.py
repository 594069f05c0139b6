"""The worker's priority, where the system grants one and where it does not."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from suites.child import priority

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="a call of Linux's")


def refused(*_: object, **__: object) -> None:
    raise PermissionError


@pytest.fixture
def asked(monkeypatch) -> list[tuple[object, ...]]:
    """What the system was asked for, in order; it grants everything and changes nothing."""
    found: list[tuple[object, ...]] = []
    monkeypatch.setattr(os, "sched_setscheduler", lambda _, policy, param: found.append((policy, param.sched_priority)))
    monkeypatch.setattr(os, "setpriority", lambda *given: found.append(given))
    monkeypatch.setattr(Path, "write_text", lambda self, text: found.append((str(self), text)))
    monkeypatch.setattr(priority, "shorten_slice", lambda: found.append(("slice",)))
    monkeypatch.setattr(platform, "release", lambda: "6.12.3-generic")
    return found


NICE = [(os.PRIO_PROCESS, 0, -20), ("/proc/self/autogroup", "-20"), ("slice",)]


@LINUX
def test_real_time_is_enough(asked):
    priority.raise_priority()
    assert asked == [(os.SCHED_RR, 1)]


@LINUX
@pytest.mark.parametrize("limit", [200_000, 0])
def test_no_real_time_where_computing_for_long_would_end_the_process(asked, monkeypatch, limit):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))
    priority.raise_priority()
    assert asked == NICE


@LINUX
@pytest.mark.parametrize("release", ["6.11.0", "5.15.0-91-generic"])
def test_no_real_time_where_it_stops_although_nothing_else_runs(asked, monkeypatch, release):
    monkeypatch.setattr(platform, "release", lambda: release)
    priority.raise_priority()
    assert asked == NICE


@LINUX
def test_without_the_right_to_it_a_low_nice_level_is_asked_for(asked, monkeypatch):
    monkeypatch.setattr(os, "sched_setscheduler", refused)
    priority.raise_priority()
    assert asked == NICE


def test_other_systems_have_nice_levels_alone(asked, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    priority.raise_priority()
    assert asked == NICE


def test_a_refusal_is_no_error(monkeypatch):
    monkeypatch.setattr(os, "sched_setscheduler", refused)
    monkeypatch.setattr(os, "setpriority", refused)
    monkeypatch.setattr(Path, "write_text", refused)
    priority.raise_nice()


@LINUX
def test_a_chosen_policy_stays(asked, monkeypatch):
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_BATCH)
    assert not priority.become_real_time()
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_FIFO)
    monkeypatch.setattr(os, "sched_getparam", lambda _: os.sched_param(7))
    assert priority.become_real_time()
    assert not asked
    assert priority.priority() == "real-time 7"


@LINUX
def test_what_was_reached_is_told():
    """In a process of its own, whose threads inherit it."""
    code = """
import os, threading
from suites.child import priority
assert priority.priority() == os.nice(0)
try:
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    expected = "real-time 1" if priority.kernel() >= priority.LEAST_KERNEL else None
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
except PermissionError:
    expected = None
priority.raise_priority()
found = []
thread = threading.Thread(target=lambda: found.append(priority.priority()))
thread.start(); thread.join()
assert found == [priority.priority()], found
assert expected in (None, found[0]), found
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@LINUX
def test_the_slice_is_the_shortest():
    """Of a thread that starts later too; the nice level stays."""
    code = """
import ctypes, os, platform, struct, threading
from suites.child import priority
def slice_of_this_thread():
    read = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, 0, read, 48, 0) == 0
    return struct.unpack("=IIQiIQQQ", read.raw)[3::2][:2]
os.nice(3)
priority.shorten_slice()
found = [slice_of_this_thread()]
thread = threading.Thread(target=lambda: found.append(slice_of_this_thread()))
thread.start(); thread.join()
assert found == [(os.nice(0), priority.SLICE_NS)] * 2, found
"""
    if platform.machine() not in priority.SCHED_SETATTR or priority.kernel() < (6, 12):
        pytest.skip("this kernel has no slices, or another number for the call")
    subprocess.run([sys.executable, "-c", code], check=True)
