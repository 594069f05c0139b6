"""What each optimisation of rvc_mlx gains, and how far it moves the result."""

from __future__ import annotations

from collections.abc import Iterator

from suites.listing import optimisations
from suites.record import Line

from .. import cells
from ..cells import Row
from ..document import Absent, Cell, Section, estimate_of, plain
from ..frame import Book, RunData

ABOUT = (
    "Two processes of one backend in turns, with and without one optimisation. *Gain*: time without over time with, "
    "same backend and precision (above 1: it pays), paired by round. *Superseded*: another one does its work on this "
    "device. *Max abs*, *relative*: how far it moves the result, the latter as root mean square over that of the "
    "result. `all`: everything against nothing. `blas`: the fast BLAS against MLX's own."
)


def ablation(book: Book) -> list[Section]:
    rows = [(run, row) for run in book.of("ablation") for row in _rows(run)]
    if not rows:
        return []
    header = (
        "case", "optimisation", "backend", "with ms", "without ms", "gain", "in effect", "max abs", "relative",
        "status",
    )  # fmt: skip
    return [Section("Optimisations", [cells.table(book, "optimisations", header, rows, 3, (ABOUT,))])]


def _rows(run: RunData) -> Iterator[Row]:
    for case in run.cases:
        for component in run.components:
            name, _, side = component.rpartition(".")
            for backend in run.backends if side == "on" else ():
                with_, without = run.find(case, component, backend), run.find(case, f"{name}.off", backend)
                if with_ and without:
                    yield case, name, backend, *_cells(run, with_, without)


def _cells(run: RunData, with_: Line, without: Line) -> Row:
    option = with_["component"].split(".")[1]
    known = option in optimisations()
    effect: Cell = Absent() if not known else "yes" if option in with_["optimize"] else "superseded"
    times = [cells.time_ms(run, x["case"], x["component"], x["backend"]) for x in (with_, without)]
    gain, parity = run.gain(with_, without), with_["parity"] or {}
    sources = (run.source(with_, "samples_s"), run.source(without, "samples_s"))
    number: Cell = Absent() if gain is None else estimate_of(gain, sources, unit="×")
    error = [
        plain(parity[name], (run.source(with_, f"parity.{name}"),)) if parity.get(name) is not None else Absent()
        for name in ("max_abs", "relative")
    ]
    status = with_["status"] if with_["status"] != "passed" else without["status"]
    return *times, number, effect, *error, status
