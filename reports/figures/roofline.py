"""The roofline figure: achieved rates and the machine's measured limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from suites.base.speed import Estimate

from ..data.frame import RunData
from ..data.roofs import Roof, device_of, roofs
from .style import INK, STYLES, WIDTH, lay_out, legend_below, mark, one_two_five, panels, plain_numbers
from .words import audio_of, interval, shown_of, some, three_digits, titled

ON_DEVICE = "_device"
LINES = {"cpu": "-", "gpu": "--"}


class Point(NamedTuple):
    """A component on a backend. ``intensity``: FLOP per byte; ``rate``: FLOP/s."""

    component: str
    backend: str
    intensity: float
    rate: float
    time: Estimate


def roofline(data: RunData) -> Figure | None:
    """FLOP/s against FLOP per byte; where a component was also timed on the device, that time is used."""
    tops = roofs(data)
    found = {case: points for case in data.cases if tops and (points := _points(data, case))}
    if not found:
        return None
    shown = {case: found[case] for case in some(list(found))}
    figure, axes = panels(len(shown), 4.6, 1, WIDTH)
    for axis, (case, points) in zip(axes, shown.items(), strict=True):
        _draw(axis, data, case, points, tops)
        axis.set_title(audio_of(data, case), fontsize=9.5)
    legend_below(figure, axes, 5)
    figure.suptitle(titled(data, f"Achieved rate and the machine's best{shown_of(list(shown), list(found))}"))
    lay_out(figure)  # labels need the final size of the axes
    for axis, points in zip(axes, shown.values(), strict=True):
        name(axis, points, tops)
    return figure


def _points(data: RunData, case: str) -> list[Point]:
    found = []
    for component in data.components:
        work = _work(data, case, component)
        if component + ON_DEVICE in data.components or work is None:
            continue
        flops = work["flops_products"] + work["flops_other"]
        for backend in data.backends:
            time = data.time(case, component, backend)
            if time and flops and work["bytes"]:
                name = component.removesuffix(ON_DEVICE)
                found.append(Point(name, backend, flops / work["bytes"], flops / time.value, time))
    return found


def _work(data: RunData, case: str, component: str) -> dict[str, int] | None:
    """FLOPs and bytes as PyTorch counted them, from any backend's record: the work is the same."""
    lines = [data.find(case, component, backend) for backend in data.backends]
    return next((line["work"] for line in lines if line and line.get("work")), None)


def _draw(axis: Axes, data: RunData, case: str, points: Sequence[Point], tops: dict[str, Roof]) -> None:
    for point in points:
        colour, marker = STYLES[point.backend]
        y = point.rate / 1e9
        axis.plot(point.intensity, y, color=colour, marker=marker, ls="", ms=7, label=point.backend, zorder=3)
        top = tops.get(device_of(point.backend))
        achieved = f"{y:.3g} GFLOP/s at {point.intensity:.3g} FLOP per byte in {interval(point.time)}"
        roof = f", {100 * point.rate / top.at(point.intensity):.0f} % of the roof" if top else ""
        of = f"{point.backend}, {point.component}, {audio_of(data, case)}"
        mark(axis, point.intensity, y, f"{of}: {achieved}{roof}")
    knees = [top.knee for top in tops.values()]
    left = min([p.intensity for p in points] + knees) / 2
    right = max([p.intensity for p in points] + knees) * 3
    lowest = min([p.rate for p in points] + [top.at(left) for top in tops.values()]) / 1e9
    axis.set(xscale="log", yscale="log", xlim=(left, right), ylim=(lowest / 1.6, None))
    axis.set(xlabel="work per traffic (FLOP per byte)", ylabel="achieved rate (GFLOP/s)")
    lines: list[Any] = []
    for device, top in tops.items():
        x = [left, top.knee, right]
        rates = [top.at(value) / 1e9 for value in x]
        lines += axis.plot(x, rates, color=INK, ls=LINES[device], lw=1.4, zorder=1)
        achieved = f"roof of the {_roof(device, top)}; they meet at {top.knee:.3g} FLOP per byte"
        mark(axis, top.knee, top.flops_per_s / 1e9, achieved)
    # no point lies above the roof: the upper left corner is free
    axis.legend(lines, [_roof(*one) for one in tops.items()], loc="upper left", fontsize=8.5, borderaxespad=0.1)
    highest = max(top.flops_per_s / 1e9 for top in tops.values())
    axis.set_ylim(axis.get_ylim()[0], max(2 * highest, axis.get_ylim()[1]))
    plain_numbers(axis.xaxis, one_two_five(left, right, most=8))
    plain_numbers(axis.yaxis, one_two_five(*axis.get_ylim(), most=8))


# left, bottom, right and top in pixels, as plain numbers: thousands of them are compared
Box = tuple[float, float, float, float]
# candidate positions of a label relative to its point: offset in points, alignment
SPOTS = (
    (0, 8, "center", "bottom"), (0, -8, "center", "top"), (8, 0, "left", "center"), (-8, 0, "right", "center"),
    (8, 9, "left", "bottom"), (-8, 9, "right", "bottom"), (8, -9, "left", "top"), (-8, -9, "right", "top"),
    (0, 20, "center", "bottom"), (0, -20, "center", "top"),
)  # fmt: skip


def name(axis: Axes, points: Sequence[Point], tops: dict[str, Roof]) -> None:
    """Label each component once, at the position that covers the least of everything drawn."""
    figure: Any = axis.figure
    scale = figure.dpi / 72
    taken = [_around(axis, p.intensity, p.rate / 1e9, 5 * scale) for p in points]
    for top in tops.values():
        taken += [_around(axis, x, top.at(x) / 1e9, 2 * scale) for x in np.geomspace(*axis.get_xlim(), 120)]
    whole = axis.get_window_extent().extents
    for component in dict.fromkeys(p.component for p in points):
        own = sorted((p for p in points if p.component == component), key=lambda p: -p.rate)
        text = axis.annotate(component, (own[0].intensity, own[0].rate / 1e9), fontsize=8.5)
        size = text.get_window_extent()
        text.remove()
        options: list[tuple[float, int, Any]] = []
        for spot in SPOTS:
            for point in own:
                box = _box(axis, point, spot, size, scale)
                outside = _overlap(box, box) - _overlap(box, whole)
                covered = sum(_overlap(box, other) for other in taken) + 10 * outside
                options.append((covered, len(options), (point, spot, box)))
        *_, (point, (dx, dy, ha, va), box) = min(options, key=lambda option: option[:2])
        taken.append(box)
        place: Any = {"textcoords": "offset points", "ha": ha, "va": va, "fontsize": 8.5, "zorder": 4}
        axis.annotate(component, (point.intensity, point.rate / 1e9), (dx, dy), **place)


def _roof(device: str, top: Roof) -> str:
    flops, moved = (three_digits(value / 1e9) for value in top[:2])
    return f"{device.upper()}: {flops} GFLOP/s, {moved} GB/s"


def _box(axis: Axes, point: Point, spot: tuple[int, int, str, str], size: Bbox, scale: float) -> Box:
    """The box of a label of this size."""
    dx, dy, ha, va = spot
    x, y = axis.transData.transform((point.intensity, point.rate / 1e9)).tolist()
    left = x + dx * scale - {"left": 0.0, "center": 0.5, "right": 1.0}[ha] * size.width
    low = y + dy * scale - {"bottom": 0.0, "center": 0.5, "top": 1.0}[va] * size.height
    return left, low, left + size.width, low + size.height


def _around(axis: Axes, intensity: float, rate: float, size: float) -> Box:
    x, y = axis.transData.transform((intensity, rate)).tolist()
    return x - size, y - size, x + size, y + size


def _overlap(one: Box, other: Box) -> float:
    width, height = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width >= 0 and height >= 0 else 0.0
