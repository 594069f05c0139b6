"""The summary: verdicts and key findings, all computed from records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from suites.base.lines import Line
from suites.base.speed import Estimate
from suites.metrics.registry import recorded_metric

from ..data import trace
from ..data.frame import Book, RunData
from ..render.document import (
    Bullets,
    Cell,
    Code,
    Num,
    Paragraph,
    Picture,
    Section,
    Text,
    counted,
    estimate_of,
    joined,
    plain,
    ratio,
    say,
)
from . import accuracy, cells, formats, machines, parity, phases

VERDICTS = {
    0: "**Passed**: every planned case was measured, and what was compared lies within its limits.",
    1: "**Failed**: a limit was exceeded; see *Not measured, skipped, and failures*.",
    2: "**Incomplete**: not everything planned could be measured; see *Not measured, skipped, and failures*.",
}
# share of the processors taken by other work above which a record is reported
BUSY = 0.05
# an interval whose ends differ by more says nothing
WIDE = 2.0
MANY = 5


def exit_code(book: Book) -> int:
    """The worst of all runs; a trace that found a fault, or could not be completed, counts too."""
    codes = [run.outcome.exit_code for run in book.runs]
    return max([*codes, *(trace.exit_code(walked) for walked in book.traces)], default=2)


def summary(book: Book, pictures: Sequence[Picture] = ()) -> Section:
    """What fits a first screen, with its pictures; then what else is known of the whole."""
    section = Section("Summary", [Paragraph((VERDICTS[exit_code(book)],))])
    answers = (*_speed(book), *formats.answers(book))
    further = (*_precise(book), *_shares(book), *_memory(book), *accuracy.findings(book), *_traces(book))
    section.blocks += [Bullets(answers)] if answers else []
    section.blocks += [*pictures, *(Paragraph(text) for text in machines.in_a_line(book)), Paragraph(_what(book))]
    section.blocks += [Bullets(further)] if further else []
    return section


def _what(book: Book) -> Text:
    """Suite, measure, policies, weights and knobs of a single run; counts of several."""
    if len(book.runs) != 1:
        held: list[Text] = []
        if book.runs:
            count = counted(len(book.runs), "run", tuple(run.file("records.jsonl") for run in book.runs))
            held.append((*count, f" ({', '.join(dict.fromkeys(run.name for run in book.runs))})"))
        if book.traces:
            held.append(counted(len(book.traces), "trace", tuple(one.file("records.jsonl") for one in book.traces)))
        if book.several:
            facts = tuple(run.file("environment.json") for run in book.runs)
            held.append(say("{} machines, precisions or folders", plain(len(book.settings), facts)))
        return (*joined(held), ".")
    (run,) = book.runs
    config, knobs = run.config, ("transpose", "index_rate", "protect", "rms_mix", "speaker")
    values = [
        say(f"{name} {{}}", plain(config["suite"][name], (run.file(f"config.yaml#suite.{name}"),), "g"))
        for name in knobs
        if name in config["suite"]
    ]
    weights = "; ".join(w.get("label", "unnamed") for w in run.environment.get("weights", {}).values())
    return say(
        "Suite {}, measure {}, precision {}, profile {}{}; weights: {}.",
        *map(Code, (run.name, str(config["measure"]["name"]), run.precision, str(config["profile"]))),
        ("; ", *joined(values)) if values else (),
        Num(weights, (run.file("environment.json#weights"),)) if weights else "unknown",
    )


def _who(run: RunData, backend: str) -> Text:
    return (Code(backend), f" ({run.setting})" if run.setting else "")


def sweep(run: RunData) -> list[str]:
    return [case for case in run.cases if case.startswith("synthetic")] or run.cases


def _speed(book: Book) -> Iterator[Text]:
    """The whole call on the longest case, per backend with a PyTorch reference on the same device."""
    for run in book.having("time"):
        case, whole = sweep(run)[-1], run.suite.whole or ""
        for backend in run.backends:
            gain = run.speedup(case, whole, backend)
            if gain:
                yield _answer(run, case, backend, gain)


def _answer(run: RunData, case: str, backend: str, gain: Estimate) -> Text:
    """How fast, and whether it is equal."""
    whole, reference = run.suite.whole or "", Code(str(run.speed_reference(backend)))
    number = cells.gain_number(run, case, whole, backend)
    source = number.sources if isinstance(number, Num) else ()
    value, low, high = (Num(f"{ratio(x)}×", source, x) for x in (gain.value, gain.low, gain.high))
    if gain.high > WIDE * gain.low:
        speed = say("'s speed is unknown: {} to {} of {}'s, wider than a factor of two", low, high, reference)
    elif gain.rounds == 1:
        speed = say(" is {} as fast as {}, by one round", value, reference)
    else:
        speed = say(" is {} as fast as {} ({} to {})", value, reference, low, high)
    found = [line["parity"] for c in run.cases if (line := run.find(c, whole, backend)) and line["parity"]]
    if any(not check["passed"] for one in found for check in one["limits"].values()):
        equal = "not equal to it: see *Parity*"
    else:
        equal = "equal to it within rounding" if found else "not compared with it"
    return say(
        "{}: {}{}, and {}. {} s of audio, {}; {}, {}; realtime factor {}.",
        run.suite.subject[0].upper() + run.suite.subject[1:], _who(run, backend), speed, equal,
        cells.seconds_of(run, case), run.precision,
        counted(gain.launches, "launch", source), counted(gain.rounds, "round", source),
        cells.realtime_factor(run, case, whole, backend),
    )  # fmt: skip


# ---------------------------------------------------------------------- precision
def _precise(book: Book) -> Iterator[Text]:
    """The judged figures of the whole call, each the worst of all cases."""
    for run in book.having("time"):
        for backend in run.backends:
            found = [r for case in run.cases if (r := run.find(case, run.suite.whole or "", backend)) and r["parity"]]
            if found:
                figures = joined(_worst(run, found)) or "nothing judged"
                count = counted(len(found), "case", tuple(run.source(r, "parity") for r in found))
                words = "{}, {}: {} against {}, whole call, worst of {}: {}."
                facts = (_who(run, backend), Code(found[0]["reference"]), count, figures)
                yield say(words, run.name, run.precision, *facts)


def _worst(run: RunData, found: Sequence[Line]) -> list[Cell]:
    worst: dict[str, tuple[float, Line]] = {}
    for line in found:
        for name, check in line["parity"]["limits"].items():
            value, to_error = float(check["value"]), recorded_metric(name).to_error
            if name not in worst or to_error(value) > to_error(worst[name][0]):
                worst[name] = value, line
    return [
        say("{} {}", name, cells.figure(run, line, value, name, f"parity.limits.{name}"))
        for name, (value, line) in worst.items()
    ]


def _shares(book: Book) -> Iterator[Text]:
    """The part that takes the most time of one call, on the longest case."""
    for run in book.having("time"):
        if not run.timed_together:
            continue
        case = sweep(run)[-1]
        for backend in run.backends:
            parts = {c: e.value for c in run.components if c != run.suite.whole and (e := run.time(case, c, backend))}
            whole = run.time(case, run.suite.whole or "", backend)
            if parts and whole:
                name = max(parts, key=lambda c: parts[c])
                source = (run.file(f"records.jsonl#{case}/*/{backend}.samples_s"),)
                share = plain(100 * parts[name] / whole.value, source, ".0f", unit=" %")
                facts = (run.name, cells.seconds_of(run, case), _who(run, backend), share, Code(name))
                yield say("{} on {} s of audio, {}: {} of the time is {}.", *facts)


def _memory(book: Book) -> Iterator[Text]:
    for run in book.having("memory"):
        case = sweep(run)[-1]
        for line in run.cold():
            if line["case"] == case and line["component"] in run.suite.headlines:
                against = phases.against(run, line)
                if isinstance(against, Num):
                    facts = (cells.seconds_of(run, case), _who(run, line["backend"]), against, run.precision)
                    words = "memory of {} on {} s of audio: the peak of {} is {} PyTorch's, {}."
                    yield say(words, line["component"], *facts)


def _traces(book: Book) -> Iterator[Text]:
    for walked in book.traces:
        where = f" ({walked.setting})" if walked.setting else ""
        text = Num(trace.verdict(walked), (walked.file("records.jsonl"),))
        yield say("{}, stage by stage{}: {}", walked.model, where, text)


def findings(book: Book) -> list[Section]:
    """Further findings: where MLX is slower, which optimisations cost time, and which figures need care."""
    items = [*_slower(book), *_unprofitable(book), *formats.slower(book), *_near(book), *_unsettled(book), *_busy(book)]
    return [Section("Findings", [Bullets(tuple(items))])] if items else []


def _slower(book: Book) -> Iterator[Text]:
    """Components whose whole interval is slower, or faster: the five most extreme of each."""
    for run in book.having("time"):
        for backend in run.backends:
            gains = [(g, case, c) for case in run.cases for c in run.components if (g := run.speedup(case, c, backend))]
            slower = sorted((x for x in gains if cells.is_slower(x[0])), key=lambda x: x[0].value)
            faster = sorted((x for x in gains if cells.is_faster(x[0])), key=lambda x: -x[0].value)
            for word, found in (("slower", slower), ("faster", faster)):
                if found:
                    places = [
                        say("{} on {} {}", c, case, cells.gain_number(run, case, c, backend))
                        for _, case, c in found[:MANY]
                    ]
                    counts = [plain(len(some), cells.all_sources([run])) for some in (found, gains)]
                    facts = (run.name, run.precision, _who(run, backend), word, Code(str(run.speed_reference(backend))))
                    yield say(
                        "{}, {}: {} is {} than {} in {} of {} pairs of component and case: {}.",
                        *facts,
                        *counts,
                        joined(places),
                    )


def _unprofitable(book: Book) -> Iterator[Text]:
    for run in book.having("ablation"):
        for backend in run.backends:
            lost = []
            for case, name, own, *lines, gain in run.ablations():
                if own == backend and gain and cells.is_slower(gain):
                    sources = tuple(run.source(line, "samples_s") for line in lines if line)
                    lost.append(say("{} on {} {}", name, case, estimate_of(gain, sources, unit="×")))
            if lost:
                yield say("optimisations that cost time on {}: {}.", _who(run, backend), joined(lost))


def _near(book: Book) -> Iterator[Text]:
    """The figure that is closest to its limit, of each run."""
    for run in book.having("time"):
        found = parity.closest(parity.compared(run))
        if found is not None:
            share, name, line = found
            of_limit = plain(100 * share, (run.source(line, f"parity.limits.{name}"),), ".0f", unit=" %")
            facts = (_who(run, line["backend"]), name, f"{line['component']} on {line['case']}", of_limit)
            yield say("{}, {}: {} is closest to a limit in {} of {}: {} of it.", run.name, run.precision, *facts)


def _unsettled(book: Book) -> Iterator[Text]:
    for run in book.having("time"):
        warm = [w for line in run.records for w in line.get("warmup") or []]
        late = sum(not w["steady"] for w in warm)
        if late:
            source = cells.all_sources([run], "warmup")
            counts = plain(late, source), plain(len(warm), source)
            yield say("{}: {} of {} warm-ups ended before the times had settled.", _name(run), *counts)


def _busy(book: Book) -> Iterator[Text]:
    for run in book.having("time"):
        shares = [line["others_share"] for line in run.records if line.get("others_share") is not None]
        busy = [share for share in shares if share > BUSY]
        if busy:
            source = cells.all_sources([run], "others_share")
            most = plain(100 * max(busy), source, ".0f", unit=" %")
            counts = plain(len(busy), source), plain(len(shares), source)
            words = "{}: other work took processor time from {} of {} records, up to {}: their times are too long."
            yield say(words, _name(run), *counts, most)


def _name(run: RunData) -> str:
    return f"{run.name} ({run.setting})" if run.setting else run.name
