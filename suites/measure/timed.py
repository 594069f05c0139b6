"""One case on all backends: process launches, in each a first call, warm-ups and alternating rounds; then parity."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.backends import parity_reference, speed_reference
from ..base.statistics import LEAST_LAUNCHES, Estimate, paired_ratio
from ..definitions.base import LEARNED
from ..definitions.plan import Case, Plan
from ..inputs.recordings import SAMPLE_RATE, Audio
from ..inputs.weights import LEARNED_WEIGHTS
from ..metrics import floors
from ..metrics.audio import spectra
from .launch import Worker, WorkerError, WorkerLost
from .verdict import Judge

if TYPE_CHECKING:
    from ..definitions.base import Suite
    from .runner import Run

# lets a framework's spinning threads fall asleep before another one is timed
SETTLE_S = 0.05
MOST_REPEATS = 1000
# short calls are timed one after another before it is the next backend's turn
TURN_S = 0.25
# a device that goes on for longer after the clock has stopped had not computed every output
LARGEST_REST, REST_S = 0.05, 1e-3

# of what came out, this much is drawn
DRAWN_SECONDS = 5.0

Facts = dict[str, Any]
Results = dict[str, np.ndarray]


class CaseRun:
    """Measures one case. A backend that fails drops out of it; the others go on."""

    def __init__(
        self, run: Run, case: Case, audio: Audio, plan: Plan, scratch: Path, told: Callable[..., None]
    ) -> None:
        self.run, self.case, self.audio, self.plan, self.told = run, case, audio, plan, told
        self.scratch, self.timeout_s = scratch, run.measure["timeout_s"]
        self.reference = parity_reference(list(plan.backends))
        self.errors: dict[str, str] = {}
        self.workers: dict[str, Worker] = {}
        self.cold: dict[str, list[Facts]] = {}
        self.warmups: dict[tuple[str, str], list[Facts]] = {}
        self.repeats: dict[str, int] = {}
        self.outputs: dict[str, Results] = {}
        self.shared: dict[str, str] | None = None
        self.work: dict[str, Facts] = {}
        self.suite, self.settings = run.suite, run.settings
        self.calls = self.suite.timed(plan.components)
        self.inputs = self.suite.inputs(audio, self.settings, run.model_facts)
        self.files = {name: str(scratch / f"{name}.npy") for name in (*self.inputs, *dict(self.suite.shared))}

    def execute(self) -> None:
        self.save_inputs()
        started, first = time.monotonic(), self._next_launch()
        number = first
        while number == first or self._more(number - first, time.monotonic() - started):
            if not self._alive():
                break
            try:
                self._launch(number, judged=number == first)
            finally:
                self.end()
            number += 1
        self.outputs = {backend: found for backend, found in self.outputs.items() if backend not in self.errors}
        # records come last: a case whose records are closed is not looked at again
        self._keep_contours(self.outputs)
        self._keep_sound(self.outputs)
        self._close_records()

    def save_inputs(self) -> None:
        """Where the workers find them."""
        for name, array in self.inputs.items():
            np.save(self.files[name], array)

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
            self.workers.pop(backend).kill()

    # ------------------------------------------------------------------ how many launches
    def _next_launch(self) -> int:
        """A resumed case goes on with new launches: one that was broken off is never filled up later."""
        return max((line["launch"] for line in self._taken()), default=-1) + 1

    def _taken(self) -> Iterator[Facts]:
        for component in self.plan.components:
            for backend in self.plan.backends:
                yield from self._lines(component, backend).values()

    def _more(self, done: int, spent_s: float) -> bool:
        """Until the precision asked for is reached, or the time is spent; never fewer than asked for."""
        limits = self.run.measure["launches"]
        if done < limits["min"]:
            return True
        if done >= limits["max"] or spent_s > self.run.measure["seconds_per_case"]:
            return False
        known = [one.half_width if one and one.launches >= LEAST_LAUNCHES else math.inf for one in self._ratios()]
        return max(known, default=math.inf) > self.run.measure["goal"]

    def _ratios(self) -> Iterator[Estimate | None]:
        for backend in self._alive():
            beside = self._beside(backend)
            for component in self.plan.components:
                if beside is not None:
                    yield ratio_of(self._lines(component, beside), self._lines(component, backend))

    def _beside(self, backend: str) -> str | None:
        """Whose time a ratio names."""
        return speed_reference(backend, self._alive())

    def _key(self, component: str, backend: str) -> tuple[str, str]:
        """Under which component and backend it is recorded."""
        return component, backend

    def _lines(self, component: str, backend: str) -> dict[int, Facts]:
        return self.run.samples.get((self.case.name, *self._key(component, backend)), {})

    # ------------------------------------------------------------------ one launch
    def _launch(self, number: int, judged: bool) -> None:
        """A fresh process per backend, in turns; the order turns around from launch to launch."""
        self.begin(number)
        if judged:
            self.told("parity")
            self._keep_outputs(self.suite.extras)
        self.warm_up(number)
        self._rounds(number)
        if judged:
            self.told("parity")
            self._keep_outputs(self.calls)
            self._add_rounding()
            self._count_work()
            self._add_learned()  # last: it loads another network

    def begin(self, number: int) -> None:
        """Start a worker per backend, load, and hand over the inputs."""
        self.told(f"launch {number + 1}")
        cold = self.suite.whole is not None and self.run.measure["first_calls"] > 0
        for backend in [] if cold else self._alive():  # with no first call to measure, they import side by side
            with self._guard(backend):
                self.workers[backend] = self._worker(backend)
        for backend in self._in_turn(number):
            with self._guard(backend):
                self._start(backend, cold)
        self._shared_inputs()

    def warm_up(self, number: int) -> None:
        """Every call on every backend until its times have settled."""
        self.told(f"warm-up {number + 1}")
        for call in self.calls:
            for backend in self._in_turn(number):
                with self._guard(backend):
                    self._warm_up(backend, call, number)
        self.told(f"warm-up {number + 1}", done=True)

    def end(self) -> None:
        """End the launch's workers."""
        while self.workers:
            _, worker = self.workers.popitem()
            worker.kill()

    def _in_turn(self, number: int) -> list[str]:
        return self._alive() if number % 2 == 0 else self._alive()[::-1]

    def _start(self, backend: str, cold: bool) -> None:
        """Import, load, and perhaps the first calls with their memory."""
        if backend not in self.workers:
            self.workers[backend] = self._worker(backend)
        worker = self.workers[backend]
        hello, loaded = self.run.hello(worker), self._load(worker, backend)
        worker.ask("prepare", self.timeout_s, inputs=self._given())
        if self.run.slow and backend.startswith("mlx"):
            worker.ask("slow", self.timeout_s, shares=dict.fromkeys(self.calls, self.run.slow))
        if cold:
            second = self.run.measure["first_calls"] > 1
            found = worker.ask("cold", self.timeout_s, component=self.suite.whole, second=second)
            self.cold.setdefault(backend, []).append({"import_s": hello["import_s"], **loaded, **found})

    def _worker(self, backend: str) -> Worker:
        return self.run.start(backend)

    def _load(self, worker: Worker, backend: str) -> Facts:
        return self.run.load(worker)

    def _given(self) -> dict[str, str]:
        """The inputs that need no model."""
        return {name: self.files[name] for name in self.inputs}

    def _shared_inputs(self) -> None:
        """What the reference makes for all, once, so that every component gets the same input everywhere.

        Where the reference fails, the next backend takes its place.
        """
        for backend in sorted(self._alive(), key=lambda name: name != self.reference):
            if self.shared is not None:
                break
            with self._guard(backend):
                self.shared = self._make_inputs(backend)
                self.reference = backend
        for backend in self._alive():
            with self._guard(backend):
                self.workers[backend].ask("prepare", self.timeout_s, inputs=self.shared)

    def _make_inputs(self, backend: str) -> dict[str, str]:
        worker, given, last = self.workers[backend], self._given(), ""
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

    def _warm_up(self, backend: str, call: str, number: int) -> None:
        found = self.workers[backend].ask(
            "warm", self.timeout_s, component=call, seconds=self.run.measure["warmup_seconds"]
        )
        for component in self.plan.components:
            taken = [one[component] for one in found["seconds"] if component in one]
            if taken:
                facts = {"launch": number, "seconds": taken, "steady": found["steady"]}
                self.warmups.setdefault((component, backend), []).append(facts)

    # ------------------------------------------------------------------ rounds
    def _rounds(self, launch: int) -> None:
        """Every round times all components on all backends; the order of both turns from round to round."""
        limits, started = self.run.measure["rounds"], time.monotonic()
        budget = self.run.measure["seconds_per_case"] / self.run.measure["launches"]["min"]
        first = max((line["round"] for line in self._taken()), default=-1) + 1
        self.set_repeats()
        for number in range(first, first + limits["max"]):
            if number - first >= limits["min"] and time.monotonic() - started > budget:
                return
            self.told(f"launch {launch + 1}, round {number - first + 1}")
            for turn in self._turns():
                for backend in self._in_turn(number):
                    with self._guard(backend):
                        self._take_turn(backend, turn if number % 4 < 2 else turn[::-1], launch, number)
            self.told(f"launch {launch + 1}", done=True)

    def set_repeats(self) -> None:
        """How often a call is made for one sample: the same on every backend, and in every launch of a case.

        So many that a sample lasts ``measure.sample_seconds``. Runs that are to be compared had better make
        one: a call whose predecessor was the same call finds other things in the caches.
        """
        wanted = self.run.measure["sample_seconds"]
        for line in self._taken():
            self.repeats.setdefault(self._call_of(line["component"]), line["calls"])
        for call in self.calls:
            fastest = self._fastest(call)
            if fastest is not None:
                self.repeats.setdefault(call, max(1, min(MOST_REPEATS, math.ceil(wanted / fastest))))

    def _call_of(self, recorded: str) -> str:
        return self.suite.call_of(recorded)

    def _fastest(self, call: str) -> float | None:
        """Of the backends the shortest time; a call that times its parts too is as long as the longest of them."""
        longest: dict[str, float] = {}
        for (component, backend), launches in self.warmups.items():
            if self.suite.call_of(component) == call:
                taken = min(seconds for facts in launches for seconds in facts["seconds"])
                longest[backend] = max(longest.get(backend, 0.0), taken)
        return min(longest.values(), default=None)

    def _turns(self) -> list[list[str]]:
        """The calls in groups: what one backend does before the other one's turn comes."""
        turns: list[list[str]] = []
        length = math.inf
        for call in self.calls:
            taken = self.repeats.get(call, 1) * (self._fastest(call) or 0.0)
            if length + taken > TURN_S:
                turns.append([])
                length = 0.0
            turns[-1].append(call)
            length += taken
        return turns

    def _take_turn(self, backend: str, turn: list[str], launch: int, number: int) -> None:
        time.sleep(SETTLE_S)
        calls = {call: self.repeats.get(call, 1) for call in turn}
        answer = self.run.ask_quietly(self.workers[backend], "time", self.timeout_s, calls=calls)
        for call, one in answer["calls"].items():
            for component in self.plan.components:
                if component in one["seconds"]:
                    facts = {"launch": launch, "calls": calls[call], "rest_s": one["rest_s"]}
                    facts["others"] = answer["others"]
                    key = self._key(component, backend)
                    self.run.sample(self.case, *key, number, one["seconds"][component], facts)

    # ------------------------------------------------------------------ parity
    def _keep_outputs(self, calls: tuple[str, ...]) -> None:
        """The arrays of these calls, per backend."""
        for backend in self._alive():
            with self._guard(backend):
                for call in calls:
                    self.outputs.setdefault(backend, {}).update(self._fetch(backend, call))

    def _fetch(self, backend: str, call: str, do: str = "output") -> Results:
        path = self.scratch / "output.npz"
        self.workers[backend].ask(do, self.timeout_s, component=call, path=str(path))
        with np.load(path) as stored:
            return {name: stored[name] for name in stored.files}

    def _add_rounding(self) -> None:
        """The reference's results beside float64's, where it can tell."""
        if self.reference.startswith("torch") and self.reference in self._alive():
            with self._guard(self.reference):
                self.outputs[self.reference] |= self._fetch(self.reference, "", do="rounding")

    def _add_learned(self) -> None:
        """What only a trained network can show: the timed one may be synthetic, and makes way for it."""
        network = self.run.weights.get(LEARNED_WEIGHTS)
        if network is None or self.shared is None:
            return
        self.told("parity")
        for backend in self._alive():
            with self._guard(backend):
                worker = self.workers[backend]
                self.run.load(worker, paths={name: str(network.path) for name in self.suite.checkpoints})
                worker.ask("prepare", self.timeout_s, inputs=self.shared)
                found: Results = {}
                for call in self.suite.learned:
                    found |= self._fetch(backend, call)
                if backend == self.reference and backend.startswith("torch"):
                    found |= self._fetch(backend, "", do="rounding")
                self.outputs[backend] |= {f"{LEARNED}{name}": array for name, array in found.items()}

    def _count_work(self) -> None:
        """FLOPs and bytes of every call that is a component by itself, where PyTorch is there to count them."""
        calls = [call for call in self.calls if self.suite.counted and call in self.plan.components]
        if calls and self.reference.startswith("torch") and self.reference in self._alive():
            with self._guard(self.reference):
                self.work = self.workers[self.reference].ask("count", self.timeout_s, components=calls)["work"]

    # ------------------------------------------------------------------ records
    def _close_records(self) -> None:
        """All of them, also those that were closed before the case was broken off: a verdict holds beside the
        reference that it was found with, and a backend that is lost now may have been that reference, or have had
        another one.
        """
        limits = floors.component_limits(self.run.config)
        settings = {**self.settings, "sample_rate": self.run.model_facts.get("sample_rate")}
        judge = Judge(self.suite, limits, settings, self.outputs.get(self.reference))
        for component in self.plan.components:
            for backend in self.plan.backends:
                if backend in self.errors:
                    judged: Facts = {"status": "error", "reason": self.errors[backend], "parity": None}
                else:
                    judged = judge(component, self.outputs[backend], backend == self.reference)
                    judged = self._distrusted(component, backend, judged)
                self.run.record(self.case, component, backend, **self._measured(component, backend), **judged)

    def _distrusted(self, component: str, backend: str, judged: Facts) -> Facts:
        """The verdict, unless the times themselves show a fault."""
        if judged["status"] == "not_comparable":
            return judged
        samples = {
            c: {number: line["seconds"] for number, line in self._lines(c, backend).items()}
            for c in self.plan.components
        }
        faults = [self.suite.timing_fault(component, samples, self.settings), self._rest(component, backend)]
        reasons = [reason for reason in (judged["reason"], *faults) if reason]
        return judged | {"status": "failed", "reason": "; ".join(reasons)} if any(faults) else judged

    def _rest(self, component: str, backend: str) -> str | None:
        """Work that went on after the clock had stopped, in most rounds."""
        lines = self._lines(component, backend).values()
        late = [x for x in lines if x["rest_s"] > max(REST_S, LARGEST_REST * x["seconds"] * x["calls"])]
        if 2 * len(late) <= len(lines):
            return None
        return f"the device went on for {1e3 * late[-1]['rest_s']:.3g} ms after the call: not every output was computed"

    def _measured(self, component: str, backend: str) -> Facts:
        taken = self._lines(component, backend)
        warm = self.warmups.get((component, backend), [])
        cold = self.cold.get(backend, []) if component == self.suite.whole else []
        first: Facts = cold[0] if cold else {}
        return {
            "reference": self.reference,
            "workload": workload(self.run, self.audio, self.suite),
            "work": self.work.get(component),
            "output": self._output_of(component, backend),
            "samples_s": [taken[number]["seconds"] for number in sorted(taken)],
            "rounds": sorted(taken),
            "launches": [taken[number]["launch"] for number in sorted(taken)],
            "calls": next((line["calls"] for line in taken.values()), None),
            "warmup_s": [seconds for facts in warm for seconds in facts["seconds"]],
            "warmup": [{"launch": f["launch"], "calls": len(f["seconds"]), "steady": f["steady"]} for f in warm],
            "parent_cpu_share": self.run.parent_cpu_share,
            "others_share": median(line["others"] for line in taken.values()) if taken else None,
            "load_s": first.get("load_s"),
            "first_call_s": first.get("first_call_s"),
            "peak_rss_bytes": first.get("peak_rss_bytes"),
            "peak_device_bytes": first.get("peak_device_bytes"),
            "cold": cold,
        }

    def _output_of(self, component: str, backend: str) -> Facts | None:
        """How long the audio is that came out, where audio comes out."""
        made = (
            self.suite.sound(self.outputs[backend])
            if component == self.suite.whole and backend in self.outputs
            else None
        )
        return {"samples": int(made[0].size), "sample_rate": made[1]} if made is not None else None

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
        """What there is to listen to, of every backend, and what the report draws of it."""
        import soundfile

        found = {backend: made for backend, results in outputs.items() if (made := self.suite.sound(results))}
        for backend, made in found.items():
            folder = self.run.folder / "audio"
            folder.mkdir(exist_ok=True)
            soundfile.write(folder / f"{self.case.name}.{backend}.wav", *made, subtype="PCM_24")
        if found:
            rate = next(iter(found.values()))[1]
            signals = {backend: samples for backend, (samples, _) in found.items()}
            folder = self.run.folder / "spectra"
            folder.mkdir(exist_ok=True)
            arrays: dict[str, Any] = spectra(signals, self.reference, rate, DRAWN_SECONDS)
            np.savez_compressed(folder / f"{self.case.name}.npz", **arrays)


def ratio_of(reference: dict[int, Facts], other: dict[int, Facts]) -> Estimate | None:
    """Of sample lines by round: reference time over the other's, paired."""
    launches = {number: line["launch"] for number, line in other.items()}
    times = [{number: line["seconds"] for number, line in lines.items()} for lines in (reference, other)]
    return paired_ratio(times[0], times[1], launches)


def single_calls(taken: Mapping[int, Facts]) -> Facts:
    """Of a record whose samples are one call each, made without a warm-up and without turns."""
    return {
        "samples_s": [taken[number]["seconds"] for number in sorted(taken)],
        "rounds": sorted(taken),
        "launches": [taken[number]["launch"] for number in sorted(taken)],
        "calls": 1,
        "warmup_s": [],
        "warmup": [],
        "parent_cpu_share": None,
        "others_share": None,
    }


def workload(run: Run, audio: Audio, suite: Suite) -> Facts:
    """What a case is computed on."""
    samples = audio.samples.size
    return {
        "audio": audio.source,
        "duration_s": samples / SAMPLE_RATE,
        "samples": samples,
        "frames": suite.frames(samples),
        "weights": "; ".join(found.label for found in run.weights.values()),
    }
