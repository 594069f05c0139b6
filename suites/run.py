"""Runs a plan: workers, cold starts, alternating rounds, parity; every result is kept at once."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import yaml
from tqdm import tqdm

from . import environment, inputs, truth
from .ablation import AblationRun
from .accuracy import AccuracyRun
from .backends import device_of, impossible
from .case import CaseRun
from .config import Config, validate
from .errors import UserError
from .launch import Worker, WorkerError, WorkerLost
from .models import SUITES
from .pace import Pace
from .pace import weight as weight_of
from .phases import ColdStartRun, MemoryRun
from .plan import Case, Plan, make_plan, requested_backends
from .record import SCHEMA, RecordFile, key_of, read_lines, records, records_file, samples, write_whole
from .weights import LEARNED_WEIGHTS, Weights, cache_folder, find_weights, is_there, sha256, shipped

RUN_FILES = ("config.yaml", "environment.json", "plan.json", "records.jsonl", "workers.log")

HELLO_TIMEOUT_S = 180.0
# of a sample, what the clock's step or cost may be before it is told
POOR_CLOCK = 0.01
SHORT_S = 0.001
PROTOCOLS: dict[str, Any] = {
    "timed": CaseRun,
    "memory": MemoryRun,
    "cold_start": ColdStartRun,
    "ablation": AblationRun,
    "accuracy": AccuracyRun,
}

Facts = dict[str, Any]


class Run:
    """One run folder being filled."""

    def __init__(self, config: Config, folder: Path, *, resumed: bool) -> None:
        self.config, self.folder, self.resumed = config, folder, resumed
        self.measure = config["measure"]
        self.threads = config["threads"] or environment.physical_cores()
        self.suite = SUITES[config["suite"]["name"]]
        self.weights: dict[str, Weights] = {}
        self.model_facts: Facts = {}
        self.workers: dict[str, Worker] = {}
        self.facts: dict[str, Facts] = {}
        self.loaded: dict[str, Facts] = {}
        self.file = RecordFile(records_file(folder))
        lines = list(read_lines(self.file.path))
        self.done = {key_of(line): line for line in records(lines) if line["status"] not in ("error", "not_comparable")}
        self.samples = samples(lines)
        self._waited_s = self._parent_cpu_s = 0.0
        self.pace = Pace([])
        # of `selftest`: a share that every call of rvc_mlx takes longer; whether progress is shown
        self.slow, self.shown = 0.0, True

    # ------------------------------------------------------------------ the whole run
    def execute(self) -> None:
        self._check_audio()
        plan = self.plan()
        with tempfile.TemporaryDirectory(prefix="rvc-parity-") as scratch, self._progress(plan) as bar:
            try:
                for case in plan.cases:
                    self._case(case, plan, Path(scratch), bar)
            finally:
                for worker in self.workers.values():
                    worker.kill()

    def _check_audio(self) -> None:
        """A file that cannot be used is an error before anything is started."""
        path = self.config["audio"]
        if path is not None and not self.resumed:
            inputs.read_audio(path)
        if self.config["suite"].get("f0") is not None:
            truth.read_f0(self.config["suite"]["f0"])

    def plan(self) -> Plan:
        """What will be measured; backends have said what they are, and a model was loaded on each."""
        revived: list[str] = []
        if self.resumed:
            stored = json.loads((self.folder / "plan.json").read_text())
            revived = self._revived(stored["backends"])
            present = {*stored["backends"], *revived}
            plan = make_plan(self.config, [name for name in requested_backends(self.config)[0] if name in present])
            for backend in plan.backends:
                self._hello(backend)
        else:
            plan = make_plan(self.config, self._available())
        self.weights = weights_of(self.config)
        if self.resumed:
            self._same_inputs()
        self._try_load(plan)
        if revived:
            self._keep_peaks()
        if revived or not self.resumed:
            self._measure_peaks(plan)
        for backend in list(self.workers):  # every launch of a case has processes of its own
            self.drop(backend)
        components = self.suite.components(plan.components, self.model_facts)
        pairs = [(c, b) for c in components for b in plan.backends]
        reasons = {pair: reason for pair in pairs if (reason := self.suite.impossible(*pair))}
        beside = self._beside()
        installed = tuple(name for name, reason in beside.items() if reason is None)
        plan = plan._replace(components=components, absent=frozenset(reasons), beside=installed)
        if reasons and not any(plan.expected()):
            raise UserError(f"nothing is left to measure: {next(iter(reasons.values()))}")
        if revived or not self.resumed:
            self._describe(plan)
        if not self.resumed:
            for (component, backend), reason in reasons.items():
                self.file.append(self._base("all", component, backend) | {"status": "skipped", "reason": reason})
            for name, why in beside.items():
                if why is not None:
                    self.file.append(self._base("all", "all", name) | {"status": "skipped", "reason": why})
        return plan

    def _beside(self) -> dict[str, str | None]:
        """What is measured beside the backends; what a resumed run was begun with stays what it is."""
        found = self.suite.beside(self.config["suite"])
        if not self.resumed:
            return found
        begun = {name for *_, name in json.loads((self.folder / "plan.json").read_text())["keys"]}
        return {name: reason for name, reason in found.items() if name in begun}

    def _revived(self, known: list[str]) -> list[str]:
        """Backends that could not be started before the interruption, and can now."""
        lines = records(read_lines(self.file.path))
        broken = [x["backend"] for x in lines if x["case"] == x["component"] == "all" and x["status"] == "error"]
        return [name for name in broken if name not in known and self._retried(name)]

    def _retried(self, backend: str) -> bool:
        facts = self._hello(backend)
        if not facts["available"]:
            self._skip(backend, facts["reason"])
        return bool(facts["available"])

    @property
    def settings(self) -> Facts:
        """What calls and judgements depend on beside the model."""
        index = self.weights.get("index")
        own = {
            "seed": self.config["seed"],
            "profile": self.config["profile"],
            "index": str(index.path) if index else None,
        }
        return self.config["suite"] | own

    def _same_inputs(self) -> None:
        """What was measured before the interruption and what comes after must be one run."""
        stored = json.loads((self.folder / "environment.json").read_text())
        now = {"weights": _digests(self.weights), "audio": self._audio_sha256()}
        then = {"weights": {n: w["sha256"] for n, w in stored["weights"].items()}, "audio": stored["audio_sha256"]}
        changed = [name for name in now if now[name] != then[name]]
        if changed:
            raise UserError(f"resume={self.folder}: the {' and '.join(changed)} changed since; start a new run")

    def _audio_sha256(self) -> str | None:
        path = self.config["audio"]
        return sha256(Path(path).expanduser()) if path is not None else None

    def _available(self) -> list[str]:
        """Start a worker for every backend wished for; record those that this machine lacks."""
        names, asked = requested_backends(self.config)
        reasons = {name: impossible(name) for name in names}
        for name in names:
            if reasons[name] is None:
                self.workers[name] = self.start(name)  # all at once: they import while they wait
        present = []
        for name, reason in reasons.items():
            if reason is None:
                facts = self._hello(name)
                reason = None if facts["available"] else facts["reason"]
            if reason is None:
                present.append(name)
            elif asked:
                raise UserError(f"backend {name}: {reason}")
            else:
                self._skip(name, reason)
        if not present:
            raise UserError("this machine has none of the backends; install one: pip install -e '.[mlx,torch]'")
        return present

    def _skip(self, backend: str, reason: str) -> None:
        """Absent is skipped; installed and broken is an error."""
        self.drop(backend)
        status = "error" if self.facts.get(backend, {}).get("broken") else "skipped"
        self.file.append(self._base("all", "all", backend) | {"status": status, "reason": reason})

    def _try_load(self, plan: Plan) -> None:
        """A checkpoint that no side can load is the user's error, found before any timing."""
        reasons = []
        for backend in plan.backends:
            try:
                self._insist(backend)
            except WorkerError as error:
                if error.kind == "CheckpointError":
                    raise UserError(str(error)) from None
                if error.kind == "ValueError":  # an option, such as an unknown optimisation
                    raise UserError(f"{backend}: {error}") from None
                self.drop(backend)  # its cases will say what is wrong
                reasons.append(f"{backend}: {error}")
            except WorkerLost as error:
                self.drop(backend)
                reasons.append(str(error))
        if not self.loaded:
            raise UserError(f"no backend can load the model; {'; '.join(reasons)}")
        self.model_facts = next(iter(self.loaded.values()))["facts"]

    def _measure_peaks(self, plan: Plan) -> None:
        """What each device does at best, on its own: the roof that components are held against."""
        for backend in plan.backends if self.measure.get("peaks") and self.suite.protocol == "timed" else ():
            with contextlib.suppress(WorkerError, WorkerLost):  # such as memory that does not suffice
                if backend in self.workers and "peaks" not in self.facts[backend]:
                    self.facts[backend]["peaks"] = self.ask_quietly(self.workers[backend], "peaks", HELLO_TIMEOUT_S)

    def _keep_peaks(self) -> None:
        """Those that were measured before the interruption hold for what was measured beside them."""
        stored = json.loads((self.folder / "environment.json").read_text())["backends"]
        for backend, facts in stored.items():
            if "peaks" in facts and backend in self.facts:
                self.facts[backend]["peaks"] = facts["peaks"]

    def _insist(self, backend: str) -> None:
        """A worker that is lost is started once more: what it says of itself and of its model goes into all records."""
        try:
            self.worker(backend)
        except WorkerLost:
            self.drop(backend)
            self.worker(backend)

    def _describe(self, plan: Plan) -> None:
        facts = environment.describe() | {
            "threads": self.threads,
            "backends": {name: self.facts[name] for name in plan.backends},
            "weights": {name: {"label": w.label, "sha256": w.sha256} for name, w in self.weights.items()},
            "audio_sha256": self._audio_sha256(),
        }
        write_whole(self.folder / "environment.json", json.dumps(facts, indent=1) + "\n")
        stored = {"suite": plan.suite, "backends": list(plan.backends), "keys": [list(key) for key in plan.expected()]}
        write_whole(self.folder / "plan.json", json.dumps(stored, indent=1) + "\n")

    @contextlib.contextmanager
    def _progress(self, plan: Plan) -> Iterator[Any]:
        self.pace = Pace([weight_of(case.seconds) for case in plan.cases])
        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
        total = sum(self.pace.weights) * self._calls
        with tqdm(total=total, desc=plan.suite, bar_format=form, dynamic_ncols=True, disable=not self.shown) as bar:
            yield bar

    # ------------------------------------------------------------------ cases
    def _case(self, case: Case, plan: Plan, scratch: Path, bar: Any) -> None:
        weight, start, measured = weight_of(case.seconds), bar.n, False
        if any(key[0] == case.name and key not in self.done for key in plan.expected()):
            try:
                audio = self.suite.audio(case, self.config)
            except (UserError, ImportError, OSError) as error:
                self._no_audio(case, plan, str(error))
                self.pace.ended(measured)
                return

            def told(step: str, done: bool = False) -> None:
                bar.set_description_str(f"{case.name} {step}", refresh=False)
                bar.set_postfix_str(self.pace.left())
                if done:  # some cases take more steps than others
                    bar.update(min(weight, start + weight * self._calls - bar.n))

            PROTOCOLS[self.suite.protocol](self, case, audio, plan, scratch, told).execute()
            measured = True
        self.pace.ended(measured)
        bar.update(start + weight * self._calls - bar.n)

    def _no_audio(self, case: Case, plan: Plan, reason: str) -> None:
        for key in plan.expected():
            if key[0] == case.name and key not in self.done:
                self.file.append(self._base(*key) | {"status": "error", "reason": reason})

    @property
    def _calls(self) -> int:
        """Steps of a case on the progress bar."""
        return int(self.measure["launches"]["max"] * (1 + self.measure["rounds"]["max"]))

    def discard_if_empty(self) -> None:
        """Remove what a run leaves that ended before it measured anything."""
        if not self.resumed and not self.samples:
            self.file.close()
            for name in RUN_FILES:
                (self.folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the folder held something else too
                self.folder.rmdir()

    # ------------------------------------------------------------------ workers
    def _hello(self, backend: str) -> Facts:
        if backend not in self.workers:
            self.workers[backend] = self.start(backend)
        worker = self.workers[backend]
        try:
            self.facts[backend] = self.hello(worker, clock=True)
            told = poor_clock(self.facts[backend].get("clock"))
            if told and self.shown and self.facts[backend]["available"]:
                tqdm.write(f"{backend}: {told}")
        except (WorkerError, WorkerLost) as error:
            self.facts[backend] = {"available": False, "broken": True, "reason": f"cannot be started: {error}"}
        return self.facts[backend]

    def hello(self, worker: Worker, clock: bool = False) -> Facts:
        """What a worker's framework says of itself; ``clock``: and of its clock and threads."""
        return worker.ask("hello", HELLO_TIMEOUT_S, threads=self.threads, clock=clock)

    def ask_quietly(self, worker: Worker, do: str, timeout_s: float, **arguments: Any) -> Facts:
        """Ask, and keep account of what this process does while a worker is being timed."""
        start, busy, before = time.monotonic(), time.process_time(), others_cpu_s(worker)
        answer = worker.ask(do, timeout_s, **arguments)
        waited = time.monotonic() - start
        own = time.process_time() - busy
        self._waited_s, self._parent_cpu_s = self._waited_s + waited, self._parent_cpu_s + own
        others = max(0.0, others_cpu_s(worker) - before - own) / waited
        # on a machine with room for both, others' work takes nothing from the worker
        lacking = max(0.0, others + self.threads - (os.cpu_count() or 1)) / self.threads
        return answer | {"others": round(min(1.0, lacking), 4)}

    @property
    def parent_cpu_share(self) -> float | None:
        """Of one core, while workers were timed."""
        return round(self._parent_cpu_s / self._waited_s, 6) if self._waited_s else None

    def start(self, backend: str, environment: Mapping[str, str] | None = None) -> Worker:
        log = self.folder / "workers.log"
        return Worker(backend, self.config["precision"], self.threads, log, environment)

    def load(
        self,
        worker: Worker,
        suite: str | None = None,
        optimize: Any = None,
        paths: Mapping[str, str] | None = None,
    ) -> Facts:
        """The suite's model, or another suite's; ``optimize``, ``paths``: other optimisations and weights than the
        run's."""
        name = suite or self.config["suite"]["name"]
        own = paths or {name: str(self.weights[name].path) for name in SUITES[name].checkpoints}
        return worker.ask(
            "load",
            self.measure["timeout_s"],
            suite=name,
            paths=own,
            optimize=self.config["optimize"] if optimize is None else optimize,
            settings=self.settings,
        )

    def worker(self, backend: str) -> Worker:
        """A worker of this backend with its model."""
        if backend not in self.workers:
            self._hello(backend)
        worker = self.workers[backend]
        if backend not in self.loaded:
            self.loaded[backend] = self.load(worker)
            for text in self.loaded[backend]["warnings"]:
                tqdm.write(f"{backend}: {text}")
        return worker

    def drop(self, backend: str) -> None:
        """End and forget a worker."""
        worker = self.workers.pop(backend, None)
        if worker:
            worker.kill()

    # ------------------------------------------------------------------ records
    def _base(self, case: str, component: str, backend: str) -> Facts:
        config = self.config
        return {
            "schema": SCHEMA,
            "kind": "record",
            "run": self.folder.name,
            "suite": config["suite"]["name"],
            "case": case,
            "component": component,
            "backend": backend,
            "device": device_of(backend),
            "precision": config["precision"],
            "profile": config["profile"],
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        }

    def sample(self, case: Case, component: str, backend: str, number: int, seconds: float, facts: Facts) -> None:
        """``facts``: launch, calls of which ``seconds`` is the mean, rest_s."""
        key = (case.name, component, backend)
        line = {"schema": SCHEMA, "kind": "sample"}
        line |= dict(zip(("case", "component", "backend"), key, strict=True))
        line |= {"round": number, "seconds": seconds, **facts}
        self.samples.setdefault(key, {})[number] = line
        self.file.append(line)

    def record(self, case: Case, component: str, backend: str, **fields: Any) -> None:
        line = self._base(case.name, component, backend)
        facts, loaded = self.facts.get(backend, {}), self.loaded.get(backend, {})
        line |= {
            "optimize": loaded.get("facts", {}).get("optimize", []),
            "blas": facts.get("blas"),
            "threads": self.threads,
        }
        line |= {"warnings": loaded.get("warnings", [])}
        self.file.append(line | fields)


def poor_clock(clock: Mapping[str, float] | None) -> str | None:
    """Why samples as short as they get here would not be told well, if so."""
    if clock is None or max(clock["resolution_s"], clock["overhead_s"]) <= POOR_CLOCK * SHORT_S:
        return None
    step, cost = (1e6 * clock[name] for name in ("resolution_s", "overhead_s"))
    told = f"this clock's step is {step:.2g} us, reading it costs {cost:.2g} us"
    return f"{told}: samples of {1e3 * SHORT_S:g} ms are coarse"


def others_cpu_s(worker: Worker) -> float:
    """Processor seconds that everything but this worker has used on this machine so far."""
    times = psutil.cpu_times()
    used = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    with contextlib.suppress(psutil.Error):
        own = psutil.Process(worker.pid).cpu_times()
        used -= own.user + own.system
    return float(used)


def weights_of(config: Config) -> dict[str, Weights]:
    """Per name under ``weights`` that the suite loads; an index only where one was given."""
    wish, suite = config["weights"], config["suite"]
    folder, size = cache_folder(config["paths"]["cache"]), config["measure"]["model"]
    names = [*SUITES[suite["name"]].checkpoints, *(["index"] if wish["index"] else [])]
    if SUITES[suite["name"]].trained and wish["rmvpe"] is None:
        return {"rmvpe": shipped(folder)}
    found = {n: find_weights(n, wish[n], wish["seed"], size, suite.get("voice"), folder) for n in names}
    if SUITES[suite["name"]].learned and wish["rmvpe"] is None and is_there():
        found[LEARNED_WEIGHTS] = shipped(folder)
    return found


def _digests(weights: dict[str, Weights]) -> dict[str, str]:
    return {name: found.sha256 for name, found in weights.items()}


def open_run(config: Config) -> Run:
    """A new run folder, with the configuration in it."""
    folder = new_folder(config, f"{datetime.now():%Y%m%d-%H%M%S}-{config['suite']['name']}")
    return Run(config, folder, resumed=False)


def new_folder(config: Config, name: str) -> Path:
    """``out=``, or ``name`` under ``paths.runs`` with a number where that is taken; the configuration is in it.

    Raises:
        UserError: it cannot be written, or holds something already.
    """
    runs = Path(config["paths"]["runs"])
    fresh = next(
        runs / (name + end) for end in ("", *(f"-{i}" for i in range(2, 100))) if not (runs / (name + end)).exists()
    )
    folder = Path(config["out"]) if config["out"] else fresh
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _has_samples(records_file(folder)):
            raise UserError(f"{folder} already holds a run; to complete it: run resume={folder}")
        if any(folder.iterdir()) and not records_file(folder).exists():
            raise UserError(f"{folder} holds something that is not a run; give out= a folder of its own")
        for file in RUN_FILES:  # of a run that never began
            (folder / file).unlink(missing_ok=True)
        write_whole(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    except OSError as error:
        raise UserError(f"cannot write the run folder {folder}: {error.strerror}; set out=FOLDER") from None
    return folder


def _has_samples(path: Path) -> bool:
    return path.exists() and any(line["kind"] in ("sample", "trace") for line in read_lines(path))


def resume_run(folder: Path) -> Run:
    """An interrupted run, to be completed with its own configuration.

    Raises:
        UserError: not a run folder, or made on another machine.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"resume={folder}: not a run folder (no config.yaml)")
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        validate(config)
        stored = json.loads((folder / "environment.json").read_text() if (folder / "plan.json").exists() else "{}")
    except (yaml.YAMLError, ValueError, TypeError, KeyError):
        raise UserError(f"resume={folder}: its config.yaml or environment.json is damaged") from None
    if not (folder / "plan.json").is_file():  # broken off before anything was measured
        records_file(folder).unlink(missing_ok=True)
        return Run(config, folder, resumed=False)
    then, now = environment.fingerprint(stored), environment.fingerprint(environment.describe())
    changed = [name for name in then if then[name] != now[name]]
    if changed:
        raise UserError(
            f"resume={folder}: made on another machine or with other software ({', '.join(changed)} differ)"
        )
    return Run(config, folder, resumed=True)
