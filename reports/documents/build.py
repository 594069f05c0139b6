"""One document of runs and traces, as markdown and HTML. The same records give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from suites.definitions import SUITES, with_section

from ..data import trace as traces
from ..data.frame import Book, RunData, load_book
from ..figures.answer import answer
from ..figures.pictures import drawn
from ..figures.plots import PLOTS
from ..figures.trace_plot import heat
from ..render.document import Document, Paragraph, Picture, Section, counted, joined, words_of
from ..render.html import write
from ..tables import accuracy, formats, machines, optimisations, parity, phases, summary, times

# more figures take minutes to draw, and the page is slow
MOST_FIGURES = 60
TITLE = "RVC inference in MLX beside PyTorch"
# most reasons for absent figures on the terminal
MOST_ABSENCES = 12


class Built(NamedTuple):
    path: Path
    notes: list[str]
    exit_code: int
    document: Document


class Pictures:
    """The pictures by run. ``complete``: whether all that the records allow were drawn."""

    def __init__(self) -> None:
        self.found: dict[int, dict[str, Picture]] = {}
        self.complete = True

    @property
    def count(self) -> int:
        return sum(map(len, self.found.values()))

    def add(self, owner: object, picture: Picture | None) -> None:
        """Keep a picture; None is ignored."""
        if picture is not None:
            self.found.setdefault(id(owner), {})[picture.name] = picture

    def of(self, runs: Sequence[RunData], *names: str) -> list[Picture]:
        """Pictures in the order of the names, each of all runs; a name covers those of single cases."""
        return [
            picture
            for name in names
            for run in runs
            for key, picture in self.found.get(id(run), {}).items()
            if key == name or key.startswith(f"{name}-")
        ]


def write_report(folder: Path) -> Built:
    """The report of one run, or of a folder of runs, in that folder.

    Raises ``UserError``: neither of them."""
    return write_document([folder], folder)


def write_document(folders: Sequence[Path], out: Path, name: str = "report") -> Built:
    """``name``.md, its HTML page and ``plots`` in the folder ``out``, of all runs in ``folders``.

    Raises ``UserError``: a folder that is no run, or records that cannot be read."""
    book = load_book(folders)
    document = compose(book, draw(book, out))
    path = write(document, out, name)
    return Built(path, notes(book, document), summary.exit_code(book), document)


def draw(book: Book, out: Path) -> Pictures:
    """Every figure that the records allow, in ``plots``."""
    pictures, folder = Pictures(), out / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    records = tuple(run.file("records.jsonl") for run in book.runs)
    alt = f"Speed-up of {'whole calls' if len(book.runs) > 1 else 'each component'}, with intervals"
    pictures.add(book, drawn(partial(answer, book), folder / "answer.png", alt, records))
    memory = _memory_runs(book)
    jobs = [
        (run, *job)
        for plot in PLOTS
        for run in book.runs
        if plot.name != "memory" or any(run is one for one in memory)
        for job in plot.of(run)
    ]
    for run, name, alt, make in jobs:
        if pictures.count == MOST_FIGURES:
            pictures.complete = False
            break
        path = folder / f"{_prefix(run.label)}{name}.png"
        pictures.add(run, drawn(make, path, alt, (run.file("records.jsonl"),), name))
    for walked in book.traces:
        where = f", machine {walked.setting}" if walked.setting else ""
        alt = f"Error of every part of {walked.model}: local and accumulated{where}"
        path = folder / f"{_prefix(walked.label)}stages.png"
        pictures.add(walked, drawn(partial(heat, walked), path, alt, (walked.file("records.jsonl"),)))
    return pictures


def _prefix(label: str) -> str:
    """The start of a file's name, where a document holds several runs."""
    return re.sub(r"[^\w.-]", "-", label) + "-" if label else ""


# ---------------------------------------------------------------------- the document
def compose(book: Book, pictures: Pictures) -> Document:
    """All sections that the records allow, and the reason for each absent one."""
    title = book.runs[0].config["suite"]["summary"] if len(book.runs) == 1 and not book.traces else TITLE
    document = Document(title, [summary.summary(book, [*pictures.found.get(id(book), {}).values()])])
    for found, reason, absent in _parts(book, pictures):
        document.sections += found
        if not found and reason:
            document.absent.append((absent, (reason,)))
    if not pictures.complete:
        why = f"a document holds {MOST_FIGURES}; those of one run are in its own report: python -m suites report RUN"
        document.absent.append(("Further figures", (why,)))
    document.sections += machines.problems(book)
    if document.absent:
        items = "; ".join(f"{title}: {''.join(str(i) for i in reason)}" for title, reason in document.absent)
        document.sections.append(Section("Not in this report", [Paragraph((f"{items}.",))]))
    document.sections += [*machines.environment(book), *machines.runs(book), *machines.reproduce(book)]
    return document


Part = tuple[list[Section], str, str]  # sections, why there are none, their title


def _parts(book: Book, pictures: Pictures) -> Iterator[Part]:
    for suite in with_section("time"):
        runs = [run for run in book.having("time") if run.name == suite]
        found = _illustrated(times.of_suite(book, runs), pictures.of(runs, "time", "speedup", "breakdown"))
        yield found, _absent(suite), SUITES[suite].title
    found, why = times.roofline(book)
    yield _illustrated(found, pictures.of(book.having("roofline"), "roofline")), why, "What the machine could do"
    yield times.slopes(book), "needs three durations of one suite", "Time against duration"
    yield times.real_audio(book), "no run on a recording: audio=FILE, or the speech clip of `rmvpe`", "Real audio"
    yield parity.sections(book), "no run compares two backends", "Parity"
    heats = [picture for walked in book.traces for picture in pictures.found.get(id(walked), {}).values()]
    why = "no trace among the runs: python -m suites trace all"
    yield _illustrated(parity.steps(book), heats), why, "Parity, step by step"
    found = _illustrated(accuracy.sections(book), pictures.of(book.having("accuracy"), "accuracy", "voicing"))
    yield found, _no_run("accuracy"), "RMVPE accuracy"
    found, why = parity.pitch(book)
    yield _illustrated(found, pictures.of(book.runs, "f0")), why, "F0 of the backends"
    drawn_spectra = pictures.of(book.runs, "spectra")
    found = [Section("Spectrograms", [*drawn_spectra])] if drawn_spectra else []
    yield found, "no run makes audio", "Spectrograms"
    yield machines.sounds(book), "" if len(book.runs) > 1 else "no run makes audio", "To listen to"
    yield (_illustrated(phases.memory(book), pictures.of(_memory_runs(book), "memory")), _no_run("memory"), "Memory")
    yield (_illustrated(phases.growth(book), pictures.of(book.having("memory"), "growth")), _no_run("memory"), "Growth")
    found = _illustrated(phases.first_run(book), pictures.of(book.having("first_run"), "first"))
    yield found, _no_run("first_run"), "First run against steady state"
    found = _illustrated(optimisations.ablation(book), pictures.of(book.having("ablation"), "waterfall", "ablation"))
    yield found, _no_run("ablation"), "Optimisations"
    found = _illustrated(formats.formats(book), pictures.of(book.having("precision"), "formats"))
    yield found, _no_run("precision"), "Number formats"
    yield parity.validation(book), "no records", "Validation"
    found = _illustrated(times.precision(book), pictures.of(book.having("time"), "samples"))
    yield found, "no run measures time", "How well the times are known"
    yield machines.side_by_side(book), "", ""
    yield summary.findings(book), "", ""


def _no_run(section: str) -> str:
    """The reason for an absent section: names the first suite that fills it."""
    return _absent(with_section(section)[0])


def _absent(suite: str) -> str:
    return f"no run of `{suite}` among the runs: python -m suites run {suite}"


def _memory_runs(book: Book) -> list[RunData]:
    return book.having("memory") or book.runs


def _illustrated(sections: list[Section], pictures: Sequence[Picture]) -> list[Section]:
    """The sections, with the pictures at the end of the last one."""
    if sections:
        sections[-1].blocks += pictures
    return sections


# ---------------------------------------------------------------------- the terminal
def notes(book: Book, document: Document) -> list[str]:
    """Lines for the terminal, after the report's path."""
    lines = [f"{run.label}: {text}" if run.label else text for run in book.runs for text in _of_run(run)]
    absent = [f"absent in {table.name}: {reason}" for table in document.tables() for reason in table.absences()]
    absent = [text for text in dict.fromkeys(absent) if text.endswith("no record")]
    lines += absent[:MOST_ABSENCES]
    if len(absent) > MOST_ABSENCES:
        lines.append(f"and {len(absent) - MOST_ABSENCES} more; see the notes below the tables")
    for walked in book.traces:
        if traces.exit_code(walked):
            lines.append(f"{walked.label or walked.model}: {traces.verdict(walked)}".replace("`", ""))
    if len(book.runs) + len(book.traces) > 1:
        passed, measured = (sum(run.counts[i] for run in book.runs) for i in range(2))
        held = [counted(len(book.runs), "run", ()), counted(len(book.traces), "trace", ())]
        lines.append(f"{words_of(joined(held))}: {passed} of {measured} records passed")
    return lines


def _of_run(run: RunData) -> Iterator[str]:
    found = run.outcome
    if not run.label:
        yield from (f"skipped {who}: {reason}" for who, reason in machines.skipped(run))
    for r in (*found.errors, *found.failed):
        yield f"{r['status']}: {r['case']} {r['component']} {r['backend']}: {r['reason']}"
    if found.missing:
        yield f"planned, and without a record: {len(found.missing)}"
    if not run.label:
        yield from _precision_reached(run)
        passed, measured = run.counts
        yield f"{found.word}: {passed} of {measured} records passed"


def _precision_reached(run: RunData) -> Iterator[str]:
    """The range of the intervals of each backend's speed-ups."""
    for backend in run.backends:
        gains = [g for c in run.cases for p in run.components if (g := run.speedup(c, p, backend)) and g.detectable]
        if gains:
            known, seen = (_per_cent([100 * getattr(g, name) for g in gains]) for name in ("half_width", "detectable"))
            yield f"precision: {backend}'s speed-ups are known to {known}; changes of {seen} would have shown"


def _per_cent(shares: list[float]) -> str:
    """The least and the largest share; above 100 % nothing is known."""
    best, worst = min(shares), max(shares)
    if best > 100:
        return "over 100 %, which is not at all"
    return f"{best:.1f} to {worst:.1f} %" if worst <= 100 else f"{best:.1f} to over 100 %"
