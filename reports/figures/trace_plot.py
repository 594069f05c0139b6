"""The figure of a trace: the local error of each part of a model against its limit, and the accumulated error."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter

from suites.trace import findings
from suites.trace.walk import FAULT, INHERITED, NOT_JUDGED, OK, REFERENCE_WRONG

from ..data.trace import Trace, by_walk
from .style import INK, ON_COLOUR, PAPER, WIDTH, mark
from .words import titled

# most columns whose labels fit the width of a page
MOST_PARTS = 46
# ends of the colour bar of local error over limit: the limit is in the middle
SHARES = (0.01, 100.0)
# relative error at the lower end of the colour bar: about half a unit in the last place of float32
LEAST_OWN = 1e-9
WORDS = {
    OK: "within the limit",
    findings.SAME_CODE: "the same code on both sides",
    FAULT: "at fault",
    REFERENCE_WRONG: "the reference is wrong",
    INHERITED: "right in itself, inherits an error",
    NOT_JUDGED: "not judged",
}
MARKS = {FAULT: "×", REFERENCE_WRONG: "R"}
# lists of layers, as module paths name them
LISTS = r"\.(?:layers|\w*_layers\w*|flows|ups|noise_convs|resblocks)(?:\.|$)"


class Cell(NamedTuple):
    """A part of the model on one probe. ``share``: of its limit; ``own``: accumulated RMS error over RMS."""

    share: float
    own: float
    status: str
    values: int


def heat(trace: Trace) -> Figure:
    """A column per part, a row per variant and probe: above the local error, below the accumulated one."""
    found = by_walk(trace)
    walks = [walk for walk in found if walk[0] in (findings.CONFIGURED, findings.PLAIN)] or list(found)
    of_walk = {walk: found[walk] for walk in walks}
    parts, named = columns([[row["path"] for row in rows] for rows in of_walk.values()])
    cells = {walk: _cells(rows, named) for walk, rows in of_walk.items()}
    longest = max(len(part) for part in parts)
    size = (WIDTH, 0.36 * 2 * len(walks) + 0.068 * longest + 2.5)
    figure, (top, bottom) = plt.subplots(2, 1, figsize=size, sharex=True, layout="constrained")
    share = _block(top, parts, cells, "share", SHARES, "RdBu_r")
    known = [c.own for row in cells.values() for c in row.values() if c.own > LEAST_OWN and math.isfinite(c.own)]
    own = _block(bottom, parts, cells, "own", _decades(known), "viridis")
    top.set_title(_top_title(cells), fontsize=9.5, loc="left")
    bottom.set_title("accumulated error: with everything inherited from before", fontsize=9.5, loc="left")
    bottom.set_xticks(range(len(parts)), parts, rotation=90, fontsize=8)
    bottom.set_xlabel("part of the model (in order)")
    # the default labels are formulas, which the style does not render
    scale: dict[str, Any] = {"extend": "both", "aspect": 10, "pad": 0.01}
    scale["format"] = FuncFormatter(lambda x, _: f"{x:g}")
    figure.colorbar(share, ax=top, label="error / limit (ratio)", **scale)
    figure.colorbar(own, ax=bottom, label="RMS error /\nRMS (ratio)", **scale)
    _legend(figure, cells)
    other, reference = trace.backends
    figure.suptitle(titled(trace, f"{trace.model}: {other} beside {reference}, part by part"))
    return figure


def columns(walks: Sequence[Sequence[str]]) -> tuple[list[str], dict[str, str]]:
    """The parts in the model's order, and the part of every path: as fine as the page has room for labels."""
    for coarse in range(4):
        named = {path: part_of(path, coarse) for walk in walks for path in walk}
        parts = merged([list(dict.fromkeys(named[path] for path in walk)) for walk in walks])
        if len(parts) <= MOST_PARTS:
            break
    return parts, named


def part_of(path: str, coarse: int) -> str:
    """``findings.group_of``; then segments and list members merged; then whole lists merged into their parent."""
    part = findings.group_of(path)
    if coarse:
        part = re.sub(r"\bblock\.\d+\.", "", part)
        part = re.sub(r"\bsegment\.\d+\.", "segment.", part)
        part = re.sub(r"\.\d+$", "", part)
    if coarse > 1:
        part = re.split(LISTS, part)[0]
    if coarse > 2:
        part = ".".join(part.split(".")[:3])
    return part


def merged(orders: Iterable[Sequence[str]]) -> list[str]:
    """One order of all names: a name that is new in a later list comes after its predecessor there."""
    found: list[str] = []
    for order in orders:
        after = 0
        for name in order:
            if name not in found:
                found.insert(after, name)
            after = found.index(name) + 1
    return found


def _cells(rows: Sequence[Any], named: dict[str, str]) -> dict[str, Cell]:
    members: dict[str, list[Any]] = {}
    for row in findings.with_inheritance(rows):
        members.setdefault(named[row["path"]], []).append(row)
    return {part: _cell(own) for part, own in members.items()}


def _cell(rows: Sequence[Any]) -> Cell:
    status = min((row["status"] for row in rows), key=findings.ORDER.index)
    handed_on = {findings.group_of(row["path"]): row for row in rows}  # the last value of each part
    own = [_relative(row) for row in handed_on.values()]
    known = [value for value in own if not math.isnan(value)]
    return Cell(findings.judged_share(rows), max(known, default=math.nan), status, len(rows))


def _relative(row: Any) -> float:
    """Accumulated RMS error over the value's RMS; infinite where there is nothing to compare."""
    if "reason" in row["chained"]:
        return math.inf
    error = row["chained"].get("rmse")
    return math.nan if error is None or not row["rms"] else float(error) / float(row["rms"])


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten around the values, at least two decades apart."""
    low = math.floor(math.log10(min(values, default=1e-7)))
    high = math.ceil(math.log10(max(values, default=1e-5)))
    return 10.0**low, 10.0 ** max(high, low + 2)


# ---------------------------------------------------------------------- drawing
def _is_dump(cells: dict[tuple[str, str], dict[str, Cell]]) -> bool:
    """Whether these are a port's own values, which tell a local error only where that was dumped as well."""
    return all(variant == findings.DUMPED for variant, _ in cells)


def _top_title(cells: dict[tuple[str, str], dict[str, Cell]]) -> str:
    if _is_dump(cells):
        return "error over its limit: local where that was dumped, else accumulated"
    return "local error: added by the part itself"


def _word(variant: str, status: str) -> str:
    """A port's own values do not tell whether a part behind a fault is right in itself."""
    dumped = variant == findings.DUMPED and status == INHERITED
    return "beyond its limit, may only inherit the error" if dumped else WORDS[status]


def _block(
    axis: Axes,
    parts: Sequence[str],
    cells: dict[tuple[str, str], dict[str, Cell]],
    field: str,
    limits: tuple[float, float],
    colours: str,
) -> Any:
    """One quantity of all cells; a fault has a cross, a wrong reference an R, an inherited error is hatched."""
    values = np.full((len(cells), len(parts)), np.nan)
    for y, (walk, row) in enumerate(cells.items()):
        for part, cell in row.items():
            x = parts.index(part)
            value = getattr(cell, field)
            if not math.isnan(value):
                values[y, x] = min(max(value, 0.5 * limits[0]), 2 * limits[1])
            mark(axis, x, y, _tooltip(part, walk, cell, field))
            _status(axis, x, y, cell.status)
    axis.set_yticks(range(len(cells)), [_row_name(walk, cells) for walk in cells], fontsize=8)
    axis.set(xlim=(-0.5, len(parts) - 0.5), ylim=(len(cells) - 0.5, -0.5))
    axis.grid(visible=False)
    axis.tick_params(length=0)
    edges = np.arange(len(parts) + 1) - 0.5, np.arange(len(cells) + 1) - 0.5
    return axis.pcolormesh(*edges, np.ma.masked_invalid(values), norm=LogNorm(*limits), cmap=colours, ec=PAPER, lw=0.7)


def _row_name(walk: tuple[str, str], cells: dict[tuple[str, str], dict[str, Cell]]) -> str:
    variant, probe = walk
    return f"{variant},\n{probe}" if len({v for v, _ in cells}) > 1 else probe


def _status(axis: Axes, x: int, y: int, status: str) -> None:
    if status in (FAULT, REFERENCE_WRONG):
        box = {"boxstyle": "circle,pad=0.12", "fc": "#ffffee", "ec": ON_COLOUR, "lw": 0.8}
        look: Any = {"ha": "center", "va": "center", "fontsize": 9, "fontweight": "bold", "color": ON_COLOUR}
        axis.text(x, y, MARKS[status], bbox=box, **look)
    elif status == INHERITED:
        axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="////", ec=ON_COLOUR, lw=0, zorder=3))


def _tooltip(part: str, walk: tuple[str, str], cell: Cell, field: str) -> str:
    where = f"{part}, {walk[0]}, probe {walk[1]}"
    error = "error" if walk[0] == findings.DUMPED else "local error"
    if field == "share" and math.isinf(cell.share):
        what = f"{error} without a limit that it could be within"
    elif field == "share":
        what = f"{error} {100 * cell.share:.3g} % of its limit, worst of {cell.values}"
    elif math.isnan(cell.own):
        what = "no relative accumulated error"
    else:
        what = f"relative accumulated RMS error {cell.own:.2g}"
    return f"{where}: {what}; {_word(walk[0], cell.status)}"


def _legend(figure: Figure, cells: dict[tuple[str, str], dict[str, Cell]]) -> None:
    statuses = {cell.status for row in cells.values() for cell in row.values()}
    empty = any(math.isnan(cell.own) for row in cells.values() for cell in row.values())
    inherited = _word(findings.DUMPED if _is_dump(cells) else "", INHERITED)
    empty = empty or len({len(row) for row in cells.values()}) > 1
    possible: list[tuple[bool, Any]] = [
        (FAULT in statuses, Line2D([], [], ls="", marker="x", mew=2, color=INK, label=WORDS[FAULT])),
        (REFERENCE_WRONG in statuses, Line2D([], [], ls="", marker="$R$", color=INK, label=WORDS[REFERENCE_WRONG])),
        (INHERITED in statuses, Patch(fc="#dddddd", hatch="////", ec=ON_COLOUR, lw=0, label=inherited)),
        (empty, Patch(fc=PAPER, ec=INK, lw=0.5, label="empty: no such value")),
    ]
    handles = [handle for shown, handle in possible if shown]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8.5)
