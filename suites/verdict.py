"""Judging a backend's results against the reference's, with limits that know the audio.

Components are judged on the reference's own input, so each answers for itself; the whole call
is judged on the backend's own values. What is compared stands in ``models``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .floors import SAFETY, from_error, is_count, to_error
from .parity import NotComparable

if TYPE_CHECKING:
    from .models.base import Suite

# The stated rule (docs/parity.md): another correct implementation lands within a few times the
# reference's own rounding error.
FLOOR_FACTOR = SAFETY
# A reference whose rounding exceeds this many times the limit is itself in doubt: it fails, and it
# raises no limit beyond this.
FLOOR_CAP = 10.0

Results = dict[str, np.ndarray]
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


class Judge:
    """Compares with one reference's results; call it per component and backend."""

    def __init__(
        self, suite: Suite, limits: Mapping[str, float | None], settings: Mapping[str, Any], reference: Results | None
    ) -> None:
        self.suite, self.limits, self.settings, self.reference = suite, Limits(limits), settings, reference

    def __call__(self, component: str, results: Results, is_reference: bool) -> dict[str, Any]:
        """``status``, ``reason`` and ``parity`` of a record."""
        if self.reference is None:
            return {"status": "not_comparable", "reason": "the reference failed", "parity": None}
        if is_reference:
            return self._reference_itself(component)
        try:
            figures = self.suite.figures(component, results, self.reference, self.limits, self.settings)
        except NotComparable as error:
            return {"status": "failed", "reason": f"parity: {error}", "parity": None}
        if component in self.suite.same_code:
            figures["same_code"] = True
        broken = {name: check for name, check in figures["limits"].items() if not check["passed"]}
        told = (f"{n} {shown(n, c['value'])} (limit {shown(n, c['limit'])})" for n, c in broken.items())
        return {"status": "failed" if broken else "passed", "reason": "; ".join(told) or None, "parity": figures}

    def _reference_itself(self, component: str) -> dict[str, Any]:
        """The reference passes where it is finite and close to its own float64 results."""
        assert self.reference is not None
        try:
            figures = self.suite.figures(component, self.reference, self.reference, self.limits, self.settings)
        except NotComparable as error:
            return {"status": "failed", "reason": f"the reference itself: {error}", "parity": None}
        far = {name: check for name, check in figures["limits"].items() if in_doubt(name, check)}
        told = (f"the reference is off from float64 by {c['floor']:.3g} ({n})" for n, c in far.items())
        return {"status": "failed" if far else "passed", "reason": "; ".join(told) or None, "parity": None}
