"""Fresh processes: memory, growth over many lengths, first runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from suites.base.backends import speed_reference
from suites.base.lines import Line

from ..data.frame import Book, RunData
from ..render.document import Absent, Cell, Num, Section, Table, plain
from . import cells
from .cells import MIB, Row

GROWTH = "growth"
MEMORY = (
    "By the operating system and by the framework, each in a fresh process per case and backend; the largest, where "
    "there were several processes. *Peak over PyTorch's*: the call's peak above the process before loading, over the "
    "same of PyTorch on that device and in that precision; below 1, MLX needs less. PyTorch keeps no count of its own "
    "on the CPU; only Linux can tell the call's peak from the load's."
)
FIRST = (
    "In the same fresh processes; the median, where there were several. *Start* is the interpreter's and the "
    "harness's own start; *import* the framework's; the *new shape* is an input of another length, twice. *First over "
    "steady*: what the first call takes longer than a later one."
)
GROWING = (
    "Many lengths in one process, the longest one first: what comes after it needs nothing that is not there. *Added* "
    "is the resident memory after the last five over that after the first; *framework*: the same of what it holds by "
    "its own count, in use and kept for later. `rvc_mlx` is judged; the reference is shown."
)


def lines_of(run: RunData, growth: bool) -> list[Line]:
    """Records of everything that was measured in fresh processes; ``growth``: the case of many lengths instead."""
    return [line for line in run.ordered() if line.get("cold") and (line["case"] == GROWTH) == growth]


def _rows(
    runs: Sequence[RunData], make: Callable[[RunData, Line], Sequence[Cell]], growth: bool = False
) -> list[tuple[RunData, Row]]:
    return [
        (run, (_model(run, line), line["case"], line["backend"], *make(run, line)))
        for run in runs
        for line in lines_of(run, growth)
    ]


def _model(run: RunData, line: Line) -> str:
    """The component of a suite with several models, else the suite."""
    return str(line["component"]) if run.suite.whole is None else run.name


def _has(line: Line, name: str) -> bool:
    return any(c.get(name) is not None for c in line.get("cold") or [])


# ---------------------------------------------------------------------- memory
def memory(book: Book) -> list[Section]:
    runs = book.having("memory") or [run for run in book.runs if run.cases and "first_run" not in run.suite.sections]
    runs = [run for run in runs if any(_has(line, "peak_rss_bytes") for line in lines_of(run, False))]
    if not runs:
        return []
    steady = any(_has(line, "peak_rss_steady_bytes") for run in runs for line in lines_of(run, False))
    names = {
        "before loading MiB": "base_rss_bytes",
        "peak while loading MiB": "peak_rss_load_bytes",
        "peak of the call MiB": "peak_rss_call_bytes",
        **({"peak of later calls MiB": "peak_rss_steady_bytes"} if steady else {}),
        "framework's own peak MiB": "peak_device_bytes",
    }

    def make(run: RunData, line: Line) -> list[Cell]:
        found: list[Cell] = [_largest(run, line, name) for name in names.values()]
        return [*found, against(run, line)]

    header = ("model", "case", "backend", *names, "peak over PyTorch's")
    return [Section("Memory", [cells.table(book, "memory", header, _rows(runs, make), 3, (MEMORY,))])]


def _largest(run: RunData, line: Line, name: str) -> Num | Absent:
    value = max((c[name] for c in line["cold"] if c.get(name)), default=None)
    return cells.mebibytes(run, line, value, f"cold.{name}", "")


def _above(line: Line) -> list[float]:
    """Bytes of each process' call above its state before loading; the framework's own peak on a GPU."""
    if not line["backend"].endswith("_cpu"):
        return [float(c["peak_device_bytes"]) for c in line["cold"] if c.get("peak_device_bytes")]
    known = [c for c in line["cold"] if c.get("peak_rss_call_bytes") and c.get("base_rss_bytes")]
    return [float(c["peak_rss_call_bytes"] - c["base_rss_bytes"]) for c in known]


def against(run: RunData, line: Line) -> Num | Absent:
    """Ours over PyTorch's, with the range over processes; one process each has no range."""
    reference = speed_reference(line["backend"], run.backends)
    if reference is None:
        return Absent()
    other = run.find(line["case"], line["component"], reference)
    if other is None or other["status"] == "error":
        return Absent(run.why(line["case"], line["component"], reference))
    ours, theirs = _above(line), _above(other) if other.get("cold") else []
    if not ours or not theirs or max(theirs) <= 0:
        return Absent("this system cannot tell a call's peak from the load's")
    sources = (run.source(line, "cold"), run.source(other, "cold"))
    value, low, high = max(ours) / max(theirs), min(ours) / max(theirs), max(ours) / min(theirs)
    if len(ours) == 1 or len(theirs) == 1:
        return plain(value, sources, ".2f", unit="×")
    return Num(f"{value:.2f}× [{low:.2f}, {high:.2f}]", sources, value, low, high)


# ---------------------------------------------------------------------- growth
def growth(book: Book) -> list[Section]:
    runs = [run for run in book.having("memory") if GROWTH in run.cases]
    if not runs:
        return []

    def make(run: RunData, line: Line) -> list[Cell]:
        found, source = line["cold"][0]["growth"], (run.source(line, "cold.growth"),)
        parts = [f"{name}_{part}bytes" for part in ("", "device_") for name in ("grown", "limit")]
        figures: list[Cell] = [
            Absent() if found.get(name) is None else plain(found[name] / MIB, source, ".0f") for name in parts
        ]
        count, before = plain(len(found["series"]), source), plain(found["start"]["rss_bytes"] / MIB, source, ".0f")
        return [count, before, *figures, line["status"]]

    header = (
        "model", "case", "backend", "lengths", "before MiB", "added MiB", "limit MiB", "framework: added MiB",
        "limit of it MiB", "verdict",
    )  # fmt: skip
    return [Section("Growth", [cells.table(book, "growth", header, _rows(runs, make, True), 3, (GROWING,))])]


# ---------------------------------------------------------------------- first runs
def first_run(book: Book) -> list[Section]:
    others = {"memory", "ablation"}
    runs = book.having("first_run") or [run for run in book.runs if run.cases and not others & set(run.suite.sections)]
    runs = [run for run in runs if any(_has(line, "first_call_s") for line in lines_of(run, False))]
    if not runs:
        return []
    return [Section("First run against steady state", [_first_table(book, runs)])]


def _first_table(book: Book, runs: Sequence[RunData]) -> Table:
    names = {
        "import s": "import_s",
        "load s": "load_s",
        "first call s": "first_call_s",
        "second call s": "second_call_s",
    }
    if any(_has(line, "new_shape_s") for run in runs for line in lines_of(run, False)):
        names = {"start s": "start_s", **names, "new shape s": "new_shape_s", "again s": "new_shape_again_s"}

    def make(run: RunData, line: Line) -> list[Cell]:
        found: list[Cell] = [_median(run, line, name) for name in names.values()]
        steady = run.time(line["case"], line["component"], line["backend"])
        if steady is None:
            return [*found, Absent(), Absent()]
        timed = (run.source(line, "samples_s"),)
        first = _typical(line, "first_call_s")
        over = (
            Absent()
            if first is None
            else plain(first / steady.value, (*timed, run.source(line, "cold")), ".2f", unit="×")
        )
        return [*found, plain(steady.value, timed), over]

    header = ("model", "case", "backend", *names, "steady call s", "first over steady")
    return cells.table(book, "first-run", header, _rows(runs, make), 3, (FIRST,))


def _typical(line: Line, name: str) -> float | None:
    values: list[Any] = [c[name] for c in line["cold"] if c.get(name) is not None]
    return float(median(values)) if values else None


def _median(run: RunData, line: Line, name: str) -> Num | Absent:
    value = _typical(line, name)
    return Absent() if value is None else plain(value, (run.source(line, f"cold.{name}"),))
