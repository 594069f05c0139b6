"""What ``run all`` does: every suite, then a trace of every model, each in a folder of its own."""

from __future__ import annotations

from typing import NamedTuple

from . import SUITES

# the suite of the self-test fills no section of any document
SUITES_IN_ORDER = tuple(name for name, suite in SUITES.items() if suite.shows)
TRACES = ("rmvpe", "hubert", "synthesizer", "pipeline")


class Step(NamedTuple):
    """One run of a suite, or a trace of a model. ``kind``: ``run`` or ``trace``."""

    kind: str
    name: str

    @property
    def folder(self) -> str:
        return self.name if self.kind == "run" else f"trace-{self.name}"


def steps() -> list[Step]:
    return [*(Step("run", name) for name in SUITES_IN_ORDER), *(Step("trace", name) for name in TRACES)]
