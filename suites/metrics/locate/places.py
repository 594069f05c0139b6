"""Detectors of a place: the difference is confined to some indices of some axes, such as the last rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from .core import BLOCK, ORDERED, Facts, Finding, Match, Pair, axis_profile
from .wording import edges_text, join, noun, ordinal

Explain = Callable[[Pair], Finding | None]

FEW_RUNS = 6  # runs of wrong indices that a sentence lists


def place(pair: Pair, kind: str, mostly: bool, explain: Explain, by_index: Explain) -> Iterator[Match]:
    """The place that holds every difference beyond the tolerance; ``mostly``: beyond a tenth of the largest.

    ``kind`` is ``edge`` or ``part``. ``explain`` and ``by_index`` say what holds for all values of a pair.
    """
    found = pair.once(_place, mostly, explain, by_index)
    if found is not None and found.kind == kind:
        yield Match(found.facts | ({"mostly": True} if mostly else {}), {"place": found.where})


def _place(pair: Pair, mostly: bool, explain: Explain, by_index: Explain) -> Finding | None:
    threshold = max(pair.tolerance, pair.measured.max_abs / 10) if mostly else pair.tolerance
    return _box(pair, threshold, explain, by_index) or _margins_of_axes(pair, threshold)


class Indices(NamedTuple):
    """The wrong indices of one axis: ``mask`` marks them, gaps filled."""

    axis: int
    pattern: str  # "edge", "one", "range", "every", "runs" or "some"
    text: str
    facts: Facts
    mask: np.ndarray


def _indices(bad: np.ndarray, axis: int, name: str) -> Indices | None:
    """The pattern of the wrong indices; None if all are wrong, or none."""
    n, indices = len(bad), np.flatnonzero(bad)
    if len(indices) in (0, n):
        return None
    first, last = _margins(bad) if name in ORDERED else (0, 0)
    if first or last:
        mask = (np.arange(n) < first) | (np.arange(n) >= n - last)
        return Indices(axis, "edge", edges_text([(name, first, last)]), {"first": first, "last": last}, mask)
    low, high = int(indices[0]), int(indices[-1])
    if low == high:
        return Indices(axis, "one", f"{noun(name)} {low}", {"from": low, "to": low}, bad)
    length = high - low + 1
    if length < n and len(indices) >= 0.8 * length:
        mask = np.zeros(n, bool)
        mask[low : high + 1] = True
        return Indices(axis, "range", f"{noun(name, 2)} {low} to {high}", {"from": low, "to": high}, mask)
    period = _period(bad)
    if period:
        phases = np.unique(indices % period)
        start = f" from {phases[0]}" if phases[0] else ""
        every = f"every {ordinal(period)} {noun(name)}{start}"
        text = every if len(phases) == 1 else f"{len(phases)} of every {period} {noun(name, 2)}"
        mask = np.isin(np.arange(n) % period, phases)
        return Indices(axis, "every", text, {"every": period, "indices": phases[:16].tolist()}, mask)
    stops = np.flatnonzero(np.diff(indices, append=-1) != 1)
    runs = zip(indices[[0, *(stops[:FEW_RUNS] + 1)][:-1]], indices[stops[:FEW_RUNS]], strict=True)
    shown = [str(start) if start == stop else f"{start} to {stop}" for start, stop in runs]
    facts = {"count": len(indices), "indices": indices[:16].tolist()}
    if len(stops) <= FEW_RUNS:
        return Indices(axis, "runs", f"{noun(name, 2)} {join(shown)}", facts, bad)
    return Indices(axis, "some", f"{len(indices)} of {n} {noun(name, 2)} ({', '.join(shown)}, ...)", facts, bad)


def _margins(bad: np.ndarray) -> tuple[int, int]:
    """How many positions are wrong at the start and the end, if only there and at most half of all."""
    ends = np.flatnonzero(np.diff(np.concatenate([[True], bad, [True]]).astype(np.int8)))
    starts, stops = ends[::2], ends[1::2]  # the clean runs
    if not len(starts):
        return 0, 0
    longest = int((stops - starts).argmax())
    first, last = int(starts[longest]), int(len(bad) - stops[longest])
    wrong = int(np.count_nonzero(bad))
    touches = (first == 0 or bad[0]) and (last == 0 or bad[-1])
    if not touches or 2 * (first + last) > len(bad) or 2 * wrong <= first + last:
        return 0, 0
    return first, last


def _period(bad: np.ndarray) -> int | None:
    """The period of a pattern that repeats at least three times, gaps filled."""
    indices = np.flatnonzero(bad)
    # tiles are longer than any pattern of a network: the distance of the first two runs shows their length
    early = indices[:BLOCK]
    starts = early[np.diff(early, prepend=-2) > 1]
    apart = [int(starts[1] - starts[0])] if len(starts) > 1 else []
    for period in sorted({*range(2, 513), *apart}):
        if 2 * period >= len(bad):
            return None
        if np.bincount(indices[:4096] % period, minlength=period).all():
            continue
        wrong = np.bincount(indices % period, minlength=period)
        seen = -((np.arange(period) - len(bad)) // period)
        if ((wrong == 0) | (wrong >= 0.8 * seen)).all() and not wrong.all() and wrong.max() >= 3:
            return period
    return None


def confined(bads: list[np.ndarray], axes: tuple[str, ...], wrong: int) -> list[Indices]:
    """The axes along which the wrong values are confined to some indices, beyond coincidence.

    By coincidence an index is clean with the probability that a value inside the place is clean, to the power of the
    number of values at that index. The expected number of such coincidences must be below a tenth; where most indices
    are wrong, below a thousandth, since noise that is everywhere leaves an index clean now and then.
    """
    found = [indices for axis, name in enumerate(axes) if (indices := _indices(bads[axis], axis, name)) is not None]
    size = math.prod(len(bad) for bad in bads)
    for indices in found:
        size = size // len(indices.mask) * int(np.count_nonzero(indices.mask))
    clean = math.log10((size - wrong + 0.5) / (size + 1))

    def evident(indices: Indices) -> bool:
        n, inside = len(indices.mask), int(np.count_nonzero(indices.mask))
        each, most = size // inside, 2 * inside > n
        if inside == 1 or (indices.pattern == "runs" and not most):
            return True
        if indices.pattern in ("runs", "some"):
            return each >= 4 and math.log10(n) + each * clean < math.log10(n - inside) - 3
        choices = n * n if indices.pattern == "every" else n
        return math.log10(choices) + (n - inside) * each * clean < (-3 if most else -1)

    return [indices for indices in found if evident(indices)]


def place_text(where: list[Indices]) -> str:
    edges = [indices.text for indices in where if indices.pattern == "edge"]
    rest = [indices.text for indices in where if indices.pattern != "edge"]
    rest += [f"where {join(edges)} meet"] if len(edges) > 1 else edges
    return ", ".join(rest) + (" only" if where[-1].pattern == "one" and not edges else "")


def _box(pair: Pair, threshold: float, explain: Explain, by_index: Explain) -> Finding | None:
    """Some indices of some axes, wrong where they meet."""
    strict = threshold <= pair.tolerance
    bads = [profile > threshold for profile in pair.measured.profiles]
    where = confined(bads, pair.axes, pair.beyond(threshold))
    firm = [indices for indices in where if indices.pattern != "some"]
    if not strict:  # the peaks of noise that is everywhere also have some indices
        where = firm
    if len(firm) < len(where):
        # of a sparse last row only some columns are wrong, and not the last one: first and last describe it better
        edges = _margins_of_axes(_part(pair, firm), threshold)
        if edges is not None and not firm:
            return edges
        where = firm if edges is not None else where
    part = _part(pair, where)
    if not where or not _stands_out(pair, part.measured.dd, part.value.size, strict):
        return None
    inside = explain(part) or _margins_of_axes(part, pair.tolerance)
    if inside is None and (inside := by_index(part)) is not None and by_index(pair) is not None:
        return None  # a factor or offset that leaves an index alone by chance does not make the others a place
    facts: Facts = {"axes": {pair.axes[indices.axis]: indices.facts for indices in where}, "zero_there": False}
    if inside is not None:
        facts["zero_there"] = inside.facts.get("constant") == 0
        facts["inside"] = {"kind": inside.kind, "where": inside.where, "facts": inside.facts}
    return Finding("edge" if any(i.pattern == "edge" for i in where) else "part", place_text(where), facts)


def _part(pair: Pair, where: list[Indices]) -> Pair:
    value, reference = pair.value, pair.reference
    for indices in where:
        value, reference = (x.compress(indices.mask, indices.axis) for x in (value, reference))
    return pair.like(value, reference)


def _stands_out(pair: Pair, energy: float, size: int, strict: bool) -> bool:
    """Whether the difference inside a place is 12 dB above that outside, and not the tail of one that is everywhere.

    A place that holds only most of the difference must have 99 % of its energy.
    """
    outside = max(0.0, pair.measured.dd - energy)
    level = energy / size >= 16 * outside / max(1, pair.value.size - size)
    return level and (strict or outside <= pair.measured.dd / 100)


def _middle_profile(pair: Pair, axis: int) -> np.ndarray:
    """The profile over the middle of the other axes: their margins would make every index of this one wrong."""
    middles = [slice(n // 4 or 1, n - (n // 4 or 1)) if n >= 3 else slice(0, n) for n in pair.shape]
    middle = pair.at((*middles[:axis], slice(None), *middles[axis + 1 :]))
    return axis_profile(middle.value, middle.reference, axis)


def _margins_of_axes(pair: Pair, threshold: float) -> Finding | None:
    """The first and last positions of at least two axes, wrong wherever one of them is."""
    long = (axis for axis, n in enumerate(pair.shape) if n >= 3)
    sides = {axis: _margins(pair.once(_middle_profile, axis) > threshold) for axis in long}
    edges = {axis: margins for axis, margins in sides.items() if any(margins)}
    if len(edges) < 2:
        return None
    inner = tuple(slice(edges.get(i, (0, 0))[0], n - edges.get(i, (0, 0))[1]) for i, n in enumerate(pair.shape))
    rest = pair.at(inner)
    size = pair.value.size - rest.value.size
    missing = max(0, size - pair.beyond(threshold))
    chance = math.log10(max(pair.shape)) + rest.value.size * math.log10((missing + 0.5) / (size + 1))
    if chance >= -3 or rest.measured.max_abs > threshold:
        return None
    if not _stands_out(pair, pair.measured.dd - rest.measured.dd, size, threshold <= pair.tolerance):
        return None
    zero = all(
        pair.cut(axis, start, stop).is_zero()
        for axis, (first, last) in edges.items()
        for start, stop in ((0, first), (pair.shape[axis] - last, pair.shape[axis]))
    )
    axes = {pair.axes[i]: {"first": first, "last": last} for i, (first, last) in edges.items()}
    text = edges_text([(pair.axes[i], *margins) for i, margins in edges.items()])
    return Finding("edge", text, {"axes": axes, "zero_there": zero})
