"""A trace's records, and their texts for terminal and report."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from suites.base import outcome
from suites.base.errors import UserError
from suites.base.lines import Line, restored
from suites.base.records import read_lines
from suites.base.run_folder import RunFolder
from suites.trace import findings
from suites.trace.findings import Finding
from suites.trace.walk import CALL, FAULT, INHERITED, NOT_JUDGED, OK, REFERENCE_WRONG

Row = Mapping[str, Any]
VERDICTS = {
    OK: "ok",
    findings.SAME_CODE: "same code",
    FAULT: "AT FAULT",
    REFERENCE_WRONG: "reference wrong",
    INHERITED: "inherited",
    NOT_JUDGED: "not judged",
}


class Trace(NamedTuple):
    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    rows: list[Line]
    spreads: list[Line]
    label: str = ""  # its folder, as a document's sources name it
    setting: str = ""  # its machine and precision, where a document holds several

    @property
    def model(self) -> str:
        return str(self.config["suite"]["name"])

    def file(self, name: str) -> str:
        """A file of this trace, as a document's sources name it."""
        return f"{self.label}/{name}" if self.label else name

    @property
    def finding(self) -> Finding | None:
        return findings.find(self.rows)

    @property
    def judged(self) -> Row | None:
        """Of a dump judged by a bundle: its ``verdict``, ``exit_code``, ``notes`` and ``command``; None of a trace."""
        return self.environment.get("judged")

    @property
    def backends(self) -> tuple[str, str]:
        return self.rows[0]["backend"], self.rows[0]["reference"]


def load(folder: Path) -> Trace:
    """Read a trace's folder.

    Raises ``UserError``: not one, or it holds no stage."""
    run = RunFolder(folder)
    lines = list(read_lines(run.records_file))
    rows = [restored(line) for line in lines if line["kind"] == "trace"]
    if not rows:
        raise UserError(f"{folder}: the trace ended before its first stage; see {folder / 'workers.log'}")
    return Trace(folder, run.config(), run.environment(), rows, [line for line in lines if line["kind"] == "spread"])


# ---------------------------------------------------------------------- words and numbers
def figure(value: float | None, form: str = ".1e") -> str:
    if value is None:
        return "–"
    return "0" if value == 0 else f"{value:{form}}"


def below_one(figures: Row, name: str) -> float | None:
    """A similarity's distance from one."""
    return None if figures.get(name) is None else figures[name] - 1


def percent(share: float) -> str:
    if math.isinf(share):
        return "no limit" if share < 0 else ">1000"
    return f"{100 * share:.0f}" if share < 10 else ">1000"


HEADINGS = (
    "stage", "values", "local error", "% of limit", "accumulated error", "relative", "SNR dB", "corr - 1", "verdict",
)  # fmt: skip


def table(rows: Sequence[Row]) -> list[list[str]]:
    """One line per part of the model; where a stage is at fault or the reference wrong, a line for it."""
    groups: dict[str, list[Row]] = {}
    for row in findings.with_inheritance(rows):
        groups.setdefault(findings.group_of(row["path"]), []).append(row)
    lines = []
    for name, members in groups.items():
        lines.append(_line(name, members))
        faulty = [row for row in members if row["status"] in (FAULT, REFERENCE_WRONG)] if len(members) > 1 else []
        lines += [_line(f"  {row['path'].removeprefix(name)} {row['entry']}", [row]) for row in faulty[:6]]
    return lines


def _line(name: str, rows: Sequence[Row]) -> list[str]:
    added, chained = findings.worst(rows), findings.worst(rows[-1:], "chained")
    status = min((row["status"] for row in rows), key=findings.ORDER.index)
    return [
        name,
        str(len(rows)),
        "–" if "reason" in added else figure(added["max_abs"]),
        _share(rows),
        "–" if "reason" in chained else figure(chained["max_abs"]),
        figure(chained.get("relative")),
        figure(chained.get("snr_db"), ".1f"),
        figure(below_one(chained, "corr")),
        VERDICTS[status],
    ]


def _share(rows: Sequence[Row]) -> str:
    """Of a limit; a dash where there is nothing to compare, or no limit."""
    known = [row for row in rows if row["limit"] or row.get("limit_chained")]
    return percent(findings.judged_share(known)) if known and "reason" not in findings.worst(rows) else "–"


def aligned(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table for the terminal: the first column to the left, the others to the right."""
    first, *widths = (max(map(len, column)) for column in zip(headings, *lines, strict=True))
    texts = []
    for name, *cells in [headings, *lines]:
        texts.append("  ".join([name.ljust(first), *map(str.rjust, cells, widths)]).rstrip())
    return "\n".join(texts)


ALL_HEADINGS = (
    "stage", "value", "shape", "local: max abs", "RMSE", "relative", "SNR dB", "corr - 1", "cos - 1", "argmax changed",
    "% of limit", "accumulated: max abs", "relative", "verdict",
)  # fmt: skip


def full_lines(rows: Sequence[Row]) -> list[list[str]]:
    lines = []
    for row in findings.with_inheritance(rows):
        added, chained = row["added"], row["chained"]
        lines.append(
            [
                row["path"],
                row["entry"],
                "x".join(map(str, row["shape"])),
                *(figure(added.get(name)) for name in ("max_abs", "rmse", "relative")),
                figure(added.get("snr_db"), ".1f"),
                *(figure(below_one(added, name)) for name in ("corr", "cosine")),
                str(added.get("argmax_changes", "–")),
                _share([row]),
                *(figure(chained.get(name)) for name in ("max_abs", "relative")),
                VERDICTS[row["status"]],
            ]
        )
    return lines


# the probes whose calls alone were compared, as one walk
CALLS = "calls"
VALIDATION_HEADINGS = (
    "part", "values", "local: max abs", "relative", "% of limit",
    "accumulated: max abs", "relative", "corr - 1", "status",
)  # fmt: skip


def validation_lines(model: str, rows: Sequence[Row]) -> list[list[str]]:
    """The validation table: the worst local error of every part, and the accumulated error of its output."""
    return [validation_line(item) for item in findings.validation(model, rows)]


def validation_line(item: Row) -> list[str]:
    added, chained = item["added"], item["chained"]
    return [
        str(item["title"]),
        str(item["values"]),
        figure(added["max_abs"]),
        figure(added["relative"]),
        percent(item["share"]) if item["values"] else "–",
        *(figure(chained.get(name)) for name in ("max_abs", "relative")),
        figure(below_one(chained, "corr")),
        str(VERDICTS.get(item["status"], item["status"])),
    ]


def audible(rows: Sequence[Row]) -> list[str]:
    """Audible differences of pitch and audio, on each side's own values."""
    from suites.metrics.wording import describe

    lines = []
    for row, found in ((row, row["heard"]) for row in rows if row.get("heard")):
        where = f"{row['variant']}, {row['probe']}, `{row['path']}`"
        if "level_db" in found:
            parts = [describe(found)]
            parts += [f"{label} {figure(found[name], form)}" for name, label, form in AUDIO_FIGURES]
        else:
            parts = [f"{found['voicing_mismatches']} of {found['frames']} frames voiced otherwise"]
            parts += [f"{label} {figure(found[name], '.2g')}" for name, label in PITCH_FIGURES]
        lines.append(f"{where}: " + ", ".join(parts))
    return lines


AUDIO_FIGURES = (
    ("level_db", "level dB", "+.2g"),
    ("delay_samples", "delay in samples", "+d"),
    ("mr_stft", "multi-resolution STFT distance", ".2g"),
    ("lsd_db", "log-spectral distance dB", ".2g"),
    ("edge_start_snr_db", "SNR of the first 0.1 s, dB", ".1f"),
    ("edge_end_snr_db", "of the last, dB", ".1f"),
)
PITCH_FIGURES = (("max_cents", "largest difference in cents"), ("rms_cents", "RMS"), ("octave_errors", "octave errors"))


def spread_text(line: Line) -> str:
    s = line["spread"]

    def span(name: str, form: str) -> str:
        return f"{figure(s[f'{name}_min'], form)} to {figure(s[f'{name}_max'], form)}"

    seeds, level = len(line["seeds"]), figure(s["abs_level_db_max"], ".2g")
    return (
        f"The same PyTorch model under {seeds} noise seeds, in pairs: waveform correlation {span('corr', '.3f')}, "
        f"SNR {span('snr_db', '.1f')} dB, multi-resolution STFT distance {span('mr_stft', '.2g')}, "
        f"log-spectral distance {span('lsd_db', '.2g')} dB, level within {level} dB. Two ports that draw "
        "different noise cannot be closer than this, and a port at this distance may differ in its noise alone."
    )


def unjudged(trace: Trace) -> str | None:
    """Why a trace could not be completed; None: it could, or found a fault before."""
    path = findings.lost_at(trace.rows)
    if path is None or trace.finding is not None:
        return None
    model = f"{trace.backends[1]}, {weights(trace)}: computes NaN or infinite values"
    return f"{model}, first in stage {path}; nothing after it can be compared"


def exit_code(trace: Trace) -> int:
    if trace.judged is not None:
        return int(trace.judged["exit_code"])
    return outcome.FAILED if trace.finding else outcome.ERROR if unjudged(trace) else outcome.PASSED


def verdict(trace: Trace) -> str:
    if trace.judged is not None:
        return str(trace.judged["verdict"])
    found, wrong = trace.finding, findings.reference_faults(trace.rows)
    other, reference = trace.backends
    shared = sum(bool(row.get("shared")) for row in trace.rows)
    if found is not None:
        text = found.sentence
    elif (lost := unjudged(trace)) is not None:
        text = f"Not judged: {lost}."
    elif wrong is not None:
        text = f"No stage of {other} is at fault: what differs beyond rounding is {reference}'s own error."
    else:
        own = f"all {len(trace.rows) - shared} values of {other} lie within what rounding explains beside {reference}"
        rest = f" {shared} more come from code that both sides share, which proves nothing." if shared else ""
        text = f"No stage at fault: {own}.{rest}"
    return text if wrong is None else f"{text} {wrong}"


def terminal(trace: Trace, show_all: bool = False) -> str:
    other, reference = trace.backends
    parts = [f"{trace.model}: {other} beside {reference}, {trace.config['precision']}, {weights(trace)}"]
    parts += [f"optimisations as configured: {used_optimisations(trace)}"] if trace.judged is None else []
    for i, ((variant, probe), rows) in enumerate(by_walk(trace).items()):
        if i and not show_all and findings.first_fault(rows) is None:
            share = _share(rows)
            parts += ["", f"{variant}, probe {probe}: {len(rows)} values, none above {share} % of its limit"]
            continue
        shown = aligned(ALL_HEADINGS, full_lines(rows)) if show_all else aligned(HEADINGS, table(rows))
        parts += ["", f"{variant}, probe {probe}", shown]
    parts += ["", "validation", aligned(VALIDATION_HEADINGS, validation_lines(trace.model, trace.rows))]
    parts += ["", *(text.replace("`", "") for text in audible(trace.rows))]
    parts += [spread_text(line) for line in trace.spreads]
    parts += [note.replace("`", "") for note in notes(trace)]
    return "\n".join([*parts, "", verdict(trace).replace("`", "")])


def notes(trace: Trace) -> list[str]:
    """What is odd about a dump, one sentence each."""
    return [note if note.endswith("?") else f"{note}." for note in (trace.judged or {}).get("notes", [])]


def command(verb: str, config: Mapping[str, Any]) -> str:
    """The command line that repeats a run or a trace, with the overrides that it was given."""
    words = [text for text in config["overrides"] if not text.startswith(("out=", "resume="))]
    return shlex.join(["python", "-m", "suites", verb, str(config["suite"]["name"]), *words])


def weights(trace: Trace) -> str:
    return "; ".join(w["label"] for w in trace.environment["weights"].values())


def used_optimisations(trace: Trace) -> str:
    facts = trace.environment.get("backends", {}).get(trace.backends[0], {}).get("model", {})
    return ", ".join(facts.get("optimize", [])) or "none"


def by_walk(trace: Trace) -> dict[tuple[str, str], list[Line]]:
    found: dict[tuple[str, str], list[Line]] = {}
    for row in trace.rows:
        found.setdefault((row["variant"], CALLS if row["path"] == CALL else row["probe"]), []).append(row)
    return found
