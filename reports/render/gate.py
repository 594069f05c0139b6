"""A gate's verdicts for people, for GitHub, for JUnit and as JSON. Pure: texts from an outcome."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any
from xml.etree import ElementTree

from suites.gate.judge import FAILED, MEANING, PASSED, Outcome, Verdict

from ..data.gates import printable

WARNED = {"too noisy": "warning", "new": "warning"}
HEADER = ("verdict", "where", "gate", "change", "detectable", "what")


def cells(verdict: Verdict) -> list[str]:
    """One row: the change is relative, above 0 worse; *detectable* is the rise that the gate sees in 80 % of runs."""
    change = "" if verdict.change is None else f"{100 * verdict.change:+.1f} %"
    seen = "" if verdict.detectable is None else f"{100 * verdict.detectable:.1f} %"
    return [printable(text) for text in (verdict.word, verdict.where, verdict.metric, change, seen, verdict.text)]


def shown(outcome: Outcome, show_all: bool) -> list[Verdict]:
    """Verdicts with a row: all times, and others that did not pass."""
    return [v for v in outcome.verdicts if show_all or v.kind != "passed" or v.metric == "time"]


def terminal(outcome: Outcome, show_all: bool = False) -> str:
    """A table in plain text, and the summary."""
    rows = [list(HEADER), *(cells(v) for v in shown(outcome, show_all))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER) - 1)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows]
    return "\n".join([*lines, *summary(outcome)])


def summary(outcome: Outcome) -> list[str]:
    """The last lines: notes, counts by kind, the overall verdict."""
    counts = Counter(verdict.word for verdict in outcome.verdicts)
    counted = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    gate = f"gate: {outcome.word} ({len(outcome.verdicts)} gates: {counted})"
    return [*(f"note: {note}" for note in outcome.notes), gate]


def markdown(outcome: Outcome, title: str, show_all: bool = False) -> str:
    """For GitHub's step summary."""
    lines = [f"## {title}: {outcome.word}", "", "| " + " | ".join(HEADER) + " |", "|---|---|---|---:|---:|---|"]
    for verdict in shown(outcome, show_all):
        first, *rest = (cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells(verdict))
        lines.append(f"| {first if MEANING[verdict.kind] == PASSED else f'**{first}**'} | {' | '.join(rest)} |")
    return "\n".join([*lines, "", *summary(outcome)]) + "\n"


def workflow_commands(outcome: Outcome) -> list[str]:
    """GitHub's workflow commands: an error per red gate, a warning per gate without a verdict."""
    lines = []
    for verdict in outcome.verdicts:
        level = "error" if MEANING[verdict.kind] != PASSED else WARNED.get(verdict.kind)
        if level:
            name = f"{verdict.word}: {verdict.where} {verdict.metric}".replace("  ", " ")
            title = _escaped(printable(name)).replace(",", "%2C")
            lines.append(f"::{level} title={title.replace('::', ':')}::{_escaped(verdict.text or verdict.word)}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def junit(outcome: Outcome, name: str) -> str:
    """One test case per gate; what fails the gate is a failure, what could not be judged an error."""
    failed = [v for v in outcome.verdicts if MEANING[v.kind] == FAILED]
    errors = [v for v in outcome.verdicts if MEANING[v.kind] not in (PASSED, FAILED)]
    counts = {"tests": str(len(outcome.verdicts)), "failures": str(len(failed)), "errors": str(len(errors))}
    suite = ElementTree.Element("testsuite", {"name": name, **counts})
    for verdict in outcome.verdicts:
        names = {"classname": printable(verdict.where or "run"), "name": printable(verdict.metric)}
        case = ElementTree.SubElement(suite, "testcase", names)
        if MEANING[verdict.kind] != PASSED:
            tag = "failure" if MEANING[verdict.kind] == FAILED else "error"
            ElementTree.SubElement(case, tag, {"type": verdict.kind, "message": " ".join(cells(verdict))})
        elif verdict.kind != "passed":
            ElementTree.SubElement(case, "system-out").text = " ".join(cells(verdict))
    root = ElementTree.Element("testsuites", counts)
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def as_data(outcome: Outcome, baseline: str, candidate: str) -> dict[str, Any]:
    """For programs: JSON values."""
    gates = []
    for verdict in outcome.verdicts:
        figures = verdict._asdict()
        figures |= {k: None for k, v in figures.items() if isinstance(v, float) and not math.isfinite(v)}
        gates.append(dict(zip(("case", "component", "backend"), figures.pop("key"), strict=True)) | figures)
    found: dict[str, Any] = {"schema": 1, "baseline": baseline, "candidate": candidate, "verdict": outcome.word}
    return found | {"exit_code": outcome.exit_code, "notes": outcome.notes, "gates": gates}


def as_json(outcome: Outcome, baseline: str, candidate: str) -> str:
    return json.dumps(as_data(outcome, baseline, candidate), indent=1, allow_nan=False) + "\n"
