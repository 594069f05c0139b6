"""The figures of a report."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from suites.statistics import Estimate

from . import plots_phases
from .frame import RunData
from .style import RC, STYLES, panels

# contours may fill their axes: the legend stands on top of them
ABOVE: Any = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.1, "ncols": 6, "fontsize": 8}
CONTOUR_SECONDS = 10.0
F0_LOW_HZ, F0_HIGH_HZ = 30.0, 2100.0


def draw_all(data: RunData, folder: Path) -> dict[str, Path]:
    """Every figure that the records allow; the same records give the same bytes."""
    drawn: dict[str, Path] = {}
    of_protocol: dict[str, dict[str, Callable[[RunData], Figure | None]]] = {
        "timed": {"time": _time, "speedup": _speedup, "memory": plots_phases.memory},
        "memory": {"memory": plots_phases.memory, "growth": plots_phases.growth},
        "cold_start": {"first": plots_phases.first_run},
        "ablation": {"ablation": plots_phases.ablation},
    }
    figures = dict(of_protocol[data.suite.protocol])
    for case in data.cases:
        figures[f"f0-{case}"] = functools.partial(_contours, case=case)
    folder.mkdir(exist_ok=True)
    with plt.rc_context(RC):
        for name, draw in figures.items():
            figure = draw(data)
            if figure is not None:
                path = folder / f"{name}.png"
                figure.savefig(path, metadata={"Software": None}, bbox_inches="tight")
                plt.close(figure)
                drawn[name] = path
    return drawn


def _plain_numbers(axis: Any, values: list[float]) -> None:
    """Ticks of a logarithmic axis at these values, written as plain numbers."""
    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_locator(NullLocator())


def _one_two_five(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 ... within a range; 1.5, 3 and 7 too where that leaves few."""
    exponents = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 10), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        found = sorted({float(f"{m * 10.0**e:.3g}") for e in exponents for m in steps})
        inside = [v for v in found if low <= v <= high]
        if len(inside) >= 3:
            return inside
    return inside


def _sweep(data: RunData) -> list[str]:
    """Cases along the duration axis: the synthetic ones, or all where there are none."""
    synthetic = [case for case in data.cases if case.startswith("synthetic")]
    return synthetic or data.cases


def _time(data: RunData) -> Figure | None:
    cases = _sweep(data)
    components = [c for c in data.components if any(data.time(case, c, b) for case in cases for b in data.backends)]
    if not components:
        return None
    if len(cases) == 1:
        times = {b: [(c, e) for c in components if (e := data.time(cases[0], c, b))] for b in data.backends}
        title = f"Time of one call on {cases[0]}, {data.config['precision']}"
        return _one_case(components, times, {b: b for b in times}, title, "seconds")
    figure, axes = panels(len(components), 3.4)
    durations = [data.duration_s(case) for case in cases]
    for axis, component in zip(axes, components, strict=True):
        for backend in data.backends:
            colour, marker = STYLES[backend]
            points = [(d, e) for d, c in zip(durations, cases, strict=True) if (e := data.time(c, component, backend))]
            if not points:
                continue
            x = [d for d, _ in points]
            y = np.array([e.value for _, e in points])
            spread = np.array([[e.value - e.low, e.high - e.value] for _, e in points]).T
            axis.errorbar(x, y, yerr=spread, color=colour, marker=marker, ms=5, capsize=2, lw=1.3, label=backend)
        axis.set(xscale="log", yscale="log", title=component, xlabel="audio (s)")
        _plain_numbers(axis.xaxis, durations)
        _plain_numbers(axis.yaxis, _one_two_five(*axis.get_ylim()))
    for axis in axes[::4]:
        axis.set_ylabel("time of one call (s)")
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.suptitle(f"Time against duration, {data.config['precision']}")
    figure.tight_layout()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(labels))
    return figure


def _speedup(data: RunData) -> Figure | None:
    cases = data.cases
    rows = [
        (backend, component)
        for backend in data.backends
        for component in data.components
        if any(data.speedup(case, component, backend) for case in cases)
    ]
    if not rows:
        return None
    components = list(dict.fromkeys(c for _, c in rows))
    if len(cases) == 1 and len(components) > 4:
        backends = list(dict.fromkeys(b for b, _ in rows))
        gains = {b: [(c, e) for c in components if (e := data.speedup(cases[0], c, b))] for b in backends}
        names = {b: f"{b} over {data.speed_reference(b)}" for b in backends}
        title = f"Speed-up over PyTorch on the same device, {cases[0]}, {data.config['precision']}"
        return _one_case(components, gains, names, title, "speed-up (above 1: faster)", line=1.0)
    figure, axes = panels(len(components), 0.55 * len(cases) + 1.6, sharey=True)
    for axis, component in zip(axes, components, strict=True):
        for backend in dict.fromkeys(b for b, c in rows if c == component):
            colour, marker = STYLES[backend]
            found = [(i, e) for i, case in enumerate(cases) if (e := data.speedup(case, component, backend))]
            x = np.array([e.value for _, e in found])
            spread = np.array([[e.value - e.low, e.high - e.value] for _, e in found]).T
            y = [i for i, _ in found]
            label = f"{backend} over {data.speed_reference(backend)}"
            axis.errorbar(x, y, xerr=spread, color=colour, marker=marker, ls="", ms=6, capsize=3, label=label)
        axis.axvline(1.0, color="black", lw=1)
        axis.set(xscale="log", title=component, xlabel="speed-up (above 1: faster)")
        low, high = axis.get_xlim()
        axis.set_xlim(min(low, 0.8), max(high, 1.25))
        _plain_numbers(axis.xaxis, _one_two_five(*axis.get_xlim()))
    axes[0].set_yticks(range(len(cases)), cases)
    axes[0].invert_yaxis()
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.suptitle(f"Speed-up over PyTorch on the same device, {data.config['precision']}")
    figure.tight_layout()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(labels))
    return figure


def _one_case(
    components: list[str],
    found: dict[str, list[tuple[str, Estimate]]],
    names: dict[str, str],
    title: str,
    what: str,
    line: float | None = None,
) -> Figure:
    """One row per component: a run of a single case has no duration to be drawn against."""
    figure, axis = plt.subplots(figsize=(8.5, 1.2 + 0.32 * len(components)), layout="constrained")
    for backend, estimates in found.items():
        colour, marker = STYLES[backend]
        x = np.array([e.value for _, e in estimates])
        spread = np.array([[e.value - e.low, e.high - e.value] for _, e in estimates]).T
        y = [components.index(component) for component, _ in estimates]
        axis.errorbar(x, y, xerr=spread, color=colour, marker=marker, ls="", ms=6, capsize=3, label=names[backend])
    if line is not None:
        axis.axvline(line, color="black", lw=1)
    axis.set_yticks(range(len(components)), components)
    axis.invert_yaxis()
    axis.set(xscale="log", title=title, xlabel=what)
    low, high = axis.get_xlim()
    if line is not None:
        axis.set_xlim(min(low, 0.8 * line), max(high, 1.25 * line))
    _plain_numbers(axis.xaxis, _one_two_five(*axis.get_xlim()))
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _contours(data: RunData, case: str) -> Figure | None:
    path = data.folder / "contours" / f"{case}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    backends = [b for b in data.backends if f"f0.{b}" in arrays]
    frames = min(int(CONTOUR_SECONDS * 100), arrays["mel"].shape[1])
    t = np.arange(frames) / 100.0
    reference = next(r["reference"] for r in data.records if r["case"] == case and "workload" in r)
    if f"f0.{reference}" not in arrays:  # kept before the run was resumed, when this backend was missing
        return None
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(9, 6.2), sharex=True, height_ratios=(1.5, 2, 1), layout="constrained"
    )
    _spectrogram(top, arrays["mel"][:, :frames].astype(np.float32), t)
    if "f0.truth" in arrays:
        middle.plot(t, _gaps(arrays["f0.truth"][:frames]), color="black", lw=3, alpha=0.25, label="truth")
    for i, backend in enumerate(backends):
        colour, _ = STYLES[backend]
        style = (
            {"lw": 2.4, "alpha": 0.6, "marker": ".", "ms": 5}
            if backend == reference
            else {"lw": 1.1, "ls": "--", "marker": ".", "ms": 2}
        )
        middle.plot(t, _gaps(arrays[f"f0.{backend}"][:frames]), color=colour, label=backend, **style)
        if backend != reference:
            _cents_error(bottom, t, arrays[f"f0.{backend}"][:frames], arrays[f"f0.{reference}"][:frames], backend, i)
    middle.set(yscale="log", ylim=(F0_LOW_HZ, F0_HIGH_HZ), ylabel="F0 (Hz)")
    _plain_numbers(middle.yaxis, [50, 100, 200, 500, 1000, 2000])
    middle.legend(**ABOVE)
    bottom.set(xlabel="time (s)", ylabel=f"cents from\n{reference}", xlim=(0, frames / 100))
    if bottom.get_legend_handles_labels()[1]:
        bottom.legend(**ABOVE)
    part = f", first {CONTOUR_SECONDS:g} s" if data.duration_s(case) > CONTOUR_SECONDS else ""
    trained = "" if data.config["weights"]["rmvpe"] else " (untrained weights: the contours compare sides, not pitch)"
    figure.suptitle(f"F0 on {case}{part}{trained}")
    return figure


def _spectrogram(axis: Axes, mel: np.ndarray, t: np.ndarray) -> None:
    bands = np.arange(mel.shape[0])
    axis.pcolormesh(t, bands, mel, cmap="magma", vmin=max(mel.min(), mel.max() - 10), rasterized=True)
    axis.set(ylabel="mel band")
    axis.grid(visible=False)


def _gaps(f0: np.ndarray) -> np.ndarray:
    return np.where(f0 > 0, f0, np.nan)


def _cents_error(axis: Axes, t: np.ndarray, ours: np.ndarray, theirs: np.ndarray, backend: str, index: int) -> None:
    colour, _marker = STYLES[backend]
    both = (ours > 0) & (theirs > 0)
    axis.plot(t[both], 1200 * np.log2(ours[both] / theirs[both]), color=colour, marker=".", ls="", ms=3, label=backend)
    differs = (ours > 0) != (theirs > 0)
    if differs.any():
        axis.plot(
            t[differs], np.zeros(differs.sum()), color=colour, marker="x", ls="", label=f"{backend}: voicing differs"
        )
