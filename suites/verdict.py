"""Judging a backend's results against the reference's, with limits that know the audio.

``mel``, ``network`` and ``decode`` are judged on the reference's own input, so each answers for
itself; ``f0`` is the whole chain on the backend's own values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import parity
from .parity import NotComparable

# The stated rule (docs/measurement.md): another correct float32 implementation lands within a few
# times the reference's own rounding error.
FLOOR_FACTOR = 5.0
# A reference whose rounding exceeds this many times the limit is itself in doubt: it fails, and it
# raises no limit beyond this.
FLOOR_CAP = 10.0

Results = dict[str, np.ndarray]


class Judge:
    """Compares with one reference's results; call it per component and backend."""

    def __init__(self, limits: dict[str, float | None], threshold: float, reference: Results | None) -> None:
        self.limits, self.threshold, self.reference = limits, threshold, reference

    def __call__(self, component: str, results: Results, is_reference: bool) -> dict[str, Any]:
        """``status``, ``reason`` and ``parity`` of a record."""
        if self.reference is None:
            return {"status": "not_comparable", "reason": "the reference failed", "parity": None}
        if is_reference:
            return self._reference_itself(component)
        try:
            figures = getattr(self, f"_{component}")(results, self.reference)
        except NotComparable as error:
            return {"status": "failed", "reason": f"parity: {error}", "parity": None}
        broken = [name for name, check in figures["limits"].items() if not check["value"] <= check["limit"]]
        told = (f"{n} {figures['limits'][n]['value']:.3g} > {figures['limits'][n]['limit']:.3g}" for n in broken)
        return {"status": "failed" if broken else "passed", "reason": "; ".join(told) or None, "parity": figures}

    def _reference_itself(self, component: str) -> dict[str, Any]:
        """The reference passes where it is finite and close to its own float64 results."""
        assert self.reference is not None
        if not np.isfinite(self.reference[component]).all():
            return {"status": "failed", "reason": "the reference's result has NaN or infinite values", "parity": None}
        try:
            checks = getattr(self, f"_{component}")(self.reference, self.reference)["limits"]
        except NotComparable as error:
            return {"status": "failed", "reason": f"the reference beside float64: {error}", "parity": None}
        far = [n for n, c in checks.items() if n != "voicing_mismatches" and c["floor"] > FLOOR_CAP * c["base"]]
        told = (f"the reference is off from float64 by {checks[n]['floor']:.3g} ({n})" for n in far)
        return {"status": "failed" if far else "passed", "reason": "; ".join(told) or None, "parity": None}

    def _check(self, name: str, value: float, floor: float = 0.0) -> dict[str, Any]:
        """One figure and its limit, raised where the reference's own rounding exceeds it."""
        base = self.limits[name]
        if base is None:
            return {}
        counted = name == "voicing_mismatches"
        limit = base + floor if counted else max(base, FLOOR_FACTOR * min(floor, FLOOR_CAP * base))
        return {name: {"value": value, "limit": limit, "base": base, "floor": floor}}

    # ------------------------------------------------------------------ components
    def _mel(self, results: Results, reference: Results) -> dict[str, Any]:
        figures = parity.compare_mel(results["mel"], reference["mel"])
        floor = 0.0
        if "exact_mel" in reference:
            exact = parity.compare_mel(reference["mel"], reference["exact_mel"])
            floor, figures["floor_max_abs"] = exact["relative_max"], exact["max_abs"]
        return figures | {"limits": self._check("mel_relative", figures["relative_max"], floor)}

    def _network(self, results: Results, reference: Results) -> dict[str, Any]:
        figures = parity.compare(results["network"], reference["network"])
        return figures | {"limits": self._check("salience_max_abs", figures["max_abs"], self._network_floor(reference))}

    def _network_floor(self, reference: Results) -> float:
        if "exact_network" not in reference:
            return 0.0
        return float(parity.compare(reference["floor_network"], reference["exact_network"])["max_abs"])

    def _decode(self, results: Results, reference: Results) -> dict[str, Any]:
        figures = parity.compare_f0(results["decode"], reference["decode"])
        checks = self._check("voicing_mismatches", figures["voicing_mismatches"])
        return figures | {"limits": checks | self._check("f0_max_cents", figures["max_cents"])}

    def _f0(self, results: Results, reference: Results) -> dict[str, Any]:
        """The chain. Frames whose decision is closer to flipping than the salience error are
        counted on their own: they say nothing about the implementation."""
        salience = parity.compare(results["own_salience"], reference["own_salience"])
        figures = parity.compare_f0(results["f0"], reference["f0"])
        open_frames = parity.undecided_frames(reference["own_salience"], self.threshold, salience["max_abs"])
        decided = parity.compare_f0(results["f0"][~open_frames], reference["f0"][~open_frames])
        figures["undecided_frames"] = int(np.count_nonzero(open_frames))
        figures |= {f"salience_{name}": salience[name] for name in ("max_abs", "rmse", "snr_db", "corr")}
        floors = self._chain_floors(reference, open_frames)
        values = {"salience_max_abs": salience["max_abs"]}
        values |= {"voicing_mismatches": decided["voicing_mismatches"], "f0_max_cents": decided["max_cents"]}
        checks = [self._check(name, value, floors.get(name, 0.0)) for name, value in values.items()]
        return figures | {"limits": {name: check for found in checks for name, check in found.items()}}

    def _chain_floors(self, reference: Results, open_frames: np.ndarray) -> dict[str, float]:
        """The network's own rounding, plus what the mel's rounding does to the chain."""
        if "moved_salience" not in reference:
            return {}
        moved = parity.compare(reference["moved_salience"], reference["own_salience"])["max_abs"]
        decided = ~open_frames
        moved_f0 = parity.compare_f0(reference["moved_f0"][decided], reference["f0"][decided])
        decided = decided[: reference["exact_f0"].size]
        exact_f0 = parity.compare_f0(reference["floor_f0"][decided], reference["exact_f0"][decided])
        return {
            "salience_max_abs": self._network_floor(reference) + moved,
            "voicing_mismatches": exact_f0["voicing_mismatches"] + moved_f0["voicing_mismatches"],
            "f0_max_cents": exact_f0["max_cents"] + moved_f0["max_cents"],
        }
