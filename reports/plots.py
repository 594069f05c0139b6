"""The figures of a run: what there can be, and their files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from . import (
    plots_ablation,
    plots_accuracy,
    plots_breakdown,
    plots_phases,
    plots_roofline,
    plots_samples,
    plots_sound,
    plots_times,
)
from .frame import RunData
from .plots_words import some
from .style import RC, save

Draw = Callable[[], Figure | None]

OF_PROTOCOL: dict[str, dict[str, Callable[[RunData], Figure | None]]] = {
    "timed": {
        "time": plots_times.time,
        "speedup": plots_times.speedup,
        "breakdown": plots_breakdown.breakdown,
        "memory": plots_phases.memory,
        "samples": plots_samples.samples,
        "roofline": plots_roofline.roofline,
    },
    "memory": {"memory": plots_phases.memory, "growth": plots_phases.growth},
    "cold_start": {"first": plots_phases.first},
    "accuracy": {"accuracy": plots_accuracy.accuracy, "voicing": plots_accuracy.voicing},
    "ablation": {"ablation": plots_ablation.ablation, "waterfall": plots_ablation.waterfall},
}
# of every case of a timed run
OF_CASE = {"f0": plots_sound.f0, "spectra": plots_sound.spectra}


def figures(data: RunData) -> dict[str, Draw]:
    """By file name everything that a run of this protocol can have; a call gives None where the records lack it."""
    found: dict[str, Draw] = {name: partial(draw, data) for name, draw in OF_PROTOCOL[data.suite.protocol].items()}
    for kind, draw in OF_CASE.items() if data.suite.protocol == "timed" else ():
        found |= {f"{kind}-{case}": partial(draw, data, case) for case in some(data.cases)}
    return found


def draw(job: Draw, path: Path) -> str | None:
    """Write the PNG, and return the SVG; None where the records lack it. The same records give the same bytes."""
    with plt.rc_context(RC):
        figure = job()
        return None if figure is None else save(figure, path)
