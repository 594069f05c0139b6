"""Machines, software, runs, failures, and the commands that repeat it all."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from suites.base.backends import BACKENDS
from suites.definitions import with_section

from ..data import trace
from ..data.frame import Book, RunData
from ..render.document import (
    Absent,
    Bullets,
    Cell,
    Code,
    Command,
    Inline,
    Link,
    Num,
    Paragraph,
    Section,
    Table,
    Text,
    plain,
    say,
)
from . import cells
from .cells import Row

SIDE_BY_SIDE = (
    "One column per machine and precision, or run, with its own backends' times: no ratio is formed across columns. "
    "Milliseconds, on the longest synthetic case that all of them have."
)


# ---------------------------------------------------------------------- machines
def side_by_side(book: Book) -> list[Section]:
    """Whole calls and single parts in a column per machine."""
    if not book.several:
        return []
    section = Section("Machines side by side", [Paragraph((SIDE_BY_SIDE,))])
    for suite in with_section("time"):
        table = _columns(book, suite)
        if table is not None:
            section.blocks.append(table)
    return [section] if len(section.blocks) > 1 else []


def _columns(book: Book, suite: str) -> Table | None:
    runs = [run for run in book.having("time") if run.name == suite]
    if len({run.setting for run in runs}) < 2:
        return None
    shared = [case for case in runs[0].cases if all(case in run.cases for run in runs)]
    shared = [case for case in shared if case.startswith("synthetic")] or shared
    if not shared:
        return None
    case = shared[-1]
    components = list(dict.fromkeys(c for run in runs for c in run.components))
    columns = [(run, backend) for run in runs for backend in run.backends]
    rows = tuple(
        (component, *(cells.time_ms(run, case, component, backend) for run, backend in columns))
        for component in components
    )
    header = ("component", *(f"{run.setting}: {backend} ms" for run, backend in columns))
    return Table(f"machines-{suite}", header, rows, 1, (f"{suite}, {case}.",))


def environment(book: Book) -> list[Section]:
    """A column per machine and precision."""
    known = [setting for setting in book.settings if setting.run.environment]
    if not known:
        return []
    columns = [_facts(setting.run) for setting in known]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = tuple((name, *(column.get(name, Absent()) for column in columns)) for name in names)
    header = ("", *(setting.name or ("the others" if book.several else "this machine") for setting in known))
    return [Section("Hardware and software", [Table("environment", header, rows, len(header))])]


def _facts(run: RunData) -> dict[str, Cell]:
    env, unknown = run.environment, Absent("the run's environment.json does not say")

    def fact(name: str, form: str = "", scale: float = 1.0) -> Inline:
        value = env.get(name)
        return unknown if value is None else plain(value, (run.file(f"environment.json#{name}"),), form, scale)

    packages = ", ".join(f"{k} {v}" for k, v in env.get("packages", {}).items())
    facts: dict[str, Cell] = {
        "CPU": say("{}, {} physical cores ({})", fact("cpu"), fact("cores_physical"), fact("machine")),
        "memory": say("{} GiB", fact("memory_bytes", ".0f", 2**-30)),
        "system": say("{}, Python {}", fact("os"), fact("python")),
        "packages": Num(packages, (run.file("environment.json#packages"),)) if packages else unknown,
        "threads": say("{} on every backend", fact("threads")),
        "precision": say("{} on every backend, profile {}", run.precision, str(run.config["profile"])),
    }
    for name, about in env.get("backends", {}).items():
        parts = [
            f"{k} {about[k]}"
            for k in (BACKENDS[name].framework, "gpu_name", "blas", "blas_gflops", "cuda")
            if about.get(k)
        ]
        line = next((r for r in run.records if r["backend"] == name and r.get("optimize")), None)
        sources: tuple[str, ...] = (run.file(f"environment.json#backends.{name}"),)
        if line is not None:
            parts.append(f"optimisations: {' '.join(line['optimize'])}")
            sources = (*sources, run.source(line, "optimize"))
        facts[name] = Num(", ".join(parts), sources) if parts else unknown
    return facts


# ---------------------------------------------------------------------- runs
def runs(book: Book) -> list[Section]:
    """The runs that the document is made from."""
    rows: list[tuple[RunData, Row]] = []
    for run in book.runs:
        env = run.environment
        records = run.file("records.jsonl")
        when = min((r["time"] for r in run.records if r.get("time")), default=None)
        dirty = " with uncommitted changes" if env.get("commit_clean") is False else ""
        dirty += " as stated, not read from git" if env.get("commit_stated") else ""
        commit: Cell = Absent()
        if env.get("commit"):
            commit = Num(env["commit"][:12] + dirty, (run.file("environment.json#commit"),))
        load: Cell = Absent()
        if env.get("load_average_1min") is not None:
            load = plain(env["load_average_1min"], (run.file("environment.json#load_average_1min"),), ".2f")
        measured = [r for r in run.records if r["status"] != "skipped"]
        passed = sum(r["status"] == "passed" for r in measured)
        counts = say("{} of {}", plain(passed, (records,)), plain(len(measured), (records,)))
        date: Cell = Num(when[:16].replace("T", " "), (records,)) if when else Absent()
        weights = "; ".join(map(_weight, env.get("weights", {}).values()))
        about: Cell = Num(weights, (run.file("environment.json#weights"),)) if weights else Absent()
        words = (run.label or "this run", run.name, str(run.config["measure"]["name"]))
        rows.append((run, (*words, run.outcome.word, counts, date, commit, load, about)))
    header = ("run", "suite", "measure", "verdict", "records passed", "begun", "commit", "load at the start", "weights")
    return [Section("Runs", [cells.table(book, "runs", header, rows, 3)])] if rows else []


def _weight(facts: dict[str, str]) -> str:
    digest = facts.get("sha256")
    return facts.get("label", "unnamed") + (f" (SHA-256 {digest[:8]})" if digest else "")


def reproduce(book: Book) -> list[Section]:
    """The commands that measured, and the one that made this document."""
    lines = [command(run) for run in book.runs] + [trace.command(walked) for walked in book.traces]
    section = Section("Reproduce", [Command("\n".join(dict.fromkeys(lines)))])
    if len(lines) > 4:
        section.blocks.insert(0, Paragraph(say("All of it on one machine: {}.", Code("python -m suites run all"))))
    section.blocks.append(
        Paragraph(
            say(
                "Every figure above is computed from the runs' {}, {} and {}; {} prints for each the place that it is "
                "from.",
                Code("records.jsonl"),
                Code("environment.json"),
                Code("config.yaml"),
                Code("python -m suites report --sources RUN..."),
            )
        )
    )
    return [section]


def command(run: RunData) -> str:
    """The command line that repeats the run, with the overrides that it was given."""
    words = [text for text in run.config["overrides"] if not text.startswith(("out=", "resume="))]
    return shlex.join(["python", "-m", "suites", "run", run.name, *words])


# ---------------------------------------------------------------------- to listen to
def sounds(book: Book) -> list[Section]:
    """Links to the audio of the backends, relative to a run's own report; a document of several runs has none."""
    rows: list[tuple[RunData, Row]] = []
    single = [run for run in book.runs if not run.label]
    for run in single:
        for case in run.cases:
            for backend in run.backends:
                path = run.files.audio_file(case, backend)
                if path.is_file():
                    link = Link(path.name, path.relative_to(run.folder).as_posix())
                    rows.append((run, (case, backend, link)))
    return [Section("To listen to", [cells.table(book, "audio", ("case", "backend", "file"), rows, 3)])] if rows else []


# ---------------------------------------------------------------------- what is not there
def problems(book: Book) -> list[Section]:
    """Failures, what could not be measured, what was skipped and why."""
    items: list[Text] = []
    for run in book.runs:
        items += [(*_where(book, run), *text) for text in _of_run(run)]
    for walked in book.traces:
        if walked.finding is not None:
            text = Num(trace.verdict(walked), (walked.file("records.jsonl"),))
            items.append((" ".join(filter(None, (walked.setting, f"trace of {walked.model}: "))), text))
    title = "Not measured, skipped, and failures"
    nothing = ("Nothing: every planned case has its record.",)
    return [Section(title, [Bullets(tuple(dict.fromkeys(items))) if items else Paragraph(nothing)])]


def _where(book: Book, run: RunData) -> Text:
    words = " ".join(filter(None, (run.setting, run.name))) if len(book.runs) > 1 else ""
    return (f"{words}: ",) if words else ()


def skipped(run: RunData) -> list[tuple[str, str]]:
    """Backends that this machine lacks, and components that a backend cannot have, with the reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for r in run.outcome.skipped:
        parts = found.setdefault((r["backend"], r["reason"]), [])
        if r["component"] != "all":
            parts.append(r["component"].removesuffix(".on").removesuffix(".off"))
    return [(", ".join([*dict.fromkeys(parts), backend]), reason) for (backend, reason), parts in found.items()]


def _of_run(run: RunData) -> Iterator[Text]:
    def recorded(text: str) -> Num:
        return Num(text, (run.file("records.jsonl"),))

    for who, reason in skipped(run):
        yield say("{}: skipped, {}", who, recorded(reason))
    for line in (*run.outcome.errors, *run.outcome.failed):
        where = f"{line['case']}, {line['component']}, {line['backend']}: {line['status']}, "
        yield where, recorded(line["reason"])
    for case, component, backend in run.outcome.missing:
        yield (f"{case}, {component}, {backend}: planned, no record",)
    for backend, text in sorted({(r["backend"], text) for r in run.records for text in r.get("warnings", [])}):
        yield f"{backend} warned: ", recorded(text)
    for case in run.cases:
        yield from ((text,) for text in _undrawn(run, case))
    if "time" in run.suite.sections and not any(record.get("parity") for record in run.records):
        yield ("nothing was compared: the run has no second backend",)
    if not run.environment:
        yield ("environment.json is not there: the run was broken off before it began to measure",)
    elif not run.planned:
        yield ("plan.json is not there: whether everything planned was measured is not known",)


def _undrawn(run: RunData, case: str) -> Iterator[str]:
    """Cases whose arrays for a figure are missing."""
    own = [r for r in run.records if r["case"] == case and r["status"] in ("passed", "failed")]
    pitched = any(r["component"] == "f0" and r["backend"] == r["reference"] for r in own)
    if "time" in run.suite.sections and pitched and not run.files.contours(case):
        yield f"{case}: F0 is not drawn, contours/{case}.npz is not there or damaged"
    if any(r.get("output") for r in own) and not run.files.spectra(case):
        yield f"{case}: spectrograms are not drawn, spectra/{case}.npz is not there or damaged"
