"""Machines, software, runs, failures, and the commands that repeat it all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from rvc_common.processor import numbers
from suites.base.backends import BACKENDS
from suites.base.environment import cpu_text
from suites.definitions import with_section

from ..data import trace
from ..data.frame import Book, RunData
from ..render import document as doc
from . import cells
from .cells import Row

SIDE_BY_SIDE = (
    "One column for each machine and precision, or run; no ratio is formed across columns. Times are in milliseconds, "
    "on the longest synthetic case that all of them have."
)


# ---------------------------------------------------------------------- machines
def side_by_side(book: Book) -> list[doc.Section]:
    """Whole calls and single parts in a column per machine."""
    if not book.several:
        return []
    tables = [table for suite in with_section("time") if (table := _columns(book, suite))]
    return [doc.Section("Machines side by side", [doc.Paragraph((SIDE_BY_SIDE,)), *tables])] if tables else []


def _columns(book: Book, suite: str) -> doc.Table | None:
    runs = [run for run in book.having("time") if run.name == suite]
    if len({run.setting for run in runs}) < 2:
        return None
    shared = [case for case in runs[0].cases if all(case in run.cases for run in runs)]
    shared = [case for case in shared if case.startswith("synthetic")] or shared
    if not shared:
        return None
    case, components = shared[-1], list(dict.fromkeys(c for run in runs for c in run.components))
    columns = [(run, backend) for run in runs for backend in run.backends]
    rows = tuple(
        (component, *(cells.time_ms(run, case, component, backend) for run, backend in columns))
        for component in components
    )
    header = ("component", *(f"{run.setting}: {backend} ms" for run, backend in columns))
    return doc.Table(f"machines-{suite}", header, rows, 1, (f"{suite}, {case}.",))


def environment(book: Book) -> list[doc.Section]:
    known = [setting for setting in book.settings if setting.run.environment]
    if not known:
        return []
    columns = [_facts(setting.run) for setting in known]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = tuple((name, *(column.get(name, doc.Absent()) for column in columns)) for name in names)
    header = ("", *(setting.name or ("the others" if book.several else "this machine") for setting in known))
    return [doc.Section("Hardware and software", [doc.Table("environment", header, rows, len(header))])]


def in_a_line(book: Book) -> Iterator[doc.Text]:
    """Processor, cores, GPU, system and frameworks, once for the runs that share them."""
    found: dict[str, list[str]] = {}
    sources: dict[str, tuple[str, ...]] = {}
    for name, run in ((setting.name, setting.run) for setting in book.settings if setting.run.environment):
        env, packages = run.environment, run.environment.get("packages", {})
        gpus = dict.fromkeys(about.get("gpu_name") for about in env.get("backends", {}).values())
        frameworks = [f"{package} {packages[package]}" for package in ("torch", "mlx") if package in packages]
        words = (cpu_text(env), f"{env.get('cores_physical')} cores", *gpus, env.get("os"), *frameworks)
        text = ", ".join(filter(None, words))
        found.setdefault(text, []).append(name)
        sources[text] = (*sources.get(text, ()), run.file("environment.json"))
    for text, names in found.items():
        yield (f"Machine ({', '.join(names)}): " if len(found) > 1 else "Machine: ", doc.Num(text, sources[text]), ".")


def _facts(run: RunData) -> dict[str, doc.Cell]:
    env, unknown = run.environment, doc.Absent("the run's environment.json does not say")

    def fact(name: str, form: str = "", scale: float = 1.0) -> doc.Inline:
        value = env.get(name)
        return unknown if value is None else doc.plain(value, (run.file(f"environment.json#{name}"),), form, scale)

    packages = ", ".join(f"{k} {v}" for k, v in env.get("packages", {}).items())
    facts: dict[str, doc.Cell] = {
        "CPU": doc.say("{}, {} physical cores ({})", fact("cpu"), fact("cores_physical"), fact("machine")),
        **({"processor": _processor(run)} if env.get("processor") else {}),
        "memory": doc.say("{} GiB", fact("memory_bytes", ".0f", 2**-30)),
        "system": doc.say("{}, Python {}", fact("os"), fact("python")),
        "packages": doc.Num(packages, (run.file("environment.json#packages"),)) if packages else unknown,
        "threads": doc.say("{} on every backend", fact("threads")),
        **({"idle threads": doc.say("{}", fact("waiting"))} if env.get("waiting") else {}),
        "precision": doc.say("{} on every backend, profile {}", run.precision, str(run.config["profile"])),
    }
    for name, about in env.get("backends", {}).items():
        known = (BACKENDS[name].framework, "gpu_name", "blas", "blas_core", "blas_choice", "blas_gflops", "cuda")
        parts = [f"{k} {about[k]}" for k in known if about.get(k)]
        line = next((r for r in run.records if r["backend"] == name and r.get("optimize")), None)
        sources: tuple[str, ...] = (run.file(f"environment.json#backends.{name}"),)
        if line is not None:
            parts.append(f"optimisations: {' '.join(line['optimize'])}")
            sources = (*sources, run.source(line, "optimize"))
        facts[name] = doc.Num(", ".join(parts), sources) if parts else unknown
    return facts


def _processor(run: RunData) -> doc.Num:
    found = run.environment["processor"]
    flags = ", ".join(found.get("flags") or ())
    return doc.Num("; ".join(filter(None, [numbers(found), flags])), (run.file("environment.json#processor"),))


def runs(book: Book) -> list[doc.Section]:
    rows: list[tuple[RunData, Row]] = []
    for run in book.runs:
        env, records = run.environment, run.file("records.jsonl")
        when = min((r["time"] for r in run.records if r.get("time")), default="")
        commit, load = env.get("commit") or "", env.get("load_average_1min")
        dirty = " with uncommitted changes" if env.get("commit_clean") is False else ""
        dirty += " as stated, not read from git" if env.get("commit_stated") else ""
        code = commit[:12] + dirty if commit else ""
        if version := env.get("version"):
            code += f"{', ' if code else ''}version {version}"
        if around := env.get("working_repository"):  # not the measured code
            code += f"; started in the repository {around['name']} {(around['commit'] or '')[:12]}"
        passed, measured = run.counts
        facts: list[doc.Cell] = [
            doc.say("{} of {}", doc.plain(passed, (records,)), doc.plain(measured, (records,))),
            doc.Num(when[:16].replace("T", " "), (records,)) if when else doc.Absent(),
            doc.Num(code, (run.file("environment.json#commit"),)) if code else doc.Absent(),
            doc.Absent() if load is None else doc.plain(load, (run.file("environment.json#load_average_1min"),), ".2f"),
        ]
        weights = "; ".join(
            known.get("label", "unnamed") + (f" (SHA-256 {known['sha256'][:8]})" if known.get("sha256") else "")
            for known in env.get("weights", {}).values()
        )
        facts.append(doc.Num(weights, (run.file("environment.json#weights"),)) if weights else doc.Absent())
        words = (run.label or "this run", run.name, str(run.config["measure"]["name"]))
        rows.append((run, (*words, run.outcome.word, *facts)))
    header = ("run", "suite", "measure", "verdict", "records passed", "begun", "commit", "load at the start", "weights")
    return cells.section("Runs", cells.table(book, "runs", header, rows, 3))


def reproduce(book: Book) -> list[doc.Section]:
    """The commands that measured, and the one that made this document."""
    lines = [trace.command("run", run.config) for run in book.runs]
    lines += [trace.command("trace", walked.config) for walked in book.traces]
    section = doc.Section("Reproduce", [doc.Command("\n".join(dict.fromkeys(lines)))])
    if len(lines) > 4:
        section.blocks.insert(
            0, doc.Paragraph(doc.say("All of it on one machine: {}.", doc.Code("python -m suites run all")))
        )
    files = map(
        doc.Code, ("records.jsonl", "environment.json", "config.yaml", "python -m suites report --sources RUN...")
    )
    words = "Every figure above is computed from the runs' {}, {} and {}; {} prints the source of each."
    section.blocks.append(doc.Paragraph(doc.say(words, *files)))
    return [section]


# ---------------------------------------------------------------------- to listen to
def sounds(book: Book) -> list[doc.Section]:
    """Links to the audio of the backends, relative to a run's own report; a document of several runs has none."""
    rows: list[tuple[RunData, Row]] = []
    for run in (run for run in book.runs if not run.label):
        for case, backend in product(run.cases, run.backends):
            path = run.files.audio_file(case, backend)
            if path.is_file():
                rows.append((run, (case, backend, doc.Link(path.name, path.relative_to(run.folder).as_posix()))))
    return cells.section("To listen to", cells.table(book, "audio", ("case", "backend", "file"), rows, 3))


# ---------------------------------------------------------------------- what is not there
def problems(book: Book) -> list[doc.Section]:
    """Failures, what could not be measured, what was skipped and why."""
    items: list[doc.Text] = []
    for run in book.runs:
        where = f"{run.setting} {run.name}: ".lstrip() if len(book.runs) > 1 else ""
        items += [(where, *text) if where else text for text in _of_run(run)]
    for walked in book.traces:
        if trace.exit_code(walked):
            text = doc.Num(trace.verdict(walked), (walked.file("records.jsonl"),))
            items.append((f"{walked.setting} trace of {walked.model}: ".lstrip(), text))
    nothing = ("Nothing: every planned case has its record.",)
    block = doc.Bullets(tuple(dict.fromkeys(items))) if items else doc.Paragraph(nothing)
    return [doc.Section("Not measured, skipped, and failures", [block])]


def skipped(run: RunData) -> list[tuple[str, str]]:
    """Backends that this machine lacks, and components that a backend cannot have, with the reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for r in run.outcome.skipped:
        parts = found.setdefault((r["backend"], r["reason"]), [])
        if r["component"] != "all":
            parts.append(r["component"].removesuffix(".on").removesuffix(".off"))
    return [(", ".join([*dict.fromkeys(parts), backend]), reason) for (backend, reason), parts in found.items()]


def _of_run(run: RunData) -> Iterator[doc.Text]:
    def recorded(text: str) -> doc.Num:
        return doc.Num(text, (run.file("records.jsonl"),))

    for who, reason in skipped(run):
        yield doc.say("{}: skipped, {}", who, recorded(reason))
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
        yield ("environment.json is not there: the run ended before it began to measure",)
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
