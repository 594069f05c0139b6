"""The worker's priority, where the system grants one and where it does not."""

from __future__ import annotations

import os
from pathlib import Path

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
