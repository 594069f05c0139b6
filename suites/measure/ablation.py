"""One optimisation on and off: two processes of the same backend, in turns, as two backends would be."""

from __future__ import annotations

import copy
from pathlib import Path

import msgspec
import numpy as np

from rvc_mlx.optimize import OPTIMIZATIONS

from ..definitions import SUITES
from ..definitions.config import AblationOptions
from ..definitions.plan import Case, Plan
from ..definitions.single import BLAS, EVERYTHING, MEL, OFF, ON, SHOWN
from ..inputs.recordings import Audio
from ..metrics import parity
from .launch import Worker
from .outputs import Progress
from .session import Facts, Session
from .timed import TimedCase

REFERENCE_BLAS = {"RVC_MLX_BLAS": "reference"}


class AblationCase:
    """Every optimisation of one case, one after another; one that cannot be measured leaves the others alone."""

    def __init__(
        self, session: Session, case: Case, audio: Audio, plan: Plan, scratch: Path, progress: Progress
    ) -> None:
        self.arguments = (session, case, audio, plan, scratch, progress)

    def execute(self) -> None:
        session, case, _, plan, _, _ = self.arguments
        for component in plan.components:
            name, _, side = component.rpartition(".")
            for backend in plan.backends:
                keys = {(case.name, f"{name}.{s}", backend) for s in (ON, OFF)}
                if side == ON and (component, backend) not in plan.absent and not keys <= session.done.keys():
                    Pair(*self.arguments, name, backend).execute()


class Pair(TimedCase):
    """The sides ``on`` and ``off`` take the place of backends."""

    def __init__(
        self,
        session: Session,
        case: Case,
        audio: Audio,
        plan: Plan,
        scratch: Path,
        progress: Progress,
        name: str,
        backend: str,
    ) -> None:
        self.name, self.backend = name, backend
        self.model, _, self.optimisation = name.partition(".")
        suite = SUITES["rmvpe" if self.model == MEL else self.model]
        call = "mel" if self.model == MEL else SHOWN[self.model]
        own = copy.copy(session)
        own.suite, own.measure = suite, msgspec.structs.replace(session.measure, first_calls=0)
        super().__init__(own, case, audio, plan._replace(components=(call,), backends=(ON, OFF)), scratch, progress)
        self.call = call
        self.reference = OFF
        self.optimize: dict[str, list[str]] = {}

    # ------------------------------------------------------------------ what differs between the sides
    def new_worker(self, side: str) -> Worker:
        reference = self.optimisation == BLAS and side == OFF
        return self.session.start(self.backend, REFERENCE_BLAS if reference else None)

    def load_model(self, worker: Worker, side: str) -> Facts:
        suite = "rmvpe" if self.model == MEL else self.model
        loaded = self.session.load(worker, suite, self._wanted(side))
        self.optimize[side] = loaded["facts"]["optimize"]
        if self.model == MEL and side == OFF:
            worker.ask("librosa_mel", self.timeout_s)
        return loaded

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
                np.save(self.files["mel"], self.fetch(OFF, "mel")["mel"])
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
        """How far the optimisation moves the result."""
        ours, theirs = (self.outputs[side][self.call] for side in (ON, OFF))
        try:
            figures = parity.compare(ours, theirs)
        except parity.NotComparable as error:
            return {"status": "failed", "reason": f"parity: {error}", "parity": None}
        relative = parity.relative(figures, theirs)
        return {"status": "passed", "reason": None, "parity": figures | {"relative": relative, "limits": {}}}

    def keep_contours(self) -> None:
        return

    def keep_audio(self) -> None:
        return
