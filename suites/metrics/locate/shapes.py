"""Detectors for pairs that cannot be compared value by value: other shapes, no values, NaN and infinity."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from .core import Facts, Finding, Match, Pair
from .places import confined, place_text
from .wording import amount, join, noun, ordinal


def empty(pair: Pair) -> Iterator[Match]:
    if pair.value.size == 0:
        yield Match({"values": 0}, {})


def within_tolerance(pair: Pair) -> Iterator[Match]:
    if pair.measured.max_abs <= pair.tolerance:
        yield Match({}, {"tolerance": pair.tolerance})


def not_finite(pair: Pair) -> Iterator[Match]:
    facts: Facts = {}
    texts = []
    for side, name, x in (("value", "result", pair.value), ("reference", "reference", pair.reference)):
        bad = ~np.isfinite(x)
        total, nan = int(np.count_nonzero(bad)), int(np.count_nonzero(np.isnan(x)))
        if not total:
            continue
        first = dict(zip(pair.axes, map(int, np.unravel_index(bad.argmax(), x.shape)), strict=True))
        facts[side] = {"nan": nan, "inf": total - nan, "first": first}
        count = join([f"{n} {what}" for n, what in ((nan, "NaN"), (total - nan, "infinite")) if n])
        index = ", ".join(f"{noun(axis)} {i}" for (axis, i), n in zip(first.items(), pair.shape, strict=True) if n > 1)
        bads = [bad.any(axis=tuple(i for i in range(x.ndim) if i != axis)) for axis in range(x.ndim)]
        where = confined(bads, pair.axes, total) if total > 1 else []
        place = f" ({place_text(where)})" if where else ""
        texts.append(f"{count} in the {name}{f', first at {index}' if index else ''}{place}")
    if texts:
        yield Match(facts, {"text": "; ".join(texts)})


def other_shape(pair: Pair, compare: Callable[[Pair], Finding]) -> Iterator[Match]:
    """What the shape differs by, and what ``compare`` finds in the values that both sides have."""
    value, reference = pair.value, pair.reference
    if value.shape == reference.shape:
        return
    facts: Facts = {"shape": list(value.shape), "reference_shape": list(reference.shape)}
    agrees = "the rest agrees"
    rest: Pair | None = None
    if not value.size or not reference.size:
        text = f"{'the result' if not value.size else 'the reference'} is empty"
    elif value.ndim != reference.ndim:
        text = f"{value.ndim} {'axis' if value.ndim == 1 else 'axes'} instead of {reference.ndim}"
        if value.size == reference.size:
            text, agrees = f"{text} with the same number of values", "in order they agree"
            rest = pair.like(value.reshape(reference.shape), reference)
    elif sorted(value.shape) == sorted(reference.shape):
        text, rest = _turned(pair, facts)
    else:
        text, rest = _longer(pair, facts)
    if rest is not None:
        found = compare(rest)
        text = f"{text}; {agrees if found.kind == 'none' else f'the rest: {found.sentence}'}"
        facts["rest"] = {"kind": found.kind, "where": found.where}
    yield Match(facts, {"text": text})


def _turned(pair: Pair, facts: Facts) -> tuple[str, Pair | None]:
    """The same lengths in another order."""
    value, reference = pair.value, pair.reference
    orders = list(itertools.permutations(range(value.ndim)) if value.ndim <= 5 else ())
    orders = [order for order in orders if value.transpose(order).shape == reference.shape]
    if not orders:
        return "axes in another order", None
    order = next((o for o in orders if pair.like(value.transpose(o), reference).agrees()), orders[0])
    moved = [pair.axes[i] for i, j in enumerate(order) if i != j and value.shape[i] != reference.shape[i]]
    facts["swapped"] = moved
    text = f"axes {join(moved)} {'swapped' if len(moved) == 2 else 'in another order'}"
    return text, pair.like(value.transpose(order), reference)


def _longer(pair: Pair, facts: Facts) -> tuple[str, Pair | None]:
    """Axes that are longer or shorter; the part that both have is compared where it fits."""
    value, reference = pair.value, pair.reference
    more = {i: a - b for i, (a, b) in enumerate(zip(value.shape, reference.shape, strict=True)) if a != b}
    counts = {i: amount(abs(k), pair.axes[i]) for i, k in more.items()}
    signed = {"longer": [counts[i] for i in more if more[i] > 0], "shorter": [counts[i] for i in more if more[i] < 0]}
    text = join([f"{join(words)} {how}" for how, words in signed.items() if words])
    facts["longer"] = {pair.axes[i]: k for i, k in more.items()}
    common = tuple(min(a, b) for a, b in zip(value.shape, reference.shape, strict=True))
    surplus = {i: abs(k) for i, k in more.items()}
    starts = {"at the end": {}, "at the start": surplus, "at both ends": {i: k // 2 for i, k in surplus.items()}}
    if len(more) == 1:
        ((axis, k),) = surplus.items()
        starts |= {f"({start} at the start, {k - start} at the end)": {axis: start} for start in range(1, min(k, 128))}
    for at, offsets in starts.items():
        rest = pair.like(*(_cut(x, offsets, common) for x in (value, reference)))
        if rest.agrees():
            facts["at"] = at
            return f"{text} {at}", rest
    if len(more) == 1 and (strided := _strided(pair, axis)):
        facts["strided"] = True
        return f"{text}; {strided}", None
    return text, pair.like(_cut(value, {}, common), _cut(reference, {}, common))


def _cut(x: np.ndarray, offsets: dict[int, int], common: tuple[int, ...]) -> np.ndarray:
    """The common part; an offset applies to the side that is longer."""
    starts = [offsets.get(i, 0) if n > common[i] else 0 for i, n in enumerate(x.shape)]
    return x[tuple(slice(start, start + n) for start, n in zip(starts, common, strict=True))]


def _strided(pair: Pair, axis: int) -> str | None:
    """An upsampling or downsampling that is missing."""
    a, b = pair.value.shape[axis], pair.reference.shape[axis]
    long, short = (pair.value, pair.reference) if a > b else (pair.reference, pair.value)
    step = -(-max(a, b) // min(a, b))
    thinned = long[(slice(None),) * axis + (slice(None, None, step),)]
    if thinned.shape != short.shape or not pair.like(thinned, short).agrees():
        return None
    every = f"every {ordinal(step)} {noun(pair.axes[axis])}"
    return f"{every} of it agrees" if a > b else f"it is {every} of the reference"
