"""The suites by name: every module of this package that defines one is found, in the order that they declare.

A new suite is a module here and a file in ``conf/suite``; nothing else lists it.
"""

import importlib
import pkgutil

from .base import DECLARED, Suite

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

SUITES: dict[str, Suite] = {one.name: one() for one in sorted(DECLARED.values(), key=lambda one: (one.order, one.name))}
# those of ``run all``, and those whose models ``trace`` walks
CONFIGURED = tuple(name for name, one in SUITES.items() if one.order < Suite.order)
TRACED = tuple(name for name in CONFIGURED if SUITES[name].validated)


def with_section(section: str) -> tuple[str, ...]:
    """The suites whose runs have this section in a report."""
    return tuple(name for name in CONFIGURED if section in SUITES[name].sections)
