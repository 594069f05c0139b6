"""One case of the suite ``accuracy``: external estimators, then RMVPE on every backend, all against the truth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rvc_common.outputs import whole

from ..base.backends import parity_reference
from ..base.files import read_arrays
from ..base.run_folder import RunFolder
from ..definitions.accuracy import judged
from ..definitions.config import AccuracyOptions
from ..inputs.estimators import CONSENSUS
from ..inputs.recordings import SHORTEST_SAMPLES
from ..inputs.weights import cache_folder, is_shipped
from ..metrics.parity import NotComparable
from ..metrics.pitch import accuracy, consensus
from .launch import Worker, WorkerError, WorkerLost
from .outputs import MeasuredCase, Results
from .session import Facts

EXACT, ANNOTATIONS = "exact", "annotations"
# the name under which the estimators' process is kept
ESTIMATING = "estimators"
# every call is timed once, after one warm-up on this many samples of the same audio
WARM_SAMPLES = 16000


class AccuracyCase(MeasuredCase):
    """Every estimator's record is closed at once; the backends' are closed together, since they are compared."""

    def execute(self) -> None:
        (self.component,) = self.plan.components
        self.backends = self.plan.having(self.component)
        self.files = {name: str(self.scratch / f"{name}.npy") for name in ("audio", "start", "f0")}
        np.save(self.files["audio"], self.audio.samples)
        np.save(self.files["start"], self.audio.samples[: max(WARM_SAMPLES, SHORTEST_SAMPLES)])
        self.kept = RunFolder(self.session.folder).array_file("contours", self.case.name)
        self.contours = read_arrays(self.kept) if self.kept.is_file() else {}
        # the estimators that may stand in for the truth come first
        for name in sorted(self.plan.external, key=lambda name: name not in CONSENSUS):
            if not self._done(name):
                self.progress(f"{self.case.name}: {name}")
                self._estimator(name)
        if not all(self._done(backend) for backend in self.backends):
            self._backends()

    def _done(self, name: str) -> bool:
        return (self.case.name, self.component, name) in self.session.done

    # ------------------------------------------------------------------ F0 that is kept
    def _keep(self, found: Mapping[str, np.ndarray]) -> None:
        """Store F0 contours: every figure can be recomputed from them, and a resumed case continues with them."""
        self.contours |= {f"f0.{name}": f0 for name, f0 in found.items()}
        true, scored, _ = self._truth()
        if true is not None:
            self.contours |= {"f0.truth": true, "scored": scored}
        self.kept.parent.mkdir(exist_ok=True)
        with whole(self.kept) as part, part.open("wb") as file:
            np.savez_compressed(file, **self.contours)  # type: ignore[arg-type]  # names are not its options

    def _truth(self) -> tuple[np.ndarray | None, np.ndarray, str]:
        """True F0 ``[F]`` in Hz, which frames are scored, and where the truth comes from; or None and the reason."""
        frames = 1 + self.audio.samples.size // 160
        if self.audio.f0_hz is not None:
            scored = np.ones(frames, bool) if self.audio.scored is None else self.audio.scored
            return self.audio.f0_hz, scored, ANNOTATIONS if self.case.kind == "file" else EXACT
        both = [self.contours.get(f"f0.{name}") for name in CONSENSUS]
        if both[0] is None or both[1] is None:
            missing = [name for name, f0 in zip(CONSENSUS, both, strict=True) if f0 is None]
            return None, np.zeros(frames, bool), f"no truth: {' and '.join(missing)} did not run"
        found, agree = consensus(both[0], both[1])
        return found, agree, f"consensus of {' and '.join(CONSENSUS)}"

    # ------------------------------------------------------------------ external estimators
    def _estimator(self, name: str) -> None:
        try:
            worker = self._worker(ESTIMATING)
            asked = {"audio": self.files["audio"], "path": self.files["f0"], "warm": WARM_SAMPLES}
            answer = worker.ask("estimate", self.timeout_s, name=name, **asked)
            f0 = np.load(self.files["f0"])
        except (WorkerError, WorkerLost) as error:
            self.session.drop(ESTIMATING)  # the next case starts a new one
            self._record(name, None, {"status": "error", "reason": str(error), "accuracy": None, "parity": None})
            return
        self._keep({name: f0})
        facts = self._against_truth(name, f0)
        reason = unmeasured(facts)
        verdict = {"status": "failed" if reason else "passed", "reason": reason, "parity": None}
        self._record(name, answer["seconds"], {**verdict, "accuracy": facts, "estimator": answer["facts"]})

    def _against_truth(self, name: str, f0: np.ndarray) -> Facts:
        """The field ``accuracy`` of a record: figures, or the reason why there are none."""
        if self.audio.f0_hz is None and name in CONSENSUS:
            return {"truth": None, "reason": "what the two of the consensus make of it is the consensus"}
        true, scored, kind = self._truth()
        if true is None:
            return {"truth": None, "reason": kind}
        try:
            return {"truth": kind, **accuracy(f0, true, scored)}
        except NotComparable as error:
            return {"truth": kind, "reason": str(error)}

    # ------------------------------------------------------------------ backends
    def _backends(self) -> None:
        """Measure all backends, also those whose records are closed: a verdict holds for the reference of its run."""
        outputs: dict[str, Results] = {}
        seconds: dict[str, float] = {}
        errors: dict[str, str] = {}
        for backend in self.backends:
            self.progress(f"{self.case.name}: {backend}")
            try:
                seconds[backend], outputs[backend] = self._f0(backend)
            except (WorkerError, WorkerLost) as error:
                self.session.drop(backend)  # the next case starts a new one
                errors[backend] = str(error)
        self._keep({backend: found["f0"] for backend, found in outputs.items()})
        reference = parity_reference(list(outputs) or self.backends)
        judge = self.judge(self.session.settings, outputs.get(reference))
        for backend in self.backends:
            if backend in errors:
                verdict: Facts = {"status": "error", "reason": errors[backend], "parity": None, "accuracy": None}
            else:
                verdict = judge(self.component, outputs[backend], backend == reference)
                verdict = self._with_accuracy(verdict, outputs[backend]["f0"])
            self._record(backend, seconds.get(backend), verdict, reference)

    def _f0(self, backend: str) -> tuple[float, Results]:
        """Seconds of one call after a short one, its F0, and the salience that shows which frames are undecided."""
        worker = self._worker(backend)
        worker.ask("prepare", self.timeout_s, inputs={"audio": self.files["start"]})
        worker.ask("time", self.timeout_s, calls={self.component: 1})
        worker.ask("prepare", self.timeout_s, inputs={"audio": self.files["audio"]})
        timed = self.session.ask_timed(worker, "time", self.timeout_s, calls={self.component: 1})
        found: Results = {}
        for call in filter(
            lambda call: self.session.makes(backend, self.suite, call), (self.component, *self.suite.extras)
        ):
            found |= self.arrays(worker, call)
        return float(timed["calls"][self.component]["seconds"][self.component]), found

    def _with_accuracy(self, verdict: Facts, f0: np.ndarray) -> Facts:
        """The parity verdict, with the least figures that the shipped checkpoint must reach."""
        facts, options = self._against_truth("", f0), self.session.config.suite
        assert isinstance(options, AccuracyOptions)
        cache = cache_folder(self.session.config.paths.cache)
        least = options.least.get(self.case.name) if is_shipped(self.session.weights["rmvpe"], cache) else None
        checks = judged(facts, least) if "frames" in facts else {}
        short = [f"{n} {c['value']:.4f} (at least {c['limit']:g})" for n, c in checks.items() if not c["passed"]]
        reasons = [reason for reason in (verdict["reason"], unmeasured(facts), *short) if reason]
        status = "failed" if verdict["status"] == "passed" and reasons else verdict["status"]
        return verdict | {
            "status": status,
            "reason": "; ".join(reasons) or None,
            "accuracy": facts | {"limits": checks},
        }

    # ------------------------------------------------------------------ workers and records
    def _worker(self, name: str) -> Worker:
        """The worker of a backend with its model, or of the estimators; it serves all cases."""
        workers = self.session.workers
        if name not in workers:
            estimating = name == ESTIMATING
            workers[name] = self.session.start(self.plan.backends[0] if estimating else name)
            if not estimating:
                self.session.hello(workers[name])
                self.session.load(workers[name])
        return workers[name]

    def _record(self, name: str, seconds: float | None, verdict: Facts, reference: str | None = None) -> None:
        """Close the record of one backend, or of an estimator: then ``reference`` is None, and it is its own."""
        used = self.workload(self.suite)
        if reference is None:
            used.weights = ""
        times = [] if seconds is None else [seconds]
        self.close_single(self.component, name, times, [], reference=reference or name, workload=used, **verdict)


def unmeasured(facts: Facts) -> str | None:
    """The reason why an F0 has no figures although its truth is known: a failure."""
    return facts.get("reason") if facts["truth"] in (EXACT, ANNOTATIONS) else None
