"""Number formats of one model beside each other: a process of one backend for each, in turns, as backends would be."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from pathlib import Path

from ..definitions import SUITES
from ..definitions.base import TRAINED
from ..definitions.precision import FLOAT32, POLICIES, fidelity
from ..inputs.checkpoints import write_quantized
from ..inputs.weights import TRAINED_WEIGHTS
from ..metrics.parity import NotComparable
from .launch import Worker
from .outputs import MeasuredCase
from .session import Facts
from .timed import TimedCase


class PrecisionCase(MeasuredCase):
    """Every model of one case on every backend; one that cannot be measured leaves the others alone."""

    def execute(self) -> None:
        for model in dict.fromkeys(component.partition(".")[0] for component in self.plan.components):
            for backend in self.plan.backends:
                names = [f"{model}.{policy}" for policy in POLICIES]
                measured = [name for name in names if (name, backend) not in self.plan.absent]
                keys = {(self.case.name, name, backend) for name in measured}
                if not keys <= self.session.done.keys():
                    given = {field.name: getattr(self, field.name) for field in fields(self)}
                    sides = tuple(name.partition(".")[2] for name in measured)
                    Formats(**given, model=model, backend=backend, sides=sides).execute()


@dataclass(eq=False)
class Formats(TimedCase):
    """The policies ``sides`` take the place of backends."""

    model: str
    backend: str
    sides: tuple[str, ...]

    def __post_init__(self) -> None:
        self.session = copy.copy(self.session)
        self.session.suite = SUITES[self.model]
        assert self.session.suite.whole is not None
        self.call = self.session.suite.whole
        self.plan = self.plan._replace(components=(self.call,), backends=self.sides)
        super().__post_init__()
        self.reference = FLOAT32
        self.sizes: dict[str, int] = {}

    @property
    def title(self) -> str:
        return f"{self.case.name} {self.model} {self.backend}"

    # ------------------------------------------------------------------ what differs between the sides
    def new_worker(self, side: str) -> Worker:
        return self.session.start(self.backend, precision=POLICIES[side].precision)

    def load_request(self, worker: Worker, side: str) -> Facts:
        paths = {name: self._weights(name, name, side) for name in self.suite.checkpoints}
        self.sizes[side] = sum(map(size_of, paths.values()))
        return self.session.load_request(worker, self.model, paths={name: str(path) for name, path in paths.items()})

    def _weights(self, checkpoint: str, weights: str, side: str) -> Path:
        """The weights of a side: in fewer bits a file that is made once in a run."""
        path, bits = self.session.weights[weights].path, POLICIES[side].bits
        if bits is None:
            return path
        target = self.scratch / f"{weights}-q{bits}.safetensors"
        if not target.exists():
            write_quantized(path, target, checkpoint, bits, self.session.config.quantize.group)
        return target

    def ratio_reference(self, side: str) -> str | None:
        return FLOAT32 if side != FLOAT32 and FLOAT32 in self.alive() else None

    def record_key(self, component: str, side: str) -> tuple[str, str]:
        return f"{self.model}.{side}", self.backend

    def call_of(self, recorded: str) -> str:
        return self.call

    def share_inputs(self) -> None:
        """The whole call takes what the case has."""
        self.shared = self.given()
        for side in self.alive():
            with self.guard(side):
                self.workers[side].ask("prepare", self.timeout_s, inputs=self.shared)

    # ------------------------------------------------------------------ results
    def judge_outputs(self) -> None:
        self.keep_outputs(self.suite.extras)

    def add_trained(self) -> None:
        """Of the shipped pitch network, whose F0 means something; it takes the place of a synthetic one."""
        if not self.suite.trained_calls or TRAINED_WEIGHTS not in self.session.weights:
            return
        for side in self.alive():
            with self.guard(side):
                worker = self.workers[side]
                paths = {name: str(self._weights(name, TRAINED_WEIGHTS, side)) for name in self.suite.checkpoints}
                self.session.load(worker, self.model, paths=paths)
                worker.ask("prepare", self.timeout_s, inputs=self.given())
                for call in self.suite.trained_calls:
                    found = self.arrays(worker, call)
                    self.outputs[side] |= {f"{TRAINED}{name}": array for name, array in found.items()}

    # ------------------------------------------------------------------ records
    def close_records(self) -> None:
        for side in self.sides:
            component, backend = self.record_key(self.call, side)
            judged = {"status": "error", "reason": self.errors[side]} if side in self.errors else self._compared(side)
            facts = self.measured(self.call, side) | {"reference": backend, "parity": None}
            facts |= {"precision": POLICIES[side].precision, "weights_bytes": self.sizes.get(side)}
            self.session.record(self.case, component, backend, **facts, **judged)

    def _compared(self, side: str) -> Facts:
        """The verdict: whatever the error is, it is finite. A side is compared with float32, float32 with itself."""
        reference = self.outputs.get(FLOAT32)
        if reference is None:
            return {"status": "not_comparable", "reason": "float32 failed, which it is compared with"}
        rate = self.session.model_facts.get("sample_rate")
        try:
            figures = fidelity(self.model, self.outputs[side], reference, rate)
        except NotComparable as error:
            return {"status": "failed", "reason": f"fidelity: {error}"}
        return {"status": "passed", "reason": None, "fidelity": None if side == FLOAT32 else figures}

    def keep_files(self) -> None:
        return


def size_of(path: Path) -> int:
    """Bytes of a checkpoint; of a folder, of the files in it."""
    inside = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in inside if file.is_file())
