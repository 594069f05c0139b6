"""One case of the suite ``accuracy``: other estimators, then RMVPE on every backend, each beside the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import floors, truth, verdict
from .backends import parity_reference
from .case import single_calls, workload
from .estimators import CONSENSUS
from .inputs import SHORTEST_SAMPLES, Audio
from .launch import Worker, WorkerError, WorkerLost
from .models.accuracy import judged
from .parity import NotComparable
from .plan import Case, Plan
from .weights import cache_folder, is_shipped

if TYPE_CHECKING:
    from .run import Run

Facts = dict[str, Any]
Results = dict[str, np.ndarray]

EXACT, ANNOTATIONS = "exact", "annotations"
# under which the process of the estimators is known
ESTIMATING = "estimators"
# every call is timed once, after one on so much of the same audio
WARM_SAMPLES = 16000


class AccuracyRun:
    """What is measured is closed at once; the backends of a case belong together, since they are compared."""

    def __init__(
        self, run: Run, case: Case, audio: Audio, plan: Plan, scratch: Path, told: Callable[..., None]
    ) -> None:
        self.run, self.case, self.audio, self.plan, self.scratch, self.told = run, case, audio, plan, scratch, told
        self.timeout_s = run.measure["timeout_s"]
        (self.component,) = plan.components
        self.files = {name: str(scratch / f"{name}.npy") for name in ("audio", "start", "f0")}
        np.save(self.files["audio"], audio.samples)
        np.save(self.files["start"], audio.samples[: max(WARM_SAMPLES, SHORTEST_SAMPLES)])
        self.kept = run.folder / "contours" / f"{case.name}.npz"
        self.contours = self._stored()

    def execute(self) -> None:
        # those that may stand in for the truth come first
        for name in sorted(self.plan.beside, key=lambda name: name not in CONSENSUS):
            if not self._done(name):
                self.told(name)
                self._estimator(name)
        if not all(self._done(backend) for backend in self.plan.backends):
            self._backends()
        self.told("", done=True)

    def _done(self, name: str) -> bool:
        return (self.case.name, self.component, name) in self.run.done

    # ------------------------------------------------------------------ F0 that is kept
    def _stored(self) -> Results:
        if not self.kept.is_file():
            return {}
        with np.load(self.kept) as stored:
            return {name: stored[name] for name in stored.files}

    def _keep(self, found: Mapping[str, np.ndarray]) -> None:
        """All figures can be computed again from these; a case that is gone on with finds them here."""
        self.contours |= {f"f0.{name}": f0 for name, f0 in found.items()}
        true, scored, _ = self._truth()
        if true is not None:
            self.contours |= {"f0.truth": true, "scored": scored}
        self.kept.parent.mkdir(exist_ok=True)
        part = self.kept.with_suffix(".part.npz")
        np.savez_compressed(part, **self.contours)  # type: ignore[arg-type]  # names are not its options
        part.replace(self.kept)

    def _truth(self) -> tuple[np.ndarray | None, np.ndarray, str]:
        """F0, the frames that count, and what it is; or None, and why there is none."""
        frames = 1 + self.audio.samples.size // 160
        if self.audio.f0_hz is not None:
            scored = np.ones(frames, bool) if self.audio.scored is None else self.audio.scored
            return self.audio.f0_hz, scored, ANNOTATIONS if self.case.kind == "file" else EXACT
        both = [self.contours.get(f"f0.{name}") for name in CONSENSUS]
        if both[0] is None or both[1] is None:
            lacking = [name for name, f0 in zip(CONSENSUS, both, strict=True) if f0 is None]
            return None, np.zeros(frames, bool), f"no truth: {' and '.join(lacking)} did not run"
        found, agree = truth.consensus(both[0], both[1])
        return found, agree, f"consensus of {' and '.join(CONSENSUS)}"

    # ------------------------------------------------------------------ estimators
    def _estimator(self, name: str) -> None:
        try:
            worker = self._worker(ESTIMATING)
            asked = {"audio": self.files["audio"], "path": self.files["f0"], "warm": WARM_SAMPLES}
            answer = worker.ask("estimate", self.timeout_s, name=name, **asked)
            f0 = np.load(self.files["f0"])
        except (WorkerError, WorkerLost) as error:
            self.run.drop(ESTIMATING)  # a new one is started for the next case
            self._record(name, None, {"status": "error", "reason": str(error), "accuracy": None, "parity": None})
            return
        self._keep({name: f0})
        facts = self._beside_truth(name, f0)
        told = {"status": "failed" if unknown(facts) else "passed", "reason": unknown(facts), "parity": None}
        self._record(name, answer["seconds"], {**told, "accuracy": facts, "estimator": answer["facts"]})

    def _beside_truth(self, name: str, f0: np.ndarray) -> Facts:
        """The field ``accuracy`` of a record: figures, or the reason why there are none."""
        if self.audio.f0_hz is None and name in CONSENSUS:
            return {"truth": None, "reason": "what the two of the consensus make of it is the consensus"}
        true, scored, kind = self._truth()
        if true is None:
            return {"truth": None, "reason": kind}
        try:
            return {"truth": kind, **truth.accuracy(f0, true, scored)}
        except NotComparable as error:
            return {"truth": kind, "reason": str(error)}

    # ------------------------------------------------------------------ backends
    def _backends(self) -> None:
        """All of them, also those whose records were closed before: a verdict holds beside the reference of its run."""
        outputs: dict[str, Results] = {}
        seconds: dict[str, float] = {}
        errors: dict[str, str] = {}
        for backend in self.plan.backends:
            self.told(backend)
            try:
                seconds[backend], outputs[backend] = self._f0(backend)
            except (WorkerError, WorkerLost) as error:
                self.run.drop(backend)  # a new one is started for the next case
                errors[backend] = str(error)
        self._keep({backend: found["f0"] for backend, found in outputs.items()})
        reference = parity_reference(list(outputs) or list(self.plan.backends))
        limits = floors.component_limits(self.run.config)
        judge = verdict.Judge(self.run.suite, limits, self.run.settings, outputs.get(reference))
        for backend in self.plan.backends:
            if backend in errors:
                told: Facts = {"status": "error", "reason": errors[backend], "parity": None, "accuracy": None}
            else:
                told = judge(self.component, outputs[backend], backend == reference)
                told = self._with_accuracy(told, outputs[backend]["f0"])
            self._record(backend, seconds.get(backend), told, reference)

    def _f0(self, backend: str) -> tuple[float, Results]:
        """Seconds of one call after a short one, its F0, and the salience that tells which frames are undecided."""
        worker = self._worker(backend)
        worker.ask("prepare", self.timeout_s, inputs={"audio": self.files["start"]})
        worker.ask("time", self.timeout_s, calls={self.component: 1})
        worker.ask("prepare", self.timeout_s, inputs={"audio": self.files["audio"]})
        timed = self.run.ask_quietly(worker, "time", self.timeout_s, calls={self.component: 1})
        found: Results = {}
        for call in (self.component, *self.run.suite.extras):
            worker.ask("output", self.timeout_s, component=call, path=str(self.scratch / "output.npz"))
            with np.load(self.scratch / "output.npz") as stored:
                found |= {name: stored[name] for name in stored.files}
        return float(timed["calls"][self.component]["seconds"][self.component]), found

    def _with_accuracy(self, told: Facts, f0: np.ndarray) -> Facts:
        """The verdict on parity, and on the least figures where the shipped checkpoint is measured."""
        facts = self._beside_truth("", f0)
        config, cache = self.run.config, cache_folder(self.run.config["paths"]["cache"])
        least = config["suite"]["least"].get(self.case.name) if is_shipped(self.run.weights["rmvpe"], cache) else None
        checks = judged(facts, least) if "frames" in facts else {}
        short = [f"{n} {c['value']:.4f} (at least {c['limit']:g})" for n, c in checks.items() if not c["passed"]]
        reasons = [reason for reason in (told["reason"], unknown(facts), *short) if reason]
        failed = told["status"] == "passed" and reasons
        status = "failed" if failed else told["status"]
        return told | {"status": status, "reason": "; ".join(reasons) or None, "accuracy": facts | {"limits": checks}}

    # ------------------------------------------------------------------ workers and records
    def _worker(self, name: str) -> Worker:
        """Of a backend with its model, or of the estimators; it serves all cases."""
        workers = self.run.workers
        if name not in workers:
            estimating = name == ESTIMATING
            workers[name] = self.run.start(self.plan.backends[0] if estimating else name)
            if not estimating:
                self.run.hello(workers[name])
                self.run.load(workers[name])
        return workers[name]

    def _record(self, name: str, seconds: float | None, told: Facts, reference: str | None = None) -> None:
        """Close what one backend or estimator did; ``reference``: None of an estimator, which is its own."""
        taken = self.run.samples.get((self.case.name, self.component, name), {})
        if seconds is not None:
            number = len(taken)  # those of a case that was broken off stay
            facts = {"launch": number, "calls": 1, "rest_s": 0.0}
            self.run.sample(self.case, self.component, name, number, seconds, facts)
            taken = self.run.samples[self.case.name, self.component, name]
        facts = workload(self.run, self.audio, self.run.suite)
        self.run.record(
            self.case,
            self.component,
            name,
            reference=reference or name,
            workload=facts if reference else facts | {"weights": ""},
            **single_calls(taken),
            load_s=None,
            first_call_s=None,
            peak_rss_bytes=None,
            peak_device_bytes=None,
            cold=[],
            **told,
        )


def unknown(facts: Facts) -> str | None:
    """Why an F0 could not be measured although its truth is known; that is its own fault."""
    return facts.get("reason") if facts["truth"] in (EXACT, ANNOTATIONS) else None
