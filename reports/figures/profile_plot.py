"""The figures of a profile: the time of every part, and the rate that it achieves below the roof."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from suites.base.speed import Estimate
from suites.trace import stages
from suites.trace.stages import Row

from ..data.profile import Profile
from ..data.roofs import Roof
from .roofline import Point, name
from .style import INK, STYLES, WIDTH, lay_out, legend_below, mark, one_two_five, panels, plain_numbers
from .trace_plot import columns
from .words import seconds, three_digits, titled

# of a roofline, the kinds of parts with a name: those that take the most time
MOST_NAMES = 4


def _parts(profile: Profile) -> Mapping[str, dict[str, Row]]:
    """By backend and part, as fine as a page has room for."""
    parts, named = columns([[row.path for row in next(iter(profile.rows.values()))]])
    found = {}
    for backend, rows in profile.rows.items():
        own = {part: [row for row in rows if named[row.path] == part] for part in parts}
        found[backend] = {part: stages.together(members, part) for part, members in own.items()}
    return found


def bars(profile: Profile) -> Figure:
    """A bar for each part and backend; a line in it ends what the roofline explains."""
    found = _parts(profile)
    names = list(next(iter(found.values())))
    figure, (axis,) = panels(1, 1.4 + 0.2 * len(names) * max(1.0, 0.7 * len(found)), 1, WIDTH)
    height = 0.8 / len(found)
    for i, (backend, parts) in enumerate(found.items()):
        y = np.arange(len(names)) + (i - (len(found) - 1) / 2) * height
        colour = STYLES[backend][0]
        axis.barh(y, [1e3 * row.seconds for row in parts.values()], height, color=colour, label=backend)
        for place, row in zip(y, parts.values(), strict=True):
            explained = "not counted" if row.roof_s is None else f"{seconds(row.roof_s)} explained by the roofline"
            mark(axis, 1e3 * row.seconds, place, f"{row.path}, {backend}: {seconds(row.seconds)}, {explained}")
        roofs = [1e3 * row.roof_s if row.roof_s is not None else np.nan for row in parts.values()]
        label = "" if i else "explained by the roofline"
        axis.vlines(roofs, y - height / 2, y + height / 2, color=INK, lw=1.6, label=label)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(ylim=(len(names) - 0.4, -0.6), xlabel="time (ms)", ylabel="part of the model (in order)")
    legend_below(figure, [axis])
    figure.suptitle(titled(profile, f"{profile.model}: time of every part, stage by stage"))
    return figure


def roofs(profile: Profile) -> Figure | None:
    """A panel for each backend, below its own roof; None where nothing was counted."""
    found = {
        backend: [row for row in parts.values() if row.flops and row.bytes]
        for backend, parts in _parts(profile).items()
    }
    if not all(found.values()):
        return None
    figure, axes = panels(len(found), 4.2, 2, WIDTH / min(2, len(found)))
    for axis, (backend, rows) in zip(axes, found.items(), strict=True):
        roof = Roof(*stages.roof_of(profile.found, backend), ())
        points = [_point(row) for row in rows]
        colour, marker = STYLES[backend]
        left, right = min(p.intensity for p in points) / 2, 3 * max(roof.knee, *(p.intensity for p in points))
        x = [left, roof.knee, right]
        axis.plot(x, [roof.at(one) / 1e9 for one in x], color=INK, lw=1.4)
        longest = max(row.seconds for row in rows)
        for row, point in zip(rows, points, strict=True):
            place, size = (point.intensity, point.rate / 1e9), 4 + 10 * (row.seconds / longest) ** 0.5
            axis.plot(*place, marker, color=colour, ms=size, alpha=0.65)
            rate = f"{three_digits(point.rate / 1e9)} GFLOP/s, {100 * (row.share or 0):.0f} % of the roof"
            mark(axis, *place, f"{row.path}: {seconds(row.seconds)}, {rate}")
        lowest = min(point.rate for point in points) / 1e9
        axis.set(xscale="log", yscale="log", xlim=(left, right), ylim=(lowest / 2, 3 * roof.flops_per_s / 1e9))
        plain_numbers(axis.xaxis, one_two_five(left, right, 5))
        plain_numbers(axis.yaxis, one_two_five(*axis.get_ylim(), 6))
        top = f"{three_digits(roof.flops_per_s / 1e9)} GFLOP/s, {three_digits(roof.bytes_per_s / 1e9)} GB/s"
        axis.set_title(f"{backend}: {top}", fontsize=9)
        axis.set_xlabel("work per traffic (FLOP per byte)")
    axes[0].set_ylabel("achieved rate (GFLOP/s)")
    figure.suptitle(titled(profile, f"{profile.model}: achieved rate and the measured roof; the larger, the more time"))
    lay_out(figure)  # labels need the final size of the axes
    for axis, (backend, rows) in zip(axes, found.items(), strict=True):
        times: dict[str, float] = {}
        for row in rows:
            times[stages.kind_of(row.path)] = times.get(stages.kind_of(row.path), 0.0) + row.seconds
        named = sorted(times, key=lambda kind: -times[kind])[:MOST_NAMES]
        points = [_point(row) for row in rows if stages.kind_of(row.path) in named]
        name(axis, points, {"": Roof(*stages.roof_of(profile.found, backend), ())})
    return figure


def _point(row: Row) -> Point:
    """By the kind of its part; its work is known."""
    flops, moved = row.flops or 0, row.bytes or 1
    time = Estimate(row.seconds, row.seconds, row.seconds, rounds=1, launches=1)
    return Point(stages.kind_of(row.path), row.backend, flops / moved, flops / row.seconds, time)
