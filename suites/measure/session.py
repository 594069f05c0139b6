"""What the protocols of a run work with: worker processes, samples and records."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from rvc_common.waiting import waiting

from ..base import environment
from ..base.backends import device_of, is_port, worker_environment
from ..base.lines import SCHEMA, Absence, Key, Record, Sample, Unmeasured
from ..base.records import RecordFile, keep_sample
from ..base.run_folder import RunFolder
from ..definitions import SUITES
from ..definitions.base import Suite
from ..definitions.config import Config
from ..definitions.plan import Case
from ..inputs.weights import Weights
from .launch import Worker, WorkerError, WorkerLost

HELLO_TIMEOUT_S = 180.0
# a clock whose step or cost exceeds this share of a short sample is reported
POOR_CLOCK_SHARE = 0.01
SHORT_SAMPLE_S = 0.001
# of other processes: how many are named, and the share of the processors below which none is
MOST_NAMED, LITTLE_SHARE = 3, 0.05

Facts = dict[str, Any]


class Session:
    """One run folder being filled: its workers, and the samples and records that they produce."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.measure = config.measure
        self.threads = config.threads or environment.physical_cores()
        self.suite = SUITES[config.suite.name]
        self.waiting = waiting(worker_environment(config.precision, self.threads))
        self.weights: dict[str, Weights] = {}
        self.model_facts: Facts = {}
        self.workers: dict[str, Worker] = {}
        self.facts: dict[str, Facts] = {}
        self.loaded: dict[str, Facts] = {}
        run = RunFolder(folder)
        self.file = RecordFile(run.records_file)
        self.done = {line.key: line for line in run.results() if line.status not in ("error", "not_comparable")}
        self.samples = run.samples()
        # statuses of the records so far, and the columns of the table on the terminal: see ``told``
        self.closed: dict[Key, str] = {key: line.status for key, line in self.done.items()}
        self.table: list[str] = []
        self._waited_s = self._parent_cpu_s = 0.0
        self._begun, self._processes = time.monotonic(), cpu_by_process()
        # for self-tests: the share by which every call of rvc_mlx is slowed, and whether progress is shown
        self.slowdown, self.shows_progress = 0.0, True

    @property
    def settings(self) -> Facts:
        """What calls and verdicts depend on besides the model: the suite's options, seed, profile and index."""
        index = self.weights.get("index")
        return self.config.settings(index.path if index else None)

    # ------------------------------------------------------------------ workers
    def start(self, backend: str, environment: Mapping[str, str] | None = None, precision: str | None = None) -> Worker:
        """A new worker process, which nothing else uses yet; ``precision``: another policy than the run's."""
        log = self.folder / "workers.log"
        raised = self.measure.priority == "high"
        return Worker(backend, precision or self.config.precision, self.threads, log, environment, raised)

    def hello(self, worker: Worker, clock: bool = False) -> Facts:
        """The framework's description of itself; ``clock``: also of the worker's clock and threads."""
        self.send_hello(worker, clock)
        return worker.answer("hello", HELLO_TIMEOUT_S)

    def send_hello(self, worker: Worker, clock: bool = False) -> None:
        """The request of ``hello``, whose answer is still to be taken."""
        worker.send("hello", threads=self.threads, clock=clock)

    def facts_of(self, backend: str) -> Facts:
        """Start this backend's worker where there is none, and keep its description."""
        if backend not in self.workers:
            self.workers[backend] = self.start(backend)
        try:
            self.facts[backend] = self.hello(self.workers[backend], clock=True)
            warning = poor_clock(self.facts[backend].get("clock"))
            if warning and self.shows_progress and self.facts[backend]["available"]:
                tqdm.write(f"{backend}: {warning}")
        except (WorkerError, WorkerLost) as error:
            self.facts[backend] = {"available": False, "broken": True, "reason": f"cannot be started: {error}"}
        return self.facts[backend]

    def load(
        self, worker: Worker, suite: str | None = None, optimize: Any = None, paths: Mapping[str, str] | None = None
    ) -> Facts:
        """Load a model: of the run's suite, with its optimisations and checkpoints, where nothing else is given."""
        return worker.ask("load", self.measure.timeout_s, **self.load_request(worker, suite, optimize, paths))

    def load_request(
        self, worker: Worker, suite: str | None = None, optimize: Any = None, paths: Mapping[str, str] | None = None
    ) -> Facts:
        """What a worker is sent to load a model; see ``load``."""
        name = suite or self.config.suite.name
        return {
            **(SUITES[name].port_facts() if is_port(worker.backend) else {}),
            "suite": name,
            "paths": paths or {key: str(self.weights[key].path) for key in SUITES[name].checkpoints},
            "optimize": self.config.optimize if optimize is None else optimize,
            "settings": self.settings,
        }

    def makes(self, backend: str, suite: Suite, call: str) -> bool:
        """Whether a backend makes a call of a suite: ours make all, a port those that its adapter names."""
        if not is_port(backend):
            return True
        offered = self.facts.get(backend, {}).get("components", {})
        steps = [call] if call in suite.takes else [step for step, _ in suite.composed.get(call, ())]
        return bool(steps) and all(name in offered.get(model, ()) for model, name in map(suite.of_port, steps))

    def worker(self, backend: str) -> Worker:
        """This backend's worker, with the suite's model loaded."""
        if backend not in self.workers:
            self.facts_of(backend)
        worker = self.workers[backend]
        if backend not in self.loaded:
            self.loaded[backend] = self.load(worker)
            for text in self.loaded[backend]["warnings"]:
                tqdm.write(f"{backend}: {text}", file=sys.stderr)
        return worker

    def drop(self, backend: str) -> None:
        if worker := self.workers.pop(backend, None):
            worker.kill()

    def close(self) -> None:
        for worker in self.workers.values():
            worker.kill()

    def ask_timed(self, worker: Worker, do: str, timeout_s: float, **arguments: Any) -> Facts:
        """Ask, and account for the processor time that this process and others use while the worker is timed."""
        start, own_start, others_start = time.monotonic(), time.process_time(), others_cpu_s(worker)
        answer = worker.ask(do, timeout_s, **arguments)
        waited = time.monotonic() - start
        own = time.process_time() - own_start
        self._waited_s, self._parent_cpu_s = self._waited_s + waited, self._parent_cpu_s + own
        others = max(0.0, others_cpu_s(worker) - others_start - own) / waited
        # where there are cores for both, others' work takes nothing from the worker
        lacking = max(0.0, others + self.threads - (os.cpu_count() or 1)) / self.threads
        return answer | {"others": round(min(1.0, lacking), 4)}

    @property
    def parent_cpu_share(self) -> float | None:
        """Share of one core that this process used while workers were timed."""
        return round(self._parent_cpu_s / self._waited_s, 6) if self._waited_s else None

    def others(self) -> str:
        """A sentence on the processes that took processor time beside this run; empty where they took little."""
        all_s = (time.monotonic() - self._begun) * (os.cpu_count() or 1)
        names, before = {}, {key: seconds for key, (_, seconds) in self._processes.items()}
        shares = {}
        for key, (name, seconds) in cpu_by_process().items():
            if key[0] != os.getpid():
                names[key], shares[key] = name, (seconds - before.get(key, 0.0)) / all_s
        first = sorted(shares, key=lambda key: -shares[key])[:MOST_NAMED]
        if sum(shares.values()) < LITTLE_SHARE:
            return ""
        named = ", ".join(f"{names[key]} (process {key[0]}) {100 * shares[key]:.0f} %" for key in first)
        return f"other work took {100 * sum(shares.values()):.0f} % of the processors' time: {named}"

    # ------------------------------------------------------------------ samples and records
    def base_record(self, case: str, component: str, backend: str) -> Facts:
        config = self.config
        return {
            "schema": SCHEMA,
            "run": self.folder.name,
            "suite": config.suite.name,
            "case": case,
            "component": component,
            "backend": backend,
            "device": device_of(backend),
            "precision": config.precision,
            "profile": config.profile,
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        }

    def sample(self, case: Case, component: str, backend: str, number: int, seconds: float, facts: Facts) -> None:
        """Write one sample of round ``number``; ``facts``: launch, calls (``seconds`` is their mean), rest_s."""
        place: Facts = {"schema": SCHEMA, "case": case.name, "component": component, "backend": backend}
        line = Sample(**place, round=number, seconds=seconds, **facts)
        keep_sample(self.samples, line)
        self.file.write_line(line)

    def record(self, case: Case, component: str, backend: str, **fields: Any) -> None:
        facts, loaded = self.facts.get(backend, {}), self.loaded.get(backend, {})
        line = self.base_record(case.name, component, backend) | {
            "optimize": loaded.get("facts", {}).get("optimize", []),
            "blas": facts.get("blas"),
            "blas_core": facts.get("blas_core"),
            "blas_choice": facts.get("blas_choice"),
            "waiting": self.waiting,
            "threads": self.threads,
            "warnings": loaded.get("warnings", []),
        }
        self.file.write_line(Record(**(line | fields)))
        self.closed[case.name, component, backend] = str(fields["status"])

    def unmeasured(self, case: str, component: str, backend: str, status: Absence, reason: str) -> None:
        line = Unmeasured(**self.base_record(case, component, backend), status=status, reason=reason)
        self.file.write_line(line)
        if case != "all":
            self.closed[case, component, backend] = status


def poor_clock(clock: Mapping[str, float] | None) -> str | None:
    """A warning where the clock is too coarse or too slow for short samples."""
    if clock is None or max(clock["resolution_s"], clock["overhead_s"]) <= POOR_CLOCK_SHARE * SHORT_SAMPLE_S:
        return None
    step, cost = (1e6 * clock[name] for name in ("resolution_s", "overhead_s"))
    text = f"this clock's step is {step:.2g} us, reading it costs {cost:.2g} us"
    return f"{text}: samples of {1e3 * SHORT_SAMPLE_S:g} ms are coarse"


def cpu_by_process() -> dict[tuple[int, float], tuple[str, float]]:
    """Name and processor seconds of every process that runs now, by number and start: names change while they run,
    and numbers come again."""
    found = {}
    for process in psutil.process_iter(["name", "cpu_times", "create_time"]):
        if times := process.info["cpu_times"]:
            found[process.pid, process.info["create_time"]] = process.info["name"], times.user + times.system
    return found


def others_cpu_s(worker: Worker) -> float:
    """Processor seconds that everything but this worker has used on this machine since it started."""
    times = psutil.cpu_times()
    used = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    with contextlib.suppress(psutil.Error):
        own = psutil.Process(worker.pid).cpu_times()
        used -= own.user + own.system
    return float(used)
