"""The figure of the distribution of single samples."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suites.base.lines import Line

from ..data.frame import RunData, launches_of
from .pictures import split
from .style import INK, STYLES, WIDTH, legend_below, mark, panels
from .words import audio_of, seconds, short, shown_of, some, titled

# rows of one panel; samples that make a distribution; how many rows all panels together may have
MOST_ROWS, LEAST_SAMPLES = 12, 5
# per cent: the least range of an axis, and its largest end; samples beyond it are drawn at the edge
NEAR, MOST = (85.0, 115.0), 250.0
# vertical jitter by multiples of the golden ratio, which never coincide
GOLDEN = 0.6180339887


def samples(data: RunData) -> Figure | None:
    """Every sample as percent of its record's median, a row per component and backend; launches are separate."""
    cases = some(data.cases)
    found = [(case, lines) for case in cases for lines in _panels(data, case)]
    if not found:
        return None
    rows = max(len(lines) for _, lines in found)
    figure, axes = panels(len(found), 0.24 * rows + 0.75, 2, WIDTH / 2 if len(found) > 1 else WIDTH)
    for axis, (case, lines) in zip(axes, found, strict=True):
        _draw(axis, data, lines)
        axis.set_title(short(case), fontsize=9.5)
    legend_below(figure, axes)
    what = f"samples about their median{shown_of(cases, data.cases)}; each row of points is a process launch"
    figure.suptitle(titled(data, f"{data.name}: {what}"))
    return figure


def _panels(data: RunData, case: str) -> list[Sequence[Line]]:
    """A case's records in as few panels as hold them, of about the same length."""
    known = [data.find(case, c, b) for c in data.components for b in data.backends]
    lines = [line for line in known if line and len(line.get("samples_s") or ()) >= LEAST_SAMPLES]
    return split(lines, MOST_ROWS)


def _draw(axis: Axes, data: RunData, lines: Sequence[Line]) -> None:
    shares = [100 * np.array(line["samples_s"]) / median(line["samples_s"]) for line in lines]
    times = np.concatenate(shares)
    low = min(NEAR[0], times.min() - 2)
    high = min(max(NEAR[1], 1.05 * np.quantile(times, 0.99)), MOST)
    axis.axvline(100, color=INK, lw=0.8)
    for backend in dict.fromkeys(line["backend"] for line in lines):
        colour, marker = STYLES[backend]
        axis.plot([], [], color=colour, marker=marker, ms=4, mew=0, ls="", label=backend)
    for y, (line, share) in enumerate(zip(lines, shares, strict=True)):
        _row(axis, data, line, share, y, high)
    names = [f"{line['component']}, {line['backend']}" for line in lines]
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(xlim=(low, high + 0.02 * (high - low)), ylim=(len(names) - 0.4, -0.6), xlabel="time (% of the median)")


def _row(axis: Axes, data: RunData, line: Line, share: np.ndarray, y: int, high: float) -> None:
    colour, marker = STYLES[line["backend"]]
    launches = np.array(launches_of(line))
    order = list(dict.fromkeys(launches.tolist()))
    for k, launch in enumerate(order):
        own = share[launches == launch]
        middle = y + (0.0 if len(order) == 1 else 0.52 * (k / (len(order) - 1) - 0.5))
        height = middle + 0.3 / len(order) * ((np.arange(own.size) * GOLDEN) % 1 - 0.5)
        inside = own <= high
        shade: Any = {"color": colour, "alpha": 0.9 if k % 2 else 0.5, "ls": "", "mew": 0}
        axis.plot(own[inside], height[inside], marker=marker, ms=2.8, **shade)
        if not inside.all():
            beyond: Any = {"color": INK, "ls": "", "marker": "4", "ms": 6}
            axis.plot(np.full((~inside).sum(), high), height[~inside], **beyond, label="off the axis")
        typical = float(np.median(own))
        axis.plot(min(typical, high), middle, ls="", marker="|", ms=5, mew=1.2, color=INK, label="launch's median")
        middle_text = f"{seconds(typical / 100 * median(line['samples_s']))}, {typical:.3g} % of the record's"
        of = f"{line['backend']}, {line['component']}, {audio_of(data, line['case'])}"
        many = f"{own.size} sample" + ("s" if own.size > 1 else "")
        ends = f"from {own.min():.3g} to {own.max():.3g} %"
        mark(axis, min(typical, high), middle, f"{of}, launch {k + 1}: median of {many} {middle_text}, {ends}")
