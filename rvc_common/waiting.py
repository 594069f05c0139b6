"""What idle threads of OpenMP pools do, which a library reads once, when it is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

# OpenMP's own variable; whoever sets it has chosen for all pools
POLICY = "OMP_WAIT_POLICY"
# Threads that spin for long take the cores from whatever else runs, and threads that sleep at once are waked too
# late: between the products of a network, which follow within microseconds, they should spin, and no longer.
WAITING = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "200us"}
VARIABLES = (POLICY, *WAITING)


def set_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """To be called before a framework is imported; what is set already stays."""
    if POLICY not in environment:
        for name, value in WAITING.items():
            environment.setdefault(name, value)


def waiting(environment: Mapping[str, str]) -> str:
    """What is in effect there: ``NAME=value`` of each variable that is set."""
    return ", ".join(f"{name}={environment[name]}" for name in VARIABLES if name in environment)
