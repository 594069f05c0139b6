"""The facts of a machine: where the commit comes from."""

from __future__ import annotations

import pytest

from suites.base import environment


def test_the_commit_is_gits_whatever_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_output", lambda *command: {"status": " M a.py", "rev-parse": "0123"}[command[1]])
    monkeypatch.setenv(environment.COMMIT_STATED, "feed")
    assert environment._commit() == {"commit": "0123", "commit_clean": False}


def test_without_git_a_commit_may_be_stated_and_the_record_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_output", lambda *_: None)
    monkeypatch.setenv(environment.COMMIT_STATED, "feed")
    assert environment._commit() == {"commit": "feed", "commit_clean": None, "commit_stated": True}
    monkeypatch.delenv(environment.COMMIT_STATED)
    assert environment._commit() == {"commit": None, "commit_clean": None}
