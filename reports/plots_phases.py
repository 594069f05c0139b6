"""Figures of what happens once in a process, and of optimisations: memory, growth, first run, gains."""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from suites.record import Line
from suites.statistics import Estimate

from .frame import RunData
from .style import STYLES, panels

MIB = 2**20
GROWTH = "growth"
# phases of a first run, in order, with their colours (Okabe and Ito)
PHASES = {
    "start_s": ("start", "#999999"),
    "import_s": ("import", "#56B4E9"),
    "load_s": ("load", "#009E73"),
    "first_call_s": ("first call", "#D55E00"),
}


def _cold(data: RunData, growth: bool) -> dict[str, list[Line]]:
    """Per component the records that hold figures of fresh processes."""
    found: dict[str, list[Line]] = {}
    for line in data.records:
        if line.get("cold") and (line["case"] == GROWTH) == growth:
            found.setdefault(line["component"], []).append(line)
    return found


def memory(data: RunData) -> Figure | None:
    """Peaks against duration: of the process above its state before loading, and by the framework's own count."""
    drawn = []
    for component, lines in _cold(data, growth=False).items():
        if any(_above(line, "peak_rss_call_bytes") for line in lines):
            drawn.append((component, "process", lines))
        if any(_own_peak(line) for line in lines):
            drawn.append((component, "framework", lines))
    if not drawn:
        return None
    drawn.sort(key=lambda one: one[1] != "process")
    figure, axes = panels(len(drawn), 3.3)
    for axis, (component, kind, lines) in zip(axes, drawn, strict=True):
        _memory_panel(axis, lines, kind == "process")
        axis.set(title=f"{component}: {kind}", xlabel="audio (s)")
        axis.set_ylabel("peak above the start (MiB)" if kind == "process" else "peak (MiB)")
        axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
    _legend_below(figure, axes)
    figure.suptitle("Peak memory of a fresh process per case", y=1.04)
    return figure


def _memory_panel(axis: Axes, lines: list[Line], process: bool) -> None:
    fields = {"peak_rss_call_bytes": ("-", "first call"), "peak_rss_load_bytes": (":", "load")}
    for backend in dict.fromkeys(line["backend"] for line in lines):
        colour, marker = STYLES[backend]
        own = sorted(((x["workload"]["duration_s"], x) for x in lines if x["backend"] == backend), key=lambda p: p[0])
        for field, (style, what) in fields.items() if process else [("", ("-", "first call"))]:
            values = [(d, _above(x, field) if process else _own_peak(x)) for d, x in own]
            points = [(d, y) for d, y in values if y is not None]
            if points:
                x, y = zip(*points, strict=True)
                filled = colour if what != "load" else "white"
                axis.plot(x, y, style, color=colour, marker=marker, mfc=filled, label=f"{backend}, {what}")


def _own_peak(line: Line) -> float | None:
    found = [c["peak_device_bytes"] / MIB for c in line["cold"] if c.get("peak_device_bytes")]
    return max(found) if found else None


def _above(line: Line, field: str) -> float | None:
    found = [(c[field] - (c["base_rss_bytes"] or 0)) / MIB for c in line["cold"] if c.get(field)]
    return max(found) if found else None


def growth(data: RunData) -> Figure | None:
    """Resident memory after each of many lengths in one process."""
    by_component = _cold(data, growth=True)
    if not by_component:
        return None
    figure, axes = panels(len(by_component), 3.1)
    for axis, (component, lines) in zip(axes, by_component.items(), strict=True):
        for line in lines:
            found, (colour, _) = line["cold"][0]["growth"], STYLES[line["backend"]]
            start = found["start"]["rss_bytes"]
            y = [0.0, *((one["rss_bytes"] - start) / MIB for one in found["series"])]
            axis.plot(range(len(y)), y, color=colour, lw=1.5, label=line["backend"])
        axis.axhline(lines[0]["cold"][0]["growth"]["limit_bytes"] / MIB, color="black", lw=0.8, ls="--", label="limit")
        axis.set(title=component, xlabel="inputs of other lengths", ylabel="added (MiB)")
    _legend_below(figure, axes)
    figure.suptitle("Resident memory added by further lengths, in one process", y=1.04)
    return figure


def first_run(data: RunData) -> Figure | None:
    """From the start of a process to its first result, stacked."""
    lines = [x for found in _cold(data, growth=False).values() for x in found if "start_s" in x["cold"][0]]
    if not lines:
        return None
    figure, axis = plt.subplots(figsize=(8.5, 0.8 + 0.34 * len(lines)), layout="constrained")
    names = [f"{x['component']}, {x['case'].removeprefix('synthetic-')}, {x['backend']}" for x in lines]
    left = np.zeros(len(lines))
    for field, (label, colour) in PHASES.items():
        width = np.array([median(c[field] for c in x["cold"]) for x in lines])
        axis.barh(names, width, left=left, color=colour, label=label)
        left += width
    steady = [median(c["steady_s"] for c in x["cold"]) for x in lines]
    axis.plot(steady, range(len(lines)), ls="", marker="|", ms=11, mew=2, color="black", label="a steady call")
    axis.invert_yaxis()
    axis.set(xlabel="seconds", title="From the start of a process to its first result")
    figure.legend(loc="outside lower center", ncols=5, fontsize=8.5)
    return figure


def ablation(data: RunData) -> Figure | None:
    """Gain of every optimisation, with its interval; above 1 it pays."""
    rows: list[tuple[str, str, Estimate]] = []
    for case in data.cases:
        for component in data.components:
            name, _, side = component.rpartition(".")
            for backend in data.backends if side == "on" else ():
                with_, without = data.find(case, component, backend), data.find(case, f"{name}.off", backend)
                gain = data.gain(with_, without) if with_ and without else None
                if gain:
                    rows.append((f"{name}, {case.removeprefix('synthetic-')}", backend, gain))
    if not rows:
        return None
    figure, axis = plt.subplots(figsize=(8.5, 1.1 + 0.3 * len(rows)), layout="constrained")
    for i, (_, backend, gain) in enumerate(rows):
        colour, marker = STYLES[backend]
        reach: Any = [[gain.value - gain.low], [gain.high - gain.value]]
        axis.errorbar(gain.value, i, xerr=reach, color=colour, marker=marker, ms=6, capsize=3, ls="")
    axis.axvline(1.0, color="black", lw=1)
    axis.set_yticks(range(len(rows)), [f"{name}, {backend}" for name, backend, _ in rows])
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="time without over time with (above 1: it pays)", title="Gain of each optimisation")
    low, high = axis.get_xlim()
    ticks = [x for x in (0.2, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50) if low <= x <= high]
    axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axis.minorticks_off()
    return figure


def _legend_below(figure: Figure, axes: list[Any]) -> None:
    handles, labels = axes[0].get_legend_handles_labels()
    figure.tight_layout()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=min(4, len(labels)))
