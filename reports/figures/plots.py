"""The figures of a run: what there can be, and their files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ..data.frame import RunData
from . import ablation as ablation_figures
from . import accuracy as accuracy_figures
from . import breakdown as breakdown_figures
from . import phases as phases_figures
from . import roofline as roofline_figures
from . import samples as samples_figures
from . import sound as sound_figures
from . import times as times_figures
from .style import RC, save
from .words import some

Draw = Callable[[], Figure | None]

OF_PROTOCOL: dict[str, dict[str, Callable[[RunData], Figure | None]]] = {
    "timed": {
        "time": times_figures.time,
        "speedup": times_figures.speedup,
        "breakdown": breakdown_figures.breakdown,
        "memory": phases_figures.memory,
        "samples": samples_figures.samples,
        "roofline": roofline_figures.roofline,
    },
    "memory": {"memory": phases_figures.memory, "growth": phases_figures.growth},
    "cold_start": {"first": phases_figures.first},
    "accuracy": {"accuracy": accuracy_figures.accuracy, "voicing": accuracy_figures.voicing},
    "ablation": {"ablation": ablation_figures.ablation, "waterfall": ablation_figures.waterfall},
}
# of every case of a timed run
OF_CASE = {"f0": sound_figures.f0, "spectra": sound_figures.spectra}


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
