"""One optimisation on and off: two processes of the same backend, in turns, as two backends would be."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from rvc_mlx.optimize import OPTIMIZATIONS

from ..definitions import SUITES
from ..definitions.plan import Case, Plan
from ..definitions.single import BLAS, EVERYTHING, MEL, OFF, ON, SHOWN
from ..inputs.recordings import Audio
from ..metrics import parity
from .launch import Worker
from .timed import CaseRun, Facts

REFERENCE_BLAS = {"RVC_MLX_BLAS": "reference"}


class AblationRun:
    """Every optimisation of one case, one after another; one that cannot be measured leaves the others alone."""

    def __init__(self, run: Any, case: Case, audio: Audio, plan: Plan, scratch: Path, told: Any) -> None:
        self.given = (run, case, audio, plan, scratch, told)

    def execute(self) -> None:
        run, case, _, plan, _, _ = self.given
        for component in plan.components:
            name, _, side = component.rpartition(".")
            for backend in plan.backends:
                keys = {(case.name, f"{name}.{s}", backend) for s in (ON, OFF)}
                if side == ON and (component, backend) not in plan.absent and not keys <= run.done.keys():
                    Pair(*self.given, name, backend).execute()


class Pair(CaseRun):
    """The sides ``on`` and ``off`` take the place of backends."""

    def __init__(
        self, run: Any, case: Case, audio: Audio, plan: Plan, scratch: Path, told: Any, name: str, backend: str
    ) -> None:
        self.name, self.backend = name, backend
        self.model, _, self.optimisation = name.partition(".")
        suite = SUITES["rmvpe" if self.model == MEL else self.model]
        call = "mel" if self.model == MEL else SHOWN[self.model]
        own = copy.copy(run)
        own.suite, own.measure = suite, {**run.measure, "first_calls": 0}
        super().__init__(own, case, audio, plan._replace(components=(call,), backends=(ON, OFF)), scratch, told)
        self.call = call
        self.reference = OFF
        self.optimize: dict[str, list[str]] = {}

    # ------------------------------------------------------------------ what differs between the sides
    def _worker(self, side: str) -> Worker:
        reference = self.optimisation == BLAS and side == OFF
        return self.run.start(self.backend, REFERENCE_BLAS if reference else None)

    def _load(self, worker: Worker, side: str) -> Facts:
        suite = "rmvpe" if self.model == MEL else self.model
        loaded = self.run.load(worker, suite, self._wish(side))
        self.optimize[side] = loaded["facts"]["optimize"]
        if self.model == MEL and side == OFF:
            worker.ask("librosa_mel", self.timeout_s)
        return loaded

    def _wish(self, side: str) -> list[str]:
        """With this one, and without; of the others all, or none (``suite.rest``)."""
        names = list(OPTIMIZATIONS)
        if self.optimisation == EVERYTHING:
            return names if side == ON else []
        if self.optimisation not in names:
            return names
        others = [n for n in names if n != self.optimisation and self.run.config["suite"]["rest"] == "all"]
        return [*others, self.optimisation] if side == ON else others

    def _beside(self, side: str) -> str | None:
        return OFF if side == ON and OFF in self._alive() else None

    def _key(self, component: str, side: str) -> tuple[str, str]:
        return f"{self.name}.{side}", self.backend

    def _call_of(self, recorded: str) -> str:
        return self.call

    def _shared_inputs(self) -> None:
        """The network takes the mel that the plain side makes; the others take what the case has."""
        given = self._given()
        if self.shared is None and self.call == "network" and OFF in self._alive():
            with self._guard(OFF):
                np.save(self.files["mel"], self._fetch(OFF, "mel")["mel"])
        if self.call == "network":
            given["mel"] = self.files["mel"]
        self.shared = given
        for side in self._alive():
            with self._guard(side):
                self.workers[side].ask("prepare", self.timeout_s, inputs=given)

    def _keep_outputs(self, calls: tuple[str, ...]) -> None:
        super()._keep_outputs(tuple(call for call in calls if call == self.call))

    def _add_rounding(self) -> None:
        return

    # ------------------------------------------------------------------ records
    def _close_records(self) -> None:
        for side in (ON, OFF):
            judged: Facts = {"status": "passed", "reason": None, "parity": None}
            if side in self.errors:
                judged = {"status": "error", "reason": self.errors[side], "parity": None}
            elif side == ON and OFF in self.outputs:
                judged = self._compared()
            facts = self._measured(self.call, side)
            facts |= {"reference": self.backend, "optimize": self.optimize.get(side, [])}
            component, backend = self._key(self.call, side)
            self.run.record(self.case, component, backend, **facts, **judged)

    def _compared(self) -> Facts:
        """How far the optimisation moves the result."""
        ours, theirs = (self.outputs[side][self.call] for side in (ON, OFF))
        try:
            figures = parity.compare(ours, theirs)
        except parity.NotComparable as error:
            return {"status": "failed", "reason": f"parity: {error}", "parity": None}
        relative = parity.relative(figures, theirs)
        return {"status": "passed", "reason": None, "parity": figures | {"relative": relative, "limits": {}}}

    def _keep_contours(self, outputs: Any) -> None:
        return

    def _keep_sound(self, outputs: Any) -> None:
        return
