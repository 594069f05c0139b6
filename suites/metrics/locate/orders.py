"""Detectors of right values at wrong indices: moved along an axis, reordered, or with the axes exchanged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from .kinds import Facts, Match, Predict, explains, view
from .pair import BLOCK, FEW, SAMPLE, Pair, Slices, dot, f64, largest, once
from .wording import amount, join, noun

REACH = 1024  # largest shift that is sought, in positions, and at most half the axis
LONGEST_ROLL = 1 << 20  # length of an axis: a roll needs whole lines
LONGEST_ORDER = 2048  # length of an axis: a permutation needs the distances of all pairs of indices


# Moved along one axis


def rolled(pair: Pair, halves: bool) -> Iterator[Match]:
    """Delayed by a lag, and the vacated end holds what left at the other; ``halves``: by half the axis."""
    for axis, lag, size in _lags(pair):
        n = pair.shape[axis]
        if halves != (2 * abs(lag) == n) or size < 4:
            continue
        vacated, was = pair.cut(axis, 0, lag) if lag > 0 else pair.cut(axis, n + lag, n)
        wrapped = pair.cut(axis, n - lag, n)[1] if lag > 0 else pair.cut(axis, 0, -lag)[1]
        if largest(vacated) > pair.tolerance and explains(pair, vacated, was, view(wrapped)) is not None:
            match = _delayed(pair, axis, lag)
            yield match._replace(facts={**match.facts, "by": n // 2}) if halves else match


def shifted(pair: Pair) -> Iterator[Match]:
    """Delayed by a lag; the vacated end is not compared."""
    for axis, lag, size in _lags(pair):
        n = pair.shape[axis]
        if 4 <= n and size >= 4 and abs(lag) <= min(REACH, n // 2):
            vacated = pair.cut(axis, 0, lag) if lag > 0 else pair.cut(axis, n + lag, n)
            match = _delayed(pair, axis, lag)
            yield match._replace(facts={**match.facts, "zero_filled": largest(vacated[0]) <= pair.tolerance})


def _delayed(pair: Pair, axis: int, lag: int) -> Match:
    """Compared where both overlap."""
    n, name = pair.shape[axis], pair.axes[axis]
    late, early = max(lag, 0), max(-lag, 0)
    value, reference = pair.cut(axis, late, n - early)
    source = pair.cut(axis, early, n - late)[1]
    words = {"count": amount(abs(lag), name), "direction": "late" if lag > 0 else "early"}
    return Match({"axis": name, "by": lag}, words, view(source), value, reference)


def _lags(pair: Pair) -> Iterator[tuple[int, int, int]]:
    """Axis, likely lag, and how many values then overlap."""
    for axis, n in enumerate(pair.shape):
        lags = [_best_roll(pair, axis)] if 3 <= n <= LONGEST_ROLL else []
        if n >= 4:
            lags.append(_best_lag(pair, axis))
        yield from ((axis, lag, pair.value.size // n * (n - abs(lag))) for lag in dict.fromkeys(lags) if lag)


@once
def _best_roll(pair: Pair, axis: int) -> int:
    """The circular lag with the least squared difference, from minus to plus half the axis."""
    v, r = pair.lines(axis, LONGEST_ROLL)
    n = v.shape[1]
    cross = np.fft.irfft((np.fft.rfft(v) * np.fft.rfft(r).conj()).sum(axis=0), n)
    energy = dot(v, v) + dot(r, r)
    lags = np.arange(n)
    return _nearest(energy - 2 * cross, np.where(lags > n // 2, lags - n, lags), energy)


@once
def _best_lag(pair: Pair, axis: int) -> int:
    """The lag within ``REACH`` with the least mean squared difference over the overlap."""
    v, r = pair.lines(axis)
    n = v.shape[1]
    reach = min(REACH, n // 2)
    size = 1 << (n + reach - 1).bit_length()
    cross = np.fft.irfft((np.fft.rfft(v, size) * np.fft.rfft(r, size).conj()).sum(axis=0), size)
    sum_v, sum_r = (np.concatenate([[0.0], np.cumsum(np.square(x).sum(axis=0))]) for x in (v, r))
    lags = np.arange(-reach, reach + 1)
    late, early = np.maximum(lags, 0), np.maximum(-lags, 0)
    energy = sum_v[n - early] - sum_v[late] + sum_r[n - late] - sum_r[early]
    errors = (energy - 2 * cross[lags]) / (n - np.abs(lags))
    return _nearest(errors, lags, float(energy.max()) / n)


def _nearest(errors: np.ndarray, lags: np.ndarray, scale: float) -> int:
    """The lag of the least error; a periodic signal has several, then the nearest. 0 after an overflow."""
    good = lags[errors <= errors.min() * (1 + 1e-6) + 1e-12 * scale]
    return int(good[np.abs(good).argmin()]) if len(good) else 0


# Another order of one axis


def flipped(pair: Pair) -> Iterator[Match]:
    for axis, name in enumerate(pair.axes):
        if pair.shape[axis] >= 3:  # of two, it is a permutation
            yield Match({"axis": name}, {}, view(np.flip(pair.reference, axis)))


def permuted(pair: Pair) -> Iterator[Match]:
    for find in (_interleaved, _matched):
        for axis, name in enumerate(pair.axes):
            order = find(pair, axis)
            if order is not None:
                text, facts = _described(order, name)
                yield Match(facts, {"text": text}, _gathered(pair.reference, axis, order))


def _gathered(reference: np.ndarray, axis: int, order: np.ndarray) -> Predict:
    def predict(s: Slices) -> np.ndarray:
        index: tuple[Any, ...] = (*s[:axis], order[s[axis]], *s[axis + 1 :])
        return f64(reference[index])

    return predict


def _interleaved(pair: Pair, axis: int) -> np.ndarray | None:
    """The axis split in two and read column by column, as features before heads or frames before phases."""
    n = pair.shape[axis]
    if not 4 <= n <= SAMPLE:
        return None
    v, r = (x[: max(1, BLOCK // n)] for x in pair.lines(axis))
    limit = np.square(v - r).sum() / 8
    for rows in (a for a in range(2, n // 2 + 1) if n % a == 0 and min(a, n // a) <= 64):
        order = np.arange(n).reshape(rows, -1).T.ravel()
        if np.square(v - r[:, order]).sum() < limit:
            return order
    return None


def _matched(pair: Pair, axis: int) -> np.ndarray | None:
    """For each index of an axis the best matching index of the reference, each used once; None if all stay."""
    n = pair.shape[axis]
    if not 2 <= n <= LONGEST_ORDER or pair.value.size < 4 * n:
        return None
    v, r = (x[:: max(1, len(x) // 256)][:256].T for x in pair.lines(axis))
    distance = np.square(v).sum(1)[:, None] + np.square(r).sum(1)[None] - 2 * v @ r.T
    own, best = distance.diagonal(), distance.min(axis=1)
    # equal channels, such as dead ones, match each other: they stay
    slack = 1e-12 * np.square(v).sum(1)
    stays = own <= FEW * best + slack + v.shape[1] * pair.tolerance**2
    order = np.where(stays, np.arange(n), -1)
    distance[:, order[stays]] = np.inf
    for index in np.flatnonzero(~stays):
        order[index] = distance[index].argmin()
        distance[:, order[index]] = np.inf
    return None if stays.all() else order


def _described(order: np.ndarray, name: str) -> tuple[str, Facts]:
    n, moved = len(order), np.flatnonzero(order != np.arange(len(order)))
    facts: Facts = {"axis": name, "moved": len(moved), "order": order[:64].tolist()}
    if len(moved) == 2:
        return f"{noun(name, 2)} {moved[0]} and {moved[1]} exchanged", facts
    columns = int(order[1])  # consecutive values of a column are a row apart
    if columns > 1 and n % columns == 0 and np.array_equal(order, np.arange(n).reshape(-1, columns).T.ravel()):
        facts["split"] = [n // columns, columns]
        return f"{noun(name, n)} interleaved: {n // columns} x {columns} read column by column", facts
    return f"{noun(name, n)} in another order ({len(moved)} of {n} moved)", facts


# Another order of the axes


def transposed(pair: Pair) -> Iterator[Match]:
    for order in _axis_orders(pair.shape):
        turned = pair.reference.transpose(order)
        if turned.shape == pair.shape:
            moved = [pair.axes[i] for i, j in enumerate(order) if i != j]
            words = {"moved": join(moved), "how": "swapped" if len(moved) == 2 else "in another order"}
            yield Match({"order": _names(pair, order)}, words, view(turned))


def reshaped(pair: Pair, back: bool) -> Iterator[Match]:
    """Transposed and not transposed back; ``back``: reshaped where a transpose was needed, then transposed back."""
    for order in _axis_orders(pair.shape):
        turned = pair.reference.transpose(order)
        if turned.shape == pair.shape:
            continue
        names = _names(pair, order)
        facts, words = {"order": names}, {"names": ", ".join(names)}
        value, reference = (x.reshape(turned.shape) for x in (pair.value, pair.reference))
        if back:
            yield Match(facts, words, view(reference.transpose(np.argsort(order))))
        else:
            yield Match(facts, words, view(turned), value, reference)


def _names(pair: Pair, order: tuple[int, ...]) -> list[str]:
    return [pair.axes[i] for i in order if pair.shape[i] > 1]


def _axis_orders(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Orders of the axes longer than one, of which there may be four; exchanges of two first."""
    long = [i for i, n in enumerate(shape) if n > 1]
    if len(long) > 4:
        return
    orders = []
    for permutation in itertools.permutations(long):
        to = dict(zip(long, permutation, strict=True))
        orders.append(tuple(to.get(i, i) for i in range(len(shape))))
    yield from sorted(orders, key=lambda order: sum(i != j for i, j in enumerate(order)))[1:]
