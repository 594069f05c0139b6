"""Judges a dump by a bundle: every dumped value beside the reference's, in the order of the walk.

A dump's values are accumulated ones: the port ran on its own values. Where it started from the bundle's value before,
the dump says ``local``. What follows from all of them together is in ``verdict``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..base.lines import SCHEMA, Stage
from ..metrics import locate
from ..metrics.audio import heard
from ..metrics.floors import METRICS
from ..metrics.limits import exceeds
from ..metrics.parity import Figures, NotComparable, compare, figures
from ..trace.findings import DUMPED
from ..trace.walk import FAULT, INHERITED, NOT_JUDGED, OK
from .arrange import Arranged, arranged
from .dump import COARSE, INPUT, LOCAL, Dump, Dumped, Unreadable, other_readings
from .stored import Bound, Folder, StoredProbe, Value

PORT = "port"
# of a stage that decides, this share of its values may fall otherwise by rounding; at least one
FEW = 0.02
# names that are told one by one
MOST_UNKNOWN = 3
# a level that differs by more than this share is another value's
SAME_LEVEL = 0.01
# entries whose audible differences are told
HEARD = ("audio", "f0")
NOTHING = np.zeros(0, np.float32)
Limit = Mapping[str, float]


@dataclass
class Judged:
    """One dumped array beside the reference's. ``place``: of its value in the walk; ``name``: as the port calls it;
    ``limit`` None: it cannot be judged; ``about``: what is odd about how it was dumped."""

    place: int
    name: str
    value: Value
    array: np.ndarray
    error: Figures
    limit: Limit | None
    status: str = OK
    where: locate.Finding | None = None
    about: list[tuple[str, str]] = field(default_factory=list)

    @property
    def wrong(self) -> bool:
        return self.limit is not None and exceeds(self.error, self.limit)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(np.asarray(self.array, np.float64)).all())


@dataclass
class JudgedProbe:
    """What a dump holds of one probe. ``own``: on the port's own values, ``local``: on the bundle's, by place."""

    probe: StoredProbe
    own: list[Judged] = field(default_factory=list)
    local: dict[int, Judged] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wrong_inputs: list[str] = field(default_factory=list)


class Judge:
    """One dump beside one bundle."""

    def __init__(self, folder: Folder, dump: Dump) -> None:
        self.folder, self.dump = folder, dump

    @property
    def model(self) -> str:
        return self.folder.about.model

    def probes(self) -> Iterator[JudgedProbe]:
        """Those that the dump holds something of, in the bundle's order."""
        for probe in self.folder.about.probes:
            mine = [one for one in self.dump.arrays if one.probe in (probe.name, probe.folder)]
            if mine:
                yield self._probe(JudgedProbe(probe), mine)

    @np.errstate(all="ignore")  # whatever was dumped may be compared
    def _probe(self, found: JudgedProbe, dumped: list[Dumped]) -> JudgedProbe:
        places = {value.name: i for i, value in enumerate(found.probe.values)}
        seen: dict[tuple[str, str], str] = {}
        unknown = []
        for one in dumped:
            if (one.role, one.name) in seen:
                found.problems.append(f"`{one.name}` was dumped twice: {seen[one.role, one.name]} and {one.file}")
                continue
            seen[one.role, one.name] = one.file
            value = found.probe.value(one.name)
            if one.role == INPUT:
                self._input(found, one)
            elif value is None:
                unknown.append(one)
            else:
                self._take(found, one, value, places[value.name])
        for one in unknown:
            self._unknown(found, one, places)
        if len(found.unknown) > MOST_UNKNOWN:
            found.unknown = [
                f"{len(found.unknown)} names are of no stage of this bundle of {self.model}: {found.unknown[0]}"
            ]
        found.problems += found.unknown
        found.own.sort(key=lambda one: one.place)
        self._settle(found)
        return found

    # ------------------------------------------------------------------ one array
    def _read(self, found: JudgedProbe, one: Dumped) -> tuple[np.ndarray, str] | None:
        try:
            array, kind = one.read()
        except Unreadable as error:
            found.problems.append(f"`{one.name}` ({one.file}): {error}")
            return None
        except OSError as error:
            found.problems.append(f"`{one.name}` ({one.file}): cannot be read ({error.strerror or error})")
            return None
        if not array.size:
            found.problems.append(f"`{one.name}` ({one.file}): holds no values, shape {list(array.shape)}")
            return None
        return array, kind

    def reference(self, probe: StoredProbe, value: Value) -> np.ndarray:
        return self.folder.values(probe)[value.key]

    def _take(self, found: JudgedProbe, one: Dumped, value: Value, place: int) -> None:
        if (read := self._read(found, one)) is None:
            return
        bound: Bound | None = value.tolerance.accumulated
        group = found.probe.group(one.name)
        name = value.name if group is None else group.name
        if one.role == LOCAL:
            bound = value.tolerance.local if group is None else group.local
            if bound is None:
                found.problems.append(f"`local/{name}` has no local limit; dump the stages inside it")
                return
        elif value.exact:
            bound = value.tolerance.local  # equal or not
        judged = self._fitted(one, name, value, place, *read, bound, self.reference(found.probe, value))
        if not judged.wrong and value.entry not in HEARD:
            judged.array = NOTHING  # a dump may be larger than the memory
        if one.role == LOCAL:
            judged.status = FAULT if judged.wrong else OK
            found.local[place] = judged
        else:
            found.own.append(judged)

    def _fitted(
        self,
        one: Dumped,
        name: str,
        value: Value,
        place: int,
        array: np.ndarray,
        kind: str,
        bound: Bound | None,
        reference: np.ndarray,
    ) -> Judged:
        """The array as the reference has it, if there is a way to read it so."""
        limit = None if bound is None else _widened(bound.limit, kind, value)

        def right(candidate: np.ndarray) -> bool:
            return limit is not None and not exceeds(_distance(candidate, reference), limit)

        shape, about = list(array.shape), []
        chosen = arranged(array, reference, tuple(value.axes), right)
        if bound is not None and not right(chosen.array):
            for reading, other in other_readings(array, one.raw):
                limit = _widened(bound.limit, reading, value)
                again = arranged(other, reference, tuple(value.axes), right)
                if right(again.array):
                    chosen, kind = again, reading
                    about.append((f"holds {reading} values; they are right once they are read as such", ""))
                    break
            else:
                limit = _widened(bound.limit, kind, value)
        about += _oddities(kind, value) if not about else []
        about += _layout(chosen, shape, value, right(chosen.array))
        error = figures(chosen.array, reference, value.ranks)
        return Judged(place, name, value, chosen.array, error, limit, about=about)

    # ------------------------------------------------------------------ names and inputs
    def _unknown(self, found: JudgedProbe, one: Dumped, places: Mapping[str, int]) -> None:
        """A name that no stage has: the stage whose value it is, else the name that is nearest."""
        shown = f"{one.role}/{one.name}" if one.role else one.name
        if (read := self._read(found, one)) is None:
            return
        taken = {judged.place for judged in found.own}
        same = self.holds(found.probe, *read, without=taken)
        if same is None:
            # of more names than these the first alone is told: the nearest of hundreds takes a while to find
            hint = _nearest_name(one.name, found.probe.names) if len(found.unknown) <= MOST_UNKNOWN else ""
            found.unknown.append(f"`{shown}` is no stage of this bundle{hint}")
            return
        found.notes.append(
            f"`{shown}` is no stage of this bundle; it holds the value of `{same.name}`, so call it that"
        )
        self._take(found, one, same, places[same.name])

    def holds(self, probe: StoredProbe, array: np.ndarray, kind: str, without: set[int]) -> Value | None:
        """The stage whose value an array has within its tolerance, in whichever layout."""
        wide = np.asarray(array, np.float64)
        with np.errstate(all="ignore"):
            level = float(np.sqrt(np.mean(np.square(wide))))
        for i, value in enumerate(probe.values):
            if i in without or int(np.prod(value.shape)) != array.size or not _alike(level, value.rms):
                continue
            bound = value.tolerance.accumulated or value.tolerance.local
            limit, reference = _widened(bound.limit, kind, value), self.reference(probe, value)

            def right(candidate: np.ndarray, reference: np.ndarray = reference, limit: Limit = limit) -> bool:
                return not exceeds(_distance(candidate, reference), limit)

            if right(arranged(array, reference, tuple(value.axes), right).array):
                return value
        return None

    def _input(self, found: JudgedProbe, one: Dumped) -> None:
        """What the port says that it ran on must be what the bundle gives."""
        inputs = self.folder.inputs(found.probe)
        if one.name not in inputs.names:
            near = difflib.get_close_matches(one.name, inputs.names, n=1, cutoff=0.5)
            hint = f"; did you mean `{near[0]}`?" if near else f"; it has {', '.join(inputs.names)}"
            found.problems.append(f"`input/{one.name}` is no input of probe {found.probe.name!r}{hint}")
        elif (read := self._read(found, one)) is not None:
            known = inputs[one.name]
            value = read[0].squeeze().astype(known.dtype)
            axes = tuple(locate.AXES[: known.squeeze().ndim])
            place = locate.locate(value, known.squeeze(), axes, 0.0)
            if place.kind != "none":
                how = "" if value.shape != known.squeeze().shape else ": other values"
                how = how or f": shape {list(read[0].shape)} instead of {list(known.shape)}"
                found.wrong_inputs.append(f"`input/{one.name}`{how}")

    # ------------------------------------------------------------------ all of a probe
    def _settle(self, found: JudgedProbe) -> None:
        """The status of every accumulated value: the first wrong one is at fault unless it is right by itself."""
        comparable, faulty = True, any(one.status == FAULT for one in found.local.values())
        for one in found.own:
            undecided = (one.value.decides or one.value.exact) and one.error.get("max_abs") != 0
            if one.limit is None:
                one.status = NOT_JUDGED
            elif one.wrong and undecided and _few(one, self.reference(found.probe, one.value)):
                one.status, comparable = NOT_JUDGED, False
            elif one.wrong and not comparable:
                one.status = NOT_JUDGED
            elif one.wrong:
                alone = found.local.get(one.place)
                first = not faulty and (alone is None or alone.status == FAULT)
                one.status, faulty = FAULT if first else INHERITED, True
        wrong = [one for one in found.own if one.status in (FAULT, INHERITED)][:1]
        wrong += [one for one in found.local.values() if one.status == FAULT]
        for one in wrong:
            reference = self.reference(found.probe, one.value)
            assert one.limit is not None
            one.where = locate.locate(one.array, reference, tuple(one.value.axes), one.limit["max_abs"])

    def rows(self, found: JudgedProbe) -> Iterator[Stage]:
        """As a trace's records have them."""
        rate = self.folder.about.facts.get("sample_rate")
        mine = {one.place: one for one in reversed(found.own)}
        for place in sorted({*mine, *found.local}):
            own, alone = mine.get(place), found.local.get(place)
            one = mine[place] if own is not None else found.local[place]
            value, status = one.value, _worst(own, alone)
            where = next((j.where for j in (alone, own) if j is not None and j.where is not None), None)
            path = value.stage if one.name == value.name else one.name
            audible = None
            if own is not None and value.entry in HEARD:
                audible = heard(value.entry, own.array, self.reference(found.probe, value), rate)
            yield Stage(
                schema=SCHEMA,
                case=found.probe.name,
                component=path,
                **self.identity,
                probe=found.probe.name,
                variant=DUMPED,
                path=path,
                entry=value.entry,
                shape=value.shape,
                exact=value.exact,
                rms=value.rms,
                peak=value.peak,
                added={} if alone is None else alone.error,
                chained={} if own is None else own.error,
                floor=dict(value.tolerance.local.floor),
                floor_chained=dict(value.tolerance.accumulated.floor) if value.tolerance.accumulated else None,
                limit={} if alone is None or alone.limit is None else dict(alone.limit),
                limit_chained=None if own is None or own.limit is None else dict(own.limit),
                status=status,
                where=None if where is None else {"kind": where.kind, "sentence": where.sentence, "facts": where.facts},
                heard=audible,
            )

    @property
    def identity(self) -> dict[str, Any]:
        about = self.folder.about
        names = {"suite": about.model, "backend": PORT, "reference": about.reference}
        return names | {"precision": about.precision, "profile": about.profile}


def _worst(own: Judged | None, alone: Judged | None) -> str:
    order = (FAULT, INHERITED, NOT_JUDGED, OK)
    return min((one.status for one in (own, alone) if one is not None), key=order.index)


def _few(one: Judged, reference: np.ndarray) -> bool:
    """Whether so few values differ that decisions on the edge may be all."""
    if one.array.shape != reference.shape or not one.finite or one.limit is None:
        return False
    difference = np.abs(np.asarray(one.array, np.float64) - reference)
    return bool(np.count_nonzero(difference > one.limit["max_abs"]) <= max(1, FEW * difference.size))


def _distance(value: np.ndarray, reference: np.ndarray) -> Figures:
    try:
        return compare(value, reference)
    except NotComparable as error:
        return {"reason": str(error)}


def _alike(level: float, other: float) -> bool:
    return abs(level - other) <= SAME_LEVEL * max(level, other)


def _nearest_name(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean `{near[0]}`?" if near else "; bundle.json lists the names"


def _widened(limit: Limit, kind: str, value: Value) -> Limit:
    """With the rounding of the type that it is stored in, where that is coarser than what is judged."""
    unit = 0.0 if value.exact else COARSE.get(kind.removeprefix("big-endian "), 0.0)
    return {metric: limit[metric] + unit * getattr(value, level) for metric, level in METRICS.items()}


def _oddities(kind: str, value: Value) -> list[tuple[str, str]]:
    """What a type says that is not the reference's."""
    found = []
    if kind.startswith("big-endian"):
        found.append(("is stored big-endian, and was read as such", ""))
    plain = kind.removeprefix("big-endian ")
    if plain in COARSE and not value.exact:
        found.append((f"is stored as {plain}: judged no finer than that type rounds; dump float32", ""))
    elif plain == "float64" and value.dtype != "float64":
        found.append(("is stored as float64, and was compared as such", ""))
    elif plain.startswith(("int", "uint", "bool")) and not value.exact:
        found.append((f"holds whole numbers ({plain}); the reference's are {value.dtype}", ""))
    return found


def _layout(chosen: Arranged, shape: list[int], value: Value, right: bool) -> list[tuple[str, str]]:
    if not chosen.how:
        return []
    state = "the values are right" if right else "judged"
    to = f"after a transpose to {chosen.to}" if chosen.to else "in the reference's shape"
    how = f"is dumped {chosen.how}: {state} {to}"
    return [(how, f"{shape} instead of {value.shape}")]
