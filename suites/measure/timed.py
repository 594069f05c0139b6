"""One case timed on all backends: process launches, in each a first call, warm-up calls and alternating rounds."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from ..base.backends import speed_reference
from ..base.lines import Sample
from ..base.statistics import LEAST_LAUNCHES, Estimate, paired_ratio
from .launch import Worker
from .outputs import CaseOutputs
from .session import Facts

# lets a framework's spinning threads fall asleep before another one is timed
SETTLE_S = 0.05
MOST_REPEATS = 1000
# short calls are timed one after another before it is the next backend's turn
TURN_S = 0.25


class TimedCase(CaseOutputs):
    """Launches until the speed-ups are known as precisely as the configuration asks, or the time is spent."""

    repeats: dict[str, int]

    def execute(self) -> None:
        self.repeats = {}
        self.save_inputs()
        started = time.monotonic()
        # a resumed case goes on with new launches: an interrupted one is never completed later
        number = first = max((line.launch for line in self._taken()), default=-1) + 1
        while number == first or self._more(number - first, time.monotonic() - started):
            if not self.alive():
                break
            try:
                self._launch(number, judged=number == first)
            finally:
                self.end()
            number += 1
        self.outputs = {backend: found for backend, found in self.outputs.items() if backend not in self.errors}
        # records come last: a case whose records are closed is not looked at again
        self.keep_files()
        self.close_records()

    # ------------------------------------------------------------------ how many launches
    def _taken(self) -> Iterator[Sample]:
        for component in self.plan.components:
            for backend in self.plan.backends:
                yield from self.lines(component, backend).values()

    def _more(self, done: int, spent_s: float) -> bool:
        """Whether another launch is needed for the precision that was asked for, and there is time."""
        measure = self.session.measure
        if done < measure.launches.min:
            return True
        if done >= measure.launches.max or spent_s > measure.seconds_per_case:
            return False
        known = [one.half_width if one and one.launches >= LEAST_LAUNCHES else math.inf for one in self._ratios()]
        return max(known, default=math.inf) > measure.goal

    def _ratios(self) -> Iterator[Estimate | None]:
        for backend in self.alive():
            reference = self.ratio_reference(backend)
            if reference is None:
                continue
            for component in self.plan.components:
                other, ours = (self.lines(component, name) for name in (reference, backend))
                times = [{number: line.seconds for number, line in lines.items()} for lines in (other, ours)]
                yield paired_ratio(times[0], times[1], {number: line.launch for number, line in ours.items()})

    def ratio_reference(self, backend: str) -> str | None:
        """The backend whose time a speed-up divides."""
        return speed_reference(backend, self.alive())

    # ------------------------------------------------------------------ one launch
    def _launch(self, number: int, judged: bool) -> None:
        """A fresh process per backend; which one goes first alternates from launch to launch."""
        self.begin(number)
        if judged:
            self.progress("parity")
            self.keep_outputs(self.suite.extras)
        self.warm_up(number)
        self._rounds(number)
        if judged:
            self.progress("parity")
            self.keep_outputs(self.calls)
            self.add_rounding()
            self.count_work()
            self.add_trained()  # last: it loads another network

    def begin(self, number: int) -> None:
        self.progress(f"launch {number + 1}")
        cold = self.suite.whole is not None and self.session.measure.first_calls > 0
        for backend in [] if cold else self.alive():  # without a first call to measure they import side by side
            with self.guard(backend):
                self.workers[backend] = self.new_worker(backend)
        for backend in self._in_turn(number):
            with self.guard(backend):
                self._start(backend, cold)
        self.share_inputs()

    def warm_up(self, number: int) -> None:
        self.progress(f"warm-up {number + 1}")
        for call in self.calls:
            for backend in self._in_turn(number):
                with self.guard(backend):
                    self._warm_up(backend, call, number)
        self.progress(f"warm-up {number + 1}", done=True)

    def end(self) -> None:
        while self.workers:
            _, worker = self.workers.popitem()
            worker.kill()

    def _in_turn(self, number: int) -> list[str]:
        return self.alive() if number % 2 == 0 else self.alive()[::-1]

    def _start(self, backend: str, cold: bool) -> None:
        if backend not in self.workers:
            self.workers[backend] = self.new_worker(backend)
        worker, session = self.workers[backend], self.session
        hello, loaded = session.hello(worker), self.load_model(worker, backend)
        worker.ask("prepare", self.timeout_s, inputs=self.given())
        if session.slowdown and backend.startswith("mlx"):
            worker.ask("slow", self.timeout_s, shares=dict.fromkeys(self.calls, session.slowdown))
        if cold:
            second = session.measure.first_calls > 1
            found = worker.ask("cold", self.timeout_s, component=self.suite.whole, second=second)
            self.cold.setdefault(backend, []).append({"import_s": hello["import_s"], **loaded, **found})

    def new_worker(self, backend: str) -> Worker:
        return self.session.start(backend)

    def load_model(self, worker: Worker, backend: str) -> Facts:
        return self.session.load(worker)

    def _warm_up(self, backend: str, call: str, number: int) -> None:
        seconds = self.session.measure.warmup_seconds
        found = self.workers[backend].ask("warm", self.timeout_s, component=call, seconds=seconds)
        for component in self.plan.components:
            taken = [one[component] for one in found["seconds"] if component in one]
            if taken:
                facts = {"launch": number, "seconds": taken, "steady": found["steady"]}
                self.warmups.setdefault((component, backend), []).append(facts)

    # ------------------------------------------------------------------ rounds
    def _rounds(self, launch: int) -> None:
        """A round times all components on all backends; the order of both alternates from round to round."""
        measure, started = self.session.measure, time.monotonic()
        budget = measure.seconds_per_case / measure.launches.min
        first = max((line.round for line in self._taken()), default=-1) + 1
        self.set_repeats()
        for number in range(first, first + measure.rounds.max):
            if number - first >= measure.rounds.min and time.monotonic() - started > budget:
                return
            self.progress(f"launch {launch + 1}, round {number - first + 1}")
            for turn in self._turns():
                for backend in self._in_turn(number):
                    with self.guard(backend):
                        self._take_turn(backend, turn if number % 4 < 2 else turn[::-1], launch, number)
            self.progress(f"launch {launch + 1}", done=True)

    def set_repeats(self) -> None:
        """How often a call is made for one sample: the same on every backend and in every launch of a case.
        Enough for a sample of ``measure.sample_seconds``. Runs that are to be compared should make one call a sample: a
        call that follows the same call finds the caches warm."""
        wanted = self.session.measure.sample_seconds
        for line in self._taken():
            self.repeats.setdefault(self.call_of(line.component), line.calls)
        for call in self.calls:
            fastest = self._fastest(call)
            if fastest is not None:
                self.repeats.setdefault(call, max(1, min(MOST_REPEATS, math.ceil(wanted / fastest))))

    def call_of(self, recorded: str) -> str:
        return self.suite.call_of(recorded)

    def _fastest(self, call: str) -> float | None:
        """The shortest warm-up time of any backend; a call that times its parts is as long as the longest of them."""
        longest: dict[str, float] = {}
        for (component, backend), launches in self.warmups.items():
            if self.suite.call_of(component) == call:
                taken = min(seconds for facts in launches for seconds in facts["seconds"])
                longest[backend] = max(longest.get(backend, 0.0), taken)
        return min(longest.values(), default=None)

    def _turns(self) -> list[list[str]]:
        """The calls in groups: what one backend does before the other one's turn."""
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
        answer = self.session.ask_timed(self.workers[backend], "time", self.timeout_s, calls=calls)
        for call, one in answer["calls"].items():
            for component in self.plan.components:
                if component in one["seconds"]:
                    facts = {"launch": launch, "calls": calls[call], "rest_s": one["rest_s"]}
                    facts["others"] = answer["others"]
                    key = self.record_key(component, backend)
                    self.session.sample(self.case, *key, number, one["seconds"][component], facts)
