"""What follows from a dump's values together: the first stage at fault, or the stages that it lies between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..base import outcome
from ..metrics.stages import inside
from ..trace.walk import FAULT, INHERITED, NOT_JUDGED, OK
from .judge import Judge, Judged, JudgedProbe

# values that a sentence lists
SHOWN = 3
# below this the two have nothing to do with each other
UNRELATED = 0.3
NOTHING = "Not judged: the dump holds inputs alone."


class Verdict(NamedTuple):
    """``stage``: the one at fault, or the last it may be; ``between``: the others that it may be."""

    exit_code: int
    sentence: str
    notes: list[str]
    stage: str | None = None
    between: tuple[str, ...] = ()


@np.errstate(all="ignore")
def verdict(judge: Judge, probes: Sequence[JudgedProbe]) -> Verdict:
    notes = [*_notes(probes), *judge.dump.problems, *(text for one in probes for text in one.problems)]
    wrong_inputs = [text for one in probes for text in one.wrong_inputs]
    if wrong_inputs:
        sentence = f"Not judged: the port ran on other inputs than the bundle's. {wrong_inputs[0]}."
        return Verdict(outcome.ERROR, sentence, notes)
    for one in probes:
        found = _fault(judge, one)
        if found is not None:
            return found._replace(notes=notes)
    own = [judged for one in probes for judged in (*one.own, *one.local.values())]
    unclear = [judged for judged in own if judged.status == NOT_JUDGED]
    right = {(one.probe.name, j.place) for one in probes for j in (*one.own, *one.local.values()) if j.status == OK}
    total = sum(len(one.probe.values) for one in probes)
    counted = f"{len(right)} of the {total} values were dumped and lie within what rounding explains"
    problems = [*judge.dump.problems, *(text for one in probes for text in one.problems)]
    if not own:
        sentence = f"Not judged: nothing in the dump can be compared: {ended(problems[0])}" if problems else NOTHING
        return Verdict(outcome.ERROR, sentence, notes[:-1])
    if unclear:
        sentence = f"No stage at fault as far as can be told: {counted}. {_unclear(unclear)}"
        return Verdict(outcome.ERROR, sentence, notes)
    if problems:
        told, several = ended(problems[0]), f"{len(problems)} could not be judged, the first of them"
        sentence = f"No stage at fault among those that can be read: {counted}. "
        sentence += f"{several if len(problems) > 1 else 'Not judged'}: {told}"
        return Verdict(outcome.ERROR, sentence, [note for note in notes if note != problems[0]])
    return Verdict(outcome.PASSED, f"No stage at fault: {counted}.", notes)


def ended(text: str) -> str:
    """As a sentence."""
    return text if text.endswith(("?", ".")) else f"{text}."


def _unclear(unclear: Sequence[Judged]) -> str:
    first = unclear[0]
    why = "some of its decisions fell otherwise, which rounding can do" if first.wrong else "it has no limit"
    count = len(unclear) - 1
    after = f"; {count} value{'s' if count > 1 else ''} after it could not be judged for that" if count else ""
    return f"`{first.name}` was not judged: {why}{after}. A dump of `local/...` decides it."


def _notes(probes: Sequence[JudgedProbe]) -> list[str]:
    """The same remark on several values is one."""
    grouped: dict[str, list[tuple[str, str]]] = {}
    for one in probes:
        for judged in (*one.own, *one.local.values()):
            for text, detail in judged.about:
                grouped.setdefault(text, []).append((judged.name, detail))
    found = []
    for text, names in grouped.items():
        (first, detail), others = names[0], len(names) - 1
        more = f" and {others} more: each" if others else ""
        found.append(f"`{first}`{more} {text}" + (f" ({detail})" if detail else ""))
    return [*found, *(text for one in probes for text in one.notes)]


# ---------------------------------------------------------------------- the fault of a probe
def _fault(judge: Judge, found: JudgedProbe) -> Verdict | None:
    alone = min((place for place, one in found.local.items() if one.status == FAULT), default=None)
    own = next((one for one in found.own if one.status in (FAULT, INHERITED)), None)
    if own is not None and (alone is None or alone > own.place):
        return _between(judge, found, own)
    if alone is None:
        return None
    return _named(judge, found, found.local[alone], "local error")


def _named(judge: Judge, found: JudgedProbe, one: Judged, error: str, inner: str = "") -> Verdict:
    text = (
        f"First stage at fault: `{one.name}`{inner}: {_place(one)}{_sizes(one, error)} on probe {found.probe.name!r}."
    )
    text = " ".join([text, *_resembles(judge, found, one), *_later(found, one), *_strange(found)])
    return Verdict(outcome.FAILED, text, [], one.name)


def _place(one: Judged) -> str:
    return one.where.sentence if one.where is not None else str(one.error.get("reason", ""))


def _sizes(one: Judged, error: str) -> str:
    if "max_abs" not in one.error or one.limit is None:
        return ""
    return f" ({error} {one.error['max_abs']:.2g}, limit {one.limit['max_abs']:.2g})"


def _between(judge: Judge, found: JudgedProbe, wrong: Judged) -> Verdict:
    """Own values are right up to one stage and wrong from another on: the fault is in between, or in the latter."""
    names = [value.name for value in found.probe.values]
    before = [one for one in found.own if one.place < wrong.place and one.status == OK]
    start = before[-1].place + 1 if before else 0
    right_alone = {place for place, one in found.local.items() if one.status == OK}
    places = [place for place in range(start, wrong.place + 1) if place not in right_alone]
    group = found.probe.group(wrong.name)
    first_inside = names.index(group.first) if group is not None else wrong.place
    if places == [wrong.place]:
        return _named(judge, found, wrong, "accumulated error")
    if wrong.place in places and group is not None and places and places[0] >= first_inside:
        inner = f" (its {len(places)} stages inside were not dumped)"
        return _named(judge, found, wrong, "accumulated error", inner)
    after = f"`{before[-1].name}` (right)" if before else "the beginning"
    ends = "wrong on its own values, right on the bundle's" if wrong.place in right_alone else "wrong"
    what = f"`{wrong.name}` ({ends}: {_place(wrong)}{_sizes(wrong, 'accumulated error')})"
    here = f" on probe {found.probe.name!r}."
    if not places:
        text = (
            f"Every stage between {after} and {what} is right on the bundle's values{here[:-1]}: something passes "
            "from stage to stage beside the values that are compared."
        )
        return Verdict(outcome.FAILED, text, [], wrong.name)
    missing = [_outermost(found, place, wrong.place) for place in places if place != wrong.place]
    missing = list(dict.fromkeys(missing))
    listed = _listed(missing)
    were = "was" if len(missing) == 1 else "were"
    if len(places) == 1:
        only = names[places[0]]
        text = f"First stage at fault: `{only}`, which was not dumped: it lies between {after} and {what}{here}"
    else:
        text = f"The first stage at fault lies between {after} and {what}{here} {listed} {were} not dumped."
    text = " ".join(
        [text, *_resembles(judge, found, wrong), *_later(found, wrong), *_beside(found, wrong, start), *_strange(found)]
    )
    return Verdict(outcome.FAILED, text, [], wrong.name, tuple(missing))


def _listed(names: Sequence[str]) -> str:
    shown = [f"`{name}`" for name in names[:SHOWN]]
    if len(names) > SHOWN:
        return f"{', '.join(shown)} and {len(names) - SHOWN} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _outermost(found: JudgedProbe, place: int, stop: int) -> str:
    """The largest group that lies before ``stop`` and holds this value and no dumped one; else the value itself."""
    names = [value.name for value in found.probe.values]
    dumped = {one.place for one in found.own}
    for group in reversed(found.probe.groups):
        first, last = names.index(group.first), names.index(group.value)
        if first <= place <= last < stop and not any(first <= one <= last for one in dumped):
            return group.name
    return names[place]


def _later(found: JudgedProbe, one: Judged) -> list[str]:
    inherited = sum(other.status == INHERITED for other in found.own if other.place > one.place)
    others = [other.name for place, other in found.local.items() if other.status == FAULT and place > one.place]
    texts = []
    if inherited:
        texts.append(
            f"{inherited} later value{'s are' if inherited > 1 else ' is'} wrong as well, and may only inherit it."
        )
    if others:
        adds = "stages add errors" if len(others) > 1 else "stage adds an error"
        texts.append(f"{len(others)} later {adds} of {'their' if len(others) > 1 else 'its'} own: {_listed(others)}.")
    return texts


def _beside(found: JudgedProbe, wrong: Judged, start: int) -> list[str]:
    """Values from before the interval that were not dumped and are handed on beside the one that is right."""
    dumped, last = {one.place for one in found.own}, dict[str, int]()
    for place, value in enumerate(found.probe.values[:start]):
        if value.within == wrong.value.within:
            last[value.entry] = place
    names = [found.probe.values[p].name for p in last.values() if p not in dumped and p < start - 1]
    names = [name for name in names if not inside(name, wrong.name)]
    if not names:
        return []
    return [
        f"Of what reaches it from before, {_listed(names)} {'was' if len(names) == 1 else 'were'} not dumped either."
    ]


# ---------------------------------------------------------------------- what a wrong value is instead
def _resembles(judge: Judge, found: JudgedProbe, one: Judged) -> list[str]:
    """Another stage's value, another probe's, or nothing that has to do with this bundle."""
    if not one.finite or (one.where is not None and one.where.kind in ("zero", "gain", "sign", "offset")):
        return []
    kind = str(one.array.dtype)
    same = judge.holds(found.probe, one.array, kind, {one.place})
    if same is not None:
        text = f"It holds the value of `{same.name}`."
        other = next((j for j in found.own if found.probe.values[j.place] is same and j.wrong), None)
        swapped = other is not None and judge.holds(found.probe, other.array, kind, {other.place}) is one.value
        return [text[:-1] + f", and `{same.name}` holds that of `{one.name}`: they are swapped." if swapped else text]
    twin = next((j for j in found.own if j is not one and j.wrong and _equal(j.array, one.array)), None)
    if twin is not None:
        return [f"It is the same array as the dumped `{twin.name}`."]
    for probe in judge.folder.about.probes:
        value = probe.value(one.name)
        if probe is not found.probe and value is not None:
            where = {i for i, other in enumerate(probe.values) if other is not value}
            if judge.holds(probe, one.array, kind, where) is not None:
                return [f"It holds the value of probe {probe.name!r}."]
    likeness = one.where.facts.get("correlation") if one.where is not None else None
    if likeness is not None and abs(likeness) < UNRELATED:
        return ["It has nothing to do with the bundle's value: did the port load the bundle's weights?"]
    return []


def _strange(found: JudgedProbe) -> list[str]:
    if len(found.own) < 2 or any(one.status == OK for one in (*found.own, *found.local.values())):
        return []
    return ["Nothing that was dumped is right: did the port run on this bundle's inputs, with its weights?"]


def _equal(value: np.ndarray, other: np.ndarray) -> bool:
    return value.size == other.size and np.array_equal(value.ravel(), other.ravel())
