"""The figure on a report's first screen: speed-ups of whole calls, or of one run's parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from suites.base.speed import Estimate

from ..data.frame import Book, RunData
from .style import STYLES, WIDTH, legend_below, mark, reach
from .times import ratio_axis, sweep
from .words import audio_of, times

TITLE = "Speed-up over PyTorch on the same device (above 1: faster)"


def answer(book: Book) -> Figure | None:
    """A row per component of a single run, or per run's whole call; on the longest synthetic case."""
    runs = book.having("time")
    rows: list[tuple[str, list[tuple[str, str, Estimate]]]] = []
    for run in runs:
        components = run.components if len(book.runs) == 1 else [run.suite.whole or ""]
        for component in components:
            found = list(_gains(run, component))
            name = component if len(book.runs) == 1 else " ".join(filter(None, [run.name, run.setting]))
            rows += [(name, found)] if found else []
    if not rows:
        return None
    figure, axis = plt.subplots(figsize=(WIDTH, 1.1 + 0.22 * len(rows)), layout="constrained")
    for y, (name, found) in enumerate(rows):
        for backend, label, gain in found:
            colour, marker = STYLES[backend]
            look: Any = {"color": colour, "marker": marker, "ls": "", "ms": 5, "capsize": 2.5, "label": label}
            axis.errorbar(gain.value, y, xerr=reach(gain.low, gain.value, gain.high), **look)
            mark(axis, gain.value, y, f"{label}, {name}: {times(gain)}")
    axis.set_yticks(range(len(rows)), [name for name, _ in rows])
    axis.set(xscale="log", ylim=(len(rows) - 0.5, -0.5))
    ratio_axis(axis)
    legend_below(figure, [axis])
    figure.suptitle(f"{TITLE}, {audio_of(runs[0], sweep(runs[0])[-1])}" if len(book.runs) == 1 else TITLE)
    return figure


def _gains(run: RunData, component: str) -> Iterator[tuple[str, str, Estimate]]:
    case = sweep(run)[-1]
    for backend in run.backends:
        gain = run.speedup(case, component, backend)
        if gain:
            yield backend, f"{backend} over {run.speed_reference(backend)}", gain
