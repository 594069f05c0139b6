"""The suites by name: every module of this package that defines one is found, in the order that they declare.

A new suite is a module here, or in a plugin, and a file in ``conf/suite``; nothing else lists it.
"""

import importlib
import pkgutil
from typing import NamedTuple

from ..base import plugins
from .base import DECLARED, SECTIONS, Suite

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
plugins.load()

SUITES: dict[str, Suite] = {one.name: one() for one in sorted(DECLARED.values(), key=lambda one: (one.order, one.name))}
# those of ``run all``, and those whose models ``trace`` walks
CONFIGURED = tuple(name for name, one in SUITES.items() if one.order < Suite.order)
TRACED = tuple(name for name in CONFIGURED if SUITES[name].validated)


def with_section(section: str) -> tuple[str, ...]:
    """The suites whose runs have this section in a report. Raises ``KeyError``: there is no such section."""
    SECTIONS[section]
    return tuple(name for name, one in SUITES.items() if section in one.sections)


class Step(NamedTuple):
    """One run of a suite, or a trace of a model, within ``run all``. ``kind``: ``run`` or ``trace``."""

    kind: str
    name: str

    @property
    def folder(self) -> str:
        return self.name if self.kind == "run" else f"trace-{self.name}"


def steps() -> list[Step]:
    """What ``run all`` does: every suite, then a trace of every model, each in a folder of its own."""
    return [*(Step("run", name) for name in CONFIGURED), *(Step("trace", name) for name in TRACED)]
