"""One case on all backends: cold starts, then alternating rounds, then parity and records."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import floors, inputs, verdict
from .backends import parity_reference
from .launch import WorkerError, WorkerLost
from .plan import Case, Plan

if TYPE_CHECKING:
    from .run import Run

# lets a framework's spinning threads fall asleep before another one is timed
SETTLE_S = 0.05
HELLO_TIMEOUT_S = 180.0

Facts = dict[str, Any]
Results = dict[str, np.ndarray]


class CaseRun:
    """Measures one case. A backend that fails drops out of it; the others go on."""

    def __init__(
        self, run: Run, case: Case, audio: inputs.Audio, plan: Plan, scratch: Path, told: Callable[..., None]
    ) -> None:
        self.run, self.case, self.audio, self.plan, self.told = run, case, audio, plan, told
        self.scratch, self.timeout_s = scratch, run.measure["timeout_s"]
        self.reference = parity_reference(list(plan.backends))
        self.errors: dict[str, str] = {}
        self.cold: dict[str, list[Facts]] = {}
        self.warmups: dict[tuple[str, str], list[float]] = {}
        self.suite, self.settings = run.suite, run.settings
        self.inputs = self.suite.inputs(audio, self.settings, run.model_facts)
        self.files = {name: str(scratch / f"{name}.npy") for name in (*self.inputs, *dict(self.suite.shared))}

    def execute(self) -> None:
        for name, array in self.inputs.items():
            np.save(self.files[name], array)
        for _ in range(self.run.measure["cold_starts"]):
            self.told("cold start")
            for backend in self._alive():
                with self._guard(backend):
                    self._cold_start(backend)
            self.told("cold start", done=True)
        self._shared_inputs()
        self.told("parity")
        outputs = self._outputs(self.suite.extras)
        for _ in range(self.run.measure["warmups"]):
            self.told("warm-up")
            for backend in self._alive():
                with self._guard(backend):
                    self._warm_up(backend)
            self.told("warm-up", done=True)
        self._rounds()
        self.told("parity")
        for backend, results in self._outputs(self.suite.timed(self.plan.components)).items():
            outputs[backend] |= results
        outputs = {backend: found for backend, found in outputs.items() if backend not in self.errors}
        self._add_rounding(outputs)
        self._close_records(outputs)
        self._keep_contours(outputs)
        self._keep_sound(outputs)

    def _alive(self) -> list[str]:
        return [name for name in self.plan.backends if name not in self.errors]

    @contextlib.contextmanager
    def _guard(self, backend: str) -> Iterator[None]:
        """What goes wrong inside becomes this backend's error in this case."""
        try:
            yield
        except WorkerError as error:
            self.errors[backend] = str(error)
        except WorkerLost as error:
            self.errors[backend] = str(error)
            self.run.drop(backend)

    # ------------------------------------------------------------------ time
    def _cold_start(self, backend: str) -> None:
        """Load time, first call and memory, in a process of its own."""
        with self.run.start(backend) as worker:
            hello = worker.ask("hello", HELLO_TIMEOUT_S, threads=self.run.threads)
            loaded = self.run.load(worker)
            worker.ask("prepare", self.timeout_s, inputs=self._given())
            second = self.run.measure["second_calls"]
            cold = worker.ask("cold", self.timeout_s, component=self.suite.whole, second=second)
        self.cold.setdefault(backend, []).append({"import_s": hello["import_s"], **loaded, **cold})

    def _given(self) -> dict[str, str]:
        """The inputs that need no model."""
        return {name: self.files[name] for name in self.inputs}

    def _shared_inputs(self) -> None:
        """What the reference makes for all, so that every component gets the same input everywhere.

        Where the reference fails, the next backend takes its place.
        """
        for backend in sorted(self._alive(), key=lambda name: name != self.reference):
            with self._guard(backend):
                given = self._make_inputs(backend)
                self.reference = backend
                break
        for backend in self._alive():
            with self._guard(backend):
                self.run.worker(backend).ask("prepare", self.timeout_s, inputs=given)

    def _make_inputs(self, backend: str) -> dict[str, str]:
        worker, given, last = self.run.worker(backend), self._given(), ""
        worker.ask("prepare", self.timeout_s, inputs=given)
        for name, key in self.suite.shared:
            call = key.partition(".")[0]
            if call != last:
                made, last = self._fetch(backend, call), call
            if key in made:  # a voice without pitch makes no F0
                np.save(self.files[name], made[key])
                given[name] = self.files[name]
                worker.ask("prepare", self.timeout_s, inputs=given)
        return given

    def _warm_up(self, backend: str) -> None:
        for call in self.suite.timed(self.plan.components):
            for component, seconds in self._time(backend, call).items():
                self.warmups.setdefault((component, backend), []).append(seconds)

    def _rounds(self) -> None:
        """Every round times all components on all backends; the order turns around each time.

        A resumed case goes on with new rounds: one that was broken off is never filled up later,
        so both sides of a paired ratio were measured within one another's reach.
        """
        limits, started = self.run.measure["rounds"], time.monotonic()
        keys = [(self.case.name, c, b) for c in self.plan.components for b in self.plan.backends]
        taken = [set(self.run.samples.get(key, {})) for key in keys]
        complete = len(set.intersection(*taken))
        number = max(set.union(*taken), default=-1)
        while complete < limits["max"]:
            if complete >= limits["min"] and time.monotonic() - started > self.run.measure["seconds_per_case"]:
                return
            number, complete = number + 1, complete + 1
            self.told(f"round {complete}")
            for call in self.suite.timed(self.plan.components):
                for backend in self._alive() if number % 2 == 0 else self._alive()[::-1]:
                    with self._guard(backend):
                        time.sleep(SETTLE_S)
                        for component, seconds in self._time(backend, call).items():
                            self.run.sample(self.case, component, backend, number, seconds)
            self.told(f"round {complete}", done=True)

    def _time(self, backend: str, call: str) -> dict[str, float]:
        """Seconds by component of one call."""
        seconds = self.run.worker(backend).ask("time", self.timeout_s, component=call)["seconds"]
        return {component: seconds[component] for component in self.plan.components if component in seconds}

    # ------------------------------------------------------------------ parity
    def _outputs(self, calls: tuple[str, ...]) -> dict[str, Results]:
        """Per backend the arrays of these calls."""
        found: dict[str, Results] = {}
        for backend in self._alive():
            with self._guard(backend):
                results = [self._fetch(backend, call) for call in calls]
                found[backend] = {name: array for arrays in results for name, array in arrays.items()}
        return found

    def _fetch(self, backend: str, call: str, do: str = "output") -> Results:
        path = self.scratch / "output.npz"
        self.run.worker(backend).ask(do, self.timeout_s, component=call, path=str(path))
        with np.load(path) as stored:
            return {name: stored[name] for name in stored.files}

    def _add_rounding(self, outputs: dict[str, Results]) -> None:
        """The reference's results beside float64's, where it can tell."""
        if self.reference.startswith("torch") and self.reference in outputs:
            with self._guard(self.reference):
                outputs[self.reference] |= self._fetch(self.reference, "", do="rounding")

    # ------------------------------------------------------------------ records
    def _close_records(self, outputs: dict[str, Results]) -> None:
        limits = floors.component_limits(self.run.config)
        settings = {**self.settings, "sample_rate": self.run.model_facts.get("sample_rate")}
        judge = verdict.Judge(self.suite, limits, settings, outputs.get(self.reference))
        for component in self.plan.components:
            for backend in self.plan.backends:
                if (self.case.name, component, backend) in self.run.done:
                    continue
                if backend in self.errors:
                    judged: Facts = {"status": "error", "reason": self.errors[backend], "parity": None}
                else:
                    judged = judge(component, outputs[backend], backend == self.reference)
                    judged = self._distrusted(component, backend, judged)
                self.run.record(self.case, component, backend, **self._measured(component, backend), **judged)

    def _distrusted(self, component: str, backend: str, judged: Facts) -> Facts:
        """The verdict, unless the times themselves show a fault."""
        samples = {c: self.run.samples.get((self.case.name, c, backend), {}) for c in self.plan.components}
        fault = self.suite.timing_fault(component, samples, self.settings)
        if fault is None or judged["status"] == "not_comparable":
            return judged
        reasons = [judged["reason"], fault] if judged["reason"] else [fault]
        return judged | {"status": "failed", "reason": "; ".join(reasons)}

    def _measured(self, component: str, backend: str) -> Facts:
        taken = self.run.samples.get((self.case.name, component, backend), {})
        cold = self.cold.get(backend, []) if component == self.suite.whole else []
        first: Facts = cold[0] if cold else {}
        samples = self.audio.samples.size
        return {
            "reference": self.reference,
            "workload": {
                "audio": self.audio.source,
                "duration_s": samples / inputs.SAMPLE_RATE,
                "samples": samples,
                "frames": self.suite.frames(samples),
                "weights": "; ".join(found.label for found in self.run.weights.values()),
            },
            "samples_s": [taken[number] for number in sorted(taken)],
            "rounds": sorted(taken),
            "warmup_s": self.warmups.get((component, backend), []),
            "load_s": first.get("load_s"),
            "first_call_s": first.get("first_call_s"),
            "peak_rss_bytes": first.get("peak_rss_bytes"),
            "peak_device_bytes": first.get("peak_device_bytes"),
            "cold": cold,
        }

    def _keep_contours(self, outputs: dict[str, Results]) -> None:
        """What the report draws: F0 of every backend, the truth, and the reference's mel."""
        if self.reference not in outputs:
            return
        arrays: dict[str, Any] = dict(self.suite.contours(outputs, self.reference, self.audio))
        if arrays:
            folder = self.run.folder / "contours"
            folder.mkdir(exist_ok=True)
            np.savez_compressed(folder / f"{self.case.name}.npz", **arrays)

    def _keep_sound(self, outputs: dict[str, Results]) -> None:
        """What there is to listen to, of every backend."""
        import soundfile

        for backend, results in outputs.items():
            made = self.suite.sound(results)
            if made is not None:
                folder = self.run.folder / "audio"
                folder.mkdir(exist_ok=True)
                soundfile.write(folder / f"{self.case.name}.{backend}.wav", *made, subtype="PCM_24")
