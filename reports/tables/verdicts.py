"""A gate's verdicts as cells: the kinds of figures that it judges, their ratios, and recorded texts."""

from __future__ import annotations

import math
from typing import NamedTuple

from suites.gate.judge import TIMES, Verdict
from suites.metrics.registry import BYTES, SECONDS, TIME_RATIO, Metric, recorded_metric

from ..data.gates import printable, ratios
from ..render.document import Absent, Num


class Family(NamedTuple):
    """Figures that share a unit: a table and a forest plot.

    ``field``: of a record, and of a baseline's entry. ``axis``: of the plot. ``several``: a component has more than
    one such figure.
    """

    name: str
    title: str
    about: str
    metric: Metric
    field: tuple[str, str]
    axis: str
    several: bool = False


FAMILIES = (
    Family(
        "time", "Time over the reference's",
        "The fast time of one call over the reference's in the same launch: what slows both sides cancels.",
        TIME_RATIO, ("samples_s", "slowness"),
        "ratio of the times over the reference's, after / before (above 1: slower)",
    ),
    Family(
        "typical", "Typical time over the reference's",
        "The same of medians, called from a larger size on: slowdowns that spare the fastest calls.",
        TIME_RATIO, ("samples_s", "typical"),
        "ratio of the times over the reference's, after / before (above 1: slower)",
    ),
    Family(
        "seconds", "Seconds",
        "Fast times themselves, of both sides; judged where machine and software are the same.",
        SECONDS, ("samples_s", "seconds"),
        "ratio of the times, after / before (above 1: slower)",
    ),
    Family(
        "memory", "Peak memory",
        "Medians of fresh processes, above what was held before loading.",
        BYTES, ("cold", "memory"),
        "ratio of the peaks, after / before (above 1: bigger)",
        several=True,
    ),
    Family(
        "parity", "Difference from the reference",
        "The judged figures as errors, smaller is better.",
        Metric("parity", "error"), ("parity", "parity"),
        "ratio of the errors, after / before (above 1: less accurate)",
        several=True,
    ),
)  # fmt: skip


def family_of(metric: str) -> Family:
    name = metric if metric in TIMES else "memory" if recorded_metric(metric) is BYTES else "parity"
    return next(family for family in FAMILIES if family.name == name)


def is_memory(metric: str) -> bool:
    return family_of(metric).name == "memory"


def recorded(text: str, sources: tuple[str, ...]) -> Num:
    return Num(printable(text), sources)


def ratio_number(verdict: Verdict, sources: tuple[str, ...]) -> Num | Absent:
    """After over before, with its interval."""
    value, low, high = ratios(verdict)
    if value is None:
        return Absent("it was zero before")
    if low is None or high is None:
        return Num(f"{_digits(value)}×", sources, value)
    return Num(f"{_digits(value)}× [{_digits(low)}, {_digits(high)}]", sources, value, low, high)


def bound(change: float | None, sources: tuple[str, ...]) -> Num | Absent:
    """A relative change as the ratio that it leads to."""
    if change is None or not math.isfinite(change):
        return Absent()
    return Num(f"{_digits(1 + change)}×", sources, 1 + change)


def _digits(ratio: float) -> str:
    """Three decimals: changes of some per cent matter."""
    return f"{ratio:.3f}" if 0.001 < ratio < 10 else f"{ratio:.3g}"
