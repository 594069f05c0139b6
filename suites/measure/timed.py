"""Cases timed on all backends, in process launches that serve all of them: warm-up calls and alternating rounds."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import median

from ..base.backends import is_port, speed_reference
from ..base.lines import Sample
from ..base.speed import LEAST_LAUNCHES, Estimate, estimate, paired_ratio
from . import told
from .launch import Worker
from .outputs import CaseOutputs
from .session import HELLO_TIMEOUT_S, Facts

# lets a framework's spinning threads fall asleep before another one is timed
SETTLE_S = 0.05
MOST_REPEATS = 1000
# short calls are timed one after another before it is the next backend's turn
TURN_S = 0.25
# a turn in which other work took so much more of the worker's threads than it usually does is taken again, a few times
# at most
DISTURBED_SHARE, MOST_TURNS = 0.05, 3
# launches in which processes start one after the other, so that import, load and first call are measured undisturbed
COLD_LAUNCHES = 3
# parity takes about as long as this many whole calls of a case on the slowest backend
PARITY_CALLS = 12
# columns of the table on a terminal: case, state and component; a backend's time
WIDTHS, TIME_WIDTH = (18, 22, 10), 12


class TimedCase(CaseOutputs):
    """One case's calls in the launches that it shares with others."""

    repeats: dict[str, int]
    # what other work took of a backend's threads, of each turn so far
    others: dict[str, list[float]]

    @property
    def title(self) -> str:
        return self.case.name

    def execute(self) -> None:
        execute_together([self])

    def _taken(self) -> Iterator[Sample]:
        for component in self.plan.components:
            for backend in self.plan.backends:
                yield from self.lines(component, backend).values()

    def next_launch(self) -> int:
        """A resumed case goes on with new launches: an interrupted one is never completed later."""
        return max((line.launch for line in self._taken()), default=-1) + 1

    def known_to(self) -> float:
        """Half of the widest interval of a speed-up; infinite while there is none."""
        found = [ratio for b in self.alive() for c in self.plan.components if (ratio := self.ratio(c, b)) is not None]
        return max((r.half_width if r.launches >= LEAST_LAUNCHES else math.inf for r in found), default=math.inf)

    def ratio(self, component: str, backend: str) -> Estimate | None:
        """The speed-up of a backend, as far as it is known; None for one that is compared with none."""
        reference = self.ratio_reference(backend)
        if reference is None:
            return None
        theirs, ours = (self.lines(component, name) for name in (reference, backend))
        times = [{number: line.seconds for number, line in lines.items()} for lines in (theirs, ours)]
        return paired_ratio(times[0], times[1], {number: line.launch for number, line in ours.items()})

    def time(self, component: str, backend: str) -> Estimate | None:
        lines = self.lines(component, backend).values()
        return estimate([line.seconds for line in lines], [line.launch for line in lines])

    def slowest_s(self) -> float:
        """A whole call of the slowest backend, from its warm-up."""
        return max((min(found["seconds"]) for one in self.warmups.values() for found in one), default=0.0)

    def ratio_reference(self, backend: str) -> str | None:
        """The backend whose time a speed-up divides."""
        return speed_reference(backend, self.alive())

    # ------------------------------------------------------------------ one launch
    def begin(self, number: int, workers: dict[str, Worker], cold: bool) -> None:
        """Take part in a launch; start the workers that there are not; ``cold``: measure the process's first call."""
        self.workers = workers
        cold = cold and self.session.measure.first_calls > 0
        alone = cold and (self.suite.whole is not None or self.suite.measures_headlines)
        absent = [backend for backend in self._in_turn(number) if backend not in workers]
        if not alone:
            self._bring_up(absent)
        for backend in sorted(self._in_turn(number), key=lambda name: is_port(name) and not self.drawn):
            if alone and backend in absent:
                self._bring_up([backend])
            if self._lives(backend):
                with self.guard(backend):
                    self._start(backend, alone)
        self.share_inputs()
        if cold and self.suite.measures_headlines:
            for backend in self._in_turn(number):
                with self.guard(backend):
                    for component in filter(self.plan.components.__contains__, self.suite.headlines):
                        self._call_first(component, backend)

    def _bring_up(self, backends: Sequence[str]) -> None:
        """New processes, which import and load side by side."""
        for backend in backends:
            with self.guard(backend):
                self.workers[backend] = self.new_worker(backend)
                self.session.send_hello(self.workers[backend])
        for backend in filter(self._lives, backends):
            with self.guard(backend):
                worker = self.workers[backend]
                self.started[backend] = {"import_s": worker.answer("hello", HELLO_TIMEOUT_S)["import_s"]}
                worker.send("load", **self.load_request(worker, backend))
        for backend in filter(self._lives, backends):
            with self.guard(backend):
                facts = self.workers[backend].answer("load", self.timeout_s)
                self.started[backend] |= facts
                self.loaded(backend, facts)

    def _lives(self, backend: str) -> bool:
        return backend not in self.errors

    def _start(self, backend: str, cold: bool) -> None:
        worker, session = self.workers[backend], self.session
        if is_port(backend) and self.suite.whole:
            self.draw_noise([self.suite.whole])
        worker.ask("prepare", self.timeout_s, inputs=self.inputs_of(backend))
        if session.slowdown and backend.startswith("mlx"):
            worker.ask("slow", self.timeout_s, shares=dict.fromkeys(self.calls, session.slowdown))
        if cold and self.suite.whole is not None:
            self._call_first(self.suite.whole, backend)

    def _call_first(self, component: str, backend: str) -> None:
        """Measure the first call of a fresh process, with its memory."""
        if self.has(component, backend):
            second = self.session.measure.first_calls > 1
            found = self.workers[backend].ask("cold", self.timeout_s, component=component, second=second)
            self.cold.setdefault((component, backend), []).append({**self.started[backend], **found})

    def _in_turn(self, number: int) -> list[str]:
        return self.alive() if number % 2 == 0 else self.alive()[::-1]

    def new_worker(self, backend: str) -> Worker:
        return self.session.start(backend)

    def load_request(self, worker: Worker, backend: str) -> Facts:
        return self.session.load_request(worker)

    def loaded(self, backend: str, facts: Facts) -> None:
        """What else is done once a process has loaded the model."""

    def warm_up(self, number: int) -> None:
        """The whole call first: it has run its parts, which are called once more and are as steady as it is."""
        for call in sorted(self.calls, key=lambda call: call != self.suite.whole):
            for backend in self._in_turn(number):
                if self.has(call, backend):
                    with self.guard(backend):
                        self._warm_up(backend, call, number)

    def _warm_up(self, backend: str, call: str, number: int) -> None:
        whole = self.suite.whole if call in self.suite.parts and self.suite.whole in self.calls else None
        whole = whole if whole and self.has(whole, backend) else None
        seconds = 0.0 if whole else self.session.measure.warmup_seconds
        found = self.workers[backend].ask("warm", self.timeout_s, component=call, seconds=seconds)
        steady = self.warmups[whole, backend][-1]["steady"] if whole else found["steady"]
        for component in self.plan.components:
            taken = [one[component] for one in found["seconds"] if component in one]
            if taken:
                facts = {"launch": number, "seconds": taken, "steady": steady}
                self.warmups.setdefault((component, backend), []).append(facts)

    def judge_outputs(self) -> None:
        """Add what parity and the roofline need beside the outputs of the timed calls."""
        self.keep_outputs(self.suite.extras)
        self.add_rounding()
        self.count_work()

    def close(self) -> None:
        """The records come last: a case whose records are closed is not looked at again."""
        self.outputs = {backend: found for backend, found in self.outputs.items() if backend not in self.errors}
        self.keep_files()
        self.close_records()

    # ------------------------------------------------------------------ rounds
    def rounds(self, launch: int, until: float) -> None:
        """Rounds up to a moment, the fewest in any case. A round times all components on all backends; the order of
        both alternates from round to round."""
        measure = self.session.measure
        first = max((line.round for line in self._taken()), default=-1) + 1
        self.set_repeats()
        for number in range(first, first + measure.rounds.max):
            if number - first >= measure.rounds.min and time.monotonic() > until:
                return
            for turn in self._turns():
                for backend in self._in_turn(number):
                    with self.guard(backend):
                        self._take_turn(backend, turn if number % 4 < 2 else turn[::-1], launch, number)

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
        """Time calls, and again while other work disturbs them: of a round, the least disturbed sample counts.

        What other work took is measured apart from how long the calls took, so this choice favours no result. Work that
        never ceases disturbs every turn alike: that is not waited for."""
        calls = {call: self.repeats.get(call, 1) for call in turn if self.has(call, backend)}
        before, others = self.others.setdefault(backend, []), list[float]()
        usual = median(before) if before else 0.0
        for _ in range(MOST_TURNS if calls else 0):
            time.sleep(SETTLE_S)
            answer = self.session.ask_timed(self.workers[backend], "time", self.timeout_s, calls=calls)
            for call, one in answer["calls"].items():
                for component in self.plan.components:
                    if component in one["seconds"]:
                        facts = {"launch": launch, "calls": calls[call], "rest_s": one["rest_s"]}
                        facts["others"] = answer["others"]
                        key = self.record_key(component, backend)
                        self.session.sample(self.case, *key, number, one["seconds"][component], facts)
            others.append(answer["others"])
            if others[-1] <= usual + DISTURBED_SHARE:
                break
        before += [min(others)] if others else []


def execute_together(cases: Sequence[TimedCase]) -> None:
    """Launches that serve all of these cases, until their speed-ups are known as precisely as the configuration asks
    and one launch longer (suites/base/speed.py says why), or the time is spent. In the first one follows, while nothing
    is timed, what parity compares.

    A resumed run counts the launches from before, and makes one more at least."""
    if not cases:
        return
    measure = cases[0].session.measure
    for case in cases:
        case.repeats, case.others = {}, {}
        case.save_inputs()
    number = first = max(case.next_launch() for case in cases)
    clock = LaunchClock(measure.seconds_per_case * len(cases))
    known = False
    while any(case.alive() for case in cases) and (
        number == first
        or number < measure.launches.min
        or (number < measure.launches.max and clock.left_s() > 0 and not known)
    ):
        known = number >= measure.launches.min and max(case.known_to() for case in cases) <= measure.goal
        clock.until = time.monotonic() + clock.allowed_s / measure.launches.max
        _launch(cases, number, number - first, clock)
        number += 1
        clock.least_s = clock.timed_s() / (number - first) * (measure.launches.min - first)
    for case in cases:
        case.close()
        tell_times(case, None)


class LaunchClock:
    """The time that launches may take, without what is done while nothing is timed."""

    def __init__(self, allowed_s: float) -> None:
        self.allowed_s, self.least_s, self.parity_s = allowed_s, 0.0, 0.0
        self.until = self._started = time.monotonic()
        self._untimed_s = 0.0

    def timed_s(self) -> float:
        return time.monotonic() - self._started - self._untimed_s

    def left_s(self) -> float:
        """What is left of the time that is allowed."""
        return self.allowed_s - self.timed_s()

    def expected_s(self) -> float:
        """What launches and parity will still take; the fewest launches may take longer than is allowed."""
        return max(0.0, max(self.allowed_s, self.least_s) - self.timed_s()) + self.parity_s

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._untimed_s, self.parity_s = self._untimed_s + time.monotonic() - start, 0.0


def _launch(cases: Sequence[TimedCase], number: int, before: int, clock: LaunchClock) -> None:
    """A process per backend; with which case and which backend it begins alternates from launch to launch. ``before``:
    how many launches this run has made; what the first one computes is judged."""
    judged = before == 0
    workers: dict[str, Worker] = {}
    start, turn = time.monotonic(), number % len(cases)
    order = [*cases[turn:], *cases[:turn]]
    try:
        for place, case in enumerate(order):
            case.progress(f"launch {number + 1}: {case.case.name}", clock.expected_s())
            case.begin(number, workers, cold=place == 0 and before < COLD_LAUNCHES)
            case.warm_up(number)
            if judged:
                clock.parity_s += PARITY_CALLS * case.slowest_s()
            case.rounds(number, start + (clock.until - start) * (place + 1) / len(order))
            tell_times(case, number)
            if judged:
                case.keep_outputs(case.calls)
        if judged:
            with clock.stopped():
                for step in ("judge_outputs", "add_trained"):  # which loads another network
                    for case in cases:
                        case.progress(f"parity: {case.case.name}", clock.expected_s())
                        case.begin(number, workers, cold=False)
                        getattr(case, step)()
    finally:
        for worker in workers.values():
            worker.kill()


# ---------------------------------------------------------------------- what is told meanwhile
def tell_times(case: TimedCase, launch: int | None) -> None:
    """On a terminal a row of what is known after a launch; None: the case is finished, which is told everywhere."""
    session = case.session
    if sys.stdout.isatty():
        state = f"launch {launch + 1}" if launch is not None else told.passed(session, case.case.name)
        for component in _shown(case):
            _row(case, component, state)
    elif launch is None:
        figures = "; ".join(_sentence(case, component) for component in _shown(case))
        told.finished(session, case.title, f"{figures}; ")


def _shown(case: TimedCase) -> list[str]:
    """The whole call, or where there is none what a summary would name."""
    wanted = (case.suite.whole,) if case.suite.whole in case.plan.components else case.suite.headlines
    return [one for one in case.plan.components if one in wanted] or list(case.plan.components)


def _row(case: TimedCase, component: str, state: str) -> None:
    """Under a header of its own where the backends are others than before."""
    backends = [*case.plan.backends]
    if case.session.table != backends:
        case.session.table = backends
        names = "".join(f"{name:>{TIME_WIDTH}}" for name in backends)
        told.tell(case.session, f"{_padded('case', 'state', 'component')}{names}  speed-up (interval)")
    times = [case.time(component, name) if name in case.alive() else None for name in backends]
    cells = "".join(f"{'' if one is None else _shown_s(one.value):>{TIME_WIDTH}}" for one in times)
    ratios = ", ".join(_ratios(case, component).values())
    told.tell(case.session, f"{_padded(case.title, state, component)}{cells}  {ratios}")


def _padded(*cells: str) -> str:
    return " ".join(f"{cell:{width}}" for cell, width in zip(cells, WIDTHS, strict=True))


def _sentence(case: TimedCase, component: str) -> str:
    ratios, parts = _ratios(case, component), []
    for name in case.alive():
        one, ratio = case.time(component, name), ratios.get(name)
        parts.append(f"{name} {_shown_s(one.value) if one else 'not timed'}{f', {ratio}' if ratio else ''}")
    return f"{component} {', '.join(parts)}" if parts else f"{component} failed on every backend"


def _ratios(case: TimedCase, component: str) -> dict[str, str]:
    found = {name: case.ratio(component, name) for name in case.alive()}
    return {name: f"{one.value:.2f}x ({one.low:.2f} to {one.high:.2f})" for name, one in found.items() if one}


def _shown_s(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"
