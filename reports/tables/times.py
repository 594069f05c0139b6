"""Time: whole calls, their parts, real audio, precision of the times, and the roofline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from statistics import median

from suites.base.lines import Line
from suites.base.records import key_of
from suites.base.speed import Estimate
from suites.definitions import with_section

from ..data import fits
from ..data.frame import Book, RunData, launches_of
from ..data.roofs import Roof, device_of, roofs
from ..render.document import Absent, Cell, Code, Num, Paragraph, Section, Table, Text, plain, say
from . import cells, phases
from .cells import Row
from .parity import closest

ABOUT = (
    "{what}, steady state. The realtime factor is processing time over the duration of the audio: smaller is faster, "
    "below 1 is faster than real time. The speed-up is PyTorch's time over MLX's, on the same device and from the "
    "same rounds: above 1, MLX is faster. "
)
PRECISION = (
    "*Known to* is half of the speed-up's interval. *Smallest change seen*: the smallest change that two runs like "
    "this one would detect in 80 % of cases (one comparison, one-sided, 5 %). *Settled*: launches whose warm-up ended "
    "because calls had stopped becoming faster, and not because time had run out."
)
SPREAD = (
    "Every launch is a fresh process of the same program and has a median of its own. The table has the lowest and "
    "the highest of them, and their ratio."
)
REAL = (
    "A recording in place of the synthetic voice. *Output* is the audio that a conversion made; pitch and features "
    "make none."
)
ROOFLINE = (
    "FLOPs and bytes of one call, counted on the PyTorch side: matrix products, convolutions and attention; one FLOP "
    "for each value of any other operator; every operator's tensors read and written once. *Of the roof*: the "
    "achieved rate over the highest one that this intensity allows, which is the smaller of the fastest matrix "
    "product and intensity times the fastest copy. Both are the best that any framework reached on that device within "
    "this run. More than 100 % of a roof that bytes limit means that values stayed in caches or that operators were "
    "fused. A program may also do less than what is counted (Williams, Waterman and Patterson, CACM 52(4), 2009)."
)
# backends with a column of their own
MOST_COLUMNS = 2
NO_PEAKS = "no peaks of this device were measured (`measure.peaks`)"
PEAKS = {
    "matrix product GFLOP/s": ("matmul_flops_per_s", 1e-9),
    "of size": ("matmul_size", 1),
    "copy GB/s": ("copy_bytes_per_s", 1e-9),
}


def of_suite(book: Book, runs: Sequence[RunData]) -> list[Section]:
    """The times of one suite's runs: the whole call, its parts, and their sum."""
    if not runs:
        return []
    first, whole = runs[0], runs[0].suite.whole
    sections = [Section(first.suite.title)]
    about = ABOUT.format(what=first.suite.about_time)
    if whole is not None:
        sections[0].blocks.append(latency(book, runs, whole, about))
    else:
        sections[0].blocks.append(Paragraph((about + first.suite.about_components,)))
    parts = [name for name in _components(runs) if name != whole]
    if parts:
        words = first.config["suite"]["components"]
        explained = "; ".join(f"`{name}`: {words[name].split(' (')[0]}" for name in parts if name in words)
        about_parts = [Paragraph((f"{explained}.",)), Paragraph(_about_parts(runs))]
        inner = Section("Parts" if whole else "Every part", [*about_parts, by_component(book, runs, parts)], level=3)
        if whole is not None:
            inner.blocks.append(breakdown(book, runs))
        sections.append(inner)
    return sections


def _components(runs: Sequence[RunData]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.components))


def _places(runs: Sequence[RunData]) -> Iterator[tuple[RunData, str, str]]:
    return ((run, case, backend) for run in runs for case in run.cases for backend in run.backends)


def _about_parts(runs: Sequence[RunData]) -> Text:
    """Whether one call timed the parts and the whole, and how well the parts add up."""
    whole = runs[0].suite.whole
    if whole is None:
        return ("Times are in milliseconds.",)
    found = [pair for run, case, backend in _places(runs) for pair in run.parts_over_whole(case, backend)]
    if not found:
        return say(
            "Each part gets the same input on every backend and is timed from host memory to host memory, in "
            "milliseconds. The whole call ({}) keeps its values on the device, so its parts may add up to more.",
            Code(whole),
        )
    worst = max(abs(s / w - 1) for s, w in found)
    tolerance = 100 * runs[0].config["suite"]["parts_tolerance"]
    return say(
        "The parts of the calls timed above, in milliseconds: each ends when its result is in host memory. In every "
        "round they must add up to the whole ({}) within {}; the largest deviation was {}.",
        Code(whole),
        plain(tolerance, (runs[0].file("config.yaml#suite.parts_tolerance"),), "g", unit=" %"),
        plain(100 * worst, cells.all_sources(runs), ".3f", unit=" %"),
    )


def latency(book: Book, runs: Sequence[RunData], component: str, about: str) -> Table:
    """One component on all backends: time, realtime factor, speed-up."""
    rows: list[tuple[RunData, Row]] = []
    used: list[Estimate | None] = []
    for run, case, backend in _places(runs):
        used += [run.time(case, component, backend), run.speedup(case, component, backend)]
        figures = (f(run, case, component, backend) for f in (cells.time_ms, cells.realtime_factor, cells.speedup))
        rows.append((run, (case, backend, cells.seconds_of(run, case), *figures)))
    header = ("case", "backend", "audio s", "time ms", "realtime factor", "speed-up")
    words = (about, *cells.coverage(used, cells.all_sources(runs)))
    return cells.table(book, f"{runs[0].name}-time", header, rows, 2, words)


def by_component(book: Book, runs: Sequence[RunData], components: Sequence[str]) -> Table:
    """Every component: a column of milliseconds per backend, and one of speed-ups per pair; of many backends a row of
    each."""
    backends = list(dict.fromkeys(b for run in runs for b in run.backends))
    if len(backends) > MOST_COLUMNS:
        return by_backend(book, runs, components)
    faster = [b for b in backends if any(run.speed_reference(b) for run in runs)]
    rows: list[tuple[RunData, Row]] = []
    for run in runs:
        for case, component in product(run.cases, (c for c in components if c in run.components)):
            row: list[Cell] = [case, component]
            row += [cells.time_ms(run, case, component, b) if b in run.backends else Absent() for b in backends]
            row += [cells.speedup(run, case, component, b) if b in run.backends else Absent() for b in faster]
            rows.append((run, row))
    header = ("case", "component", *(f"{b} ms" for b in backends), *(f"speed-up of {b}" for b in faster))
    return cells.table(book, f"{runs[0].name}-parts", header, rows, 2)


def by_backend(book: Book, runs: Sequence[RunData], components: Sequence[str]) -> Table:
    """A row for every component and backend: its time, its speed-up, its memory where it was measured, and how far its
    result is from the reference's."""
    rows: list[tuple[RunData, Row]] = []
    with_memory = any(run.cold() for run in runs)
    for run in runs:
        wanted = (name for name in components if name in run.components)
        for case, component, backend in product(run.cases, wanted, run.backends):
            line = run.find(case, component, backend)
            if line is None:
                continue
            port = run.environment["backends"].get(backend, {}).get("port")
            who: Cell = backend if port is None else f"{backend} ({port})"
            times = (f(run, case, component, backend) for f in (cells.time_ms, cells.speedup))
            near = closest([line]) if line["backend"] != line.get("reference") else None
            figures: Row = (Absent(), Absent())
            if near is not None:
                share, name, _ = near
                value = cells.number(run, line, f"parity.limits.{name}.value")
                figures = (say("{} {}", Code(name), value), plain(100 * share, (run.source(line, "parity"),), ".0f"))
            held = (phases.memory_of_call(run, line),) if with_memory else ()
            rows.append((run, (case, component, who, *times, *held, *figures, line["status"])))
    times_of = ("time ms", "speed-up", *(("memory MiB",) if with_memory else ()))
    header = ("case", "component", "backend", *times_of, "closest figure", "of its limit %", "status")
    return cells.table(book, f"{runs[0].name}-parts", header, rows, 3)


def breakdown(book: Book, runs: Sequence[RunData]) -> Table:
    """Median of every component in milliseconds, and the sum of the parts of one call."""
    components = _components(runs)
    header = ["case", "backend", *(f"{c} ms" for c in components)]
    summed = any(run.parts_over_whole(case, backend) for run, case, backend in _places(runs))
    header += ["sum of the parts ms", "sum over whole %"] if summed else []
    rows: list[tuple[RunData, Row]] = []
    for run, case, backend in _places(runs):
        row: list[Cell] = [case, backend]
        for time in (cells.time_ms(run, case, component, backend) for component in components):
            row.append(time if isinstance(time, Absent) else plain(time.value or 0.0, time.sources))
        pairs, sources = run.parts_over_whole(case, backend), (run.file(f"records.jsonl#{case}/*/{backend}.samples_s"),)
        if pairs:
            row.append(plain(1e3 * median(s for s, _ in pairs), sources))
            row.append(plain(100 * median(s / w for s, w in pairs), sources, ".2f"))
        rows.append((run, [*row, *[Absent()] * (len(header) - len(row))]))
    return cells.table(book, f"{runs[0].name}-breakdown", header, rows, 2, ("Times side by side.",))


def slopes(book: Book) -> list[Section]:
    """Slope of the time of whole calls over duration."""
    rows: list[tuple[RunData, Row]] = []
    for run in book.having("time"):
        whole = run.suite.whole or ""
        cases = [case for case in run.cases if case.startswith("synthetic")]
        for backend in run.backends:
            points = [(run.duration_s(c), e.value) for c in cases if (e := run.time(c, whole, backend))]
            line = fits.line(*zip(*points, strict=True)) if points else None
            if line is not None:
                sources = (run.file(f"records.jsonl#synthetic-*/{whole}/{backend}.samples_s"),)
                facts = (plain(1e3 * line.slope, sources), plain(1e3 * line.intercept, sources))
                rows.append((run, (run.name, backend, plain(len(points), sources), *facts)))
    header = ("suite", "backend", "durations", "ms per second of audio", "ms at zero")
    about = (
        "A straight line through the times of whole calls over duration (least squares of relative errors). *At zero*: "
        "the line at a duration of zero, extrapolated and not measured; it can be negative.",
    )
    return cells.section("Time against duration", cells.table(book, "slopes", header, rows, 2, about))


def real_audio(book: Book) -> list[Section]:
    rows = [
        (run, _real_row(run, case, run.suite.whole, backend))
        for run, case, backend in _places(book.having("time"))
        if run.suite.whole and not case.startswith("synthetic")
    ]
    header = (
        "suite", "case", "backend", "audio s", "time ms", "realtime factor", "output s", "output samples", "speed-up",
    )  # fmt: skip
    return cells.section("Real audio", cells.table(book, "real-audio", header, rows, 3, (REAL,)))


def _real_row(run: RunData, case: str, whole: str, backend: str) -> Row:
    line = run.find(case, whole, backend)
    made = (line or {}).get("output")
    output: Row = (Absent(), Absent())
    if line and made:
        sources = (run.source(line, "output"),)
        output = plain(made["samples"] / made["sample_rate"], sources, ".3f"), plain(made["samples"], sources)
    time, factor, gain = (f(run, case, whole, backend) for f in (cells.time_ms, cells.realtime_factor, cells.speedup))
    return (run.name, case, backend, cells.seconds_of(run, case), time, factor, *output, gain)


# ---------------------------------------------------------------------- how well it is known
def precision(book: Book) -> list[Section]:
    """Interval of each speed-up, spread of launches, and other load of the machine."""
    runs = book.having("time")
    if not runs:
        return []
    section = Section("How well the times are known", [Paragraph((PRECISION,))])
    rows = [
        (run, (run.name, *key_of(line), *_precision_cells(run, line)))
        for run in runs
        for line in run.ordered()
        if line["samples_s"] and run.speed_reference(line["backend"])
    ]
    header = (
        "suite", "case", "component", "backend", "launches", "rounds", "calls a sample", "warm-up calls", "settled",
        "speed-up known to %", "smallest change seen %", "processors taken by others %",
    )  # fmt: skip
    if rows:
        section.blocks.append(cells.table(book, "precision", header, rows, 4))
    spread = [(run, row) for run in runs for row in _spread_rows(run)]
    if spread:
        head = ("suite", "case", "backend", "launches", "lowest ms", "highest ms", "highest over lowest")
        section.blocks.append(cells.table(book, "launches", head, spread, 3, (SPREAD,)))
    return [section]


def _precision_cells(run: RunData, line: Line) -> Row:
    key, warm, source = key_of(line), line.get("warmup") or [], (run.source(line, "warmup"),)
    gain, ratio = run.speedup(*key), cells.gain_number(run, *key)
    none: Cell = ratio if isinstance(ratio, Absent) else Absent()
    launches, rounds, known, seen = none, none, none, none
    if gain and isinstance(ratio, Num):
        launches, rounds = plain(gain.launches, ratio.sources), plain(gain.rounds, ratio.sources)
        if gain.rounds > 1:
            known = plain(100 * gain.half_width, ratio.sources, ".1f")
        if gain.detectable is not None:
            seen = plain(100 * gain.detectable, ratio.sources, ".1f")
    steady = plain(sum(w["steady"] for w in warm), source)
    return (
        launches,
        rounds,
        cells.number(run, line, "calls"),
        plain(median(float(w["calls"]) for w in warm), source) if warm else Absent(),
        say("{} of {}", steady, plain(len(warm), source)) if warm else Absent(),
        known,
        seen,
        cells.number(run, line, "others_share", ".1f", 100),
    )


def _spread_rows(run: RunData) -> Iterator[Row]:
    for line in run.ordered():
        if line["component"] == run.suite.whole and line["samples_s"]:
            groups: dict[int, list[float]] = {}
            for seconds, launch in zip(line["samples_s"], launches_of(line), strict=True):
                groups.setdefault(launch, []).append(seconds)
            medians = sorted(1e3 * median(group) for group in groups.values())
            source = (run.source(line, "samples_s"),)
            figures = (plain(x, source) for x in (len(medians), medians[0], medians[-1]))
            spread = plain(medians[-1] / medians[0], source, ".2f", unit="×")
            yield run.name, line["case"], line["backend"], *figures, spread


def roofline(book: Book) -> tuple[list[Section], str]:
    """The table, or the reason why there is none."""
    runs, suite = book.having("roofline"), with_section("roofline")[0]
    if not runs:
        return [], f"no run of the suite `{suite}`"
    rows = [(run, row) for run in runs for row in _roofline_rows(run)]
    if not rows:
        return [], f"the runs of `{suite}` hold no FLOPs: PyTorch counts them"
    header = (
        "case", "component", "backend", "GFLOP", "MB", "FLOP per byte", "achieved GFLOP/s", "of the roof %",
        "limited by",
    )  # fmt: skip
    section = Section("What the machine could do", [cells.table(book, "roofline", header, rows, 3, (ROOFLINE,))])
    peaks = _peaks(book, runs)
    section.blocks += [peaks] if peaks.rows else []
    return [section], ""


def _roofline_rows(run: RunData) -> Iterator[Row]:
    tops = roofs(run)
    for line in run.ordered():
        key = case, component, backend = key_of(line)
        # where a component was timed in both ways, the time on the device is used
        if f"{component}_device" not in run.components and line.get("work") and (time := run.time(*key)):
            yield case, component, backend, *_roofline_cells(run, line, time, tops.get(device_of(backend)))


def _roofline_cells(run: RunData, line: Line, time: Estimate, top: Roof | None) -> Row:
    work, counted, timed = line["work"], (run.source(line, "work"),), (run.source(line, "samples_s"),)
    flops, moved = work["flops_products"] + work["flops_other"], work["bytes"]
    intensity = flops / moved
    share: Cell = Absent(NO_PEAKS)
    if top:
        sources = (*counted, *timed, *top.sources)
        share = plain(100 * flops / time.value / top.at(intensity), sources, ".0f")
    return (
        plain(flops / 1e9, counted),
        plain(moved / 1e6, counted),
        plain(intensity, counted),
        plain(flops / time.value / 1e9, (*counted, *timed)),
        share,
        Absent() if top is None else "arithmetic" if intensity > top.knee else "memory",
    )


def _peaks(book: Book, runs: Sequence[RunData]) -> Table:
    rows: list[tuple[RunData, Row]] = []
    for run in runs:
        for backend, facts in run.environment.get("backends", {}).items():
            found, source = facts.get("peaks"), (run.file(f"environment.json#backends.{backend}.peaks"),)
            if found:
                values = [(found.get(name), scale) for name, scale in PEAKS.values()]
                row = [Absent() if value is None else plain(value, source, scale=scale) for value, scale in values]
                rows.append((run, (backend, *row)))
    return cells.table(book, "peaks", ("backend", *PEAKS), rows, 1, ("Peaks measured at the start of the run.",))
