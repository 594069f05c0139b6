"""Runs that lose a worker, or end, at a chosen moment, and are then resumed: nothing passes that was not compared."""

from __future__ import annotations

import json

import numpy as np
import pytest

from suites.base.outcome import ERROR, INTERRUPTED, PASSED
from suites.base.records import read_lines, records
from suites.commands.run import finish
from suites.definitions.plan import make_plan
from suites.measure.config import compose_config
from suites.measure.runner import open_run, resume_run
from suites.measure.session import Session
from suites.measure.timed import TimedCase

pytestmark = pytest.mark.usefixtures("quick")

SMALL = ["measure=smoke", "backends=[torch_cpu,mlx_cpu]", "threads=1", "durations=[0.3]"]
SMALL += ["measure.first_calls=0", "measure.warmup_seconds=0", "~suite.components.network", "~suite.components.decode"]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def begun(folder):
    config = compose_config("rmvpe", [*SMALL, "suite.speech_clip=false", f"out={folder}"])
    return finish(open_run(config)).exit_code


def resumed(folder):
    return finish(resume_run(folder)).exit_code


def closed(folder):
    return records(read_lines(folder / "records.jsonl"))


def contours(folder):
    """What the figure of F0 is drawn from."""
    with np.load(folder / "contours" / "synthetic-0.3s.npz") as stored:
        return {name for name in stored.files if name.startswith("f0.")}


@pytest.fixture
def losing(monkeypatch):
    """From now on the worker of this backend is killed where a launch begins."""

    def lose(backend):
        def start(self, name, *more):
            if name == backend:
                self.workers[name].kill()
            whole(self, name, *more)

        monkeypatch.setattr(TimedCase, "_start", start)

    whole = TimedCase._start
    return lose


@pytest.mark.parametrize("lost", [("torch_cpu", "mlx_cpu"), ("mlx_cpu", "torch_cpu")], ids="-".join)
def test_sides_that_were_lost_in_turn_are_compared_in_the_end(folder, losing, lost):
    """Each was measured once, beside itself at most."""
    losing(lost[0])
    assert begun(folder) == ERROR
    losing(lost[1])
    assert resumed(folder) == ERROR
    assert {line["backend"] for line in closed(folder) if line["status"] == "error"} == {lost[1]}
    losing(None)
    assert resumed(folder) == PASSED
    assert {line["reference"] for line in closed(folder)} == {"torch_cpu"}
    assert contours(folder) == {"f0.truth", "f0.torch_cpu", "f0.mlx_cpu"}


def test_a_worker_that_is_lost_while_it_loads_is_started_again(folder, monkeypatch):
    lost = []

    def load(self, worker, *arguments, **named):
        if worker.backend == "mlx_cpu" and not lost:
            lost.append(worker)
            worker.kill()
        return whole(self, worker, *arguments, **named)

    whole = Session.load
    monkeypatch.setattr(Session, "load", load)
    assert begun(folder) == PASSED
    assert lost
    assert all(line["optimize"] for line in closed(folder) if line["backend"] == "mlx_cpu")


def test_a_case_is_closed_after_all_that_it_leaves(folder, monkeypatch):
    """Else a run that ends in between has no contours, also when it is resumed."""

    def ended(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TimedCase, "keep_files", ended)
        assert begun(folder) == INTERRUPTED
    assert resumed(folder) == PASSED
    assert contours(folder) == {"f0.truth", "f0.torch_cpu", "f0.mlx_cpu"}


def test_a_backend_that_comes_back_leaves_the_peaks_that_are_known(folder, monkeypatch):
    """What was measured before the interruption stands; the new one's are measured beside it."""
    run = open_run(compose_config("rmvpe", [*SMALL, "measure.peaks=true", f"out={folder}"]))
    stored = {"backends": {"torch_cpu": {"peaks": {"copy_bytes_per_s": 5.0}}}}
    (folder / "environment.json").write_text(json.dumps(stored))
    session = run.session
    session.facts = {"torch_cpu": {}, "mlx_cpu": {}}
    session.workers = {"torch_cpu": object(), "mlx_cpu": object()}
    monkeypatch.setattr(session, "ask_timed", lambda worker, do, timeout_s: {"copy_bytes_per_s": 7.0})
    run._keep_peaks()
    run._measure_peaks(make_plan(run.config, ["torch_cpu", "mlx_cpu"]))
    assert [session.facts[b]["peaks"]["copy_bytes_per_s"] for b in ("torch_cpu", "mlx_cpu")] == [5.0, 7.0]
