"""Figures of changes: ratios of one run to another as a forest plot, and metrics over many runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .style import INK, PAPER, STYLES, mark, one_two_five, panels, plain_numbers

MOST_ROWS = 35  # of one forest plot
MOST_PANELS = 12  # of one figure over runs
MOST_LABELS = 3.7  # of runs below one panel
# least ratio of an axis' ends, so that noise does not look like a change
LEAST_SPAN = 1.3
WORSE, BETTER = "#B00020", "#117733"
# verdict: colour, marker, line
CALLED: dict[str, tuple[str, str, str]] = {
    "slower": (WORSE, "^", "-"),
    "bigger": (WORSE, "^", "-"),
    "less accurate": (WORSE, "s", "-"),
    "implausible": (INK, "X", ":"),
    "faster": (BETTER, "v", "--"),
    "smaller": (BETTER, "v", "--"),
}
OTHERWISE = (WORSE, "s", "-")


# ---------------------------------------------------------------------- of two runs
class Ratio(NamedTuple):
    """One row of a forest plot. ``limits``: ratios from which on a change is called; ``called``: whether it is."""

    group: str
    label: str
    value: float
    low: float | None
    high: float | None
    limits: tuple[float, ...]
    called: bool
    verdict: str
    text: str


def forest(rows: Sequence[Ratio], which: str, *, span: tuple[float, float], title: str, xlabel: str) -> Figure:
    """A row per ratio, grouped by backend. ``span``: the limits of the axis; ``which``: the end of the title."""
    lines: list[Ratio | str] = []
    for i, row in enumerate(rows):
        if i == 0 or rows[i - 1].group != row.group:
            lines.append(row.group)
        lines.append(row)
    figure, axis = plt.subplots(figsize=(7.6, 1.5 + 0.215 * len(lines)), layout="constrained")
    axis.set(xscale="log", xlim=span, ylim=(len(lines) - 0.4, -0.6), xlabel=xlabel)
    axis.axvline(1.0, color=INK, lw=1)
    for y, line in enumerate(lines):
        if not isinstance(line, str):
            _ratio(axis, y, line)
    axis.set_yticks(range(len(lines)), [line if isinstance(line, str) else line.label for line in lines], fontsize=8)
    for name, line in zip(axis.get_yticklabels(), lines, strict=True):
        name.set_fontweight("bold" if isinstance(line, str) else "normal")
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
    plain_numbers(axis.xaxis, one_two_five(*span, most=8))
    figure.suptitle(title + which)
    figure.legend(handles=_forest_legend(rows), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _ratio(axis: Axes, y: int, row: Ratio) -> None:
    colour, marker = STYLES.get(row.group, (INK, "o"))
    if row.limits:
        axis.plot(row.limits, [y] * len(row.limits), ls="", marker="|", ms=8, mew=1.2, color=INK, alpha=0.45)
    if row.low is not None and row.high is not None:
        axis.plot((row.low, row.high), (y, y), color=colour, lw=1.6, solid_capstyle="butt")
    axis.plot(row.value, y, marker=marker, ms=6, color=colour, mfc=colour if row.called else PAPER)
    label = f"{row.value:.2f}×" if row.verdict == "passed" else f"{row.value:.2f}×  {row.verdict}"
    weight = "bold" if row.called else "normal"
    axis.text(1.015, y, label, transform=axis.get_yaxis_transform(), va="center", fontsize=7.5, fontweight=weight)
    mark(axis, row.value, y, row.text)


def _forest_legend(rows: Sequence[Ratio]) -> list[Line2D]:
    style: Any = {"color": INK, "marker": "o", "ms": 6}
    found = [Line2D([], [], ls="", label="called a change", **style)]
    interval = any(row.low is not None for row in rows)
    name = "not called, with 95 % interval" if interval else "not called"
    found.append(Line2D([], [], ls="-" if interval else "", mfc=PAPER, label=name, **style))
    if any(row.limits for row in rows):
        limit: Any = {"color": INK, "alpha": 0.45, "ls": "", "marker": "|", "ms": 8, "mew": 1.2}
        found.append(Line2D([], [], label="called from here on" + (", if certain" if interval else ""), **limit))
    return found


def span_of(rows: Sequence[Ratio]) -> tuple[float, float]:
    """Limits of a ratio axis: all values and limits fit, but not an interval that is far wider."""
    values = [row.value for row in rows] + [x for row in rows for x in row.limits] + [0.9, 1.1]
    low, high = min(values), max(values)
    reach = max(high / low, 1.5)
    low = max(min([low, *(r.low for r in rows if r.low is not None)]), low / reach)
    high = min(max([high, *(r.high for r in rows if r.high is not None)]), high * reach)
    return max(low, 1e-6) / 1.03, high * 1.03


# ---------------------------------------------------------------------- over many runs
class Point(NamedTuple):
    run: int
    value: float
    low: float | None
    high: float | None
    text: str


class Called(NamedTuple):
    """A change, marked at the run that shows it."""

    run: int
    kind: str
    text: str


class Series(NamedTuple):
    title: str
    points: Sequence[Point]
    called: Sequence[Called]


def over_runs(
    found: Sequence[Series], which: str, *, labels: Sequence[str], backend: str, title: str, unit: str
) -> Figure:
    """A panel per metric, the runs from left to right; vertical lines mark called changes."""
    figure, axes = panels(len(found), 2.15)
    for axis, series in zip(axes, found, strict=True):
        _series(axis, series, len(labels), STYLES.get(backend, (INK, "o")))
        shown = _labelled(len(labels), [call.run for call in series.called])
        axis.set_xticks(shown, [labels[i] for i in shown])
        axis.set_xticks(range(len(labels)), minor=True)
        axis.tick_params(labelsize=6.5)
        axis.tick_params(axis="x", which="minor", length=2)
        axis.set_title(series.title, fontsize=9)
        axis.set_xlabel("run: date and commit", fontsize=7.5)
        axis.set_ylabel(unit, fontsize=8)
    figure.suptitle(title + which, fontsize=10.5)
    handles = _runs_legend(found)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _labelled(count: int, called: Sequence[int]) -> list[int]:
    """Runs with a label below the axis: those with a change first, then as many others as fit."""
    apart, found = count / MOST_LABELS, list[int]()
    for i in (*dict.fromkeys(called), 0, count - 1, *range(count)):
        if all(abs(i - other) >= apart for other in found):
            found.append(i)
    return sorted(found)


def _series(axis: Axes, series: Series, count: int, style: tuple[str, str]) -> None:
    """One panel; the line has a gap where a run has no value."""
    colour, marker = style
    value, low, high = (np.full(count, np.nan) for _ in range(3))
    for point in series.points:
        value[point.run] = point.value
        low[point.run], high[point.run] = point.low or point.value, point.high or point.value
    axis.set_yscale("log")
    look: Any = {"color": colour, "marker": marker, "ms": 3.5, "lw": 1, "capsize": 2}
    axis.errorbar(np.arange(count), value, (value - low, high - value), **look)
    bottom, top = float(np.nanmin(low)), float(np.nanmax(high))
    wider = max(1.0, LEAST_SPAN / (top / bottom)) ** 0.5 * 1.04
    axis.set(xlim=(-0.6, count - 0.4), ylim=(bottom / wider, top * wider * (top / bottom) ** 0.12))
    plain_numbers(axis.yaxis, one_two_five(*axis.get_ylim(), most=4))
    middle = (bottom * top) ** 0.5
    texts = {point.run: point.text for point in series.points}
    for call in series.called:
        line_colour, sign, line = CALLED.get(call.kind, OTHERWISE)
        axis.axvline(call.run, color=line_colour, ls=line, lw=1, zorder=0)
        over: Any = {"transform": axis.get_xaxis_transform(), "clip_on": False, "ls": ""}
        axis.plot([call.run], [0.96], marker=sign, ms=7, color=line_colour, mec=PAPER, mew=0.6, **over)
        texts[call.run] = f"{texts[call.run]}; {call.text}" if call.run in texts else call.text
    for run, text in texts.items():
        mark(axis, run, middle if np.isnan(value[run]) else value[run], text)


def _runs_legend(found: Sequence[Series]) -> list[Line2D]:
    kinds = sorted({call.kind for series in found for call in series.called})
    styles = [(kind, *CALLED.get(kind, OTHERWISE)) for kind in kinds]
    return [Line2D([], [], color=c, marker=m, ls=line, lw=1, ms=7, label=kind) for kind, c, m, line in styles]
