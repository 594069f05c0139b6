"""One process at a time works in a folder, whatever became of the one before it."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
import sys

import psutil
import pytest
from command import ROOT

from suites.base.errors import UserError
from suites.base.lock import LOCK, Lock


def held_elsewhere(folder):
    """By a process of its own, which waits for its standard input to end."""
    code = f"import sys, pathlib; from suites.base.lock import Lock; lock = Lock(pathlib.Path({str(folder)!r}));"
    code += "print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_held_folder_is_refused_and_a_dead_process_holds_nothing(tmp_path):
    process = held_elsewhere(tmp_path)
    with pytest.raises(UserError, match=f"process {process.pid} on {platform.node()} is at work in it"):
        Lock(tmp_path)
    process.kill()
    process.communicate()
    assert (tmp_path / LOCK).exists()
    with Lock(tmp_path) as lock:
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
        assert lock.is_alone
        (tmp_path / "mine").touch()
        assert not lock.is_alone
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_it_is_released_where_what_follows_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), Lock(tmp_path).kept():
        raise ZeroDivisionError
    lock = Lock(tmp_path)
    with lock.kept():
        pass
    with pytest.raises(UserError, match="is at work"):
        Lock(tmp_path)
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": "here"}', '{"host": "a", "pid": "b", "started": 0}'])
def test_a_file_that_tells_nothing_holds_nothing(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    Lock(tmp_path).release()


def test_another_host_may_still_be_at_work(tmp_path):
    text = json.dumps({"host": "elsewhere", "pid": 1, "started": 1.0})
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(UserError, match=f"process 1 on elsewhere .* if that process has ended: rm {tmp_path / LOCK}"):
        Lock(tmp_path)
    assert (tmp_path / LOCK).read_text() == text


@pytest.mark.parametrize(("late", "held"), [(0, True), (100, False)])
def test_without_locks_the_process_and_its_start_decide(tmp_path, monkeypatch, late, held):
    """A number that is given to another process is not the one that held the lock."""
    parent = psutil.Process(os.getppid())
    holder = {"host": platform.node(), "pid": parent.pid, "started": parent.create_time() - late}
    (tmp_path / LOCK).write_text(json.dumps(holder))

    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    if held:
        with pytest.raises(UserError, match="is at work in it"):
            Lock(tmp_path)
    else:
        Lock(tmp_path).release()
