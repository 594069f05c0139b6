"""Runs a plan from its first worker to its last record; every result is on disk before the next is measured."""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Iterator
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import yaml

from ..base import environment
from ..base.backends import impossible, is_port
from ..base.errors import UserError
from ..base.files import scratch_folder, write_whole
from ..base.lines import Line
from ..base.lock import Lock
from ..base.records import RECORDS, read_lines, records_file
from ..base.run_folder import CONFIG, ENVIRONMENT, PLAN, RunFolder, StoredPlan, own_folder
from ..definitions import SUITES
from ..definitions.config import AccuracyOptions, Config
from ..definitions.plan import Plan, make_plan, requested_backends
from ..inputs.annotations import read_f0
from ..inputs.recordings import read_audio
from ..inputs.weights import cache_folder, sha256
from . import told
from .ablation import AblationCase
from .accuracy import AccuracyCase
from .config import typed
from .launch import WorkerError, WorkerLost
from .phases import ColdStartCase, MemoryCase
from .precision import PrecisionCase
from .progress import Progress
from .run_weights import weights_of
from .session import HELLO_TIMEOUT_S, Session
from .timed import TimedCase, execute_together

RUN_FILES = (CONFIG, ENVIRONMENT, PLAN, RECORDS, "workers.log")

# what a run needs in its middle or at its end only: one that is missing or damaged is told before anything is measured.
# Of SciPy what every report needs: the part that filters audio takes most of a second to import
NEEDED_LATER = ("soundfile", "soxr", "scipy.special", "pandas", "matplotlib")

# how the cases of a suite are measured, by ``Suite.protocol``
PROTOCOLS: dict[str, Any] = {
    "timed": TimedCase,
    "memory": MemoryCase,
    "cold_start": ColdStartCase,
    "ablation": AblationCase,
    "accuracy": AccuracyCase,
    "precision": PrecisionCase,
}


class Runner:
    """Plans a run, resumes it where it was interrupted, and measures its cases one after another."""

    def __init__(self, config: Config, lock: Lock, *, resumed: bool) -> None:
        self.config, self.lock, self.folder, self.resumed = config, lock, lock.folder, resumed
        with lock.kept():
            self.session = Session(config, self.folder)
        self.suite = self.session.suite

    # ------------------------------------------------------------------ the whole run
    def execute(self) -> None:
        """Measure what has no record yet, and leave the folder to others. A run that never began leaves none."""
        with self.lock:
            try:
                self._execute()
            except UserError:
                self._discard_if_empty()
                raise

    def _execute(self) -> None:
        self._check_files()
        told.tell(self.session, f"{self.suite.name}: starting workers; run folder {self.folder}")
        plan = self.plan()
        with (
            scratch_folder(in_memory=False) as scratch,
            Progress([case.seconds for case in plan.cases], self.session.shows_progress) as progress,
        ):
            try:
                cases = self._cases(plan, scratch, progress)
                if self.suite.protocol == "timed":
                    execute_together(list(cases))
                else:
                    for case in cases:
                        case.execute()
                        told.finished(self.session, case.case.name)
            finally:
                self.session.close()
        if self.session.shows_progress and (others := self.session.others()):
            print(others)

    def _check_files(self) -> None:
        """Refuse a package, file or folder that cannot be used before any process is started."""
        for name in NEEDED_LATER:
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise UserError(f"{error}: a package is missing or damaged, install it again") from None
        for name, path in self.config.weights.given().items():
            if not Path(path).expanduser().exists():
                raise UserError(f"weights.{name}={path}: no such file")
        cache_folder(self.config.paths.cache)
        if self.config.audio is not None and not self.resumed:
            read_audio(self.config.audio)
        if isinstance(self.config.suite, AccuracyOptions) and self.config.suite.f0 is not None:
            read_f0(self.config.suite.f0)

    def plan(self) -> Plan:
        """What will be measured. Afterwards every backend is described and has loaded its model once."""
        session = self.session
        revived: list[str] = []
        if self.resumed:
            stored = RunFolder(self.folder).plan().backends
            revived = self._revived(stored)
            present = {*stored, *revived}
            plan = make_plan(self.config, [name for name in requested_backends(self.config)[0] if name in present])
            for backend in plan.backends:
                session.facts_of(backend)
        else:
            plan = make_plan(self.config, self._available())
        session.weights = weights_of(self.config)
        if self.resumed:
            self._check_same_inputs()
        self._try_load(plan)
        if revived:
            self._keep_peaks()
        if revived or not self.resumed:
            self._measure_peaks(plan)
        for backend in list(session.workers):  # every launch of a case starts processes of its own
            session.drop(backend)
        external = self._external()
        plan, reasons = self.suite.fitted(plan, session.model_facts, external)
        lacking = {pair: why for pair, why in self._lacking(plan).items() if pair not in reasons}
        plan, reasons = plan._replace(absent=plan.absent | {*lacking}), reasons | lacking
        if reasons and not any(plan.expected()):
            raise UserError(f"nothing is left to measure: {next(iter(reasons.values()))}")
        if revived or not self.resumed:
            self._describe(plan)
        if not self.resumed:
            for (component, backend), reason in reasons.items():
                self.session.unmeasured("all", component, backend, "skipped", reason)
            for name, why in external.items():
                if why is not None:
                    self.session.unmeasured("all", "all", name, "skipped", why)
        return plan

    def _lacking(self, plan: Plan) -> dict[tuple[str, str], str]:
        """Why a port lacks a component: its adapter does not name it, or this suite's calls are not for ports."""
        found = {}
        for component, backend in product(plan.components, filter(is_port, plan.backends)):
            # where each model is measured in processes of its own, a component is a model
            suite, call = self.suite, component
            if self.suite.protocol in ("memory", "cold_start"):
                suite, call = SUITES[component], SUITES[component].whole or ""
            if call not in suite.takes or (suite is not self.suite and "noise" in suite.takes[call]):
                found[component, backend] = f"the suite {self.suite.name} has no {component} for ports"
            elif not self.session.makes(backend, suite, call):
                model, name = suite.of_port(call)
                found[component, backend] = f"its adapter names no {name} of {model} in describe()"
        return found

    def _external(self) -> dict[str, str | None]:
        """External estimators, and why one cannot run; a resumed run keeps those that it was begun with."""
        found = self.suite.external(self.session.settings)
        if not self.resumed:
            return found
        begun = {name for *_, name in RunFolder(self.folder).plan().keys}
        return {name: reason for name, reason in found.items() if name in begun}

    def _revived(self, known: list[str]) -> list[str]:
        """Backends that could not be started before the interruption, and can now."""
        lines = RunFolder(self.folder).results()
        broken = [x.backend for x in lines if x.case == x.component == "all" and x.status == "error"]
        found = {name: self.session.facts_of(name) for name in broken if name not in known}
        for name, facts in found.items():
            if not facts["available"]:
                self._skip(name, facts["reason"])
        return [name for name, facts in found.items() if facts["available"]]

    def _check_same_inputs(self) -> None:
        """What was measured before and after the interruption must be one run."""
        stored = RunFolder(self.folder).environment()
        weights = {name: found.sha256 for name, found in self.session.weights.items()}
        now = {"weights": weights, "audio": self._audio_sha256()}
        then = {"weights": {n: w["sha256"] for n, w in stored["weights"].items()}, "audio": stored["audio_sha256"]}
        changed = [name for name in now if now[name] != then[name]]
        if changed:
            raise UserError(f"resume={self.folder}: the {' and '.join(changed)} changed since; start a new run")

    def _audio_sha256(self) -> str | None:
        return sha256(Path(self.config.audio).expanduser()) if self.config.audio is not None else None

    def _available(self) -> list[str]:
        """Start a worker for every requested backend; record those that this machine lacks."""
        session = self.session
        names, asked = requested_backends(self.config)
        reasons = {name: impossible(name) for name in names}
        for name in names:
            if reasons[name] is None:
                session.workers[name] = session.start(name)  # all at once: they import side by side
        present = []
        for name, reason in reasons.items():
            if reason is None:
                facts = session.facts_of(name)
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
        """A backend that is absent is skipped; one that is installed and broken is an error."""
        self.session.drop(backend)
        broken = self.session.facts.get(backend, {}).get("broken")
        self.session.unmeasured("all", "all", backend, "error" if broken else "skipped", reason)

    def _try_load(self, plan: Plan) -> None:
        """Refuse a checkpoint that no side can load before any timing."""
        session, reasons = self.session, []
        for backend in plan.backends:
            try:
                self._load_or_restart(backend)
            except WorkerError as error:
                if error.kind == "CheckpointError":
                    raise UserError(str(error)) from None
                if error.kind == "ValueError":  # an option, such as an unknown optimisation
                    raise UserError(f"{backend}: {error}") from None
                session.drop(backend)  # its cases will report the error
                reasons.append(f"{backend}: {error}")
            except WorkerLost as error:
                session.drop(backend)
                reasons.append(str(error))
        if not session.loaded:
            raise UserError(f"no backend can load the model; {'; '.join(reasons)}")
        session.model_facts = next(iter(session.loaded.values()))["facts"]

    def _load_or_restart(self, backend: str) -> None:
        """A lost worker is started once more: what it reports of itself and its model enters all records."""
        try:
            self.session.worker(backend)
        except WorkerLost:
            self.session.drop(backend)
            self.session.worker(backend)

    def _measure_peaks(self, plan: Plan) -> None:
        """The best that each device does: the roof of the roofline."""
        session = self.session
        for backend in plan.backends if session.measure.peaks and self.suite.protocol == "timed" else ():
            with contextlib.suppress(WorkerError, WorkerLost):  # such as too little memory
                if backend in session.workers and "peaks" not in session.facts[backend]:
                    answer = session.ask_timed(session.workers[backend], "peaks", HELLO_TIMEOUT_S)
                    session.facts[backend]["peaks"] = answer

    def _keep_peaks(self) -> None:
        stored = RunFolder(self.folder).environment()["backends"]
        for backend, facts in stored.items():
            if "peaks" in facts and backend in self.session.facts:
                self.session.facts[backend]["peaks"] = facts["peaks"]

    def _describe(self, plan: Plan) -> None:
        session = self.session
        facts = environment.describe() | {
            "threads": session.threads,
            "backends": {name: session.facts[name] for name in plan.backends},
            "weights": {name: {"label": w.label, "sha256": w.sha256} for name, w in session.weights.items()},
            "audio_sha256": self._audio_sha256(),
        }
        write_whole(self.folder / ENVIRONMENT, json.dumps(facts, indent=1) + "\n")
        planned = StoredPlan(plan.suite, list(plan.backends), list(plan.expected()))
        write_whole(self.folder / PLAN, json.dumps(msgspec.to_builtins(planned), indent=1) + "\n")

    # ------------------------------------------------------------------ cases
    def _cases(self, plan: Plan, scratch: Path, progress: Progress) -> Iterator[Any]:
        """The cases that lack a record, each made when it is asked for."""
        for case in plan.cases:
            missing = [key for key in plan.expected() if key[0] == case.name and key not in self.session.done]
            if missing:
                try:
                    audio = self.suite.audio(case, self.config)
                except (UserError, ImportError, OSError) as error:
                    for key in missing:
                        self.session.unmeasured(*key, "error", str(error))
                else:
                    folder = scratch / case.name
                    folder.mkdir()
                    yield PROTOCOLS[self.suite.protocol](self.session, case, audio, plan, folder, progress)
            progress.case_ended(measured=bool(missing))

    def _discard_if_empty(self) -> None:
        """Remove the files of a run that ended before it measured anything."""
        if not self.resumed and not any(map(_is_result, read_lines(self.session.file.path))):
            self.session.file.close()
            discard(self.lock)


def discard(lock: Lock) -> None:
    """Remove the files of a run that measured nothing, and leave the folder to others."""
    for name in RUN_FILES:
        (lock.folder / name).unlink(missing_ok=True)
    lock.release()
    with contextlib.suppress(OSError):  # the folder holds something else too
        lock.folder.rmdir()


def open_run(config: Config) -> Runner:
    return Runner(config, new_folder(config, config.suite.name), resumed=False)


def new_folder(config: Config, title: str) -> Lock:
    """``out=``, or ``<time>-<title>`` under ``paths.runs`` with a number where that exists; holds the configuration.

    Raises ``UserError``: it cannot be written, or already holds something."""
    folder = Path(config.out or Path(config.paths.runs) / f"{datetime.now():%Y%m%d-%H%M%S}-{title}")
    try:
        if config.out:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = own_folder(folder)
        lock = Lock(folder)
        with lock.kept():
            stored = records_file(folder)
            if stored.exists() and any(map(_is_result, read_lines(stored))):
                again = "" if RunFolder(folder).is_trace else f"to complete it: run resume={folder}; "
                raise UserError(f"{folder} already holds a run; {again}for a new one give out= another folder")
            if not lock.is_alone and not stored.exists():
                raise UserError(f"{folder} holds something that is not a run; give out= a folder of its own")
            for file in RUN_FILES:  # of a run that never began
                (folder / file).unlink(missing_ok=True)
            write_whole(folder / CONFIG, yaml.safe_dump(config.plain(), sort_keys=False))
    except OSError as error:
        raise UserError(f"cannot write the run folder {folder}: {error.strerror}; set out=FOLDER") from None
    return lock


def _is_result(line: Line) -> bool:
    """Whether something was measured, or could not be; not only that a backend is not there."""
    return line["kind"] != "record" or line["case"] != "all"


def resume_run(folder: Path) -> Runner:
    """An interrupted run, to be completed with its own configuration.

    Raises ``UserError``: not a run folder, or made on another machine."""
    run = RunFolder(folder)
    try:
        found, stored = run.config(), run.environment() if run.is_planned else {}
    except UserError as error:
        raise UserError(f"resume={error}") from None
    try:
        config = typed(found)
    except (ValueError, TypeError, KeyError):
        raise UserError(f"resume={folder / CONFIG}: is damaged") from None
    try:
        lock = Lock(folder)
    except UserError as error:
        raise UserError(f"resume={error}") from None
    except OSError as error:
        raise UserError(f"resume={folder}: cannot write the run folder: {error.strerror}") from None
    with lock.kept():
        if not run.is_planned:  # interrupted before anything was measured
            if run.records_file.is_file() and any(map(_is_result, read_lines(run.records_file))):
                raise UserError(f"resume={folder}: holds records, but its {PLAN} is missing")
            run.records_file.unlink(missing_ok=True)
            return Runner(config, lock, resumed=False)
        both = (environment.fingerprint(facts) for facts in (stored, environment.describe()))
        then, now = environment.completed(list(both))
        if changed := ", ".join(name for name in then if then[name] != now[name]):
            raise UserError(f"resume={folder}: made on another machine or with other software ({changed} differ)")
    return Runner(config, lock, resumed=True)
