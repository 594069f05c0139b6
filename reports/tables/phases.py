"""Fresh processes: memory, growth over many lengths, first runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from suites.base.backends import speed_reference
from suites.base.lines import Line

from ..data.frame import GROWTH, MIB, Book, RunData
from ..render.document import Absent, Cell, Num, Section, plain
from . import cells
from .cells import Row

MEMORY = (
    "Measured by the operating system and by the framework, in a fresh process for each case and backend; where there "
    "were several processes, the largest value. *Peak over PyTorch's*: the call's peak above the process before "
    "loading, over PyTorch's on the same device and in the same precision; below 1, MLX needs less. PyTorch has no "
    "count of its own on the CPU. Only Linux can tell the call's peak from the load's."
)
FIRST = (
    "From the same fresh processes; where there were several, the median. *Start* is the start of the interpreter and "
    "the harness, *import* that of the framework. *New shape* is an input of another length, *again* the same once "
    "more. *First over steady*: the time of the first call over that of a later one."
)
GROWING = (
    "Many lengths in one process, the longest first: the later ones need no memory that is not there already. *Added* "
    "is the difference of the resident memory after the last five lengths and after the first; *framework*: the same "
    "by the framework's own count, in use and kept for later. `rvc_mlx` is judged; the reference is shown."
)


def _rows(
    runs: Sequence[RunData], make: Callable[[RunData, Line], Sequence[Cell]], growth: bool = False
) -> list[tuple[RunData, Row]]:
    return [
        (run, (_model(run, line), line["case"], line["backend"], *make(run, line)))
        for run in runs
        for line in run.cold(growth)
    ]


def _model(run: RunData, line: Line) -> str:
    """The component of a suite with several models, else the suite."""
    return str(line["component"]) if run.suite.whole is None else run.name


def _has(run: RunData, name: str) -> bool:
    return any(c.get(name) is not None for line in run.cold() for c in line["cold"])


def memory(book: Book) -> list[Section]:
    runs = book.having("memory") or [
        run for run in book.runs if run.cases and not {"first_run", "precision"} & set(run.suite.sections)
    ]
    runs = [run for run in runs if _has(run, "peak_rss_bytes")]
    steady = "peak_rss_steady_bytes"
    names = {
        "before loading MiB": "base_rss_bytes",
        "peak while loading MiB": "peak_rss_load_bytes",
        "peak of the call MiB": "peak_rss_call_bytes",
        **({"peak of later calls MiB": steady} if any(_has(run, steady) for run in runs) else {}),
        "framework's own peak MiB": "peak_device_bytes",
    }

    def make(run: RunData, line: Line) -> list[Cell]:
        return [*(_largest(run, line, name) for name in names.values()), against(run, line)]

    header = ("model", "case", "backend", *names, "peak over PyTorch's")
    return cells.section("Memory", cells.table(book, "memory", header, _rows(runs, make), 3, (MEMORY,)))


def _largest(run: RunData, line: Line, name: str) -> Num | Absent:
    value = max((c[name] for c in line["cold"] if c.get(name)), default=None)
    return Absent() if value is None else plain(value / MIB, (run.source(line, f"cold.{name}"),), ".0f")


def memory_of_call(run: RunData, line: Line) -> Num | Absent:
    """The peak of the first call: the process's, or on a GPU the framework's own."""
    return _largest(run, line, "peak_rss_bytes" if line["device"] == "cpu" else "peak_device_bytes")


def _above(line: Line) -> list[float]:
    """Bytes of each process' call above its state before loading; the framework's own peak on a GPU."""
    if line["device"] != "cpu":
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
    if not ours or not theirs or min(theirs) <= 0:
        return Absent("this system cannot tell a call's peak from the load's")
    sources = (run.source(line, "cold"), run.source(other, "cold"))
    value, low, high = max(ours) / max(theirs), min(ours) / max(theirs), max(ours) / min(theirs)
    if len(ours) == 1 or len(theirs) == 1:
        return plain(value, sources, ".2f", unit="×")
    return Num(f"{value:.2f}× [{low:.2f}, {high:.2f}]", sources, value, low, high)


def growth(book: Book) -> list[Section]:
    runs = [run for run in book.having("memory") if GROWTH in run.cases]
    if not runs:
        return []

    def make(run: RunData, line: Line) -> list[Cell]:
        found, source = line["cold"][0]["growth"], (run.source(line, "cold.growth"),)
        parts = [f"{name}_{part}bytes" for part in ("", "device_") for name in ("grown", "limit")]
        figures = [Absent() if found.get(x) is None else plain(found[x] / MIB, source, ".0f") for x in parts]
        count, before = plain(len(found["series"]), source), plain(found["start"]["rss_bytes"] / MIB, source, ".0f")
        return [count, before, *figures, line["status"]]

    header = (
        "model", "case", "backend", "lengths", "before MiB", "added MiB", "limit MiB", "framework: added MiB",
        "limit of it MiB", "verdict",
    )  # fmt: skip
    return [Section("Growth", [cells.table(book, "growth", header, _rows(runs, make, True), 3, (GROWING,))])]


def first_run(book: Book) -> list[Section]:
    others = {"memory", "ablation", "precision"}
    runs = book.having("first_run") or [run for run in book.runs if run.cases and not others & set(run.suite.sections)]
    runs = [run for run in runs if _has(run, "first_call_s")]
    names = {f"{x} s": f"{x}_s".replace(" ", "_") for x in ("import", "load", "first call", "second call")}
    if any(_has(run, "new_shape_s") for run in runs):
        names = {"start s": "start_s", **names, "new shape s": "new_shape_s", "again s": "new_shape_again_s"}

    def make(run: RunData, line: Line) -> list[Cell]:
        found: list[Cell] = []
        for name in names.values():
            values = _values(line, name)
            found.append(plain(median(values), (run.source(line, f"cold.{name}"),)) if values else Absent())
        steady = run.time(line["case"], line["component"], line["backend"])
        if steady is None:
            return [*found, Absent(), Absent()]
        sources = (run.source(line, "samples_s"), run.source(line, "cold"))
        firsts = _values(line, "first_call_s")
        over = plain(median(firsts) / steady.value, sources, ".2f", unit="×") if firsts else Absent()
        return [*found, plain(steady.value, sources[:1]), over]

    header = ("model", "case", "backend", *names, "steady call s", "first over steady")
    table = cells.table(book, "first-run", header, _rows(runs, make), 3, (FIRST,))
    return cells.section("First run against steady state", table)


def _values(line: Line, name: str) -> list[float]:
    return [float(c[name]) for c in line["cold"] if c.get(name) is not None]
