"""The components as pytest benchmarks: the harness's own workers and clock, in pytest-benchmark's clothes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from suites import environment, inputs
from suites.backends import impossible, speed_reference
from suites.case import SETTLE_S, CaseRun
from suites.config import compose_config
from suites.run import Run, open_run
from suites.sheet import facts_of

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

    def __init__(self, run: Run, scratch: Path, count: int) -> None:
        plan = run.plan()
        self.run, self.case = run, plan.cases[0]
        audio = inputs.make_audio(self.case.kind, self.case.seconds, None, run.config["seed"], 30)
        self.launches: list[CaseRun] = []
        for number in range(count):
            launch = CaseRun(run, self.case, audio, plan, scratch, lambda *_, **__: None)
            if number:
                launch.shared = self.launches[0].shared
            else:
                launch.save_inputs()
            self.launches.append(launch)
            launch.begin(number)
            launch.warm_up(number)
            launch.set_repeats()
            launch.repeats = self.launches[0].repeats
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
            launch.end()


@pytest.fixture(scope="session")
def launches(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launches]:
    scratch = tmp_path_factory.mktemp("benchmarks")
    config = compose_config("components", ["measure=gate", f"durations=[{CASE_S}]", f"out={scratch / 'run'}"])
    disabled = request.config.getoption("benchmark_disable") and not request.config.getoption("benchmark_enable")
    found = Launches(open_run(config), scratch, 1 if disabled else LAUNCHES)
    env = json.loads((scratch / "run" / "environment.json").read_text())
    FACTS.update(
        facts=facts_of(config, env),
        fingerprint=environment.fingerprint(env),
        made={"commit": env["commit"], "commit_clean": env["commit_clean"]},
    )
    yield found
    found.end()


FACTS: dict[str, Any] = {}


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    output_json["machine_info"]["rvc_parity"] = FACTS


def beside(backend: str, present: list[str]) -> str | None:
    return speed_reference(backend, present)
