"""From a composed configuration to the cases of a run. Pure: no model, no clock, no file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..base.backends import BACKENDS
from ..base.errors import UserError, nearest


class Case(NamedTuple):
    """One workload that every backend runs. ``seconds``: None where the file decides."""

    name: str
    kind: str  # synthetic, speech, file, or a condition of the test set
    seconds: float | None
    path: str | None


class Plan(NamedTuple):
    suite: str
    cases: tuple[Case, ...]
    components: tuple[str, ...]
    backends: tuple[str, ...]
    absent: frozenset[tuple[str, str]] = frozenset()  # components that a backend does not have
    beside: tuple[str, ...] = ()  # estimators, one record a case and component

    def expected(self) -> Iterator[tuple[str, str, str]]:
        """Every (case, component, backend) that must end with a record."""
        for case in self.cases:
            for component in self.components:
                for backend in self.backends:
                    if (component, backend) not in self.absent:
                        yield case.name, component, backend
                for name in self.beside:
                    yield case.name, component, name


def requested_backends(config: dict[str, Any]) -> tuple[list[str], bool]:
    """Names, and whether the user asked for them (then each must exist)."""
    asked = config["backends"]
    if asked is None:
        return list(BACKENDS), False
    names = [asked] if isinstance(asked, str) else list(asked)
    for name in names:
        if name not in BACKENDS:
            raise UserError(f"unknown backend {name!r}{nearest(str(name), BACKENDS)}")
    if not names:
        raise UserError("backends=[] leaves nothing to run")
    return list(dict.fromkeys(names)), True


def cases(config: dict[str, Any]) -> tuple[Case, ...]:
    """The workloads: the user's file alone, or the synthetic voice and the speech clip."""
    if config["audio"] is not None:
        return (Case("file", "file", None, str(config["audio"])),)
    asked = config["durations"]
    durations = [asked] if isinstance(asked, int | float) else list(asked)
    for seconds in durations:
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0.16 <= seconds <= 14400:
            raise UserError(f"durations: {seconds!r} is not a number of seconds from 0.16 to 14400")
    synthetic = [Case(f"synthetic-{s:g}s", "synthetic", float(s), None) for s in dict.fromkeys(durations)]
    if "conditions" in config["suite"]:
        longest = max(durations, default=0.0)
        synthetic = [Case(name, name, float(longest), None) for name in config["suite"]["conditions"] if longest]
    speech = [Case("speech", "speech", None, None)] if config["suite"]["speech_clip"] else []
    if not synthetic + speech:
        raise UserError("durations=[] leaves nothing to run")
    growth = config["suite"].get("growth")
    lengths = [Case("growth", "growth", float(growth["longest_s"]), None)] if growth else []
    return tuple(synthetic + speech + lengths)


def make_plan(config: dict[str, Any], backends: list[str]) -> Plan:
    suite = config["suite"]
    return Plan(suite["name"], cases(config), tuple(suite["components"]), tuple(backends))
