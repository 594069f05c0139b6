"""Launches that serve all cases of a suite: how many processes there are, and what follows from one that is lost."""

from __future__ import annotations

import errno
import time
from types import SimpleNamespace

import pytest
from command import suites
from quick_runs import Inside

from suites.base.records import read_lines, records
from suites.definitions.peers import Peers
from suites.definitions.plan import Plan
from suites.measure import session, timed
from suites.measure.launch import WorkerError
from suites.measure.timed import LaunchClock, TimedCase, _shown_s

WORDS = ["measure=smoke", "backends=[torch_cpu,mlx_cpu]", "threads=1", "durations=[0.3,0.4]", "suite.speech_clip=false"]
WORDS += ["measure.launches={min: 2, max: 2}", "measure.warmup_seconds=0", "measure.first_calls=1"]
WORDS += ["~suite.components.network", "~suite.components.decode"]
ONE_CASE = [word.replace("[0.3,0.4]", "[0.3]") for word in WORDS]


@pytest.fixture
def started(quick, monkeypatch):
    """The backends of all workers, in the order of their start."""
    found = []

    class Counted(Inside):
        def __init__(self, backend, *more):
            found.append(backend)
            super().__init__(backend, *more)

    monkeypatch.setattr(session, "Worker", Counted)
    return found


def test_a_launch_is_one_process_per_backend_for_all_cases(started, tmp_path):
    done = suites("run", "rmvpe", *WORDS, f"out={tmp_path / 'r'}")
    assert done.returncode == 0, done.stdout + done.stderr
    # to describe the backends, and twice for the launches; their order turns around
    assert started == ["torch_cpu", "mlx_cpu", "torch_cpu", "mlx_cpu", "mlx_cpu", "torch_cpu"]
    closed = [line for line in records(read_lines(tmp_path / "r" / "records.jsonl")) if "workload" in line]
    assert {tuple(line["launches"]) for line in closed} == {(0, 0, 1, 1)}
    # the first calls of a process belong to the case that its launch began with
    whole = [line for line in closed if line["component"] == "f0"]
    assert [len(line["cold"]) for line in whole] == [1, 1, 1, 1]
    lines = done.stdout.splitlines()
    assert lines[0].startswith("rmvpe: starting workers; run folder ")
    assert [line.split()[0] for line in lines[1:3]] == ["synthetic-0.3s:", "synthetic-0.4s:"]


def test_first_calls_are_measured_in_the_first_launches_alone(started, monkeypatch, tmp_path):
    """There a process starts when the one before has made its first call; later they import and load side by side."""
    order: list[tuple[str, str]] = []
    answer = Inside.answer

    def answered(self, do, timeout_s):
        order.append((do, self.backend))
        return answer(self, do, timeout_s)

    monkeypatch.setattr(Inside, "answer", answered)
    monkeypatch.setattr(timed, "COLD_LAUNCHES", 1)
    done = suites("run", "rmvpe", *ONE_CASE, f"out={tmp_path / 'r'}")
    assert done.returncode == 0, done.stdout + done.stderr
    starts = [one for one in order if one[0] in ("hello", "load", "cold")]
    describing = [(do, backend) for do in ("hello", "load") for backend in ("torch_cpu", "mlx_cpu")]
    first = [(do, backend) for backend in ("torch_cpu", "mlx_cpu") for do in ("hello", "load", "cold")]
    trained = [("load", "torch_cpu"), ("load", "mlx_cpu")]
    second = [(do, backend) for do in ("hello", "load") for backend in ("mlx_cpu", "torch_cpu")]
    assert starts == describing + first + trained + second
    closed = [line for line in records(read_lines(tmp_path / "r" / "records.jsonl")) if "workload" in line]
    assert [len(line["cold"]) for line in closed if line["component"] == "f0"] == [1, 1]


@pytest.mark.parametrize("asked", ["hello", "load"])
def test_a_process_that_cannot_load_costs_its_own_backend_alone(started, monkeypatch, tmp_path, asked):
    answer, count = Inside.answer, []

    def answered(self, do, timeout_s):
        count.append((do, self.backend))
        if (do, self.backend) == (asked, "mlx_cpu") and count.count((asked, "mlx_cpu")) == 2:  # the first describes it
            answer(self, do, timeout_s)
            raise WorkerError("MemoryError", "no memory for the model")
        return answer(self, do, timeout_s)

    monkeypatch.setattr(Inside, "answer", answered)
    monkeypatch.setattr(timed, "COLD_LAUNCHES", 0)
    done = suites("run", "rmvpe", *ONE_CASE, f"out={tmp_path / 'r'}")
    assert done.returncode == 2
    closed = [line for line in records(read_lines(tmp_path / "r" / "records.jsonl")) if "workload" in line]
    assert {(x["backend"], x["status"]) for x in closed} == {("torch_cpu", "passed"), ("mlx_cpu", "error")}
    assert {x["reason"] for x in closed if x["status"] == "error"} == {"MemoryError: no memory for the model"}


@pytest.mark.parametrize(
    ("before", "shares", "taken", "after"),
    [
        ([], [0.0], 1, 0.0),
        ([], [0.2, 0.04, 0.0], 2, 0.04),
        ([], [0.3, 0.06, 0.2], 3, 0.06),
        ([], [0.3, 0.3, 0.3], 3, 0.3),
        ([0.0, 0.06, 0.3], [0.1, 0.0], 1, 0.1),  # work that never ceases takes so much of every turn
        ([0.3], [0.34, 0.0], 1, 0.34),
        ([0.0, 0.0, 0.3], [0.1, 0.06, 0.02], 3, 0.02),
    ],
)
def test_a_disturbed_turn_is_taken_again(before, shares, taken, after):
    """At most three times; every sample is written, and the least disturbed one counts."""
    left, written = list(shares), []

    class Told:
        def ask_timed(self, worker, do, timeout_s, calls):
            assert (do, calls) == ("time", {"f0": 2})
            return {"others": left.pop(0), "calls": {"f0": {"seconds": {"f0": 1.0}, "rest_s": 0.0}}}

        def makes(self, backend, suite, call):
            return True

        def sample(self, case, component, backend, number, seconds, facts):
            written.append(facts["others"])

    case = TimedCase.__new__(TimedCase)
    case.session, case.workers, case.repeats, case.case, case.suite = Told(), {"mlx_cpu": None}, {"f0": 2}, None, None
    case.plan = Plan("rmvpe", (), ("f0",), ("mlx_cpu",))
    case.timeout_s, case.others = 1.0, {"mlx_cpu": list(before), "torch_cpu": [0.9]}
    case._take_turn("mlx_cpu", ["f0"], 0, 0)
    assert written == shares[:taken]
    assert case.others == {"mlx_cpu": [*before, after], "torch_cpu": [0.9]}


@pytest.mark.parametrize(
    ("cold", "planned", "called"),
    [
        (True, ("rmvpe", "hubert", "pipeline"), ["rmvpe", "hubert", "pipeline"]),
        (True, ("pipeline", "rmvpe"), ["rmvpe", "pipeline"]),
        (False, ("rmvpe",), []),
    ],
)
def test_the_peers_first_calls_are_measured_one_by_one(monkeypatch, cold, planned, called):
    """After the inputs are shared, with the time that the process took to load."""
    asked: list[str] = []

    class Asked:
        def ask(self, do, timeout_s, component, second):
            assert (do, second) == ("cold", False)
            asked.append(component)
            return {"peak_rss_bytes": 7}

    case = TimedCase.__new__(TimedCase)
    measure = SimpleNamespace(first_calls=1)
    case.session = SimpleNamespace(measure=measure, makes=lambda backend, suite, call: True)
    case.suite, case.plan = Peers(), Plan("peers", (), planned, ("mlx_cpu",))
    case.errors, case.cold, case.started, case.drawn, case.timeout_s = {}, {}, {"mlx_cpu": {"load_s": 2.0}}, {}, 1.0
    monkeypatch.setattr(TimedCase, "_start", lambda *given: None)
    monkeypatch.setattr(TimedCase, "share_inputs", lambda case: asked.clear())
    case.begin(0, {"mlx_cpu": Asked()}, cold)
    assert asked == called
    assert case.cold == {(name, "mlx_cpu"): [{"load_s": 2.0, "peak_rss_bytes": 7}] for name in called}


def test_a_worker_that_is_lost_costs_its_case_and_is_replaced_for_the_next_one(started, tmp_path, monkeypatch):
    ask, lost = Inside.ask, []

    def asked(self, do, timeout_s, **arguments):
        if do == "warm" and self.backend == "mlx_cpu" and not lost:
            lost.append(self)
            self.kill()
        return ask(self, do, timeout_s, **arguments)

    monkeypatch.setattr(Inside, "ask", asked)
    done = suites("run", "rmvpe", *WORDS, f"out={tmp_path / 'r'}")
    assert done.returncode == 2
    closed = [line for line in records(read_lines(tmp_path / "r" / "records.jsonl")) if "workload" in line]
    assert {(x["case"], x["backend"]) for x in closed if x["status"] == "error"} == {("synthetic-0.3s", "mlx_cpu")}
    assert sum(x["status"] == "passed" for x in closed) == 6


def test_the_clock_of_launches_stands_while_nothing_is_timed(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = LaunchClock(100.0)
    clock.parity_s = 30.0
    now[0] = 20.0
    assert (clock.left_s(), clock.expected_s()) == (80.0, 110.0)
    with clock.stopped():
        now[0] = 45.0
    assert (clock.left_s(), clock.expected_s()) == (80.0, 80.0)
    clock.least_s = 150.0  # a slow machine: the fewest launches take longer than is allowed
    assert clock.expected_s() == 130.0


@pytest.mark.usefixtures("quick")
def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(TimedCase, "keep_files", full)
        done = suites("run", "rmvpe", *ONE_CASE, f"out={tmp_path / 'r'}")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: run folder {tmp_path / 'r'}: No space left on device; what was measured is kept; "
        f"to go on: python -m suites run resume={tmp_path / 'r'}"
    ]
    assert suites("run", f"resume={tmp_path / 'r'}").returncode == 0
    closed = [line for line in records(read_lines(tmp_path / "r" / "records.jsonl")) if "workload" in line]
    assert {tuple(line["launches"]) for line in closed} == {(0, 0, 1, 1, 2, 2)}


@pytest.mark.parametrize(
    ("seconds", "shown"), [(6.153, "6.15 s"), (0.9996, "1 s"), (0.9994, "999 ms"), (2e-4, "0.2 ms")]
)
def test_times_have_no_exponent(seconds, shown):
    assert _shown_s(seconds) == shown
