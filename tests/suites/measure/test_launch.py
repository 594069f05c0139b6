"""Workers: quiet when idle, ended when late, and missed when gone."""

from __future__ import annotations

import time

import psutil
import pytest

from suites.measure.launch import Worker, WorkerError, WorkerLost


@pytest.fixture
def worker(tmp_path):
    worker = Worker("mlx_cpu", "fp32", 2, tmp_path / "log")
    yield worker
    worker.kill()


def test_an_idle_worker_uses_no_processor(worker):
    worker.ask("hello", 120, threads=2)  # its matrix products wake the BLAS threads
    time.sleep(0.3)
    process = psutil.Process(worker.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(1.5)
    assert sum(process.cpu_times()[:2]) - before <= 0.03


def test_an_error_leaves_the_worker_alive(worker):
    with pytest.raises(WorkerError, match="no such file"):
        worker.ask(
            "load",
            60,
            suite="rmvpe",
            paths={"rmvpe": "/nowhere.pt"},
            optimize="all",
            settings={"profile": "applio"},
        )
    assert worker.ask("hello", 120, threads=2)["available"]


def test_an_unknown_request(worker):
    with pytest.raises(WorkerError, match="unknown request 'dance'"):
        worker.ask("dance", 60)


def test_a_late_worker_is_ended(worker):
    with pytest.raises(WorkerLost, match=r"no answer to 'hello' within 0\.01 s"):
        worker.ask("hello", 0.01, threads=2)
    assert not psutil.pid_exists(worker.pid) or psutil.Process(worker.pid).status() == psutil.STATUS_ZOMBIE


def test_a_killed_worker_is_missed(worker):
    psutil.Process(worker.pid).kill()
    with pytest.raises(WorkerLost, match=r"killed by SIGKILL \(out of memory\?\)"):
        worker.ask("hello", 60, threads=2)


def test_closing_ends_it(tmp_path):
    with Worker("mlx_cpu", "fp32", 1, tmp_path / "log") as worker:
        pid = worker.pid
        assert psutil.Process(pid).nice() == psutil.Process().nice()
    assert not psutil.pid_exists(pid)


def test_a_raised_worker_has_at_least_the_priority_of_others(tmp_path):
    with Worker("mlx_cpu", "fp32", 1, tmp_path / "log", raised=True) as worker:
        worker.ask("hello", 120, threads=1)
        granted = psutil.Process().nice()
        assert psutil.Process(worker.pid).nice() <= granted
