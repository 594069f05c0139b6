"""One case's workers and what they compute: shared inputs, results for parity, and the closing records."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from rvc_common.outputs import whole

from ..base.backends import is_port, parity_reference
from ..base.files import read_arrays
from ..base.lines import Output, Sample, Warmup, Work, Workload
from ..base.ports import NOISE
from ..base.run_folder import RunFolder
from ..base.statistics import largest_rest_s
from ..definitions.base import TRAINED, Suite
from ..definitions.plan import Case, Plan
from ..inputs.recordings import SAMPLE_RATE, Audio
from ..inputs.weights import TRAINED_WEIGHTS
from ..metrics.audio import spectra
from ..metrics.floors import component_limits
from .launch import Worker, WorkerError, WorkerLost
from .session import Facts, Session
from .verdict import Judge

# unfinished work shows in every round, a busy processor in some
LATE_ROUNDS = 0.9
# the report draws the first seconds of the audio
DRAWN_SECONDS = 5.0

Results = dict[str, np.ndarray]


@dataclass(eq=False)
class MeasuredCase:
    """One case of a run on its way to its records. ``progress``: shows a step."""

    session: Session
    case: Case
    audio: Audio
    plan: Plan
    scratch: Path
    progress: Callable[..., None]

    def __post_init__(self) -> None:
        self.suite, self.timeout_s = self.session.suite, self.session.measure.timeout_s

    def arrays(self, worker: Worker, call: str, do: str = "output") -> Results:
        path = self.scratch / "output.npz"
        worker.ask(do, self.timeout_s, component=call, path=str(path))
        return read_arrays(path)

    def judge(self, settings: Facts, reference: Results | None) -> Judge:
        suite, precision = self.session.config.suite, self.session.config.precision
        limits = component_limits(suite.name, precision, suite.limits[precision])
        return Judge(self.suite, limits, settings, reference)

    def workload(self, suite: Suite) -> Workload:
        samples = self.audio.samples.size
        weights = "; ".join(found.label for found in self.session.weights.values())
        return Workload(self.audio.source, samples / SAMPLE_RATE, samples, suite.frames(samples), weights)

    def close_single(
        self, component: str, backend: str, seconds: Sequence[float], cold: list[Facts], **rest: Any
    ) -> None:
        """Close a record whose samples are one call each, without warm-up and alternation."""
        key = (self.case.name, component, backend)
        before = len(self.session.samples.get(key, {}))  # samples from before an interruption stay
        for number, one in enumerate(seconds, before):
            facts = {"launch": number, "calls": 1, "rest_s": 0.0}
            self.session.sample(self.case, component, backend, number, one, facts)
        taken = times_of(self.session.samples.get(key, {}))
        nothing: Facts = {"warmup_s": [], "warmup": [], "parent_cpu_share": None, "others_share": None}
        self.session.record(self.case, component, backend, **taken, calls=1, **nothing, **first_of(cold), **rest)


class CaseOutputs(MeasuredCase):
    """The results of one case on all backends. A backend that fails drops out; the others go on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        session, plan = self.session, self.plan
        self.reference = parity_reference(list(plan.backends))
        self.errors: dict[str, str] = {}
        self.workers: dict[str, Worker] = {}
        self.started: dict[str, Facts] = {}  # how long a backend's process took to import and load, of this launch
        self.cold: dict[tuple[str, str], list[Facts]] = {}  # by component and backend
        self.warmups: dict[tuple[str, str], list[Facts]] = {}
        self.outputs: dict[str, Results] = {}
        self.shared: dict[str, str] | None = None
        self.drawn: dict[str, str] = {}
        self.work: dict[str, Facts] = {}
        self.settings = session.settings
        self.calls = self.suite.timed(plan.components)
        self.inputs = self.suite.inputs(self.audio, self.settings, session.model_facts)
        self.files = {name: str(self.scratch / f"{name}.npy") for name in (*self.inputs, *dict(self.suite.shared))}

    def has(self, call: str, backend: str) -> bool:
        """Whether a backend makes this call: ours make all, a port those that its adapter names."""
        return self.session.makes(backend, self.suite, call)

    def alive(self) -> list[str]:
        return [name for name in self.plan.backends if name not in self.errors]

    @contextlib.contextmanager
    def guard(self, backend: str) -> Iterator[None]:
        """An error inside becomes this backend's error in this case."""
        try:
            yield
        except (WorkerError, WorkerLost) as error:
            self.errors[backend] = str(error)
            if isinstance(error, WorkerLost):
                self.workers.pop(backend).kill()

    def record_key(self, component: str, backend: str) -> tuple[str, str]:
        """The component and backend under which a measurement is recorded."""
        return component, backend

    def lines(self, component: str, backend: str) -> dict[int, Sample]:
        """Samples by round."""
        return self.session.samples.get((self.case.name, *self.record_key(component, backend)), {})

    # ------------------------------------------------------------------ inputs
    def save_inputs(self) -> None:
        for name, array in self.inputs.items():
            np.save(self.files[name], array)

    def given(self) -> dict[str, str]:
        """Files of the inputs that need no model."""
        return {name: self.files[name] for name in self.inputs}

    def share_inputs(self) -> None:
        """Inputs that need a model are made once, by the reference, so that every backend gets the same ones.
        Where the reference fails, the next backend takes its place."""
        for backend in sorted(self.alive(), key=lambda name: name != self.reference):
            if self.shared is not None:
                break
            with self.guard(backend):
                self.shared = self._make_inputs(backend)
                self.reference = backend
        self.draw_noise((*self.calls, *self.suite.extras))
        for backend in self.alive():
            with self.guard(backend):
                self.workers[backend].ask("prepare", self.timeout_s, inputs=self.inputs_of(backend))

    def inputs_of(self, backend: str) -> dict[str, str]:
        """Files of everything that a backend is given; a port also gets the noise that its calls take."""
        return {**(self.shared or self.given()), **(self.drawn if is_port(backend) else {})}

    def draw_noise(self, calls: Iterable[str]) -> None:
        """For ports, which have no generator of ours: files of the noise that calls take, as the reference draws it."""
        wanted = [call for call in calls if "noise" in self.suite.takes.get(call, ())]
        if self.reference not in self.workers or not any(map(is_port, self.alive())):
            return
        for call in wanted:
            if NOISE.format(call=call, number=0) not in self.drawn:
                with self.guard(self.reference):
                    arrays = self.arrays(self.workers[self.reference], call, do="draws")
                    for number, array in enumerate(arrays.values()):
                        name = NOISE.format(call=call, number=number)
                        self.drawn[name] = str(self.scratch / f"{name}.npy")
                        np.save(self.drawn[name], array)

    def _make_inputs(self, backend: str) -> dict[str, str]:
        worker, given, last = self.workers[backend], self.given(), ""
        worker.ask("prepare", self.timeout_s, inputs=given)
        for name, key in self.suite.shared:
            call = key.partition(".")[0]
            if call != last:
                made, last = self.arrays(worker, call), call
            if key in made:  # a voice without pitch makes no F0
                np.save(self.files[name], made[key])
                given[name] = self.files[name]
                worker.ask("prepare", self.timeout_s, inputs=given)
        return given

    # ------------------------------------------------------------------ results
    def keep_outputs(self, calls: tuple[str, ...]) -> None:
        for backend in self.alive():
            with self.guard(backend):
                for call in filter(lambda call: self.has(call, backend), calls):
                    self.outputs.setdefault(backend, {}).update(self.arrays(self.workers[backend], call))

    def _torch_reference(self) -> str | None:
        """The reference where it is PyTorch's and alive: it alone computes in float64 and counts FLOPs."""
        return self.reference if self.reference.startswith("torch") and self.reference in self.alive() else None

    def add_rounding(self) -> None:
        if reference := self._torch_reference():
            with self.guard(reference):
                self.outputs[reference] |= self.arrays(self.workers[reference], "", do="rounding")

    def add_trained(self) -> None:
        """Add results of the shipped trained network, where the timed one is synthetic and finds no pitch."""
        network = self.session.weights.get(TRAINED_WEIGHTS)
        if network is None or self.shared is None:
            return
        for backend in self.alive():
            with self.guard(backend):
                worker = self.workers[backend]
                self.session.load(worker, paths={name: str(network.path) for name in self.suite.checkpoints})
                worker.ask("prepare", self.timeout_s, inputs=self.inputs_of(backend))
                found: Results = {}
                for call in filter(lambda call: self.has(call, backend), self.suite.trained_calls):
                    found |= self.arrays(worker, call)
                if backend == self._torch_reference():
                    found |= self.arrays(worker, "", do="rounding")
                self.outputs[backend] |= {f"{TRAINED}{name}": array for name, array in found.items()}

    def count_work(self) -> None:
        """Count FLOPs and bytes of every call that is a component of its own."""
        calls = [call for call in self.calls if self.suite.counted and call in self.plan.components]
        if calls and (reference := self._torch_reference()):
            with self.guard(reference):
                self.work = self.workers[reference].ask("count", self.timeout_s, components=calls)["work"]

    # ------------------------------------------------------------------ records
    def close_records(self) -> None:
        """Close all records, also those closed before an interruption.
        A verdict holds for the reference that it was found with, and a backend that is lost now may have been that
        reference."""
        settings = {**self.settings, "sample_rate": self.session.model_facts.get("sample_rate")}
        judge = self.judge(settings, self.outputs.get(self.reference))
        for component in self.plan.components:
            for backend in self.plan.having(component):
                if backend in self.errors:
                    verdict: Facts = {"status": "error", "reason": self.errors[backend], "parity": None}
                else:
                    verdict = judge(component, self.outputs[backend], backend == self.reference)
                    verdict = self._with_timing_faults(component, backend, verdict)
                self.session.record(self.case, component, backend, **self.measured(component, backend), **verdict)

    def _with_timing_faults(self, component: str, backend: str, verdict: Facts) -> Facts:
        """The verdict, failed where the times themselves show a fault."""
        if verdict["status"] == "not_comparable":
            return verdict
        samples = {
            c: {number: line.seconds for number, line in self.lines(c, backend).items()} for c in self.plan.components
        }
        faults = [
            self.suite.timing_fault(component, samples, self.settings),
            late_work(self.lines(component, backend).values()),
        ]
        reasons = [reason for reason in (verdict["reason"], *faults) if reason]
        return verdict | {"status": "failed", "reason": "; ".join(reasons)} if any(faults) else verdict

    def measured(self, component: str, backend: str) -> Facts:
        taken = self.lines(component, backend)
        warm = self.warmups.get((component, backend), [])
        cold = self.cold.get((component, backend), [])
        return {
            "reference": self.reference,
            "workload": self.workload(self.suite),
            "work": Work(**self.work[component]) if component in self.work else None,
            "output": self._output_of(component, backend),
            **times_of(taken),
            "calls": next((line.calls for line in taken.values()), None),
            "warmup_s": [seconds for facts in warm for seconds in facts["seconds"]],
            "warmup": [Warmup(f["launch"], len(f["seconds"]), f["steady"]) for f in warm],
            "parent_cpu_share": self.session.parent_cpu_share,
            "others_share": median(line.others for line in taken.values()) if taken else None,
            **first_of(cold),
        }

    def _output_of(self, component: str, backend: str) -> Output | None:
        """Length and rate of the audio that the whole call made, if any."""
        if component != self.suite.whole or backend not in self.outputs:
            return None
        made = self.suite.sound(self.outputs[backend])
        return Output(int(made[0].size), made[1]) if made is not None else None

    # ------------------------------------------------------------------ files of the run folder
    def keep_files(self) -> None:
        """Store what the report draws (F0 of every backend, the truth, the reference's mel, spectra), and all audio."""
        import soundfile

        if self.reference in self.outputs:
            self._store("contours", dict(self.suite.contours(self.outputs, self.reference, self.audio)))
        found = {backend: made for backend, results in self.outputs.items() if (made := self.suite.sound(results))}
        for backend, made in found.items():
            path = RunFolder(self.session.folder).audio_file(self.case.name, backend)
            path.parent.mkdir(exist_ok=True)
            with whole(path, soundfile.LibsndfileError) as part:
                soundfile.write(part, *made, format="WAV", subtype="PCM_24")
        if found:
            rate = next(iter(found.values()))[1]
            signals = {backend: samples for backend, (samples, _) in found.items()}
            self._store("spectra", spectra(signals, self.reference, rate, DRAWN_SECONDS))

    def _store(self, name: str, arrays: dict[str, Any]) -> None:
        if arrays:
            path = RunFolder(self.session.folder).array_file(name, self.case.name)
            path.parent.mkdir(exist_ok=True)
            with whole(path) as part, part.open("wb") as file:
                np.savez_compressed(file, **arrays)


def late_work(samples: Collection[Sample]) -> str | None:
    """A reason to distrust the times of a component: after its calls the device went on."""
    late = [x.rest_s for x in samples if x.rest_s > largest_rest_s(x.seconds * x.calls)]
    if not late or len(late) < LATE_ROUNDS * len(samples):
        return None
    return f"the device went on for {1e3 * median(late):.3g} ms after the call: not every output was computed"


def times_of(taken: Mapping[int, Sample]) -> Facts:
    return {
        "samples_s": [taken[number].seconds for number in sorted(taken)],
        "rounds": sorted(taken),
        "launches": [taken[number].launch for number in sorted(taken)],
    }


def first_of(cold: list[Facts]) -> Facts:
    """What each launch found of its first call, and on its own what the first one did."""
    names = ("load_s", "first_call_s", "peak_rss_bytes", "peak_device_bytes")
    return {name: cold[0].get(name) if cold else None for name in names} | {"cold": cold}
