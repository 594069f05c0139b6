"""The components as pytest benchmarks: launches that all benchmarks share, and the facts that a gate needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from bench_launches import CASE_S, LAUNCHES, Launches
from quick_runs import workers_inside

from suites.base import environment
from suites.definitions.config import Config
from suites.gate.baseline import facts_of
from suites.measure.config import compose_config
from suites.measure.runner import open_run


@pytest.fixture(scope="module")
def launches(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launches]:
    """Without benchmarks, as a test among others, in this process."""
    scratch = tmp_path_factory.mktemp("benchmarks")
    disabled = request.config.getoption("benchmark_disable") and not request.config.getoption("benchmark_enable")
    words = ["measure=gate", f"durations=[{CASE_S}]", f"out={scratch / 'run'}"]
    config = compose_config("components", [*words, *(["measure.warmup_seconds=0"] if disabled else [])])
    with workers_inside() if disabled else nullcontext():
        yield from started(Launches(open_run(config), scratch, 1 if disabled else LAUNCHES), config, scratch)


def started(found: Launches, config: Config, scratch: Path) -> Iterator[Launches]:
    env = json.loads((scratch / "run" / "environment.json").read_text())
    FACTS.update(
        facts=facts_of(config.plain(), env),
        fingerprint=environment.fingerprint(env),
        made={"commit": env["commit"], "commit_clean": env["commit_clean"]},
    )
    yield found
    found.end()


FACTS: dict[str, Any] = {}


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    output_json["machine_info"]["rvc_parity"] = FACTS
