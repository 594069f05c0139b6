"""Work of a known size, for `selftest known`: it shows how well the harness measures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from .base import Calls, Results, Settings, Suite

SLEEP_S = 0.02
NOTHING = np.zeros(1)


class Known(Suite):
    """``settings``: the ``turns`` of the loop that ``work`` runs, ``twice`` runs it twice, and the ``bytes`` that
    ``allocate`` fills."""

    name = "known"
    title = "Work of a known size"
    subject = "work of a known size"
    sections = ()
    whole = "allocate"
    checkpoints = ()
    about_time = about_parity = ""
    judged = ()
    details = ()

    def load(self, package: ModuleType, paths: Mapping[str, str], options: dict[str, Any], settings: Settings) -> None:
        return None

    def facts(self, model: Any) -> dict[str, Any]:
        return {}

    def models(self, model: Any) -> tuple[Any, ...]:
        return ()

    def calls(self, model: Any, given: Results, settings: Settings) -> Calls:
        turns, count = settings["turns"], settings["bytes"]
        return {
            "nothing": lambda: NOTHING,
            "sleep": _sleep,
            "work": lambda: _work(turns),
            "twice": lambda: _work(2 * turns),
            "allocate": lambda: np.ones(count, np.uint8)[:1].copy(),
        }


def _sleep() -> np.ndarray:
    time.sleep(SLEEP_S)
    return NOTHING


def _work(turns: int) -> np.ndarray:
    total = 0
    for i in range(turns):
        total += i
    return NOTHING
