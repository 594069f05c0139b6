"""Figures of optimisations: the gain of each, and the way from none to all of them."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rvc_mlx.optimize import OPTIMIZATIONS
from suites.base.speed import Estimate
from suites.definitions.single import EVERYTHING, OFF, ON

from ..data.frame import RunData
from .style import INK, PAPER, STYLES, WIDTH, legend_below, mark, one_two_five, panels, plain_numbers, reach
from .words import audio_of, factor, interval, seconds, short, times, titled

FASTER, SLOWER, REST = ("#56B4E9", ""), ("#E8835A", "//"), ("#BBBBBB", "..")


class Gain(NamedTuple):
    model: str
    name: str
    case: str
    backend: str
    gain: Estimate


def gains(data: RunData) -> list[Gain]:
    found = ((*name.partition(".")[::2], case, backend, gain) for case, name, backend, _, _, gain in data.ablations())
    return [Gain(model, name, case, backend, gain) for model, name, case, backend, gain in found if gain]


def ablation(data: RunData) -> Figure | None:
    """Gain of every optimisation, with its interval; above 1 it pays."""
    rows = gains(data)
    if not rows:
        return None
    figure, axis = plt.subplots(figsize=(WIDTH, 1.3 + 0.25 * len(rows)), layout="constrained")
    cases = list(dict.fromkeys(row.case for row in rows))
    for i, row in enumerate(rows):
        colour, marker = STYLES[row.backend]
        spread = reach(row.gain.low, row.gain.value, row.gain.high)
        axis.errorbar(row.gain.value, i, xerr=spread, color=colour, marker=marker, ms=5.5, capsize=2.5, ls="")
        place = f"{row.backend}, {row.name} of {row.model}, {audio_of(data, row.case)}: {times(row.gain)}"
        mark(axis, row.gain.value, i, f"{place} faster with it" if row.gain.value >= 1 else f"{place}, slower with it")
    for backend in dict.fromkeys(row.backend for row in rows):
        colour, marker = STYLES[backend]
        axis.plot([], [], color=colour, marker=marker, ls="", label=backend)
    axis.axvline(1.0, color=INK, lw=1)
    for i in range(1, len(rows)):
        if rows[i].model != rows[i - 1].model:
            axis.axhline(i - 0.5, color=INK, lw=0.6, alpha=0.5)
    where = [f", {short(row.case)}" if len(cases) > 1 else "" for row in rows]
    names = [f"{row.model}: {row.name}{case}" for row, case in zip(rows, where, strict=True)]
    axis.set_yticks(range(len(rows)), names)
    axis.set(xscale="log", ylim=(len(rows) - 0.4, -0.6), xlabel="time without over time with (×; above 1: it pays)")
    low, high = axis.get_xlim()
    axis.set_xlim(min(low, 0.8), max(high, 1.25))
    plain_numbers(axis.xaxis, one_two_five(*axis.get_xlim(), most=8))
    legend_below(figure, [axis])
    on = f", {audio_of(data, cases[0])}" if len(cases) == 1 else ""
    figure.suptitle(titled(data, f"Gain of each optimisation{on}"))
    return figure


# ---------------------------------------------------------------------- from nothing to everything
class Waterfall(NamedTuple):
    """Seconds without and with all optimisations, and the single gains, the largest first."""

    model: str
    case: str
    backend: str
    start: Estimate
    end: Estimate
    steps: list[Gain]

    @property
    def together(self) -> float:
        """What the single gains do not explain, as a factor."""
        return self.start.value / self.end.value / prod(step.gain.value for step in self.steps)


def waterfalls(data: RunData) -> list[Waterfall]:
    """Per model, case and backend, where the whole and single optimisations were measured."""
    found = []
    rows = [row for row in gains(data) if row.name in OPTIMIZATIONS]
    for model, case, backend in dict.fromkeys((row.model, row.case, row.backend) for row in rows):
        start, end = (data.time(case, f"{model}.{EVERYTHING}.{side}", backend) for side in (OFF, ON))
        own = [row for row in rows if (row.model, row.case, row.backend) == (model, case, backend)]
        if start and end:
            own.sort(key=lambda row: -row.gain.value)
            found.append(Waterfall(model, case, backend, start, end, own))
    return found


def waterfall(data: RunData) -> Figure | None:
    """Waterfall from the time without optimisations to the time with all, by single gains."""
    found = waterfalls(data)
    if not found:
        return None
    heights = [0.24 * (len(one.steps) + 3) + 0.75 for one in found]
    figure, axes = panels(len(found), sum(heights) / len(found) + 0.12, 1, WIDTH, height_ratios=heights)
    for axis, one in zip(axes, found, strict=True):
        _panel(axis, data, one)
    others = "all others on" if data.config["suite"].get("rest") == "all" else "all others off"
    handles: list[Any] = [
        Patch(fc=c, hatch=h, ec=PAPER, label=name)
        for (c, h), name in ((FASTER, "faster"), (SLOWER, "slower"), (REST, "not explained by single gains"))
    ]
    handles.append(Line2D([], [], color=INK, marker="D", ms=5, ls="", label="measured"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8.5)
    figure.suptitle(titled(data, f"Time of one call, optimisation by optimisation; each measured with {others}"))
    return figure


def _panel(axis: Axes, data: RunData, one: Waterfall) -> None:
    of = f"{one.backend}, {one.model}, {audio_of(data, one.case)}"
    steps = [(row.name, row.gain.value, times(row.gain)) for row in one.steps]
    steps.append(("together", one.together, factor(one.together)))
    beside: Any = {"textcoords": "offset points", "va": "center", "fontsize": 8}
    at, edges = one.start.value, [one.start.value]
    for y, (name, gain, ratio) in enumerate(steps, 1):
        after = at / gain
        colour, hatch = REST if name == "together" else FASTER if gain >= 1 else SLOWER
        axis.barh(y, after - at, 0.62, at, color=colour, hatch=hatch, ec=PAPER, lw=0.6)
        axis.plot((at, at), (y - 1, y), color=INK, lw=0.8, ls=":")
        axis.annotate(factor(gain), (max(at, after), y), (4, 0), **beside)
        what = "what the single gains do not explain" if name == "together" else f"gain of {name}"
        mark(axis, (at * after) ** 0.5, y, f"{of}: {what} {ratio}, from {seconds(at)} to {seconds(after)}")
        at = after
        edges.append(at)
    last = len(steps) + 1
    axis.plot((at, at), (last - 1, last), color=INK, lw=0.8, ls=":")
    for y, found, what in ((0, one.start, "nothing on"), (last, one.end, "everything on")):
        axis.plot(found.value, y, marker="D", ms=5, color=INK)
        axis.annotate(seconds(found.value), (found.value, y), (7, 0), **beside)
        mark(axis, found.value, y, f"{of}, {what}: {interval(found)}")
    axis.set_yticks(range(last + 1), ["nothing on", *(name for name, *_ in steps), "everything on"])
    low, high = min(edges), max(edges)
    axis.set(xscale="log", xlim=(low / 1.25, high * (high / low) ** 0.14 * 1.06), ylim=(last + 0.6, -0.6))
    axis.set(xlabel="time of one call (s)", title=f"{one.model}, {one.backend}, {audio_of(data, one.case)}")
    axis.title.set_fontsize(9.5)
    plain_numbers(axis.xaxis, one_two_five(*axis.get_xlim(), most=8))
    axis.grid(visible=False, axis="y")
