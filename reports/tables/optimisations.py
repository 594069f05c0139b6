"""Gain of each optimisation of rvc_mlx, and its error."""

from __future__ import annotations

from collections.abc import Iterator

from rvc_mlx.optimize import OPTIMIZATIONS
from suites.definitions.single import OFF, ON

from ..data.frame import Book, RunData
from ..render.document import Absent, Cell, Section, estimate_of
from . import cells
from .cells import Row

ABOUT = (
    "Two processes of one backend in turns, with and without one optimisation. *Gain*: time without over time with, "
    "same backend and precision (above 1: it pays), paired by round. *Superseded*: another one does its work on this "
    "device. *Max abs*, *relative*: how far it moves the result, the latter as root mean square over that of the "
    "result. `all`: everything against nothing. `blas`: the fast BLAS against MLX's own."
)


def ablation(book: Book) -> list[Section]:
    rows = [(run, row) for run in book.having("ablation") for row in _rows(run)]
    header = (
        "case", "optimisation", "backend", "with ms", "without ms", "gain", "in effect", "max abs", "relative",
        "status",
    )  # fmt: skip
    return cells.section("Optimisations", cells.table(book, "optimisations", header, rows, 3, (ABOUT,)))


def _rows(run: RunData) -> Iterator[Row]:
    for case, name, backend, with_, without, gain in run.ablations():
        found, option = [line for line in (with_, without) if line], name.partition(".")[2]
        times = [cells.time_ms(run, case, f"{name}.{side}", backend) for side in (ON, OFF)]
        sources = tuple(run.source(line, "samples_s") for line in found)
        number = estimate_of(gain, sources, unit="×") if gain else Absent()
        effect: Cell = Absent()
        if with_ and option in OPTIMIZATIONS:
            effect = "yes" if option in with_["optimize"] else "superseded"
        error = [cells.number(run, with_, f"parity.{figure}") for figure in ("max_abs", "relative")]
        status = next((line["status"] for line in found if line["status"] != "passed"), "passed")
        yield case, name, backend, *times, number, effect, *error, status if len(found) == 2 else "not measured"
