"""Two runs side by side: every ratio with its interval, what a gate would say of it, and the ratios as forest plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt

from suites.base.backends import BACKENDS
from suites.gate.baseline import Baseline, Key, differences
from suites.gate.judge import MEANING, TIMES, UNJUDGED, Outcome, Verdict
from suites.metrics.registry import BYTES, SECONDS, TIME_RATIO, recorded_metric

from ..figures import changes
from ..figures.style import RC, save
from ..render.document import (
    Absent,
    Block,
    Bullets,
    Cell,
    Document,
    Num,
    Paragraph,
    Picture,
    Section,
    Table,
    Text,
    joined,
    plain,
    say,
)
from ..render.render import write

# verdicts that call a change of a figure
CALLS = ("slower", "faster", "implausible", "bigger", "smaller", "less accurate")
WORDS = {
    0: "**Nothing is called worse** than before.",
    1: "**Worse than before**: see the verdicts below.",
    2: "**Not everything could be judged**: see *What was not judged, or is not there*.",
}
BRACKETS = (
    "Brackets: 95 % interval of the ratio, of this figure alone. The verdict is stricter: it corrects for the number "
    "of figures, and calls nothing below the size in *called from*. *Would have shown*: the smallest rise that is "
    "called in 80 % of such comparisons."
)


class Family(NamedTuple):
    """Figures that share a unit: a table and a forest plot.

    ``field``: of a record, and of a baseline's entry. ``axis``: of the plot. ``several``: a component has more than
    one such figure.
    """

    name: str
    title: str
    about: str
    unit: str
    scale: float
    field: tuple[str, str]
    axis: str
    several: bool = False


FAMILIES = (
    Family(
        "time",
        "Time over the reference's",
        "The fast time of one call over the reference's in the same launch: what slows both sides cancels.",
        TIME_RATIO.unit,
        TIME_RATIO.scale,
        ("samples_s", "slowness"),
        "ratio of the times over the reference's, after / before (above 1: slower)",
    ),
    Family(
        "typical",
        "Typical time over the reference's",
        "The same of medians, called from a larger size on: slowdowns that spare the fastest calls.",
        TIME_RATIO.unit,
        TIME_RATIO.scale,
        ("samples_s", "typical"),
        "ratio of the times over the reference's, after / before (above 1: slower)",
    ),
    Family(
        "seconds",
        "Seconds",
        "Fast times themselves, of both sides; judged where machine and software are the same.",
        SECONDS.unit,
        SECONDS.scale,
        ("samples_s", "seconds"),
        "ratio of the times, after / before (above 1: slower)",
    ),
    Family(
        "memory",
        "Peak memory",
        "Medians of fresh processes, above what was held before loading.",
        BYTES.unit,
        BYTES.scale,
        ("cold", "memory"),
        "ratio of the peaks, after / before (above 1: bigger)",
        True,
    ),
    Family(
        "parity",
        "Difference from the reference",
        "The judged figures as errors, smaller is better.",
        "error",
        1.0,
        ("parity", "parity"),
        "ratio of the errors, after / before (above 1: less accurate)",
        True,
    ),
)


class Side(NamedTuple):
    """A baseline as the document names it. ``stored``: it is a baseline, one file with everything in it."""

    baseline: Baseline
    name: str
    stored: bool

    def source(self, key: Key, family: Family) -> str:
        """Where a figure stands."""
        where = "/".join(key)
        field, stored = family.field
        return f"{self.name}#{where}.{stored}" if self.stored else f"{self.name}/records.jsonl#{where}.{field}"

    def sources(self, verdict: Verdict) -> tuple[str, ...]:
        """Of a verdict's figure; a ratio to the reference has two records in a run, and one entry in a baseline."""
        entry, keys = self.baseline.entries.get(verdict.key), [verdict.key]
        ratio = verdict.metric in ("time", "typical") and not self.stored
        if ratio and entry is not None and entry.reference:
            keys.append((*verdict.key[:2], entry.reference))
        return tuple(self.source(key, family_of(verdict)) for key in keys)

    def everything(self) -> str:
        return self.name if self.stored else f"{self.name}/records.jsonl#*"

    def fact(self, text: str) -> Num:
        """Of the environment."""
        return recorded(text, (f"{self.name}#made" if self.stored else f"{self.name}/environment.json",))


class Pair(NamedTuple):
    before: Side
    after: Side

    def sources(self, verdict: Verdict) -> tuple[str, ...]:
        return (*self.before.sources(verdict), *self.after.sources(verdict))


def pair_of(before: Baseline, after: Baseline) -> Pair:
    """Named by the last parts of both paths: as many as tell them apart."""
    paths = [Path(baseline.name).resolve() for baseline in (before, after)]
    names = [printable(path.as_posix()) for path in paths]
    for depth in range(1, max(len(path.parts) for path in paths)):
        found = [printable("/".join(path.parts[-depth:])) for path in paths]
        if found[0] != found[1]:
            names = found
            break
    sides = zip((before, after), names, paths, strict=True)
    return Pair(*(Side(baseline, name, path.is_file()) for baseline, name, path in sides))


def family_of(verdict: Verdict) -> Family:
    """Which table a verdict with figures stands in."""
    name = verdict.metric
    if name not in TIMES:
        name = "memory" if recorded_metric(name) is BYTES else "parity"
    return next(family for family in FAMILIES if family.name == name)


def write_comparison(before: Baseline, after: Baseline, outcome: Outcome, folder: Path) -> Path:
    """The comparison's report.md, report.html and plots."""
    return write(document(before, after, outcome, draw(before, after, outcome, folder)), folder)


# ---------------------------------------------------------------------- the document
def document(before: Baseline, after: Baseline, outcome: Outcome, pictures: Sequence[Picture] = ()) -> Document:
    """Every verdict of ``outcome``, that of ``judge(before, after, policy)``; with what ``draw`` drew."""
    pair = pair_of(before, after)
    sections = [_summary(pair, outcome)]
    for family in FAMILIES:
        found = _of(family, pair, outcome)
        if found:
            own = [picture for picture in pictures if picture.name.startswith(f"forest-{family.name}")]
            sections.append(Section(family.title, [_table(family, found, pair), *own]))
    rest = [v for v in outcome.verdicts if v.before is None and v.kind != "passed"]
    if rest:
        header = ("case", "component", "backend", "gate", "verdict", "why")
        table = Table("rest", header, tuple(_rest(verdict, pair) for verdict in rest), len(header))
        sections.append(Section("What was not judged, or is not there", [table]))
    return Document(f"{pair.after.name} compared with {pair.before.name}", sections)


def _summary(pair: Pair, outcome: Outcome) -> Section:
    everything = tuple(side.everything() for side in pair)
    words = [v.word for v in outcome.verdicts]
    counts = [say("{} {}", plain(words.count(word), everything), word) for word in dict.fromkeys(words)]
    blocks: list[Block] = [Paragraph((WORDS[outcome.exit_code],)), Paragraph(say("Verdicts: {}.", joined(counts)))]
    called = [v for v in outcome.verdicts if v.kind in CALLS and v.change is not None]
    items = [_called(v, pair) for v in sorted(called, key=_size, reverse=True)]
    unjudged = [v for v in outcome.verdicts if MEANING[v.kind] == UNJUDGED and v.before is not None]
    reasons = list(dict.fromkeys(f"{v.word}: {v.text}" for v in unjudged))
    items += [(recorded(reason, everything),) for reason in (*outcome.notes, *reasons)]
    if items:
        blocks.append(Bullets(tuple(items)))
    return Section("Summary", [*blocks, _sides(pair)])


def _size(verdict: Verdict) -> float:
    """Of a change, either way."""
    return abs(math.log(max(1 + (verdict.change or 0.0), 1e-9)))


def _called(verdict: Verdict, pair: Pair) -> Text:
    sources = pair.sources(verdict)
    where = recorded(f"{verdict.where}, {verdict.metric}", sources)
    return say("{}: {}, {}", where, Num(verdict.word, sources), ratio_number(verdict, sources))


def ratio_number(verdict: Verdict, sources: tuple[str, ...]) -> Num | Absent:
    """After over before, with its interval."""
    if verdict.change is None:
        return Absent("it was zero before")
    value, low, high = 1 + verdict.change, verdict.low, verdict.high
    if low is None or high is None:
        return Num(f"{_ratio(value)}×", sources, value)
    return Num(f"{_ratio(value)}× [{_ratio(1 + low)}, {_ratio(1 + high)}]", sources, value, 1 + low, 1 + high)


def _ratio(value: float) -> str:
    """Changes of some per cent matter: two decimals would hide them."""
    return f"{value:.3f}" if 0.001 < value < 10 else f"{value:.3g}"


def _sides(pair: Pair) -> Table:
    """What was compared with what; a fact of the software only where it differs."""
    rows: list[tuple[Cell, ...]] = [
        ("runs", *(side.fact(", ".join(map(str, side.baseline.made.get("runs", [])))) for side in pair)),
        ("commit", *(side.fact(commit_of(side.baseline)) for side in pair)),
        ("processor", *(side.fact(str(side.baseline.fingerprint.get("cpu"))) for side in pair)),
        ("launches", *(_launches(side) for side in pair)),
        ("other work (%)", *(_others(side) for side in pair)),
    ]
    for text in differences(pair.before.baseline.fingerprint, pair.after.baseline.fingerprint):
        what, _, both = text.partition(": ")
        there, _, here = both.partition(" there, ")
        rows.append((what, pair.before.fact(there), pair.after.fact(here.removesuffix(" here"))))
    return Table("sides", ("", "before", "after"), tuple(rows), 3)


def printable(text: str) -> str:
    """One line that any file and terminal takes: what is recorded may hold anything."""
    return "".join(c if c.isprintable() else " " for c in text).encode("utf-8", "replace").decode()


def recorded(text: str, sources: tuple[str, ...]) -> Num:
    """A recorded text."""
    return Num(printable(text), sources)


def commit_of(baseline: Baseline) -> str:
    """Short, with an asterisk where the working tree had changes."""
    commit = baseline.made.get("commit")
    return (
        f"{printable(str(commit)[:7])}{'*' if baseline.made.get('commit_clean') is False else ''}"
        if commit
        else "no commit"
    )


def _launches(side: Side) -> Num | Absent:
    found = sorted({len(e.seconds) for e in side.baseline.entries.values() if e.seconds})
    if not found:
        return Absent("nothing was timed")
    words = str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
    return Num(words, (side.everything(),), float(found[0]) if len(found) == 1 else None)


def _others(side: Side) -> Num:
    share = max((e.others for e in side.baseline.entries.values()), default=0.0)
    return plain(100 * share, (side.everything(),), ".0f")


def _rest(verdict: Verdict, pair: Pair) -> tuple[Cell, ...]:
    sources = tuple(side.everything() for side in pair)
    words = (*verdict.key, verdict.metric, verdict.word, verdict.text)
    return tuple(recorded(word, sources) if word else "" for word in words)


# ---------------------------------------------------------------------- one family
def _of(family: Family, pair: Pair, outcome: Outcome) -> list[Verdict]:
    """Its verdicts with figures: by backend, then component and case in the runs' own order."""
    found = [v for v in outcome.verdicts if v.before is not None and v.metric != "status" and family_of(v) == family]
    keys = [*pair.after.baseline.entries, *pair.before.baseline.entries]
    cases, components, measured = (list(dict.fromkeys(key[i] for key in keys)) for i in range(3))
    backends = sorted(measured, key=lambda b: list(BACKENDS).index(b) if b in BACKENDS else len(BACKENDS))
    places = {
        v: (backends.index(b), components.index(p), cases.index(c), v.metric) for v in found for c, p, b in [v.key]
    }
    return sorted(found, key=places.__getitem__)


def _table(family: Family, found: Sequence[Verdict], pair: Pair) -> Table:
    header = ("backend", "component", "case", *(("figure",) if family.several else ()), "verdict")
    seen = () if family.several else ("would have shown (×)",)
    figures = (f"before ({family.unit})", f"after ({family.unit})", "after / before (×)", "called from (×)", *seen)
    about = (family.about if family.several else f"{family.about} {BRACKETS}",)
    return Table(family.name, (*header, *figures), tuple(_row(family, v, pair) for v in found), len(header), about)


def _row(family: Family, verdict: Verdict, pair: Pair) -> tuple[Cell, ...]:
    case, component, backend = map(printable, verdict.key)
    first, second, both = pair.before.sources(verdict), pair.after.sources(verdict), pair.sources(verdict)
    words: list[Cell] = [backend, component, case, *((verdict.metric,) if family.several else ())]
    values: list[Cell] = [
        Absent() if value is None else plain(float(value), sources, scale=family.scale)
        for value, sources in ((verdict.before, first), (verdict.after, second))
    ]
    more = [_bound(verdict.limit, both), *(() if family.several else (_bound(verdict.detectable, both),))]
    return (*words, Num(verdict.word, both), *values, ratio_number(verdict, both), *more)


def _bound(change: float | None, sources: tuple[str, ...]) -> Num | Absent:
    if change is None or not math.isfinite(change):
        return Absent()
    return Num(f"{_ratio(1 + change)}×", sources, 1 + change)


# ---------------------------------------------------------------------- its figures
def draw(before: Baseline, after: Baseline, outcome: Outcome, folder: Path) -> list[Picture]:
    """Forest plots in ``plots``: one per family, of several parts where it has many rows."""
    pair, pictures = pair_of(before, after), []
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        # an error that became zero has no place on a logarithmic axis
        verdicts = [v for v in _of(family, pair, outcome) if v.change is not None and -1 < v.change < math.inf]
        rows = [ratio_row(family, v) for v in verdicts]
        sources = tuple(dict.fromkeys(source for v in verdicts for source in pair.sources(v)))
        parts = changes.split(rows, changes.MOST_ROWS)
        for number, part in enumerate(parts, 1):
            which = f", part {number} of {len(parts)}" if len(parts) > 1 else ""
            name = f"forest-{family.name}" + (f"-{number}" if which else "")
            title = f"{family.title}: {pair.after.name} over {pair.before.name}{which}"
            with plt.rc_context(RC):
                figure = changes.forest(part, changes.span_of(rows), title, family.axis)
                svg = save(figure, folder / "plots" / f"{name}.png")
            alt = f"{family.title}: ratios of after to before, a row per figure, called ones filled{which}"
            pictures.append(Picture(name, alt, f"plots/{name}.png", svg, sources))
    return pictures


def ratio_row(family: Family, verdict: Verdict) -> changes.Ratio:
    case, component, backend = map(printable, verdict.key)
    label = f"{component}, {case}" + (f", {verdict.metric.removesuffix('_bytes')}" if family.several else "")
    ratio = ratio_number(verdict, ())
    told = f"{backend}, {label}: {ratio.text if isinstance(ratio, Num) else ''}, {verdict.kind}"
    told += f"; {printable(verdict.text)}" if verdict.text else ""
    value, low, high = (None if x is None else 1 + x for x in (verdict.change, verdict.low, verdict.high))
    called = verdict.kind in CALLS
    return changes.Ratio(backend, label, value or 1.0, low, high, _limits(family, verdict), called, verdict.kind, told)


def _limits(family: Family, verdict: Verdict) -> tuple[float, ...]:
    """The ratios from which on a change is called: of times by their factor, of memory by its size, of errors only
    a rise."""
    if verdict.limit is None or not math.isfinite(verdict.limit):
        return ()
    up = 1 + verdict.limit
    if family.name == "parity":
        return (up,)
    down = 1 - verdict.limit if family.name == "memory" else 1 / up
    return (down, up) if down > 0 else (up,)
