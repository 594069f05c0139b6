"""Errors beside their limits: what a figure means as an amount of error, and the largest error that is accepted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# Another correct implementation lands within a few times the reference's own rounding error (docs/parity.md).
SAFETY = 3.0
FLOOR_FACTOR = SAFETY
# A reference whose rounding error exceeds this many times the limit is itself in doubt: it fails, and it raises no
# limit beyond this.
FLOOR_CAP = 10.0

Check = dict[str, Any]


class Limits:
    """The limits of one precision policy; None: the figure is not judged."""

    def __init__(self, limits: Mapping[str, float | None]) -> None:
        self.limits = limits

    def check(self, name: str, value: float, floor: float | None = None, limit: str | None = None) -> dict[str, Check]:
        """One figure and its limit, raised where the reference's own rounding ``floor`` exceeds it.

        ``limit``: the limit's name where it is not the figure's. Empty where the policy sets none.
        """
        known = limit or name
        base = self.limits[known]
        if base is None:
            return {}
        bound = base + (floor or 0) if is_count(name) else self._raised(name, base, floor)
        passed = to_error(name, value) <= to_error(name, bound)
        found = {"value": value, "limit": bound, "base": base, "floor": floor, "passed": passed, "of": known}
        return {name: found}

    @staticmethod
    def _raised(name: str, base: float, floor: float | None) -> float:
        allowed = to_error(name, base)
        own = 0.0 if floor is None else to_error(name, floor)
        # an unraised limit is the configured number itself, not its image through the logarithm
        raised = FLOOR_FACTOR * min(own, FLOOR_CAP * allowed)
        return from_error(name, raised) if raised > allowed else base


def in_doubt(name: str, check: Check) -> bool:
    """Whether the reference itself is too far from float64."""
    if is_count(name) or check["floor"] is None:
        return False
    return to_error(name, check["floor"]) > FLOOR_CAP * to_error(name, check["base"])


def shown(name: str, value: float) -> str:
    """A figure in three digits; a correlation close to one by how far it is from it: 0.999999998 would be 1."""
    return f"1 - {1 - value:.2g}" if name.endswith("corr") and 0.999 < value < 1 else f"{value:.3g}"


def exceeds(found: Mapping[str, Any], limit: Mapping[str, float]) -> bool:
    """Whether an error is above its limit, or could not be measured."""
    return "reason" in found or any(found[name] > limit[name] for name in limit)


def to_error(name: str, value: float) -> float:
    """A figure as an amount of error: of SNR and correlation more is better, of all others less.

    Of both the amplitude of the difference over that of the signal; 1 - correlation is half its square.
    """
    if name.endswith("snr_db"):
        return float(10.0 ** (-value / 20.0))
    if name.endswith("corr"):
        distance = 1.0 - value
        return 0.0 if distance < 0 else math.sqrt(2.0 * distance)  # what is no number stays none
    return value


def from_error(name: str, error: float) -> float:
    """The inverse of ``to_error``."""
    if name.endswith("snr_db"):
        return -20.0 * math.log10(error) if error > 0 else math.inf
    return 1.0 - 0.5 * error * error if name.endswith("corr") else error


def is_count(name: str) -> bool:
    """Whether a figure counts events: then the reference's own are added, not multiplied."""
    return name.endswith("mismatches")
