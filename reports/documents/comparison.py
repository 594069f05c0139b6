"""Two runs side by side: every ratio with its interval and the gate's verdict, and forest plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from suites.base.backends import BACKENDS
from suites.base.environment import completed, cpu_text
from suites.gate.baseline import Baseline, Key, differences
from suites.gate.judge import MEANING, UNJUDGED, Outcome, Verdict

from ..data.frame import distinct
from ..data.gates import CALLS, commit_of, printable, ratios
from ..figures import changes
from ..figures.pictures import in_parts
from ..render import document as doc
from ..render.html import write
from ..tables.verdicts import FAMILIES, Family, bound, family_of, ratio_number, recorded

WORDS = {
    0: "**Nothing is called worse** than before.",
    1: "**Worse than before**: see the verdicts below.",
    2: "**Not everything could be judged**: see *Not judged, or missing*.",
}
BRACKETS = (
    "Brackets: 95 % interval of the ratio, of this figure alone. The verdict is stricter: it corrects for the number "
    "of figures, and calls nothing below the size in *called from*. *Would have shown*: the smallest rise that 80 % of "
    "such comparisons detect."
)


class Side(NamedTuple):
    """A baseline as the document names it. ``stored``: it is a baseline, one file with everything in it."""

    baseline: Baseline
    name: str
    stored: bool

    def source(self, key: Key, family: Family) -> str:
        where = "/".join(key)
        field, stored = family.field
        return f"{self.name}#{where}.{stored}" if self.stored else f"{self.name}/records.jsonl#{where}.{field}"

    def sources(self, verdict: Verdict) -> tuple[str, ...]:
        """Sources of a verdict's figure; a ratio to the reference has two records in a run, one entry in a baseline."""
        entry, keys = self.baseline.entries.get(verdict.key), [verdict.key]
        ratio = verdict.metric in ("time", "typical") and not self.stored
        if ratio and entry is not None and entry.reference:
            keys.append((*verdict.key[:2], entry.reference))
        return tuple(self.source(key, family_of(verdict.metric)) for key in keys)

    def all_sources(self) -> str:
        return self.name if self.stored else f"{self.name}/records.jsonl#*"

    def fact(self, text: str) -> doc.Num:
        return recorded(text, (f"{self.name}#made" if self.stored else f"{self.name}/environment.json",))


class Pair(NamedTuple):
    before: Side
    after: Side

    def sources(self, verdict: Verdict) -> tuple[str, ...]:
        return (*self.before.sources(verdict), *self.after.sources(verdict))


def pair_of(before: Baseline, after: Baseline) -> Pair:
    """Both baselines, named by the shortest distinct ends of their paths."""
    paths = [Path(baseline.name).resolve() for baseline in (before, after)]
    names = distinct(paths) if paths[0] != paths[1] else map(str, paths)
    sides = zip((before, after), map(printable, names), paths, strict=True)
    return Pair(*(Side(baseline, name, path.is_file()) for baseline, name, path in sides))


def write_comparison(before: Baseline, after: Baseline, outcome: Outcome, folder: Path) -> Path:
    return write(document(before, after, outcome, draw(before, after, outcome, folder)), folder)


def document(before: Baseline, after: Baseline, outcome: Outcome, pictures: Sequence[doc.Picture] = ()) -> doc.Document:
    """Every verdict of ``outcome``, that of ``judge(before, after, policy)``; with what ``draw`` drew."""
    pair = pair_of(before, after)
    sections = [_summary(pair, outcome)]
    for family in FAMILIES:
        found = _of(family, pair, outcome)
        if found:
            own = [picture for picture in pictures if picture.name.startswith(f"forest-{family.name}")]
            sections.append(doc.Section(family.title, [_table(family, found, pair), *own]))
    rest = [v for v in outcome.verdicts if v.before is None and v.kind != "passed"]
    if rest:
        header = ("case", "component", "backend", "gate", "verdict", "why")
        everywhere = tuple(side.all_sources() for side in pair)
        texts = [(*v.key, v.metric, v.word, v.text) for v in rest]
        rows = tuple(tuple(recorded(text, everywhere) if text else "" for text in row) for row in texts)
        table = doc.Table("rest", header, rows, len(header))
        sections.append(doc.Section("Not judged, or missing", [table]))
    return doc.Document(f"{pair.after.name} compared with {pair.before.name}", sections)


def _summary(pair: Pair, outcome: Outcome) -> doc.Section:
    everywhere = tuple(side.all_sources() for side in pair)
    words = [v.word for v in outcome.verdicts]
    counts = [doc.say("{} {}", doc.plain(words.count(word), everywhere), word) for word in dict.fromkeys(words)]
    texts = ((WORDS[outcome.exit_code],), doc.say("Verdicts: {}.", doc.joined(counts)))
    blocks: list[doc.Block] = [doc.Paragraph(text) for text in texts]
    called = [v for v in outcome.verdicts if v.kind in CALLS and v.change is not None]
    called.sort(key=lambda v: abs(math.log(max(1 + (v.change or 0.0), 1e-9))), reverse=True)
    items = [_called(v, pair) for v in called]
    unjudged = [v for v in outcome.verdicts if MEANING[v.kind] == UNJUDGED and v.before is not None]
    reasons = list(dict.fromkeys(f"{v.word}: {v.text}" for v in unjudged))
    items += [(recorded(reason, everywhere),) for reason in (*outcome.notes, *reasons)]
    if items:
        blocks.append(doc.Bullets(tuple(items)))
    return doc.Section("Summary", [*blocks, _sides(pair)])


def _called(verdict: Verdict, pair: Pair) -> doc.Text:
    sources = pair.sources(verdict)
    where = recorded(f"{verdict.where}, {verdict.metric}", sources)
    return doc.say("{}: {}, {}", where, doc.Num(verdict.word, sources), ratio_number(verdict, sources))


def _sides(pair: Pair) -> doc.Table:
    """The two sides; facts of the software only where they differ."""
    rows: list[tuple[doc.Cell, ...]] = [
        ("runs", *(side.fact(", ".join(map(str, side.baseline.made.get("runs", [])))) for side in pair)),
        ("commit", *(side.fact(commit_of(side.baseline)) for side in pair)),
        ("processor", *(side.fact(str(cpu_text(side.baseline.fingerprint))) for side in pair)),
        ("launches", *(_launches(side) for side in pair)),
        ("other work (%)", *(doc.plain(100 * _busiest(side), (side.all_sources(),), ".0f") for side in pair)),
    ]
    before, after = completed([side.baseline.fingerprint for side in pair])
    for text in differences(before, after):
        what, _, both = text.partition(": ")
        there, _, here = both.partition(" there, ")
        rows.append((what, pair.before.fact(there), pair.after.fact(here.removesuffix(" here"))))
    return doc.Table("sides", ("", "before", "after"), tuple(rows), 3)


def _launches(side: Side) -> doc.Num | doc.Absent:
    found = sorted({len(e.seconds) for e in side.baseline.entries.values() if e.seconds})
    if not found:
        return doc.Absent("nothing was timed")
    words = str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
    return doc.Num(words, (side.all_sources(),), float(found[0]) if len(found) == 1 else None)


def _busiest(side: Side) -> float:
    return max((entry.others for entry in side.baseline.entries.values()), default=0.0)


# ---------------------------------------------------------------------- one family
def _of(family: Family, pair: Pair, outcome: Outcome) -> list[Verdict]:
    """The family's verdicts with figures: by backend, then component and case in the runs' own order."""
    judged = [v for v in outcome.verdicts if v.before is not None and v.metric != "status"]
    keys = [*pair.after.baseline.entries, *pair.before.baseline.entries]
    cases, components, measured = (list(dict.fromkeys(key[i] for key in keys)) for i in range(3))
    backends = sorted(measured, key=lambda b: list(BACKENDS).index(b) if b in BACKENDS else len(BACKENDS))

    def place(v: Verdict) -> tuple[int, int, int, str]:
        case, component, backend = v.key
        return backends.index(backend), components.index(component), cases.index(case), v.metric

    return sorted((v for v in judged if family_of(v.metric) == family), key=place)


def _table(family: Family, found: Sequence[Verdict], pair: Pair) -> doc.Table:
    header = ("backend", "component", "case", *(("figure",) if family.several else ()), "verdict")
    seen = () if family.several else ("would have shown (×)",)
    unit = family.metric.unit
    figures = (f"before ({unit})", f"after ({unit})", "after / before (×)", "called from (×)")
    rows = tuple(_row(family, v, pair) for v in found)
    about = (family.about if family.several else f"{family.about} {BRACKETS}",)
    return doc.Table(family.name, (*header, *figures, *seen), rows, len(header), about)


def _row(family: Family, verdict: Verdict, pair: Pair) -> tuple[doc.Cell, ...]:
    case, component, backend = map(printable, verdict.key)
    first, second, both = pair.before.sources(verdict), pair.after.sources(verdict), pair.sources(verdict)
    words: list[doc.Cell] = [backend, component, case, *((verdict.metric,) if family.several else ())]
    values: list[doc.Cell] = [
        doc.Absent() if value is None else doc.plain(float(value), sources, scale=family.metric.scale)
        for value, sources in ((verdict.before, first), (verdict.after, second))
    ]
    more = [bound(verdict.limit, both), *(() if family.several else (bound(verdict.detectable, both),))]
    return (*words, doc.Num(verdict.kind, both), *values, ratio_number(verdict, both), *more)


# ---------------------------------------------------------------------- its figures
def draw(before: Baseline, after: Baseline, outcome: Outcome, folder: Path) -> list[doc.Picture]:
    """Forest plots in ``plots``: one per family, of several parts where it has many rows."""
    pair, pictures = pair_of(before, after), list[doc.Picture]()
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for family in FAMILIES:
        # a logarithmic axis has no zero
        verdicts = [v for v in _of(family, pair, outcome) if v.change is not None and -1 < v.change < math.inf]
        rows = [ratio_row(family, v) for v in verdicts]
        sources = tuple(dict.fromkeys(source for v in verdicts for source in pair.sources(v)))
        title = f"{family.title}: {pair.after.name} over {pair.before.name}"
        make = partial(changes.forest, span=changes.span_of(rows), title=title, xlabel=family.axis)
        alt = f"{family.title}: ratios of after to before, a row per figure, called ones filled"
        name = f"forest-{family.name}"
        pictures += in_parts(rows, changes.MOST_ROWS, make, folder / "plots", name, alt, sources)
    return pictures


def ratio_row(family: Family, verdict: Verdict) -> changes.Ratio:
    case, component, backend = map(printable, verdict.key)
    label = f"{component}, {case}" + (f", {verdict.metric.removesuffix('_bytes')}" if family.several else "")
    ratio = ratio_number(verdict, ())
    tooltip = f"{backend}, {label}: {ratio.text if isinstance(ratio, doc.Num) else ''}, {verdict.kind}"
    tooltip += f"; {printable(verdict.text)}" if verdict.text else ""
    value, low, high = ratios(verdict)
    called = verdict.kind in CALLS
    limits = _limits(family, verdict)
    return changes.Ratio(backend, label, value or 1.0, low, high, limits, called, verdict.kind, tooltip)


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
