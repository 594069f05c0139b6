"""Pitch accuracy: RMVPE on every backend against the truth, and other estimators on the same audio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from suites.base.lines import Line
from suites.inputs.testset import CONDITIONS
from suites.metrics.pitch import SHARES
from suites.metrics.registry import ACCURACY

from ..data.frame import Book, RunData
from ..render.document import Absent, Cell, Code, Num, Paragraph, Section, Table, Text, joined, plain, say
from . import cells
from .cells import Row

ABOUT = (
    "F0 of the test set is exactly known (docs/accuracy.md); frames within 20 ms of where the voice starts or stops "
    "are left out. *RPA*: of the voiced frames, those within 50 cents; *RCA*: the same, whatever the octave; *octave "
    "errors*: within 50 cents of another octave; *recall*: voiced frames that are called voiced; *false alarm*: "
    "unvoiced ones that are; *overall*: of all frames, those right in voicing and pitch. A frame that is called "
    "unvoiced has no pitch, and counts as wrong. *Cents*: of the absolute error, over frames less than a semitone off."
)
ESTIMATORS = (
    "The same audio and frames, each estimator with its documented defaults over the range of RMVPE. *Seconds per "
    "second*: processing time over audio time of one call, after one on the first second; the mean of all cases."
)
CONSENSUS = (
    "Where there is no truth, the reference is what two other estimators agree on: frames that both call voiced, "
    "within 50 cents of each other. These are the easy frames, and they say nothing about voicing."
)
# conditions that the summary names
HEADLINES = ("clean", "snr10", "file")
LABELS = tuple(figure.label for figure in ACCURACY)


def sections(book: Book) -> list[Section]:
    runs = [run for run in book.having("accuracy") if any(figures(line) for line in run.records)]
    if not runs:
        return []
    rows = [(run, _row(run, line, True)) for run in runs for line in lines_of(run, others=False)]
    header = ("case", "backend", "truth", "frames", "voiced", *LABELS, "at least %", "verdict")
    first = Section("RMVPE accuracy", [cells.table(book, "accuracy", header, rows, 3, (ABOUT,)), *map(_weights, runs)])
    if any("consensus" in str(figures(line).get("truth")) for run in runs for line in run.records):
        first.blocks.append(Paragraph((CONSENSUS,)))
    return [first, *_estimators(book, runs)]


def _weights(run: RunData) -> Paragraph:
    """Name the network, and say whether its figures are judged."""
    label = run.environment.get("weights", {}).get("rmvpe", {}).get("label", "unknown")
    judged = any(figures(line).get("limits") for line in run.records)
    why = "" if judged else " Its figures are shown and not judged: limits are those of the shipped checkpoint."
    return Paragraph(say("Weights: {}.{}", Num(label, (run.file("environment.json#weights"),)), why))


def figures(line: Line) -> Line:
    """The field ``accuracy``; empty where there is none."""
    return line.get("accuracy") or {}


def lines_of(run: RunData, others: bool) -> Iterator[Line]:
    """Records in the order of the conditions; ``others``: of the other estimators in place of RMVPE."""
    for case in sorted(run.cases, key=_order):
        for name in run.backends:
            line = run.find(case, "f0", name)
            if line is not None and bool(line.get("estimator")) == others:
                yield line


def _order(case: str) -> tuple[int, str]:
    names = list(CONDITIONS)
    return (names.index(case) if case in names else len(names), case)


def _row(run: RunData, line: Line, judged: bool) -> Row:
    found = figures(line)
    why = found.get("reason", "") if found else line["reason"] or ""
    shown = [(name, ".0f", 1.0) for name in ("scored_frames", "voiced_frames")]
    shown += [(f.name, f.metric.format, f.metric.scale) for f in ACCURACY]
    numbers = [cells.number(run, line, f"accuracy.{name}", form, scale, why) for name, form, scale in shown]
    front = (line["case"], line["backend"], found.get("truth") or Absent(why))
    return (*front, *numbers, *((_least(run, line), line["status"]) if judged else ()))


def _least(run: RunData, line: Line) -> Cell:
    """Names and limits of the judged figures."""
    labels = {figure.name: figure.label.removesuffix(" %") for figure in ACCURACY}
    limits = [
        say(f"{labels[name]} {{}}", plain(check["limit"], (run.source(line, f"accuracy.limits.{name}"),), "g", 100))
        for name, check in (figures(line).get("limits") or {}).items()
    ]
    return joined(limits) or Absent()


def findings(book: Book) -> Iterator[Text]:
    """For the summary: accuracy of each backend, clean and at 10 dB, and its total deviation from the reference."""
    for run in book.having("accuracy"):
        for backend in run.backends:
            lines = {r["case"]: r for r in lines_of(run, others=False) if r["backend"] == backend}
            shown = [(case, lines[case]) for case in HEADLINES if figures(lines.get(case, {})).get("rpa") is not None]
            shares = [say(f"{case} {{}}", cells.number(run, line, "accuracy.rpa", ".1f", 100)) for case, line in shown]
            if shares:
                facts = (run.precision, Code(backend), f" on machine {run.setting}" if book.several else "")
                apart = _apart(run, list(lines.values()))
                yield say("accuracy, {}: {}{}, RPA in per cent: {}{}.", *facts, joined(shares), apart)


def _apart(run: RunData, lines: Sequence[Line]) -> Text:
    """Mismatches and the largest difference over everything that was compared with another backend."""
    compared = [line for line in lines if line["backend"] != line["reference"] and line["parity"]]
    if not compared:
        return ()
    sources = tuple(run.source(line, "parity") for line in compared)
    seconds = plain(sum(line["workload"]["duration_s"] for line in compared), sources, ".0f")
    mismatches = plain(sum(line["parity"]["voicing_mismatches"] for line in compared), sources)
    cents = plain(max(line["parity"]["max_cents"] for line in compared), sources)
    reference = Code(compared[0]["reference"])
    words = "; from {} over {} s of audio: {} voicing mismatches, at most {} cents"
    return say(words, reference, seconds, mismatches, cents)


def _estimators(book: Book, runs: Sequence[RunData]) -> list[Section]:
    rows = [(run, _row(run, line, False)) for run in runs for line in lines_of(run, others=True)]
    if not rows:
        return []
    header = ("case", "estimator", "truth", "frames", "voiced", *LABELS)
    section = Section("Other estimators on the same audio", [Paragraph((ESTIMATORS,))], level=3)
    for name, share in (("rpa", "RPA %"), ("overall_accuracy", "overall %")):
        cases = sorted({case for run in runs for case in run.cases}, key=_order)
        matrix = [(run, row) for run in runs for row in _matrix(run, cases, name)]
        about: Text = (f"{share.removesuffix(' %')} in per cent by condition.",)
        head = ("estimator", *cases, "seconds per second")
        section.blocks.append(cells.table(book, f"estimators-{name}", head, matrix, 1, about))
    section.blocks.append(cells.table(book, "estimators", header, rows, 3))
    section.blocks.append(_settings(book, runs))
    return [section]


def _matrix(run: RunData, cases: Sequence[str], name: str) -> Iterator[Row]:
    assert name in SHARES
    for who in run.backends:
        found = {case: run.find(case, "f0", who) for case in cases}
        lines = [line for line in found.values() if line]
        reasons = [figures(x).get("reason") or "" if x else run.why(case, "f0", who) for case, x in found.items()]
        row = [
            cells.number(run, line, f"accuracy.{name}", ".1f", 100, why)
            for line, why in zip(found.values(), reasons, strict=True)
        ]
        if lines:
            yield (who, *row, _speed(run, lines))


def _speed(run: RunData, lines: Sequence[Line]) -> Cell:
    timed = [line for line in lines if line["samples_s"]]
    audio = sum(line["workload"]["duration_s"] for line in timed)
    sources = tuple(run.source(line, "samples_s") for line in timed)
    return plain(sum(line["samples_s"][-1] for line in timed) / audio, sources, ".3g") if timed else Absent()


def _settings(book: Book, runs: Sequence[RunData]) -> Table:
    """Each estimator's package, version and settings, and its number of frames without a valid F0."""
    rows: list[tuple[RunData, Row]] = []
    for run in runs:
        own: dict[str, list[Line]] = {}
        for line in lines_of(run, others=True):
            own.setdefault(line["backend"], []).append(line)
        for name, lines in own.items():
            known, source = lines[0]["estimator"], (run.source(lines[0], "estimator"),)
            settings = ", ".join(f"{key} {value}" for key, value in known["settings"].items())
            words = [Num(text, source) for text in (known["title"], known["package"], settings)]
            voided = sum(line["estimator"].get("voided_frames", 0) for line in lines)
            count = plain(voided, tuple(run.source(line, "estimator") for line in lines))
            rows.append((run, (Code(name), *words, count)))
    header = ("name", "estimator", "package", "settings", "frames of NaN or below 0")
    return cells.table(book, "estimators-settings", header, rows, 4)
