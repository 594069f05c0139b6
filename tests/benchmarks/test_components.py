"""Every part of the models as a benchmark, over the case definitions of the suite ``components``.

pytest tests/benchmarks --benchmark-enable -n 0 --benchmark-json=bench.json
python -m suites gate bench.json --baseline FILE        (with --update: make the baseline)
"""

from __future__ import annotations

import pytest
from bench_launches import BACKENDS, CLOCK, ROUNDS

from suites.base.backends import speed_reference
from suites.measure.config import compose_config

COMPONENTS = list(compose_config("components", []).suite.components)


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("component", COMPONENTS)
def test_component(benchmark, launches, component, backend):
    """One round: the reference where there is one, then this backend, in the same launch."""
    if backend not in launches.backends:
        pytest.skip(f"this machine has no {backend}")
    reference, theirs, rounds = speed_reference(backend, launches.backends), [], iter(range(ROUNDS + 1))
    current = [0]

    def before() -> None:
        current[0] = next(rounds)
        if reference is not None:
            theirs.append(launches.time(current[0], reference, component))

    def call() -> None:
        CLOCK.now += launches.time(current[0], backend, component)

    start = CLOCK.now
    benchmark.pedantic(call, setup=before, rounds=ROUNDS)
    assert CLOCK.now > start
    count = len(launches.launches)
    benchmark.extra_info.update(
        case=launches.case.name,
        component=component,
        backend=backend,
        reference=reference,
        reference_s=theirs,
        launches=[i % count for i in range(ROUNDS)],
    )
