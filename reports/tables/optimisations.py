"""Gain of each optimisation of rvc_mlx, and its error."""

from __future__ import annotations

from collections.abc import Iterator

from rvc_mlx.optimize import OPTIMIZATIONS
from suites.base.lines import Line

from ..data.frame import Book, RunData
from ..render.document import Absent, Cell, Section, estimate_of, plain
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
    if not rows:
        return []
    header = (
        "case", "optimisation", "backend", "with ms", "without ms", "gain", "in effect", "max abs", "relative",
        "status",
    )  # fmt: skip
    return [Section("Optimisations", [cells.table(book, "optimisations", header, rows, 3, (ABOUT,))])]


def _rows(run: RunData) -> Iterator[Row]:
    for case in run.cases:
        for name in dict.fromkeys(component.rpartition(".")[0] for component in run.components):
            for backend in run.backends:
                keys = [(case, f"{name}.{side}", backend) for side in ("on", "off")]
                with_, without = (run.find(*key) for key in keys)
                if with_ or without:
                    times = [cells.time_ms(run, *key) for key in keys]
                    yield case, name, backend, *times, *_cells(run, name.partition(".")[2], with_, without)


def _cells(run: RunData, option: str, with_: Line | None, without: Line | None) -> Row:
    found = [line for line in (with_, without) if line]
    effect: Cell = Absent()
    if with_ and option in OPTIMIZATIONS:
        effect = "yes" if option in with_["optimize"] else "superseded"
    gain = run.gain(with_, without) if with_ and without else None
    sources = tuple(run.source(line, "samples_s") for line in found)
    number: Cell = Absent() if gain is None else estimate_of(gain, sources, unit="×")
    error = [_error(run, with_, name) for name in ("max_abs", "relative")]
    status = next((line["status"] for line in found if line["status"] != "passed"), "passed")
    return number, effect, *error, status if len(found) == 2 else "not measured"


def _error(run: RunData, line: Line | None, name: str) -> Cell:
    value = ((line or {}).get("parity") or {}).get(name)
    return Absent() if line is None or value is None else plain(value, (run.source(line, f"parity.{name}"),))
