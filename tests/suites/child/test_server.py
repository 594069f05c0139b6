"""The worker's priority, where the system grants one and where it does not."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from suites.child import server


def test_the_highest_priority_is_asked_for(monkeypatch):
    asked, written = [], []
    monkeypatch.setattr(os, "setpriority", lambda *given: asked.append(given))
    monkeypatch.setattr(Path, "write_text", lambda self, text: written.append((str(self), text)))
    server.raise_priority()
    assert asked == [(os.PRIO_PROCESS, 0, -20)]
    assert written == [("/proc/self/autogroup", "-20")]


def test_a_refusal_is_no_error(monkeypatch):
    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refused)
    monkeypatch.setattr(Path, "write_text", refused)
    server.raise_priority()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a call of Linux's")
def test_the_slice_is_the_shortest():
    """Of a thread that starts later too; the nice level stays."""
    code = """
import ctypes, os, platform, struct, threading
from suites.child import server
def slice_of_this_thread():
    read = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, 0, read, 48, 0) == 0
    return struct.unpack("=IIQiIQQQ", read.raw)[3::2][:2]
os.nice(3)
server.shorten_slice()
found = [slice_of_this_thread()]
thread = threading.Thread(target=lambda: found.append(slice_of_this_thread()))
thread.start(); thread.join()
assert found == [(os.nice(0), server.SLICE_NS)] * 2, found
"""
    release = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
    if platform.machine() not in server.SCHED_SETATTR or release < (6, 12):
        pytest.skip("this kernel has no slices, or another number for the call")
    subprocess.run([sys.executable, "-c", code], check=True)
