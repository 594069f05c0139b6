"""One style for all figures; colours by Okabe and Ito, each with its own marker.

A figure is saved twice: as PNG, and as SVG with a tooltip at every point that ``mark`` names. The SVG takes its
foreground and background colours from the page.
"""

from __future__ import annotations

import base64
import io
import re
import zlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from PIL import Image

from rvc_common.outputs import whole

# of what has no style of its own, such as a plugin's backend
SPARE = (
    ("#882255", "P"), ("#117733", "<"), ("#999933", ">"), ("#332288", "h"), ("#AA4499", "p"),
    ("#000000", "H"), ("#CC6677", "8"), ("#44AA99", "X"), ("#E69F00", "d"),
)  # fmt: skip


class Styles(dict[str, tuple[str, str]]):
    """Colour and marker by name; a new name takes a spare one."""

    def __missing__(self, name: str) -> tuple[str, str]:
        return self.setdefault(name, SPARE[len(self) % len(SPARE)])


STYLES = Styles(
    {
        "torch_cpu": ("#0072B2", "o"),
        "torch_cuda": ("#56B4E9", "s"),
        "torch_mps": ("#009E73", "D"),
        "mlx_cpu": ("#D55E00", "^"),
        "mlx_gpu": ("#CC79A7", "v"),
    }
)
# other estimators, by Tol; dashed where they are lines
OTHERS = Styles(
    {
        "pyin": ("#882255", "P"),
        "praat": ("#117733", "X"),
        "harvest": ("#999933", "<"),
        "dio": ("#AA4499", ">"),
        "crepe": ("#332288", "h"),
        "crepe_tiny": ("#6699CC", "p"),
        "fcpe": ("#661100", "*"),
        "swift_f0": ("#44AA99", "d"),
        "pesto": ("#CC6677", "H"),
    }
)
# replaced by the page's colours in the HTML report
INK, PAPER = "#000000", "#ffffff"
# text on a coloured bar, in any theme
ON_COLOUR = "#111111"
# what stands side by side in one bar: light enough for text, each with its own hatching
PARTS = (
    ("#56B4E9", ""), ("#E69F00", "//"), ("#44C08A", ".."), ("#F0E442", "\\\\"),
    ("#DD9BBE", "xx"), ("#BBBBBB", "--"), ("#E8835A", "++"), ("#8FB4D9", "oo"),
)  # fmt: skip
# inches: the width of a printed page
WIDTH = 7.1
RC: Any = {
    "figure.dpi": 110,  # as the PNG has, so that one layout serves both files
    "font.size": 9.5,
    "axes.titlesize": 10,
    "figure.titlesize": 10.5,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "rvc-parity",
    "svg.fonttype": "path",
    "text.parse_math": False,  # a file name may contain dollar signs
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
}
# a coordinate of an SVG; scale factors and rasters keep all digits
NUMBER = re.compile(r"(scale\([^)]*\)|base64,[^\"]*)|(-?\d+\.\d{3,})")
# a raster within an SVG
IMAGE = re.compile(r'"data:image/png;base64,\s*([^"]+)"')
# colours, and cells of a heat map across: published documents carry dozens of PNGs
PNG_COLOURS, PNG_CELLS = 96, 200
# the highest takes three times as long for one per cent
PNG_COMPRESSION = 8
# inches that an entry of a legend takes, and a letter of it
LEGEND_MARK, LEGEND_LETTER = 0.5, 0.075
# radius of the tooltip's target, in points
REACH = 6.0


def panels(
    count: int, height: float, columns: int = 4, width: float = 3.1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """``count`` axes, at most ``columns`` in a row; ``height`` and ``width`` of each in inches."""
    columns = min(count, columns)
    rows = -(-count // columns)
    size = (max(width * columns, 4.6), height * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def mark(axis: Axes, x: Any, y: Any, text: str) -> None:
    """Name a point in data coordinates: the HTML report shows ``text`` as a tooltip, and screen readers read it."""
    figure: Any = axis.figure
    if not hasattr(figure, "named_marks"):
        figure.named_marks = []
    figure.named_marks.append((axis, x, y, text))


def legend_below(figure: Figure, axes: Sequence[Axes], most: int = 4, **options: Any) -> None:
    """One legend for all axes, each label once, at most ``most`` in a row and as many as are wide enough."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        widest = LEGEND_MARK + LEGEND_LETTER * max(map(len, found))
        columns = max(1, min(most, len(found), int(figure.get_figwidth() / widest)))
        options |= {"loc": "outside lower center", "ncols": columns, "fontsize": 8.5}
        figure.legend(list(found.values()), list(found), **options)


def reach(low: float, value: float, high: float) -> Any:
    """An interval as ``errorbar`` takes it."""
    return [[value - low], [high - value]]


def plain_numbers(axis: Any, values: Sequence[float]) -> None:
    """Ticks of a logarithmic axis at these values, written as plain numbers."""
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_locator(NullLocator())


def one_two_five(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers for a logarithmic axis: powers of ten, or 1, 2, 5, 10 and finer where that leaves few."""
    exponents = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
    inside: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        values = [float(f"{m * 10.0**e:.3g}") for e in exponents for m in steps]
        inside = [v for v in values if low <= v <= high]
        if len(inside) >= 3:
            return inside[:: -(-len(inside) // most)]
    values = [float(f"{v:.4g}") for v in MaxNLocator(most - 1, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    return [v for v in values if low <= v <= high] or inside


def lay_out(figure: Figure) -> None:
    """Give the axes their final size, without drawing anything."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)


def save(figure: Figure, path: Path) -> str:
    """Write the PNG; return the SVG. The same figure gives the same bytes.

    Calls the canvases directly, because ``savefig`` computes the layout for each file.
    """
    lay_out(figure)
    figure.set_layout_engine("none")
    dpi = figure.dpi
    stream = io.StringIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    width, height = (72 * inches for inches in figure.get_size_inches())
    pixels = figure.bbox.height
    found = []
    for axis, x, y, words in getattr(figure, "named_marks", []):
        px, py = axis.transData.transform((x, y))
        scale = 72 / figure.dpi
        cx, cy = px * scale, (pixels - py) * scale
        if 0 <= cx <= width and 0 <= cy <= height:
            label = escape(words)
            found.append(
                f'<circle class="mark" tabindex="0" role="img" aria-label="{label}" cx="{cx:.1f}" cy="{cy:.1f}" '
                f'r="{REACH:g}"><title>{label}</title></circle>'
            )
    figure.set_dpi(dpi)
    _save_png(figure, path)
    plt.close(figure)
    text = IMAGE.sub(_with_palette, _compact(text[text.index("<svg") :]))
    text = _page_colours(_own_names(text, path.stem))
    return text.replace("</svg>", "".join(found) + "\n</svg>")


def _save_png(figure: Figure, path: Path) -> None:
    """Fewer pixels, colours and cells than the SVG: a quarter of the bytes, as readable. The figure is changed."""
    for image in (image for axis in figure.axes for image in axis.images):
        values = np.asarray(image.get_array())
        cell = -(-values.shape[1] // PNG_CELLS)
        edges = np.arange(0, values.shape[1], cell)
        image.set_data(np.add.reduceat(values, edges, axis=1) / np.diff(edges, append=values.shape[1]))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture = picture.quantize(PNG_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    with whole(path) as part:
        picture.save(part, "PNG", compress_level=PNG_COMPRESSION)


def _compact(svg: str) -> str:
    """Remove comments and redundant whitespace, and round coordinates to 0.01 points."""
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = NUMBER.sub(lambda m: m[1] or f"{float(m[2]):.2f}".rstrip("0").rstrip("."), svg)
    svg = re.sub(r'(?<= d=")[^"]+', lambda m: re.sub(r"\s*([A-Za-z])\s*", r"\1", m[0]), svg)
    return re.sub(r"\n\s*", "\n", svg)


def _own_names(svg: str, name: str) -> str:
    """Keep only identifiers that are referenced, and make them unique on a page with many figures."""
    figure, used = zlib.crc32(name.encode()), re.findall(r'(?:href="#|url\(#)([^")]+)', svg)
    names = {old: f"f{figure:x}-{i:x}" for i, old in enumerate(dict.fromkeys(used))}
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{names[m[1]]}"' if m[1] in names else "", svg)
    return re.sub(r'(?:xlink:)?(href="#|url\(#)([^")]+)', lambda m: m[1] + names[m[2]], svg)


def _with_palette(match: re.Match[str]) -> str:
    """Store a raster of at most 256 opaque colours with a palette: one byte per pixel in place of four."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(match[1]))).convert("RGBA"))
    colours, indices = np.unique(pixels.reshape(-1, 4), axis=0, return_inverse=True)
    if len(colours) > 256 or (colours[:, 3] < 255).any():
        return match[0]
    image = Image.fromarray(indices.reshape(pixels.shape[:2]).astype(np.uint8), mode="P")
    image.putpalette(colours[:, :3].tobytes())
    stream = io.BytesIO()
    image.save(stream, format="png", compress_level=PNG_COMPRESSION)
    return f'"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"'


def _page_colours(svg: str) -> str:
    """Replace foreground and background by the page's CSS variables, and drop the fixed size."""
    svg = svg.replace(INK, "var(--ink)").replace(PAPER, "var(--paper)")
    # the page scales it; the size in points would overflow a phone
    for name in ("height", "width"):
        svg = re.sub(rf'(<svg[^>]*?) {name}="[^"]*"', r"\1", svg, count=1)
    return svg
