"""Whether a record is consistent: its facts, samples, verdict and memory must not contradict each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..base.backends import BACKENDS, device_of
from ..base.lines import Line
from ..inputs.estimators import ESTIMATORS
from ..metrics.registry import BYTES, recorded_metric

MEASURED = ("passed", "failed")
# peaks that include what the process held before it loaded the model
ABOVE_BASE = ("peak_rss_load_bytes", "peak_rss_call_bytes")


class Context(NamedTuple):
    """What a record must agree with."""

    config: Mapping[str, Any]
    env: Mapping[str, Any]
    backends: list[str]


def contradiction(line: Line, taken: Sequence[Line], written: Sequence[Line], context: Context) -> str | None:
    """The first contradiction in a record; None: it has none."""
    config, env, backend = context.config, context.env, line["backend"]
    facts = env["backends"].get(backend, {})
    stated = {"suite": config["suite"]["name"], "precision": config["precision"], "profile": config["profile"]}
    stated["device"] = device_of(backend) if backend in BACKENDS or backend in ESTIMATORS else None
    if line["status"] in MEASURED:
        stated |= {"threads": env.get("threads"), "blas": facts.get("blas")}
    for name, expected in stated.items():
        if line.get(name) != expected:
            return f"its {name} is {line.get(name)}, not {expected}"
    if line["status"] not in MEASURED:
        return None
    return _wrong_samples(line, taken, written) or _wrong_parity(line) or _wrong_memory(line)


def _wrong_samples(line: Line, taken: Sequence[Line], written: Sequence[Line]) -> str | None:
    times, rounds, launches = (line.get(name) for name in ("samples_s", "rounds", "launches"))
    if not (isinstance(times, list) and isinstance(rounds, list) and isinstance(launches, list)):
        return "it has no samples"
    if not len(times) == len(rounds) == len(launches) or not times:
        return f"{len(times)} samples, {len(rounds)} rounds and {len(launches)} launches do not fit together"
    if not all(is_positive(s) for s in times):
        return "a sample is not a number of seconds"
    if not all(type(x) is int for x in (*rounds, *launches)) or launches != sorted(launches):
        return "its rounds and launches are not numbers in order"
    least: dict[int, Line] = {}  # a round that was disturbed was timed again: see ``records.keep_sample``
    for x in taken:
        if x["round"] not in least or x.get("others", 0.0) < least[x["round"]].get("others", 0.0):
            least[x["round"]] = x
    own = [(x["round"], x["seconds"], x["launch"]) for x in least.values()]
    if sorted(own) != sorted(zip(rounds, times, launches, strict=True)):
        return "its samples are not those that were written when they were taken"
    for earlier in written[:-1]:
        if earlier["status"] in MEASURED and not set(earlier["rounds"]) < set(rounds):
            return "it was closed twice"
    return None


def is_positive(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0


def _wrong_parity(line: Line) -> str | None:
    """Figures that are not numbers, or a verdict that does not follow from them."""
    for name, check in checks_of(line):
        metric = recorded_metric(name)
        error, limit = (metric.to_error(float(check[part])) for part in ("value", "limit"))
        if check.get("floor") is not None and not metric.to_error(float(check["floor"])) >= 0:
            return f"the floor of {name} is {check['floor']}"
        if math.isfinite(error) and (error < 0 or check["passed"] != (error <= limit)):
            return f"{name} is {check['value']} with the limit {check['limit']}, said to be passed: {check['passed']}"
    broken = [name for name, check in checks_of(line) if not check["passed"]]
    return f"it passed although {broken[0]} did not" if broken and line["status"] == "passed" else None


def checks_of(line: Line) -> list[tuple[str, dict[str, Any]]]:
    return list(((line.get("parity") or {}).get("limits") or {}).items())


def _wrong_memory(line: Line) -> str | None:
    for cold in line.get("cold") or []:
        for name, value in cold.items():
            if recorded_metric(name) is BYTES and value is not None and not (is_positive(value) or value == 0):
                return f"its {name} is {value}"
            if name in ABOVE_BASE and value is not None and value < (cold.get("base_rss_bytes") or 0):
                return f"its {name} is below what was held before loading"
    return None
