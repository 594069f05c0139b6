"""One case on all backends: cold starts, then alternating rounds, then parity and records."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import inputs, verdict
from .backends import parity_reference
from .launch import WorkerError, WorkerLost
from .plan import Case, Plan

if TYPE_CHECKING:
    from .run import Run

# lets a framework's spinning threads fall asleep before another one is timed
SETTLE_S = 0.05
HELLO_TIMEOUT_S = 180.0
CONTOUR_FRAMES = 1500

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
        self.files = {name: str(scratch / f"{name}.npy") for name in ("audio", "mel", "salience")}

    def execute(self) -> None:
        np.save(self.files["audio"], self.audio.samples)
        for _ in range(self.run.measure["cold_starts"]):
            self.told("cold start")
            for backend in self._alive():
                with self._guard(backend):
                    self._cold_start(backend)
            self.told("cold start", done=True)
        self._shared_inputs()
        for _ in range(self.run.measure["warmups"]):
            self.told("warm-up")
            for backend in self._alive():
                with self._guard(backend):
                    self._warm_up(backend)
            self.told("warm-up", done=True)
        self._rounds()
        self.told("parity")
        outputs = self._outputs()
        self._close_records(outputs)
        self._keep_contours(outputs)

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
            worker.ask("prepare", self.timeout_s, inputs={"audio": self.files["audio"]})
            cold = worker.ask("cold", self.timeout_s, component="f0")
        self.cold.setdefault(backend, []).append({"import_s": hello["import_s"], **loaded, **cold})

    def _shared_inputs(self) -> None:
        """The reference's mel and salience: every backend's network and decoding get the same input.

        Where the reference fails, the next backend takes its place.
        """
        for backend in sorted(self._alive(), key=lambda name: name != self.reference):
            with self._guard(backend):
                self._make_inputs(backend)
                self.reference = backend
                break
        for backend in self._alive():
            with self._guard(backend):
                self.run.worker(backend).ask("prepare", self.timeout_s, inputs=self.files)

    def _make_inputs(self, backend: str) -> None:
        worker = self.run.worker(backend)
        given = {"audio": self.files["audio"]}
        for name, component in (("mel", "mel"), ("salience", "network")):
            worker.ask("prepare", self.timeout_s, inputs=given)
            worker.ask("output", self.timeout_s, component=component, path=self.files[name])
            given[name] = self.files[name]

    def _warm_up(self, backend: str) -> None:
        for component in self.plan.components:
            seconds = self._time(backend, component)
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
            for component in self.plan.components:
                for backend in self._alive() if number % 2 == 0 else self._alive()[::-1]:
                    with self._guard(backend):
                        time.sleep(SETTLE_S)
                        seconds = self._time(backend, component)
                        self.run.sample(self.case, component, backend, number, seconds)
            self.told(f"round {complete}", done=True)

    def _time(self, backend: str, component: str) -> float:
        return float(self.run.worker(backend).ask("time", self.timeout_s, component=component)["seconds"])

    # ------------------------------------------------------------------ parity
    def _outputs(self) -> dict[str, Results]:
        """Per backend the results of every component, and of the whole chain on its own values."""
        found: dict[str, Results] = {}
        for backend in self._alive():
            with self._guard(backend):
                found[backend] = self._fetch(backend, (*self.plan.components, "own_salience"))
        if self.reference.startswith("torch") and self.reference in found:
            with self._guard(self.reference):
                found[self.reference] |= self._rounding()
        return found

    def _fetch(self, backend: str, components: tuple[str, ...]) -> Results:
        worker, path = self.run.worker(backend), str(self.scratch / "output.npy")
        results = {}
        for component in components:
            worker.ask("output", self.timeout_s, component=component, path=path)
            results[component] = np.load(path)
        return results

    def _rounding(self) -> Results:
        """What float32 rounding does to the reference on this audio: its results beside float64's.

        ``exact_*`` against ``floor_*``: the network alone, on the same mel. ``moved_*``: the chain
        when only its mel is computed in float64.
        """
        worker, path = self.run.worker(self.reference), self.scratch / "exact.npy"
        results = self._fetch(self.reference, ("exact_mel", "exact_network", "floor_network"))
        np.save(path, results["exact_mel"].astype(np.float32))
        worker.ask("prepare", self.timeout_s, inputs=self.files | {"mel": str(path)})
        results["moved_salience"] = self._fetch(self.reference, ("network",))["network"]
        for name, salience in (("moved", "moved_salience"), ("exact", "exact_network"), ("floor", "floor_network")):
            np.save(path, results[salience].astype(np.float32))
            worker.ask("prepare", self.timeout_s, inputs=self.files | {"salience": str(path)})
            results[f"{name}_f0"] = self._fetch(self.reference, ("decode",))["decode"]
        return results

    # ------------------------------------------------------------------ records
    def _close_records(self, outputs: dict[str, Results]) -> None:
        suite, precision = self.run.config["suite"], self.run.config["precision"]
        judge = verdict.Judge(suite["limits"][precision], suite["threshold"], outputs.get(self.reference))
        for component in self.plan.components:
            for backend in self.plan.backends:
                if (self.case.name, component, backend) in self.run.done:
                    continue
                if backend in self.errors:
                    judged: Facts = {"status": "error", "reason": self.errors[backend], "parity": None}
                else:
                    judged = judge(component, outputs[backend], backend == self.reference)
                self.run.record(self.case, component, backend, **self._measured(component, backend), **judged)

    def _measured(self, component: str, backend: str) -> Facts:
        taken = self.run.samples.get((self.case.name, component, backend), {})
        cold = self.cold.get(backend, []) if component == "f0" else []
        first: Facts = cold[0] if cold else {}
        samples = self.audio.samples.size
        return {
            "reference": self.reference,
            "workload": {
                "audio": self.audio.source,
                "duration_s": samples / inputs.SAMPLE_RATE,
                "samples": samples,
                "frames": 1 + samples // 160,
                "weights": self.run.weights.label,
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
        arrays: dict[str, Any] = {f"f0.{backend}": found["f0"][:CONTOUR_FRAMES] for backend, found in outputs.items()}
        arrays["mel"] = outputs[self.reference]["mel"][:, :CONTOUR_FRAMES].astype(np.float16)
        if self.audio.f0_hz is not None:
            arrays["f0.truth"] = self.audio.f0_hz[:CONTOUR_FRAMES]
        folder = self.run.folder / "contours"
        folder.mkdir(exist_ok=True)
        np.savez_compressed(folder / f"{self.case.name}.npz", **arrays)
