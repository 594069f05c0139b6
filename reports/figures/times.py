"""Figures of steady calls: time against duration with its slope, and speed-up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suites.base.speed import Estimate

from ..data import fits
from ..data.frame import RunData
from .style import INK, STYLES, WIDTH, legend_below, mark, one_two_five, panels, plain_numbers, reach
from .words import SYNTHETIC, audio_of, interval, short, shown_of, some, three_digits, times, titled

# a figure with more panels has three in a row
TWO_COLUMNS = 6
# most rows; most durations with a tick each
MOST_ROWS, MOST_TICKS = 12, 8
RATIO = "speed-up (×)"
# the end of a title where lines are fitted
SLOPES = ", slopes of fitted lines per s of audio"


def sweep(data: RunData) -> list[str]:
    """Cases along the duration axis: the synthetic ones, or all where there are none."""
    synthetic = [case for case in data.cases if case.startswith(SYNTHETIC)]
    return synthetic or data.cases


def grid(count: int, height: float, low: float) -> tuple[Figure, list[Axes]]:
    """Panels in the width of a page; ``low``: the height where there are many."""
    columns = 2 if count <= TWO_COLUMNS else 3
    return panels(count, height if columns == 2 else low, columns, WIDTH / columns)


def time(data: RunData) -> Figure | None:
    """Time of one call against duration, with a line per backend; of a single case, per component."""
    cases = sweep(data)
    components = [c for c in data.components if any(data.time(case, c, b) for case in cases for b in data.backends)]
    if not components:
        return None
    if len(cases) == 1:
        title = titled(data, f"{data.name}: time of one call, {audio_of(data, cases[0])}")
        found = {b: [(c, e) for c in components if (e := data.time(cases[0], c, b))] for b in data.backends}
        audio = audio_of(data, cases[0])
        return in_rows(components, found, {b: b for b in found}, title, "time of one call (s)", interval, audio)
    figure, axes = grid(len(components), 2.7, 2.35)
    fitted = [_time_panel(axis, data, component, cases) for axis, component in zip(axes, components, strict=True)]
    legend_below(figure, axes, len(data.backends))
    figure.suptitle(titled(data, f"{data.name}: time of one call{SLOPES if any(fitted) else ''}"))
    return figure


def _time_panel(axis: Axes, data: RunData, component: str, cases: Sequence[str]) -> bool:
    """Whether there is a fitted line."""
    slopes = []
    for backend in data.backends:
        colour, marker = STYLES[backend]
        points = [(case, data.duration_s(case), e) for case in cases if (e := data.time(case, component, backend))]
        _errorbars(axis, [x for _, x, _ in points], [e for *_, e in points], colour, marker, "y")
        for case, x, found in points:
            mark(axis, x, found.value, f"{backend}, {component}, {audio_of(data, case)}: {interval(found)}")
        axis.plot([], [], color=colour, marker=marker, ms=5, label=backend)
        slope = draw_line(axis, [x for _, x, _ in points], [e.value for *_, e in points], colour)
        if slope is not None:
            handle = axis.plot([], [], color=colour, marker=marker, ms=4)[0]
            slopes.append((handle, f"{three_digits(1e3 * slope)} ms per s"))
    axis.set(xscale="log", yscale="log", title=component, xlabel="audio (s)", ylabel="time of one call (s)")
    low, high = axis.get_ylim()
    if slopes:  # the lines rise: the upper left corner is free
        high *= (high / low) ** (0.14 * len(slopes))
        axis.legend(*zip(*slopes, strict=True), loc="upper left", fontsize=8, borderaxespad=0.1, handlelength=1.4)
    axis.set_ylim(low, high)
    durations = sorted({data.duration_s(case) for case in cases})
    axis.set_xlim(durations[0] / 1.25, durations[-1] * 1.25)
    plain_numbers(axis.xaxis, durations if len(durations) <= MOST_TICKS else one_two_five(*axis.get_xlim(), MOST_TICKS))
    plain_numbers(axis.yaxis, one_two_five(low, high, most=5))
    return bool(slopes)


def _errorbars(
    axis: Axes, places: Sequence[float], found: Sequence[Estimate], colour: str, marker: str, along: str
) -> None:
    """Values with their intervals ``along`` x or y, in one call, which is faster than single ones."""
    values = [e.value for e in found]
    spread = [[e.value - e.low for e in found], [e.high - e.value for e in found]]
    look: Any = {"color": colour, "marker": marker, "ls": "", "ms": 5 if along == "y" else 5.5}
    look |= {"capsize": 2 if along == "y" else 2.5, f"{along}err": spread}
    axis.errorbar(*((places, values) if along == "y" else (values, places)), **look)


def draw_line(axis: Axes, x: Sequence[float], y: Sequence[float], colour: str, style: str = "-") -> float | None:
    """The fitted line between the measured durations; its slope, or None where there is none."""
    found = fits.line(x, y) if min(y, default=0.0) > 0 else None
    if found is None:
        return None
    between = np.geomspace(min(x), max(x), 60)
    fitted = found.at(between)
    axis.plot(between, np.where(fitted > 0, fitted, np.nan), style, color=colour, lw=1.2)
    return found.slope


def speedup(data: RunData) -> Figure | None:
    """Per component the ratio to PyTorch on the same device, a row per case."""
    cases = some(data.cases, MOST_ROWS)
    components = [c for c in data.components if any(data.speedup(case, c, b) for case in cases for b in data.backends)]
    if not components:
        return None
    title = f"{data.name}: speed-up over PyTorch on the same device (above 1: faster)"
    if len(cases) == 1 and len(components) > 1:
        found = {b: [(c, e) for c in components if (e := data.speedup(cases[0], c, b))] for b in data.backends}
        title = titled(data, f"{title}, {audio_of(data, cases[0])}")
        found = {backend: gains for backend, gains in found.items() if gains}
        labels = {backend: over(data, backend) for backend in found}
        return in_rows(components, found, labels, title, RATIO, times, audio_of(data, cases[0]))
    figure, axes = grid(len(components), 0.32 * len(cases) + 1.15, 0.3 * len(cases) + 1.1)
    columns = 2 if len(components) <= TWO_COLUMNS else 3
    for i, (axis, component) in enumerate(zip(axes, components, strict=True)):
        _speedup_panel(axis, data, component, cases)
        axis.set_yticks(range(len(cases)), [short(case) for case in cases] if i % columns == 0 else [])
        axis.set_ylim(len(cases) - 0.5, -0.5)
    legend_below(figure, axes, 2)
    figure.suptitle(titled(data, title + shown_of(cases, data.cases)))
    return figure


def _speedup_panel(axis: Axes, data: RunData, component: str, cases: Sequence[str]) -> None:
    backends = [b for b in data.backends if data.speed_reference(b)]
    for k, backend in enumerate(backends):
        colour, marker = STYLES[backend]
        label = over(data, backend)
        rows = [(i + _apart(k, len(backends)), case) for i, case in enumerate(cases)]
        points = [(y, case, e) for y, case in rows if (e := data.speedup(case, component, backend))]
        _errorbars(axis, [y for y, *_ in points], [e for *_, e in points], colour, marker, "x")
        for y, case, found in points:
            mark(axis, found.value, y, f"{label}, {component}, {audio_of(data, case)}: {times(found)}")
        axis.plot([], [], color=colour, marker=marker, ls="", label=label)
    axis.set(xscale="log", title=component, xlabel=RATIO)
    ratio_axis(axis)


def _apart(index: int, count: int) -> float:
    return 0.0 if count == 1 else 0.36 * (index / (count - 1) - 0.5)


def ratio_axis(axis: Axes) -> None:
    """A logarithmic axis of ratios, with a line at 1."""
    axis.axvline(1.0, color=INK, lw=1)
    low, high = axis.get_xlim()
    axis.set_xlim(min(low / 1.05, 0.8), max(high * 1.05, 1.25))
    plain_numbers(axis.xaxis, one_two_five(*axis.get_xlim(), most=5))


def in_rows(
    names: Sequence[str],
    found: dict[str, list[tuple[str, Estimate]]],
    labels: dict[str, str],
    title: str,
    what: str,
    describe: Callable[[Estimate], str],
    audio: str = "",
) -> Figure:
    """One row per name: for what has no duration axis. Backends stand side by side in a row; ``labels``: in the legend,
    with the reference where the estimates are ratios; ``audio``: what the points are of."""
    figure, axis = plt.subplots(figsize=(WIDTH, 1.3 + 0.27 * len(names)), layout="constrained")
    for k, (backend, estimates) in enumerate(found.items()):
        colour, marker = STYLES[backend]
        for name, one in estimates:
            y = names.index(name) + _apart(k, len(found))
            spread = reach(one.low, one.value, one.high)
            axis.errorbar(one.value, y, xerr=spread, color=colour, marker=marker, ls="", ms=5.5, capsize=2.5)
            mark(axis, one.value, y, f"{', '.join(filter(None, [labels[backend], name, audio]))}: {describe(one)}")
        axis.plot([], [], color=colour, marker=marker, ls="", label=labels[backend])
    axis.set_yticks(range(len(names)), names)
    axis.set(xscale="log", xlabel=what, ylim=(len(names) - 0.5, -0.5))
    if what == RATIO:
        ratio_axis(axis)
    else:
        plain_numbers(axis.xaxis, one_two_five(*axis.get_xlim(), most=8))
    legend_below(figure, [axis])
    figure.suptitle(title)
    return figure


def over(run: RunData, backend: str) -> str:
    """A backend and the reference whose time its speed-up divides."""
    return f"{backend} over {run.speed_reference(backend)}"
