"""Parity: judged figures and their limits, traces stage by stage, and pitch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from suites.base.lines import Line
from suites.definitions import SUITES, with_section
from suites.metrics.limits import is_references
from suites.metrics.registry import recorded_metric
from suites.trace import findings

from ..data import trace
from ..data.frame import Book, RunData
from ..render.document import Absent, Cell, Code, Num, Paragraph, Section, Table, plain, say
from . import cells
from .cells import Row

FLOOR = (
    "*Floor* is the reference's own rounding error on this input: its distance from its result in float64. Where "
    "three times the floor exceeds the limit, it is the limit. Of SNR and correlation more is better, of all other "
    "figures less. *Of the limit*: the error over the limit."
)
STEPS = (
    "Every stage of {other} was computed twice: on its own values from the start, and on the values of {reference}. "
    "*Local error*: what the stages of a part add by themselves, the worst of them. *Accumulated error*: the "
    "difference at the part's output on own values, with everything inherited from before. `corr - 1` is the "
    "correlation's distance from one."
)
PITCH = (
    "Both sides on the same audio. A mismatch is a frame that one side calls voiced and the other unvoiced. The error "
    "of F0 is in cents, over the frames that both call voiced. *Undecided* frames are closer to the voicing "
    "threshold, or to a tie of two bins, than the salience error: they are counted and not judged."
)

PITCH_FIGURES = (
    "frames", "voiced_frames", "voicing_mismatches", "voicing_error_rate", "max_cents", "rms_cents", "octave_errors",
    "undecided_frames",
)  # fmt: skip


# ---------------------------------------------------------------------- judged figures
def sections(book: Book) -> list[Section]:
    found = [Section("Parity", [Paragraph((FLOOR,))])]
    with_parity = [run for run in book.having("parity") if any(r.get("parity") for r in run.records)]
    for suite in with_section("parity"):
        runs = [run for run in with_parity if run.name == suite]
        if runs:
            found.append(Section(f"Parity of {SUITES[suite].subject}", [judged(book, runs, f"{suite}-parity")], 3))
            if SUITES[suite].details:
                found[-1].blocks.append(details(book, runs, f"{suite}-parity-details"))
    return found if len(found) > 1 else []


def judged(book: Book, runs: Sequence[RunData], name: str) -> Table:
    """Each judged figure and its limit; the reference's own rows are left out."""
    rows = [(run, row) for run in runs for line in compared(run) for row in _judged_rows(run, line)]
    header = (
        "case", "component", "backend", "reference", "figure", "value", "limit", "of the limit %",
        "reference's own floor", "verdict",
    )  # fmt: skip
    return cells.table(book, name, header, rows, 5, (runs[0].suite.about_parity,))


def compared(run: RunData) -> list[Line]:
    return [line for line in run.ordered() if line["backend"] != line["reference"]]


def _judged_rows(run: RunData, line: Line) -> Iterator[Row]:
    head = (line["case"], line["component"], line["backend"], line["reference"])
    checks = (line["parity"] or {}).get("limits", {})
    if not checks:
        state = line["status"] if not line["parity"] else "no limit under this policy"
        yield (*head, "", Absent(line["reason"] or ""), Absent(), Absent(), Absent(), state)
    for name, check in checks.items():
        field = f"parity.limits.{name}"
        figures = [cells.figure(run, line, check[part], name, field) for part in ("value", "limit", "floor")]
        share = share_of_limit(name, check)
        of_limit: Cell = Absent() if share is None else plain(100 * share, (run.source(line, field),), ".0f")
        wrong = "reference wrong" if is_references(name, check) else "failed"
        verdict = _agreed([line]) if check["passed"] else wrong
        yield (*head, name, figures[0], figures[1], of_limit, figures[2], verdict)


def _agreed(lines: Sequence[Line]) -> str:
    """What records within their limits amount to: nothing where both sides ran the same code."""
    return "same code" if all(_is_same_code(line) for line in lines) else "passed"


def _is_same_code(line: Line) -> bool:
    """By the record, or by the suite's definition: old records do not say it, and held the same code as well."""
    return bool((line["parity"] or {}).get("same_code")) or line["component"] in SUITES[line["suite"]].same_code


def share_of_limit(name: str, check: Line) -> float | None:
    """The error over what is allowed; None where the limit is zero, or one of them is not finite."""
    metric = recorded_metric(name)
    error, allowed = (metric.to_error(float(check[part])) for part in ("value", "limit"))
    if not (math.isfinite(error) and math.isfinite(allowed)) or allowed <= 0:
        return None
    return error / allowed


def details(book: Book, runs: Sequence[RunData], name: str) -> Table:
    suite = runs[0].suite
    rows: list[tuple[RunData, Row]] = []
    for run in runs:
        for case, backend in product(run.cases, run.backends):
            known = {c: line for c in run.components if (line := run.find(case, c, backend)) and line["parity"]}
            shown = [(figure.name, known.get(figure.of)) for figure in suite.details]
            if known:
                row = [cells.figure(run, x, x["parity"].get(n), n, f"parity.{n}") if x else Absent() for n, x in shown]
                rows.append((run, (case, backend, *row)))
    header = ("case", "backend", *(figure.label for figure in suite.details))
    return cells.table(book, name, header, rows, 2)


# ---------------------------------------------------------------------- stage by stage
def steps(book: Book) -> list[Section]:
    """The traces: the worst local error of every part of the models, and the accumulated error of its output."""
    if not book.traces:
        return []
    other, reference = book.traces[0].backends
    about = Paragraph(say(STEPS, other=Code(other), reference=Code(reference)))
    rows = [(walked, (walked.model, *row)) for walked in book.traces for row in _step_rows(walked)]
    header = (
        "model", "part", "values", "local: max abs", "local: relative", "of the limit %", "accumulated: max abs",
        "accumulated: relative", "accumulated: corr - 1", "verdict",
    )  # fmt: skip
    section = Section("Parity, step by step", [about, cells.table(book, "steps", header, rows, 2)])
    for walked in book.traces:
        if walked.spreads:
            where = f" ({walked.setting})" if walked.setting else ""
            text = Num(trace.spread_text(walked.spreads[0]), (walked.file("records.jsonl#spread"),))
            section.blocks.append(Paragraph((f"{walked.model}{where}: ", text)))
    return [section]


def _step_rows(walked: trace.Trace) -> Iterator[Row]:
    for item in findings.validation(walked.model, walked.rows):
        source = (walked.file(f"records.jsonl#trace: {item['title']}"),)
        texts = trace.validation_line(item)
        added, chained = item["added"], item["chained"]
        values = (
            item["values"], added["max_abs"], added["relative"], 100 * added["share"],
            chained.get("max_abs"), chained.get("relative"), trace.below_one(chained, "corr"),
        )  # fmt: skip
        numbers = [
            Absent() if text == "–" else Num(text, source, float(value) if math.isfinite(value) else None)
            for text, value in zip(texts[1:-1], values, strict=True)
        ]
        yield texts[0], *numbers, texts[-1]


def pitch(book: Book) -> tuple[list[Section], str]:
    """Voicing and F0 of the backends against each other."""
    runs = [run for run in book.having("pitch") if "f0" in run.components]
    rows = [(run, row) for run in runs for row in _pitch_rows(run)]
    if not rows:
        *first, last = (f"`{name}`" for name in with_section("pitch"))
        return [], f"no run of {', '.join(first)} or {last} compares F0"
    header = (
        "suite", "case", "backend", "reference", "frames", "voiced", "voicing mismatches", "voicing error rate",
        "max cents", "RMS cents", "octave errors", "undecided", "verdict",
    )  # fmt: skip
    section = Section("F0 of the backends", [cells.table(book, "pitch", header, rows, 4, (PITCH,))])
    if not all(run.finds_pitch for run in runs):
        why = "Synthetic weights find no pitch: their F0 shows how close the sides are, and says nothing about a voice."
        section.blocks.append(Paragraph((why,)))
    return [section], ""


def _pitch_rows(run: RunData) -> Iterator[Row]:
    for line in compared(run):
        found = line["parity"] or {}
        if line["component"] != "f0" or not found:
            continue
        facts = (cells.figure(run, line, found.get(name), name, f"parity.{name}") for name in PITCH_FIGURES)
        checks = found.get("limits", {}).values()  # a record's status may have other reasons too
        verdict = line["status"] if not checks else "passed" if all(c["passed"] for c in checks) else "failed"
        yield run.name, line["case"], line["backend"], line["reference"], *facts, verdict


def validation(book: Book) -> list[Section]:
    """Every component of every suite: how many records passed, and which figure came closest to its limit."""
    rows = [(run, row) for run in book.runs for row in _validation_rows(run)]
    header = (
        "suite", "component", "backend", "passed", "failed", "not measured", "closest figure", "of its limit %",
        "status",
    )  # fmt: skip
    about = ("Every planned record by its verdict. A record without a limit passes where all of it was measured.",)
    return cells.section("Validation", cells.table(book, "validation", header, rows, 3, about))


def _validation_rows(run: RunData) -> Iterator[Row]:
    keys = dict.fromkeys((r["component"], r["backend"]) for r in run.records if "workload" in r)
    keys |= dict.fromkeys((component, backend) for _, component, backend in run.outcome.missing)
    for component, backend in keys:
        lines = [r for r in run.records if (r["component"], r["backend"]) == (component, backend) and "workload" in r]
        missing = sum((c, b) == (component, backend) for _, c, b in run.outcome.missing)
        passed, failed = (sum(r["status"] == word for r in lines) for word in ("passed", "failed"))
        lacking = len(lines) - passed - failed + missing
        source: tuple[str, ...] = (run.file(f"records.jsonl#*/{component}/{backend}.status"),) if lines else ()
        source += (run.file("plan.json"),) if missing else ()
        status = "not measured" if lacking else "failed" if failed else _agreed(lines)
        counts = (plain(n, source) for n in (passed, failed, lacking))
        yield run.name, component, backend, *counts, *_closest(run, lines), status


def closest(lines: Iterable[Line]) -> tuple[float, str, Line] | None:
    """The judged figure with the largest error over its limit: that share, the figure's name, and its record."""
    found = [
        (share, name, line)
        for line in lines
        for name, check in ((line["parity"] or {}).get("limits", {})).items()
        if (share := share_of_limit(name, check)) is not None
    ]
    return max(found, key=lambda one: one[0], default=None)


def _closest(run: RunData, lines: Sequence[Line]) -> tuple[Cell, Cell]:
    found = closest(line for line in lines if line["backend"] != line["reference"])
    if found is None:
        return "", Absent()
    share, name, line = found
    return f"{name}, {line['case']}", plain(100 * share, (run.source(line, f"parity.limits.{name}"),), ".0f")
