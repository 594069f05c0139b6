"""Judging a backend's results against the reference's, with limits that know the audio.

Components are judged on the reference's own input, so each answers for itself; the whole call
is judged on the backend's own values. What is compared stands in ``models``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..metrics.limits import Limits, in_doubt, shown
from ..metrics.parity import NotComparable

if TYPE_CHECKING:
    from ..definitions.base import Suite

Results = dict[str, np.ndarray]


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
