"""The report of one trace: report.md, report.html, stages.csv and its figure, from the folder's records alone."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from suites.base import outcome
from suites.base.files import write_whole
from suites.metrics import floors

from ..data import trace as traces
from ..data.trace import Trace
from ..figures.pictures import drawn
from ..figures.trace_plot import heat
from ..render import document as doc
from ..render.html import write

ABOUT = (
    "Every stage of {other} was computed twice: on its own values from the start (*accumulated error*: the one that "
    "users meet), and on the reference's input (*local error*: what the stage itself adds). The limit of the local "
    "error is {safety} x excess x floor. The floor is the reference's rounding against float64 at that stage on this "
    "input; the excess is how many times the floor a correct backend differed when the table of floors was measured "
    "(docs/parity.md). `corr - 1` is the correlation's distance from one. *Same code*: both sides run one function "
    "there, so its agreement proves nothing."
)
ABOUT_DUMP = (
    "Every value that {other} dumped beside that of {reference} in the bundle. The *accumulated error* is that of a "
    "value that the port computed from the inputs on; the *local error* that of a value which it computed from the "
    "bundle's value before, where it dumped such a one. Each has a limit of its own, {safety} x excess x floor "
    "(docs/bundles.md). *% of limit* is that of the local error where there is one. `corr - 1` is the correlation's "
    "distance from one."
)
ALT = "local error of every part against its limit, and accumulated error"


STATES = {outcome.PASSED: "**Passed**: ", outcome.FAILED: "**Failed**: ", outcome.ERROR: "**Incomplete**: "}


def write_report(folder: Path) -> tuple[Path, Trace]:
    """``report.md``, ``report.html``, ``stages.csv`` and ``plots``.

    Raises ``UserError``: not a trace's folder, or it holds no stage."""
    trace = traces.load(folder)
    (folder / "plots").mkdir(exist_ok=True)
    picture = drawn(partial(heat, trace), folder / "plots" / "stages.png", ALT, ("records.jsonl",))
    path = write(document(trace, [picture] if picture else []), folder)
    lines = [[*walk, *line] for walk, rows in traces.by_walk(trace).items() for line in traces.full_lines(rows)]
    headings = ["variant", "probe", *_distinct(traces.ALL_HEADINGS)]
    write_whole(folder / "stages.csv", pd.DataFrame(lines, columns=headings).to_csv(index=False))
    return path, trace


def _distinct(headings: Sequence[str]) -> list[str]:
    """Headings as distinct column names of a file."""
    own = headings.index("accumulated: max abs")
    return [*headings[: own + 1], *(f"accumulated: {name}" for name in headings[own + 1 : -1]), headings[-1]]


def document(trace: Trace, pictures: Sequence[doc.Picture]) -> doc.Document:
    """The finding first, then the validation table, then every part."""
    other, reference = trace.backends
    found = doc.Document(f"Where {other} differs from {reference}: {trace.model}", [_summary(trace)])
    lines = traces.validation_lines(trace.model, trace.rows)
    found.sections.append(doc.Section("Validation", [_table(trace, "validation", traces.VALIDATION_HEADINGS, lines)]))
    safety = _number(trace, f"{floors.SAFETY:g}")
    text = ABOUT if trace.judged is None else ABOUT_DUMP
    about = doc.Paragraph(doc.say(text, other=doc.Code(other), reference=doc.Code(reference), safety=safety))
    found.sections.append(doc.Section("Stages", [about, *pictures]))
    for number, ((variant, probe), rows) in enumerate(traces.by_walk(trace).items(), 1):
        table = _table(trace, f"stages-{number}", traces.HEADINGS, traces.table(rows))
        found.sections.append(doc.Section(f"{variant}, probe {probe}", [table], level=3))
    audible = tuple((_number(trace, line),) for line in traces.audible(trace.rows))
    if audible:
        about = doc.Paragraph(("On each side's own values.",))
        found.sections.append(doc.Section("Audible differences", [about, doc.Bullets(audible)]))
    for line in trace.spreads:
        spread = doc.Paragraph((_number(trace, traces.spread_text(line)),))
        found.sections.append(doc.Section("What correlation means here", [spread]))
    if noted := tuple((_number(trace, line),) for line in traces.notes(trace)):
        found.sections.append(doc.Section("What was dumped otherwise", [doc.Bullets(noted)]))
    found.sections.append(_reproduce(trace))
    return found


def _summary(trace: Trace) -> doc.Section:
    code = traces.exit_code(trace)
    state = STATES[code if trace.judged is not None or not code else outcome.FAILED]
    facts = (doc.Code(str(trace.config[name])) for name in ("precision", "profile"))
    texts = [traces.weights(trace), trace.environment.get("audio", "unknown")]
    words = "Precision {}, profile {}; weights: {}; input: {}."
    if trace.judged is None:
        texts.append(traces.used_optimisations(trace))
        words = words.replace(".", "; optimisations as configured: {}.")
    environment = (doc.Num(str(text), (trace.file("environment.json"),)) for text in texts)
    verdict = doc.Paragraph((state, _number(trace, traces.verdict(trace))))
    return doc.Section("Summary", [verdict, doc.Paragraph(doc.say(words, *facts, *environment))])


def _number(trace: Trace, text: str) -> doc.Num:
    """Recorded text; with its value where it is a number."""
    value = None
    with contextlib.suppress(ValueError):
        value = float(text)
    return doc.Num(text, (trace.file("records.jsonl"),), value)


def _table(trace: Trace, name: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> doc.Table:
    def cell(heading: str, text: str) -> doc.Cell:
        if heading in (headings[0], "verdict", "status"):
            return text
        return doc.Absent() if text == "–" else _number(trace, text)

    rows = tuple(tuple(cell(h, text) for h, text in zip(headings, line, strict=True)) for line in lines)
    return doc.Table(name, tuple(headings), rows)


def _reproduce(trace: Trace) -> doc.Section:
    software = ", ".join(f"{k} {v}" for k, v in trace.environment.get("packages", {}).items() if v)
    machine = doc.Num(f"{trace.environment.get('cpu', '')}; {software}", (trace.file("environment.json"),))
    command = traces.command("trace", trace.config) if trace.judged is None else str(trace.judged["command"])
    words = "Every value of every stage: {}, and with all figures {}, beside this file."
    files = doc.Paragraph(doc.say(words, doc.Code("stages.csv"), doc.Code("records.jsonl")))
    return doc.Section("Reproduce", [doc.Command(command), doc.Paragraph((machine, ".")), files])
