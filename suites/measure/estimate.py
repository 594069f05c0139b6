"""About how long a run will take, before anything is started."""

from __future__ import annotations

import math

from msgspec import UNSET

from ..definitions.config import Config, MemoryOptions
from ..definitions.plan import Plan
from .progress import UNKNOWN_SECONDS

# on two cores: a process until its model is loaded, the same of a tiny model, and what a run takes besides
PROCESS_S, TINY_PROCESS_S, BESIDES_S = 5.0, 2.0, 30.0
# by protocol: calls in a process, and seconds that a second of audio takes
CALLS = {"memory": 4, "cold_start": 8}
PER_SECOND = {"memory": 1.0, "cold_start": 0.5, "accuracy": 0.4}
# seconds that a call on a second of audio takes, of suites that synthesise and of the others; the share of a tiny model
SYNTHESIS, ANALYSIS, TINY = 0.7, 0.1, 0.1


def expected_s(config: Config, plan: Plan, protocol: str) -> float:
    """Seconds. Of suites that are timed it is what the configuration allows, within what launches take at least and at
    most; of the others a rough figure. Both are of two cores, where a GPU takes less."""
    measure, tiny = config.measure, config.measure.model == "tiny"
    besides = BESIDES_S * (TINY if tiny else 1.0)
    if protocol == "timed":
        return besides + sum(_timed_s(config, plan, case.seconds or UNKNOWN_SECONDS) for case in plan.cases)
    keys = list(plan.expected())
    if protocol == "ablation":
        return besides + len(keys) / 2 * measure.seconds_per_case
    if protocol == "precision":
        return besides + len({(case, name.partition(".")[0], b) for case, name, b in keys}) * measure.seconds_per_case
    process = TINY_PROCESS_S if tiny else PROCESS_S
    per_second = PER_SECOND.get(protocol, 1.0) * (TINY if tiny else 1.0)
    seconds = {case.name: case.seconds or UNKNOWN_SECONDS for case in plan.cases}
    options, found = config.suite, besides
    for case, *_ in keys:
        audio, launches = CALLS.get(protocol, 1) * seconds[case], measure.launches.min if protocol in CALLS else 1
        if case == "growth" and isinstance(options, MemoryOptions) and options.growth is not UNSET:
            audio += options.growth.lengths * 0.5 * (options.growth.shortest_s + options.growth.longest_s)
            launches = 1
        found += launches * (process + per_second * audio)
    return found


def _timed_s(config: Config, plan: Plan, audio_s: float) -> float:
    """One case's launches: in each of them the first call, a warm-up call, and rounds of the parts and the whole."""
    measure, tiny = config.measure, config.measure.model == "tiny"
    synthesises = getattr(config.suite, "voice", None) is not None
    call = audio_s * (SYNTHESIS if synthesises else ANALYSIS) * (TINY if tiny else 1.0)
    process = (TINY_PROCESS_S if tiny else PROCESS_S) / len(plan.cases)
    least, most = (
        launches * len(plan.backends) * (process + 2 * (rounds + 2) * call)
        for launches, rounds in (
            (measure.launches.min, measure.rounds.min),
            (measure.launches.max, measure.rounds.max),
        )
    )
    return min(max(measure.seconds_per_case, least), most)


def text(seconds: float) -> str:
    """Rounded up."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
