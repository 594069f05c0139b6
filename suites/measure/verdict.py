"""The verdict on a backend's results, by comparison with the reference's.

Components are judged on the reference's own input, so each answers for itself; the whole call is judged on the
backend's own values. What is compared, each suite's definition says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..definitions.base import Results, Suite
from ..metrics.limits import Check, Limits, in_doubt, is_references
from ..metrics.parity import NotComparable
from ..metrics.registry import metric_of


class Judge:
    """Compares with the results of one reference; call it for each component and backend."""

    def __init__(
        self, suite: Suite, limits: Mapping[str, float | None], settings: Mapping[str, Any], reference: Results | None
    ) -> None:
        self.suite, self.limits, self.settings, self.reference = suite, Limits(limits), settings, reference

    def __call__(self, component: str, results: Results, is_reference: bool) -> dict[str, Any]:
        """``status``, ``reason`` and ``parity`` of a record.
        The reference passes where it is finite and close to its own float64 results. A backend whose difference is
        within the reference's own error cannot be judged by it."""
        if self.reference is None:
            return {"status": "not_comparable", "reason": "the reference failed", "parity": None}
        compared = self.reference if is_reference else results
        try:
            figures = self.suite.figures(component, compared, self.reference, self.limits, self.settings)
        except NotComparable as error:
            what = "the reference itself" if is_reference else "parity"
            return {"status": "failed", "reason": f"{what}: {error}", "parity": None}
        checks: dict[str, Check] = figures["limits"]
        wrong = [
            f"the reference is wrong here: {name} {metric_of(name).text(check['floor'])} against its own float64"
            for name, check in checks.items()
            if in_doubt(name, check)
        ]
        if is_reference:
            return {"status": "failed" if wrong else "passed", "reason": "; ".join(wrong) or None, "parity": None}
        if component in self.suite.same_code:
            figures["same_code"] = True
        broken = {name: check for name, check in checks.items() if not check["passed"]}
        own = [
            f"{name} {metric_of(name).text(check['value'])} (limit {metric_of(name).text(check['limit'])})"
            for name, check in broken.items()
            if not is_references(name, check)
        ]
        status = "failed" if own else "not_comparable" if broken else "passed"
        return {"status": status, "reason": "; ".join(own + wrong) or None, "parity": figures}
