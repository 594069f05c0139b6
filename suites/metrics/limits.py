"""Limits: the largest error of a figure that is accepted, and when the reference itself is doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .registry import metric_of, recorded_metric

# Another correct implementation lands within a few times the reference's own rounding error (docs/parity.md).
SAFETY = 3.0
FLOOR_FACTOR = SAFETY
# A reference whose rounding error exceeds this many times the limit is itself in doubt: it fails, and it raises no
# limit beyond this.
FLOOR_CAP = 10.0

Check = dict[str, Any]


class Limits:
    """The limits of one precision policy by name; None: the figure is shown and not judged."""

    def __init__(self, limits: Mapping[str, float | None]) -> None:
        self.limits = limits

    def check(self, name: str, value: float, floor: float | None = None, limit: str | None = None) -> dict[str, Check]:
        """One figure and its limit, raised where the reference's own rounding ``floor`` exceeds it.

        ``limit``: the limit's name where it is not the figure's. Empty where the policy sets none.

        Raises ``UnknownFigure``: no suite declares the figure."""
        metric, known = metric_of(name), limit or name
        base = self.limits[known]
        if base is None:
            return {}
        if metric.is_count:  # of events the reference's own are added, not multiplied
            bound = base + (floor or 0)
        else:
            allowed, own = metric.to_error(base), 0.0 if floor is None else metric.to_error(floor)
            raised = FLOOR_FACTOR * min(own, FLOOR_CAP * allowed)
            # an unraised limit is the configured number itself, not its image through the logarithm
            bound = metric.from_error(raised) if raised > allowed else base
        passed = metric.to_error(value) <= metric.to_error(bound)
        return {name: {"value": value, "limit": bound, "base": base, "floor": floor, "passed": passed, "of": known}}


def in_doubt(name: str, check: Check) -> bool:
    """Whether the reference itself is too far from float64; a limit of zero demands equality and does not tell."""
    metric = recorded_metric(name)
    if metric.is_count or check["floor"] is None:
        return False
    base = metric.to_error(check["base"])
    return base > 0 and metric.to_error(check["floor"]) > FLOOR_CAP * base


def is_references(name: str, check: Check) -> bool:
    """Whether a reference in doubt explains a failed check: without its own error the figure would be in its limit.

    Errors are distances: the value is at least its distance from the reference less the reference's from float64 away
    from the float64 result.
    """
    if check["passed"] or not in_doubt(name, check):
        return False
    error, floor, base = (recorded_metric(name).to_error(check[part]) for part in ("value", "floor", "base"))
    return error <= floor + base


def exceeds(found: Mapping[str, Any], limit: Mapping[str, float]) -> bool:
    """Whether an error is above its limit, or could not be measured."""
    return "reason" in found or any(found[name] > limit[name] for name in limit)
