"""From a composed configuration to the cases of a run. Pure: no model, no clock, no file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from msgspec import UNSET

from ..base.backends import BACKENDS, is_port
from ..base.errors import UserError, nearest
from .config import AccuracyOptions, Config, MemoryOptions


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
    external: tuple[str, ...] = ()  # estimators, one record a case and component

    def having(self, component: str) -> list[str]:
        """The backends that have a component."""
        return [backend for backend in self.backends if (component, backend) not in self.absent]

    def expected(self) -> Iterator[tuple[str, str, str]]:
        """Every (case, component, backend) that must end with a record."""
        for case in self.cases:
            for component in self.components:
                for backend in self.having(component):
                    yield case.name, component, backend
                for name in self.external:
                    yield case.name, component, name


def requested_backends(config: Config) -> tuple[list[str], bool]:
    """Names, and whether the user asked for them (then each must exist)."""
    if config.backends is None:
        joined = {*config.ports, *getattr(config.suite, "peers", ())}
        return [name for name in BACKENDS if not is_port(name) or name in joined], False
    names = [config.backends] if isinstance(config.backends, str) else config.backends
    for name in names:
        if name not in BACKENDS:
            raise UserError(f"unknown backend {name!r}{nearest(str(name), BACKENDS)}")
    if not names:
        raise UserError("backends=[] leaves nothing to run")
    if all(map(is_port, names)):
        raise UserError(f"backends=[{','.join(names)}]: a port is measured beside one of ours; add torch_cpu")
    # ports last: what they are given is made by the others
    return sorted(dict.fromkeys(names), key=is_port), True


def cases(config: Config) -> tuple[Case, ...]:
    """The workloads: only the user's file, or the synthetic voice and the speech clip."""
    if config.audio is not None:
        return (Case("file", "file", None, config.audio),)
    durations = config.durations if isinstance(config.durations, list) else [config.durations]
    synthetic = [Case(f"synthetic-{s:g}s", "synthetic", float(s), None) for s in dict.fromkeys(durations)]
    if isinstance(config.suite, AccuracyOptions):
        longest = max(durations, default=0.0)
        synthetic = [Case(name, name, float(longest), None) for name in config.suite.conditions if longest]
    speech = [Case("speech", "speech", None, None)] if config.suite.speech_clip else []
    if not synthetic + speech:
        raise UserError("durations=[] leaves nothing to run")
    growth = config.suite.growth if isinstance(config.suite, MemoryOptions) else UNSET
    lengths = [Case("growth", "growth", growth.longest_s, None)] if growth is not UNSET else []
    return tuple(synthetic + speech + lengths)


def make_plan(config: Config, backends: list[str]) -> Plan:
    return Plan(config.suite.name, cases(config), tuple(config.suite.components), tuple(backends))
