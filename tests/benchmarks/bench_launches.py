"""The harness's own workers and clock, in pytest-benchmark's clothes."""

from __future__ import annotations

from pathlib import Path
from time import sleep

from suites.base.backends import impossible
from suites.inputs.recordings import make_audio
from suites.measure.runner import Runner
from suites.measure.timed import SETTLE_S, TimedCase

LAUNCHES, ROUNDS = 5, 50
CASE_S = 0.5
BACKENDS = [name for name in ("torch_cpu", "torch_cuda", "torch_mps", "mlx_cpu", "mlx_gpu") if impossible(name) is None]


class Clock:
    """Runs on only while a worker is timed: what it shows is what the workers measured."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


class Launches:
    """Several launches of every backend, alive side by side; rounds go from one to the next."""

    def __init__(self, run: Runner, scratch: Path, count: int) -> None:
        plan = run.plan()
        self.run, self.case = run, plan.cases[0]
        audio = make_audio(self.case.kind, self.case.seconds, None, run.config.seed, 30)
        self.launches: list[TimedCase] = []
        for number in range(count):
            launch = TimedCase(run.session, self.case, audio, plan, scratch, lambda *_, **__: None)
            if number:
                launch.shared = self.launches[0].shared
            else:
                launch.save_inputs()
            self.launches.append(launch)
            launch.begin(number, {}, cold=False)
            launch.warm_up(number)
            launch.repeats = {} if launch is self.launches[0] else self.launches[0].repeats
            launch.set_repeats()
        self.backends = [b for b in plan.backends if not any(b in launch.errors for launch in self.launches)]

    def time(self, number: int, backend: str, component: str) -> float:
        """Seconds of one call."""
        launch = self.launches[number % len(self.launches)]
        calls = {component: launch.repeats.get(component, 1)}
        sleep(SETTLE_S)
        found = launch.workers[backend].ask("time", launch.timeout_s, calls=calls)["calls"]
        return float(found[component]["seconds"][component])

    def end(self) -> None:
        for launch in self.launches:
            for worker in launch.workers.values():
                worker.kill()
