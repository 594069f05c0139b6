"""Which suites fill which sections of a document: each declares it in its own definition (``Suite.shows``)."""

from __future__ import annotations

from collections.abc import Mapping

from suites.definitions import SUITES
from suites.definitions.base import Suite

# section: the attributes that a suite with this section must define
SECTIONS: dict[str, tuple[str, ...]] = {
    "time": ("title", "about_time"),
    "roofline": (),
    "parity": ("parity_title", "about_parity", "details"),
    "pitch": (),
    "accuracy": (),
    "memory": (),
    "first_run": (),
    "ablation": (),
}


def check(suites: Mapping[str, Suite]) -> None:
    """Verify that every suite declares what a document needs to know of it.

    Raises:
        TypeError: a suite has no ``shows`` of its own, names an unknown section, or lacks an attribute.
    """
    for name, suite in suites.items():
        if "shows" not in vars(type(suite)):
            raise TypeError(f"suite {name!r}: its class declares no sections (`shows`)")
        for section in suite.shows:
            if section not in SECTIONS:
                raise TypeError(f"suite {name!r}: unknown section {section!r}; known: {', '.join(SECTIONS)}")
            for attribute in SECTIONS[section]:
                if not hasattr(suite, attribute):
                    raise TypeError(f"suite {name!r}: shows {section!r}, which needs the attribute `{attribute}`")


def suites_with(section: str) -> list[str]:
    """Names of the suites that fill this section, in the order of ``SUITES``.

    Raises:
        KeyError: no such section.
    """
    SECTIONS[section]
    return [name for name, suite in SUITES.items() if section in suite.shows]


check(SUITES)
