"""Runs a plan: workers, cold starts, alternating rounds, parity; every result is kept at once."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm import tqdm

from . import environment, inputs, verdict
from .backends import BACKENDS, impossible, parity_reference
from .config import Config
from .errors import UserError
from .launch import Worker, WorkerError, WorkerLost
from .plan import Case, Plan, make_plan, requested_backends
from .record import SCHEMA, RecordFile, key_of, read_lines, records, samples
from .weights import Weights, cache_folder, rmvpe_weights

# lets a framework's spinning threads fall asleep before another one is timed
SETTLE_S = 0.05
HELLO_TIMEOUT_S = 180.0

Facts = dict[str, Any]


class Run:
    """One run folder being filled."""

    def __init__(self, config: Config, folder: Path, *, resumed: bool) -> None:
        self.config, self.folder, self.resumed = config, folder, resumed
        self.measure = config["measure"]
        self.threads = config["threads"] or environment.physical_cores()
        self.weights: Weights
        self.workers: dict[str, Worker] = {}
        self.facts: dict[str, Facts] = {}
        self.loaded: dict[str, Facts] = {}
        self.file = RecordFile(folder / "records.jsonl")
        lines = list(read_lines(folder / "records.jsonl"))
        self.done = {key_of(line): line for line in records(lines) if line["status"] != "error"}
        self.samples = samples(lines)

    # ------------------------------------------------------------------ the whole run
    def execute(self) -> None:
        self._check_audio()
        plan = self._plan()
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

    def _plan(self) -> Plan:
        if self.resumed:
            stored = json.loads((self.folder / "plan.json").read_text())
            plan = make_plan(self.config, stored["backends"])
            for backend in plan.backends:
                self._hello(backend)
        else:
            plan = make_plan(self.config, self._available())
        self.weights = _weights(self.config)
        if not self.resumed:
            self._describe(plan)
            self._try_load(plan)
        return plan

    def _available(self) -> list[str]:
        """Start a worker for every backend wished for; record those that this machine lacks."""
        names, asked = requested_backends(self.config)
        present = []
        for name in names:
            reason = impossible(name)
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
        worker = self.workers.pop(backend, None)
        if worker:
            worker.close()
        self.file.append(self._base("all", "all", backend) | {"status": "skipped", "reason": reason})

    def _try_load(self, plan: Plan) -> None:
        """A checkpoint that no side can load is the user's error, found before any timing."""
        for backend in plan.backends:
            try:
                self._loaded_worker(backend)
            except WorkerError as error:
                if error.kind == "CheckpointError":
                    raise UserError(str(error)) from None
                raise UserError(f"{backend}: {error}") from None

    def _describe(self, plan: Plan) -> None:
        facts = environment.describe() | {
            "threads": self.threads,
            "backends": {name: self.facts[name] for name in plan.backends},
            "weights": {"label": self.weights.label, "sha256": self.weights.sha256},
        }
        (self.folder / "environment.json").write_text(json.dumps(facts, indent=1) + "\n")
        stored = {"suite": plan.suite, "backends": list(plan.backends), "keys": [list(key) for key in plan.keys()]}
        (self.folder / "plan.json").write_text(json.dumps(stored, indent=1) + "\n")

    @contextlib.contextmanager
    def _progress(self, plan: Plan) -> Iterator[Any]:
        calls = self.measure["cold_starts"] + self.measure["warmups"] + self.measure["rounds"]["max"]
        total = sum(case.seconds or 10.0 for case in plan.cases) * calls
        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, at most {remaining} left"
        with tqdm(total=total, desc=plan.suite, bar_format=form, dynamic_ncols=True) as bar:
            yield bar

    # ------------------------------------------------------------------ one case
    def _case(self, case: Case, plan: Plan, scratch: Path, bar: Any) -> None:
        weight = case.seconds or 10.0
        start = bar.n
        missing = [key for key in plan.keys() if key[0] == case.name and key not in self.done]
        if missing:
            audio = inputs.make_audio(
                case.kind, case.seconds, case.path, self.config["seed"], self.config["suite"]["snr_db"]
            )
            CaseRun(self, case, audio, plan, scratch).execute(lambda: bar.update(weight), bar.set_description_str)
        calls = self.measure["cold_starts"] + self.measure["warmups"] + self.measure["rounds"]["max"]
        bar.update(start + weight * calls - bar.n)

    # ------------------------------------------------------------------ workers
    def _hello(self, backend: str) -> Facts:
        worker = self.start(backend)
        self.workers[backend] = worker
        try:
            self.facts[backend] = worker.ask("hello", HELLO_TIMEOUT_S, threads=self.threads)
        except (WorkerError, WorkerLost) as error:
            self.facts[backend] = {"available": False, "reason": f"cannot be started: {error}"}
        return self.facts[backend]

    def start(self, backend: str) -> Worker:
        return Worker(backend, self.config["precision"], self.threads, self.folder / "workers.log")

    def load(self, worker: Worker) -> Facts:
        config = self.config
        answer = worker.ask(
            "load",
            self.measure["timeout_s"],
            path=str(self.weights.path),
            profile=config["profile"],
            optimize=config["optimize"],
            threshold=config["suite"]["threshold"],
        )
        return answer

    def _loaded_worker(self, backend: str) -> Worker:
        """The kept worker of this backend, started anew where it was lost."""
        if backend not in self.workers:
            self._hello(backend)
        worker = self.workers[backend]
        if backend not in self.loaded:
            self.loaded[backend] = self.load(worker)
            for text in self.loaded[backend]["warnings"]:
                tqdm.write(f"{backend}: {text}")
        return worker

    def worker(self, backend: str) -> Worker:
        return self._loaded_worker(backend)

    def drop(self, backend: str) -> None:
        """Forget a worker that was lost; the next case gets a new one."""
        worker = self.workers.pop(backend, None)
        self.loaded.pop(backend, None)
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
            "device": BACKENDS[backend].device,
            "precision": config["precision"],
            "profile": config["profile"],
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        }

    def sample(self, case: Case, component: str, backend: str, number: int, seconds: float) -> None:
        key = (case.name, component, backend)
        self.samples.setdefault(key, {})[number] = seconds
        line = dict(zip(("case", "component", "backend"), key, strict=True))
        self.file.append({"schema": SCHEMA, "kind": "sample", **line, "round": number, "seconds": seconds})

    def record(self, case: Case, component: str, backend: str, **fields: Any) -> None:
        line = self._base(case.name, component, backend)
        facts, loaded = self.facts.get(backend, {}), self.loaded.get(backend, {})
        line |= {"optimize": loaded.get("optimize", []), "blas": facts.get("blas"), "threads": self.threads}
        self.file.append(line | fields)


class CaseRun:
    """One case on all backends: cold starts, then alternating rounds, then parity and records."""

    def __init__(self, run: Run, case: Case, audio: inputs.Audio, plan: Plan, scratch: Path) -> None:
        self.run, self.case, self.audio, self.plan = run, case, audio, plan
        self.scratch, self.timeout_s = scratch, run.measure["timeout_s"]
        self.reference = parity_reference(list(plan.backends))
        self.errors: dict[str, str] = {}
        self.cold: dict[str, list[Facts]] = {}
        self.warmups: dict[tuple[str, str], list[float]] = {}
        self.files = {name: str(scratch / f"{name}.npy") for name in ("audio", "mel", "salience")}

    def execute(self, tick: Any, say: Any) -> None:
        np.save(self.files["audio"], self.audio.samples)
        for number in range(self.run.measure["cold_starts"]):
            say(f"{self.case.name} cold start")
            for backend in self._alive():
                self._guard(backend, lambda b=backend: self._cold_start(b))
            tick()
        self._shared_inputs()
        for backend in self._alive():
            say(f"{self.case.name} warm-up")
            self._guard(backend, lambda b=backend: self._warm_up(b))
        tick()
        self._rounds(tick, say)
        say(f"{self.case.name} parity")
        self._close_records(self._outputs())

    def _alive(self) -> list[str]:
        return [name for name in self.plan.backends if name not in self.errors]

    def _guard(self, backend: str, step: Any) -> None:
        """A backend that fails drops out of this case; the others go on."""
        try:
            step()
        except WorkerError as error:
            self.errors[backend] = str(error)
        except WorkerLost as error:
            self.errors[backend] = str(error)
            self.run.drop(backend)

    # ------------------------------------------------------------------ steps
    def _cold_start(self, backend: str) -> None:
        """Load time, first call and memory, in a process of its own."""
        worker = self.run.start(backend)
        try:
            hello = worker.ask("hello", HELLO_TIMEOUT_S, threads=self.run.threads)
            loaded = self.run.load(worker)
            worker.ask("prepare", self.timeout_s, inputs={"audio": self.files["audio"]})
            cold = worker.ask("cold", self.timeout_s, component="f0")
        finally:
            worker.close()
        self.cold.setdefault(backend, []).append({"import_s": hello["import_s"], **loaded, **cold})

    def _shared_inputs(self) -> None:
        """The reference's mel and salience: every backend's network and decoding get the same input."""
        for backend in (self.reference, *self._alive()):
            if backend in self.errors:
                continue
            self._guard(backend, lambda b=backend: self._make_inputs(b))
            if backend not in self.errors:
                self.reference = backend
                return

    def _make_inputs(self, backend: str) -> None:
        worker = self.run.worker(backend)
        given = {"audio": self.files["audio"]}
        for name, component in (("mel", "mel"), ("salience", "network")):
            worker.ask("prepare", self.timeout_s, inputs=given)
            worker.ask("output", self.timeout_s, component=component, path=self.files[name])
            given[name] = self.files[name]

    def _warm_up(self, backend: str) -> None:
        worker = self.run.worker(backend)
        worker.ask("prepare", self.timeout_s, inputs=self.files)
        for _ in range(self.run.measure["warmups"]):
            for component in self.plan.components:
                seconds = worker.ask("time", self.timeout_s, component=component)["seconds"]
                self.warmups.setdefault((component, backend), []).append(seconds)

    def _rounds(self, tick: Any, say: Any) -> None:
        """Every round times all components on all backends; the order turns around each time."""
        limits, started = self.run.measure["rounds"], time.monotonic()
        for number in range(limits["max"]):
            if number >= limits["min"] and time.monotonic() - started > self.run.measure["seconds_per_case"]:
                return
            say(f"{self.case.name} round {number + 1}")
            for component in self.plan.components:
                order = self._alive() if number % 2 == 0 else self._alive()[::-1]
                for backend in order:
                    if number not in self.run.samples.get((self.case.name, component, backend), {}):
                        self._guard(backend, lambda b=backend, c=component: self._sample(b, c, number))
            tick()

    def _sample(self, backend: str, component: str, number: int) -> None:
        time.sleep(SETTLE_S)
        seconds = self.run.worker(backend).ask("time", self.timeout_s, component=component)["seconds"]
        self.run.sample(self.case, component, backend, number, seconds)

    # ------------------------------------------------------------------ parity
    def _outputs(self) -> dict[str, dict[str, np.ndarray]]:
        """Per backend the results of every component, and of the whole chain on its own values."""
        found: dict[str, dict[str, np.ndarray]] = {}
        wanted = (*self.plan.components, "own_salience")
        for backend in self._alive():
            self._guard(backend, lambda b=backend: found.__setitem__(b, self._fetch(b, wanted)))
        if self.reference.startswith("torch") and self.reference in found:
            self._guard(self.reference, lambda: self._moved_by_rounding(found[self.reference]))
        return found

    def _fetch(self, backend: str, components: tuple[str, ...]) -> dict[str, np.ndarray]:
        worker, path = self.run.worker(backend), str(self.scratch / "output.npy")
        results = {}
        for component in components:
            worker.ask("output", self.timeout_s, component=component, path=path)
            results[component] = np.load(path)
        return results

    def _moved_by_rounding(self, results: dict[str, np.ndarray]) -> None:
        """What the reference answers when its mel is computed in float64: the floor of the chain."""
        exact = self._fetch(self.reference, ("exact_mel",))["exact_mel"]
        results["exact_mel"] = exact
        path = self.scratch / "exact.npy"
        np.save(path, exact.astype(np.float32))
        worker = self.run.worker(self.reference)
        worker.ask("prepare", self.timeout_s, inputs=self.files | {"mel": str(path)})
        results["moved_salience"] = self._fetch(self.reference, ("network",))["network"]
        np.save(path, results["moved_salience"])
        worker.ask("prepare", self.timeout_s, inputs=self.files | {"salience": str(path)})
        results["moved_f0"] = self._fetch(self.reference, ("decode",))["decode"]

    def _close_records(self, outputs: dict[str, dict[str, np.ndarray]]) -> None:
        suite, precision = self.run.config["suite"], self.run.config["precision"]
        judge = verdict.Judge(suite["limits"][precision], suite["threshold"], outputs.get(self.reference))
        for component in self.plan.components:
            for backend in self.plan.backends:
                key = (self.case.name, component, backend)
                if key in self.run.done:
                    continue
                if backend in self.errors:
                    judged: Facts = {"status": "error", "reason": self.errors[backend], "parity": None}
                else:
                    judged = judge(component, outputs[backend], backend == self.reference)
                self.run.record(self.case, component, backend, **self._measured(component, backend), **judged)
        self._keep_contours(outputs)

    def _measured(self, component: str, backend: str) -> Facts:
        taken = self.run.samples.get((self.case.name, component, backend), {})
        cold = self.cold.get(backend, []) if component == "f0" else []
        audio = self.audio
        loads = self.run.loaded.get(backend, {})
        return {
            "reference": self.reference,
            "workload": {
                "audio": audio.source,
                "duration_s": audio.samples.size / inputs.SAMPLE_RATE,
                "samples": audio.samples.size,
                "frames": 1 + audio.samples.size // 160,
                "weights": self.run.weights.label,
            },
            "samples_s": [taken[number] for number in sorted(taken)],
            "rounds": sorted(taken),
            "warmup_s": self.warmups.get((component, backend), []),
            "load_s": cold[0]["load_s"] if cold else loads.get("load_s"),
            "first_call_s": cold[0]["first_call_s"] if cold else None,
            "peak_rss_bytes": max((c["peak_rss_bytes"] for c in cold), default=None),
            "peak_device_bytes": cold[0]["peak_device_bytes"] if cold else None,
            "cold": cold,
        }

    def _keep_contours(self, outputs: dict[str, dict[str, np.ndarray]]) -> None:
        """What the report draws: F0 of every backend, the truth, and the reference's mel."""
        if self.reference not in outputs:
            return
        folder = self.run.folder / "contours"
        folder.mkdir(exist_ok=True)
        arrays = {f"f0.{backend}": found["f0"] for backend, found in outputs.items()}
        arrays["mel"] = outputs[self.reference]["mel"][:, :1500].astype(np.float16)
        if self.audio.f0_hz is not None:
            arrays["f0.truth"] = self.audio.f0_hz
        np.savez_compressed(folder / f"{self.case.name}.npz", **arrays)


def _weights(config: Config) -> Weights:
    wish, model = config["weights"], config["measure"]["model"]
    folder = cache_folder(config["paths"]["cache"])
    return rmvpe_weights(wish["rmvpe"], wish["seed"], model["width"], model["hidden"], folder)


def open_run(config: Config) -> Run:
    """A new run folder, with the configuration in it."""
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{config['suite']['name']}"
    folder = Path(config["out"]) if config["out"] else Path(config["paths"]["runs"]) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "records.jsonl").exists():
            raise UserError(f"{folder} already holds a run; to complete it: run resume={folder}")
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    except OSError as error:
        raise UserError(f"cannot write the run folder {folder}: {error.strerror}; set out=FOLDER") from None
    return Run(config, folder, resumed=False)


def resume_run(folder: Path) -> Run:
    """An interrupted run, to be completed with its own configuration.

    Raises:
        UserError: not a run folder, or made on another machine.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"resume={folder}: not a run folder (no config.yaml)")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    if not (folder / "plan.json").is_file():  # broken off before anything was measured
        (folder / "records.jsonl").unlink(missing_ok=True)
        return Run(config, folder, resumed=False)
    stored = json.loads((folder / "environment.json").read_text())
    then, now = environment.fingerprint(stored), environment.fingerprint(environment.describe())
    changed = [name for name in then if then[name] != now[name]]
    if changed:
        raise UserError(f"resume={folder}: made on another machine or with other software ({', '.join(changed)} differ)")
    return Run(config, folder, resumed=True)


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free
