"""One optimisation on and off: two processes of the same backend, in turns, as two backends would be."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields

import msgspec
import numpy as np

from rvc_mlx.optimize import OPTIMIZATIONS

from ..definitions import SUITES
from ..definitions.config import AblationOptions
from ..definitions.single import BLAS, EVERYTHING, MEL, OFF, ON, SHOWN
from ..metrics import parity
from .launch import Worker
from .outputs import MeasuredCase
from .session import Facts
from .timed import TimedCase

REFERENCE_BLAS = {"RVC_MLX_BLAS": "reference"}


class AblationCase(MeasuredCase):
    """Every optimisation of one case, one after another; one that cannot be measured leaves the others alone."""

    def execute(self) -> None:
        for component in self.plan.components:
            name, _, side = component.rpartition(".")
            for backend in self.plan.backends:
                keys = {(self.case.name, f"{name}.{s}", backend) for s in (ON, OFF)}
                present = (component, backend) not in self.plan.absent
                if side == ON and present and not keys <= self.session.done.keys():
                    given = {field.name: getattr(self, field.name) for field in fields(self)}
                    Pair(**given, name=name, backend=backend).execute()


@dataclass(eq=False)
class Pair(TimedCase):
    """The sides ``on`` and ``off`` take the place of backends."""

    name: str
    backend: str

    def __post_init__(self) -> None:
        self.model, _, self.optimisation = self.name.partition(".")
        self.loads = "rmvpe" if self.model == MEL else self.model
        self.call = "mel" if self.model == MEL else SHOWN[self.model]
        measure = msgspec.structs.replace(self.session.measure, first_calls=0)
        self.session = copy.copy(self.session)
        self.session.suite, self.session.measure = SUITES[self.loads], measure
        self.plan = self.plan._replace(components=(self.call,), backends=(ON, OFF))
        super().__post_init__()
        self.reference = OFF
        self.optimize: dict[str, list[str]] = {}

    @property
    def title(self) -> str:
        return f"{self.case.name} {self.name}"

    # ------------------------------------------------------------------ what differs between the sides
    def new_worker(self, side: str) -> Worker:
        reference = self.optimisation == BLAS and side == OFF
        return self.session.start(self.backend, REFERENCE_BLAS if reference else None)

    def load_request(self, worker: Worker, side: str) -> Facts:
        return self.session.load_request(worker, self.loads, self._wanted(side))

    def loaded(self, side: str, facts: Facts) -> None:
        self.optimize[side] = facts["facts"]["optimize"]
        if self.model == MEL and side == OFF:
            self.workers[side].ask("librosa_mel", self.timeout_s)

    def _wanted(self, side: str) -> list[str]:
        """The optimisations of a side: with this one or without; of the others all or none (``suite.rest``)."""
        names = list(OPTIMIZATIONS)
        if self.optimisation == EVERYTHING:
            return names if side == ON else []
        if self.optimisation not in names:
            return names
        options = self.session.config.suite
        assert isinstance(options, AblationOptions)
        others = [name for name in names if name != self.optimisation and options.rest == "all"]
        return [*others, self.optimisation] if side == ON else others

    def ratio_reference(self, side: str) -> str | None:
        return OFF if side == ON and OFF in self.alive() else None

    def record_key(self, component: str, side: str) -> tuple[str, str]:
        return f"{self.name}.{side}", self.backend

    def call_of(self, recorded: str) -> str:
        return self.call

    def share_inputs(self) -> None:
        """The network takes the mel that the plain side makes; the others take what the case has."""
        given = self.given()
        if self.shared is None and self.call == "network" and OFF in self.alive():
            with self.guard(OFF):
                np.save(self.files["mel"], self.arrays(self.workers[OFF], "mel")["mel"])
        if self.call == "network":
            given["mel"] = self.files["mel"]
        self.shared = given
        for side in self.alive():
            with self.guard(side):
                self.workers[side].ask("prepare", self.timeout_s, inputs=given)

    def keep_outputs(self, calls: tuple[str, ...]) -> None:
        super().keep_outputs(tuple(call for call in calls if call == self.call))

    def add_rounding(self) -> None:
        return

    # ------------------------------------------------------------------ records
    def close_records(self) -> None:
        for side in (ON, OFF):
            judged: Facts = {"status": "passed", "reason": None, "parity": None}
            if side in self.errors:
                judged = {"status": "error", "reason": self.errors[side], "parity": None}
            elif side == ON and OFF in self.outputs:
                judged = self._compared()
            facts = self.measured(self.call, side)
            facts |= {"reference": self.backend, "optimize": self.optimize.get(side, [])}
            component, backend = self.record_key(self.call, side)
            self.session.record(self.case, component, backend, **facts, **judged)

    def _compared(self) -> Facts:
        ours, theirs = (self.outputs[side][self.call] for side in (ON, OFF))
        try:
            figures = parity.compare(ours, theirs)
        except parity.NotComparable as error:
            return {"status": "failed", "reason": f"parity: {error}", "parity": None}
        relative = parity.relative(figures, theirs)
        return {"status": "passed", "reason": None, "parity": figures | {"relative": relative, "limits": {}}}

    def keep_files(self) -> None:
        return
