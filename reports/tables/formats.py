"""Number formats: what each gains in time and size, how far it moves the result, and which to choose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from suites.definitions.precision import FLOAT32

from ..data.frame import Book, Format, RunData
from ..render.document import Absent, Cell, Code, Num, Section, Text, estimate_of, joined, plain, say
from . import cells, phases
from .cells import Row

ABOUT = (
    "One backend with itself in float32: no rounding limit applies, and nothing here is judged. *Speed-up*: time in "
    "float32 over time in this format, paired by round (above 1: it is faster). *SNR*: of the result over its "
    "difference; of RMVPE that of the salience, while its cents are those of F0, the 95th percentile where both are "
    "voiced. *Voicing*: share of frames whose decision changed. *Spectrum*: log-spectral distance. *Memory*: peak of "
    "the first call in a fresh process; on a GPU the framework's own. `q8`, `q6`, `q4`: matrices in so many bits "
    "and convolutions in 8, widened to float32 as they are loaded: smaller files, neither less memory nor less time."
)
CHOICE = (
    "Of the formats within the error on the left: *fastest*, float32 unless the whole interval of another's speed-up "
    "is above 1; *smallest*, of the checkpoint."
)
UNTRAINED = (
    "With synthetic weights errors are those of random networks. Of real ones: python -m suites run precision "
    "weights.rmvpe=FILE weights.hubert=FILE weights.voice=FILE."
)


def formats(book: Book) -> list[Section]:
    runs = book.having("precision")
    rows = [(run, _row(run, one)) for run in runs for one in run.formats()]
    header = (
        "case", "model", "format", "backend", "time ms", "speed-up", "SNR dB", "cents", "voicing %", "spectrum dB",
        "memory MiB", "weights MB", "status",
    )  # fmt: skip
    chosen = [(run, _choice_row(run, one)) for run in runs for one in _choices(run)]
    about = (f"{ABOUT} {UNTRAINED}",) if any(_synthetic(run) for run in runs) else (ABOUT,)
    found = cells.section("Number formats", cells.table(book, "formats", header, rows, 4, about))
    titles = ("case", "model", "backend", "within", "fastest", "its time ms", "smallest", "its weights MB")
    return [*found, *cells.section("What to choose", cells.table(book, "format-choice", titles, chosen, 4, (CHOICE,)))]


def _synthetic(run: RunData) -> bool:
    given = run.config["weights"]
    return not all(given.get(name) for name in ("rmvpe", "hubert", "voice"))


def _row(run: RunData, one: Format) -> Row:
    line, found = one.line, one.line.get("fidelity") or {}
    source = run.source(line, "samples_s")
    gain: Cell = Absent()
    if one.gain:
        gain = estimate_of(one.gain, (source, run.source(one.float32 or line, "samples_s")), unit="×")
    equal = line["status"] == "passed" and one.policy != FLOAT32 and found.get("snr_db") is None
    return (
        one.case,
        one.model,
        one.policy,
        one.backend,
        cells.time_ms(run, one.case, one.component, one.backend),
        gain,
        "equal" if equal else cells.number(run, line, "fidelity.snr_db", ".1f"),
        cells.number(run, line, "fidelity.p95_cents", ".3g") if found.get("both_voiced_frames") else Absent(),
        cells.number(run, line, "fidelity.voicing_error_rate", ".3g", 100),
        cells.number(run, line, "fidelity.lsd_db", ".3g"),
        phases.memory_of_call(run, line),
        cells.number(run, line, "weights_bytes", ".3g", 1e-6),
        line["status"],
    )


# ---------------------------------------------------------------------- what to choose
class Choice(NamedTuple):
    """The formats of one model and backend within an error: the fastest and the smallest. ``bound`` in ``unit``."""

    case: str
    model: str
    backend: str
    bound: Num
    fastest: Format
    smallest: Format


def _choices(run: RunData) -> Iterator[Choice]:
    """One for each model, backend and error of the configuration."""
    options, measured = run.config["suite"], list(run.formats())
    places = dict.fromkeys((one.case, one.model, one.backend) for one in measured)
    for case, model, backend in places:
        own = [one for one in measured if (one.case, one.model, one.backend) == (case, model, backend)]
        name, unit = ("within_cents", "cents") if model == "rmvpe" else ("within_db", "dB")
        if model == "rmvpe" and not any((one.line.get("fidelity") or {}).get("both_voiced_frames") for one in own):
            continue
        for bound in options.get(name, []):
            inside = [one for one in own if one.policy == FLOAT32 or _within(one, bound, unit)]
            usable = [one for one in inside if one.line["status"] == "passed"]
            if usable:
                words = unit.removesuffix("s") if bound == 1 else unit
                number = plain(bound, (run.file(f"config.yaml#suite.{name}"),), "g", unit=f" {words}")
                smallest = min(usable, key=lambda one: one.line.get("weights_bytes") or 0)
                yield Choice(case, model, backend, number, _fastest(usable), smallest)


def _choice_row(run: RunData, one: Choice) -> Row:
    time = cells.time_ms(run, one.case, one.fastest.component, one.backend)
    size = cells.number(run, one.smallest.line, "weights_bytes", ".3g", 1e-6)
    return one.case, one.model, one.backend, one.bound, one.fastest.policy, time, one.smallest.policy, size


def answers(book: Book) -> Iterator[Text]:
    """For a summary: what to choose within the middle one of the errors, on the longest case."""
    for run in book.having("precision"):
        found = [one for one in _choices(run) if one.case == run.cases[-1]]
        for model, backend in dict.fromkeys((one.model, one.backend) for one in found):
            own = [one for one in found if (one.model, one.backend) == (model, backend)]
            one = own[len(own) // 2]
            time = cells.time_ms(run, one.case, one.fastest.component, backend)
            size = cells.number(run, one.smallest.line, "weights_bytes", ".3g", 1e-6)
            whole = cells.number(run, one.smallest.float32 or one.smallest.line, "weights_bytes", ".3g", 1e-6)
            yield say(
                "{} on {}{}, within {} of float32: fastest in {}, {} ms; smallest in {}, {} MB of {}.",
                *(model, Code(backend), f" ({run.setting})" if run.setting else "", one.bound),
                *(one.fastest.policy, time, one.smallest.policy, size, whole),
            )


def slower(book: Book) -> Iterator[Text]:
    """Number formats that are certainly slower than float32, of each backend."""
    for run in book.having("precision"):
        for backend in run.backends:
            places = [
                say(
                    "{} of {} on {} {}",
                    *(one.policy, one.model, one.case),
                    estimate_of(one.gain, (run.source(one.line, "samples_s"),), unit="×"),
                )
                for one in run.formats()
                if one.backend == backend and one.gain and cells.is_slower(one.gain)
            ]
            if places:
                where = f" ({run.setting})" if run.setting else ""
                yield say("number formats slower than float32 on {}{}: {}.", Code(backend), where, joined(places))


def _within(one: Format, bound: float, unit: str) -> bool:
    found = one.line.get("fidelity") or {}
    if unit == "cents":
        return "p95_cents" in found and found["p95_cents"] <= bound
    return one.line["status"] == "passed" and (found.get("snr_db") is None or found["snr_db"] >= bound)


def _fastest(usable: list[Format]) -> Format:
    """Float32, unless another is certainly faster."""
    faster = [one for one in usable if one.gain and cells.is_faster(one.gain)]
    plain_one = [one for one in usable if one.policy == FLOAT32]
    return max(faster, key=lambda one: one.gain.value if one.gain else 0.0) if faster else [*plain_one, *usable][0]
