"""The figure of the parts of one call."""

from __future__ import annotations

from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..data.frame import RunData
from .style import INK, ON_COLOUR, PAPER, PARTS, WIDTH, legend_below, mark
from .words import audio_of, interval, shown_of, some, titled

# share of the longest bar below which a part has no label
LEAST_SHARE = 0.08
# of 8 point type, and of the bars' axis, in inches
CHARACTER, AXIS = 0.066, 5.5


def parts_of(data: RunData) -> tuple[str, ...]:
    """Components that are parts of the whole call."""
    if data.timed_together:
        return tuple(component for component in data.components if component != data.suite.whole)
    return tuple(component for component in data.suite.parts if component in data.components)


def breakdown(data: RunData) -> Figure | None:
    """Seconds of the parts as one stacked bar per backend, with a tick for the whole call."""
    parts = parts_of(data)
    known = {c: [b for b in data.backends if any(data.time(c, part, b) for part in parts)] for c in data.cases}
    cases = [case for case, backends in known.items() if backends]
    shown = {case: known[case] for case in some(cases)}
    if not shown:
        return None
    heights = [0.5 * len(backends) + 0.55 for backends in shown.values()]
    size: Any = {"figsize": (WIDTH, sum(heights) + 0.9), "height_ratios": heights}
    figure, axes = plt.subplots(len(shown), 1, squeeze=False, layout="constrained", **size)
    for axis, (case, backends) in zip(axes[:, 0], shown.items(), strict=True):
        _panel(axis, data, case, backends, parts)
        axis.set_title(audio_of(data, case), fontsize=9.5, loc="left")
    legend_below(figure, list(axes[:, 0]), 7, handlelength=1.6, columnspacing=1.2)
    what = "what one call is made of" + ("" if data.timed_together else ", each part timed by itself")
    figure.suptitle(titled(data, f"{data.name}: {what}{shown_of(list(shown), cases)}"))
    return figure


def _panel(axis: Axes, data: RunData, case: str, backends: list[str], parts: tuple[str, ...]) -> None:
    ends = {b: sum(e.value for part in parts if (e := data.time(case, part, b))) for b in backends}
    wholes = {b: e for b in backends if (e := data.time(case, data.suite.whole or "", b))}
    longest = max(*ends.values(), *(e.value for e in wholes.values()), 0.0)
    for y, backend in enumerate(backends):
        left = 0.0
        for i, part in enumerate(parts):
            found = data.time(case, part, backend)
            if found is None:
                continue
            colour, hatch = PARTS[i % len(PARTS)]
            axis.barh(y, found.value, 0.7, left, color=colour, hatch=hatch, ec=PAPER, lw=0.6, label=part)
            middle, share = left + found.value / 2, found.value / ends[backend]
            _words(axis, middle, y, found.value / longest, share, part, f"{found.value:.3g} s")
            value = f"{interval(found)}, {100 * share:.0f} % of the parts"
            mark(axis, middle, y, f"{backend}, {part}, {audio_of(data, case)}: {value}")
            left += found.value
        if backend in wholes:
            whole = wholes[backend]
            axis.plot(whole.value, y, ls="", marker="|", ms=27, mew=2.2, color=INK)
            mark(axis, whole.value, y, f"{backend}, whole call, {audio_of(data, case)}: {interval(whole)}")
    axis.plot([], [], ls="", marker="|", ms=11, mew=2.2, color=INK, label="whole call")
    axis.set_yticks(range(len(backends)), backends)
    axis.set(xlim=(0, 1.03 * longest), ylim=(len(backends) - 0.5, -0.5), xlabel="time (s)")
    axis.grid(visible=False, axis="y")


def _words(axis: Axes, x: float, y: float, width: float, share: float, part: str, value: str) -> None:
    """Label a bar with the part's name and time, if they fit."""
    room = width * AXIS / CHARACTER
    lines = [line for line in (part, value) if len(line) <= room]
    if share > LEAST_SHARE and lines:
        axis.text(
            x, y, "\n".join(lines), ha="center", va="center", fontsize=8, color=ON_COLOUR, linespacing=1.1,
            bbox={"boxstyle": "square,pad=0.08", "fc": "#f4f4f4", "ec": "none", "alpha": 0.8},
        )  # fmt: skip
