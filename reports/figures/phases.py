"""Figures of fresh processes: peak memory, growth, and the first run."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suites.base.lines import Line

from ..data.frame import MIB, RunData
from .style import INK, PAPER, STYLES, WIDTH, legend_below, mark, panels
from .times import SLOPES, draw_line, grid
from .words import audio_of, seconds, short, three_digits, titled

# phases of a first run, in order: name, colour (Okabe and Ito), hatching
PHASES = {
    "start_s": ("start", "#999999", ""),
    "import_s": ("import", "#56B4E9", "//"),
    "load_s": ("load", "#44C08A", ".."),
    "first_call_s": ("first call", "#E8835A", "\\\\"),
}
# peaks of a process: line, marker's face, name
PEAKS = {"peak_rss_call_bytes": ("-", True, "first call"), "peak_rss_load_bytes": (":", False, "load")}
GROWTH_LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARK_EVERY = 5


def _by_component(lines: Sequence[Line]) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line["component"], []).append(line)
    return found


# ---------------------------------------------------------------------- peaks
def memory(data: RunData) -> Figure | None:
    """Peaks against duration: of the process above its state before loading, and by the framework's own count."""
    drawn = []
    for component, lines in _by_component(data.cold()).items():
        if any(_above(line, "peak_rss_call_bytes") for line in lines):
            drawn.append((component, "process", lines))
        if any(_own_peak(line) for line in lines):
            drawn.append((component, "framework", lines))
    if not drawn:
        return None
    figure, axes = panels(len(drawn), 2.45 if len(drawn) > 2 else 3.0, 2, WIDTH / 2)
    fitted = False
    for axis, (component, kind, lines) in zip(axes, drawn, strict=True):
        fitted |= _memory_panel(axis, data, lines, kind == "process")
        axis.set(title=f"{component}: {kind}", xlabel="audio (s)")
        axis.set_ylabel("peak above start (MiB)" if kind == "process" else "peak (MiB)")
    legend_below(figure, axes)
    of = "Peak" if data.name == "memory" else f"{data.name}: peak"
    figure.suptitle(titled(data, f"{of} memory of a fresh process{SLOPES if fitted else ''}"))
    return figure


def _memory_panel(axis: Axes, data: RunData, lines: Sequence[Line], process: bool) -> bool:
    """Whether there is a fitted line."""
    slopes = []
    for backend in dict.fromkeys(line["backend"] for line in lines):
        colour, marker = STYLES[backend]
        own = sorted((x for x in lines if x["backend"] == backend), key=lambda x: float(x["workload"]["duration_s"]))
        for field, (style, filled, what) in PEAKS.items() if process else [("", ("-", True, "first call"))]:
            known = [(x, _above(x, field) if process else _own_peak(x)) for x in own]
            points = [(x, y) for x, y in known if y is not None]
            if not points:
                continue
            durations, values = [float(x["workload"]["duration_s"]) for x, _ in points], [y for _, y in points]
            face: Any = {"color": colour, "marker": marker, "mfc": colour if filled else PAPER}
            axis.plot(durations, values, ls="", ms=5, **face)
            axis.plot([], [], ls=style, ms=5, label=f"{backend}, {what}", **face)
            slope = draw_line(axis, durations, values, colour, style)
            if slope is not None and filled:
                slopes.append((axis.plot([], [], ms=4, **face)[0], f"{three_digits(slope)} MiB per s"))
            whose = "peak of the process above its start" if process else "peak by the framework's count"
            for (line, value), x in zip(points, durations, strict=True):
                place = f"{backend}, {line['component']}, {audio_of(data, line['case'])}, {what}: {value:.4g} MiB"
                mark(axis, x, value, f"{place}, {whose}")
    room = min(0.6, 0.03 + 0.11 * len(slopes))  # for the slopes at the top
    axis.set_ylim(0, axis.get_ylim()[1] / (1 - room))
    axis.set_xlim(0)
    if slopes:
        axis.legend(*zip(*slopes, strict=True), loc="upper left", fontsize=8, borderaxespad=0.1, handlelength=1.4)
    return bool(slopes)


def _own_peak(line: Line) -> float | None:
    return max((c["peak_device_bytes"] / MIB for c in line["cold"] if c.get("peak_device_bytes")), default=None)


def _above(line: Line, field: str) -> float | None:
    return max(((c[field] - (c["base_rss_bytes"] or 0)) / MIB for c in line["cold"] if c.get(field)), default=None)


def growth(data: RunData) -> Figure | None:
    """Resident memory after each of many lengths in one process."""
    found = _by_component([line for line in data.cold(growth=True) if line["cold"][0].get("growth")])
    if not found:
        return None
    figure, axes = grid(len(found), 2.5, 2.3)
    for axis, (component, lines) in zip(axes, found.items(), strict=True):
        for line, style in zip(lines, GROWTH_LINES, strict=False):
            _growth_line(axis, line, style)
        limit = max(line["cold"][0]["growth"]["limit_bytes"] for line in lines) / MIB
        axis.axhline(limit, color=INK, lw=0.9, ls=(0, (1, 1.5)), label="limit (of MLX)")
        axis.set(title=component, xlabel="input of another length (number)", ylabel="added (MiB)")
        low, high = axis.get_ylim()
        axis.set_ylim(min(low, -0.04 * limit), max(high, 1.08 * limit))
    legend_below(figure, axes)
    figure.suptitle(titled(data, "Resident memory added by further lengths, in one process"))
    return figure


def _growth_line(axis: Axes, line: Line, style: Any) -> None:
    found, (colour, marker) = line["cold"][0]["growth"], STYLES[line["backend"]]
    start = found["start"]["rss_bytes"]
    y = [0.0, *((one["rss_bytes"] - start) / MIB for one in found["series"])]
    look: Any = {"color": colour, "ls": style, "lw": 1.4, "marker": marker, "markevery": 10, "ms": 4}
    axis.plot(range(len(y)), y, label=line["backend"], **look)
    for i in sorted({*range(MARK_EVERY, len(y), MARK_EVERY), len(y) - 1}):
        place = f"after {i} inputs, the last of {found['series'][i - 1]['seconds']:.3g} s"
        mark(axis, i, y[i], f"{line['backend']}, {line['component']}, {place}: {y[i]:.3g} MiB added")


def first(data: RunData) -> Figure | None:
    """From the start of a process to its first result, stacked."""
    lines = [x for found in _by_component(data.cold()).values() for x in found if "start_s" in x["cold"][0]]
    if not lines:
        return None
    figure, axis = plt.subplots(figsize=(WIDTH, 1.3 + 0.29 * len(lines)), layout="constrained")
    several = len({line["case"] for line in lines}) > 1
    names = [f"{x['component']}, {x['backend']}" + (f", {short(x['case'])}" if several else "") for x in lines]
    places = [f"{x['backend']}, {x['component']}, {audio_of(data, x['case'])}" for x in lines]
    many = [f"median of {len(x['cold'])} process" + ("es" if len(x["cold"]) > 1 else "") for x in lines]
    left = np.zeros(len(lines))
    for field, (label, colour, hatch) in PHASES.items():
        width = np.array([median(c[field] for c in x["cold"]) for x in lines])
        axis.barh(range(len(lines)), width, 0.72, left, color=colour, hatch=hatch, ec=PAPER, lw=0.6, label=label)
        for y, place in enumerate(places):
            mark(axis, left[y] + width[y] / 2, y, f"{place}, {label}: {seconds(width[y])}, {many[y]}")
        left += width
    for y, line in enumerate(lines):
        steady = median(c["steady_s"] for c in line["cold"])
        axis.plot(steady, y, ls="", marker="|", ms=13, mew=2.2, color=INK)
        mark(axis, steady, y, f"{places[y]}, a steady call: {seconds(steady)}, {many[y]}")
    axis.plot([], [], ls="", marker="|", ms=9, mew=2.2, color=INK, label="a steady call")
    axis.set_yticks(range(len(lines)), names)
    axis.set(xlabel="time since the start of the process (s)", ylim=(len(lines) - 0.4, -0.6), xlim=(0, None))
    axis.grid(visible=False, axis="y")
    legend_below(figure, [axis], 5)
    on = "" if several else f", {audio_of(data, lines[0]['case'])}"
    figure.suptitle(titled(data, f"From the start of a process to its first result{on}"))
    return figure
