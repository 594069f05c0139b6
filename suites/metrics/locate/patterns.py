"""Detectors of what holds for the values themselves: constants, factors and offsets, overall or per index; noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import wording
from .kinds import Facts, Match, Predict
from .pair import AXES, FEW, Pair, Slices, Sums, blocks, f64, number, once

NEGLIGIBLE = 1e-3  # of the reference's level: 60 dB below it


# Constants


def zero(pair: Pair) -> Iterator[Match]:
    low, high = pair.measured.range_v
    if max(-low, high) <= _small(pair):
        yield Match({"constant": 0.0}, {})


def constant(pair: Pair) -> Iterator[Match]:
    (low, high), (low_r, high_r) = pair.measured.range_v, pair.measured.range_r
    if (high - low) / 2 <= _small(pair) and high_r - low_r > FEW * max(pair.tolerance, high - low):
        yield Match({"constant": number((low + high) / 2)}, {"text": f"{(low + high) / 2:.4g}"})


def _small(pair: Pair) -> float:
    """A result this small is zero; with a coarse tolerance, only if it is also small relative to the difference."""
    return min(pair.tolerance, pair.measured.max_abs / FEW)


def near_zero(pair: Pair) -> Iterator[Match]:
    """Values far below the reference's level that no factor of the reference explains better: a missing mask."""
    sums = pair.measured.sums
    if sums.vv <= NEGLIGIBLE**2 * sums.rr:
        most, most_r = (max(-low, high) for low, high in (pair.measured.range_v, pair.measured.range_r))
        facts = {"largest": number(most), "reference_largest": number(most_r)}
        yield Match(facts, {"most": most, "most_r": most_r}, lambda s: np.zeros(1))


# A factor and an offset


def _scaled(reference: np.ndarray, gain: Any, offset: Any, axis: int | None = None) -> Predict:
    """``gain * reference + offset``, both numbers or one for each index of an axis."""

    def predict(s: Slices) -> np.ndarray:
        g, c = gain, offset
        if axis is not None:
            shape = tuple(-1 if i == axis else 1 for i in range(reference.ndim))
            g, c = gain[s[axis]].reshape(shape), offset[s[axis]].reshape(shape)
        return g * f64(reference[s]) + c

    return predict


def sign(pair: Pair) -> Iterator[Match]:
    if pair.value.size >= 3:
        yield Match({}, {}, _scaled(pair.reference, -1.0, 0.0))


def scaling(pair: Pair, model: str) -> Iterator[Match]:
    """One factor, one offset, or both; for at least 3 values, both for 5: fewer are explained by chance."""
    if pair.value.size < (5 if model == "affine" else 3):
        return
    fits = pair.measured.sums.fits()
    g, c = (float(x) for x in fits[model][:2])
    slope = float(fits["affine"][0])
    if model == "gain" and not NEGLIGIBLE <= abs(g) <= 1 / NEGLIGIBLE and abs(slope - g) > abs(g) / 2:
        return  # the ratio of two levels, not a factor: the result does not vary with the reference by it
    facts: Facts = {}
    if model != "offset":
        facts |= {"factor": number(g), "db": number(20 * math.log10(abs(g))) if g else None}
    if model != "gain":
        facts["offset"] = number(c)
    yield Match(facts, {"gain": wording.factor(g), "addend": c}, _scaled(pair.reference, g, c))


def offset_of_nonzero(pair: Pair) -> Iterator[Match]:
    """One offset that leaves the reference's zeros alone, as in a pitch curve with unvoiced frames."""
    measured, reference = pair.measured, pair.reference
    nonzero = pair.value.size - measured.zeros
    if not measured.zeros or nonzero < 3:
        return
    c = (measured.d - measured.d_at_zeros) / nonzero

    def predict(s: Slices) -> np.ndarray:
        r = f64(reference[s])
        return r + c * (r != 0)

    yield Match({"offset": number(c), "zeros_kept": True}, {"addend": c}, predict)


# A factor and an offset for each index of an axis


def per_index(pair: Pair, model: str) -> Iterator[Match]:
    """A factor, an offset, or both for each index of one axis."""
    for axis, sums in _sums_by_axis(pair).items():
        g, c, _ = sums.fits()[model]
        if _mostly_unchanged(sums, g, c):
            continue
        facts: Facts = {"axis": pair.axes[axis]}
        if model != "offset":
            facts["factors"] = [number(g.min()), number(g.max())]
        if model != "gain":
            facts["offsets"] = [number(c.min()), number(c.max())]
        words = {
            "gains": f"{g.min():.4g} to {g.max():.4g}",
            "addends": f"{c.min():.4g} to {c.max():.4g}",
            "index": wording.noun(pair.axes[axis]),
        }
        yield Match(facts, words, _scaled(pair.reference, g, c, axis))


@once
def _sums_by_axis(pair: Pair) -> dict[int, Sums]:
    """Sums along the axes for which a sample suggests an explanation, the likeliest axis first."""
    order = sorted(range(len(pair.axes)), key=lambda i: AXES.index(pair.axes[i]))
    long = (axis for axis in order if 2 <= pair.shape[axis] <= pair.value.size // 4)
    return {axis: _sums_along(pair, axis) for axis in long if _promising(pair, axis)}


def _mostly_unchanged(sums: Sums, g: np.ndarray, c: np.ndarray) -> bool:
    """Whether half of the indices change by less than 1 %: the others are then a place, not a rule of the axis."""
    effect = (g - 1) ** 2 * sums.rr + 2 * (g - 1) * c * sums.r + c * c * sums.n
    unchanged = (effect <= 1e-4 * effect.max()) & (effect <= 1e-4 * sums.rr)
    return bool(np.count_nonzero(unchanged) >= len(g) / 2)


def _promising(pair: Pair, axis: int) -> bool:
    """Whether factor and offset explain a sample: sums over all values take longer."""
    v, r = pair.lines(axis)
    if v.shape[1] < pair.shape[axis] or v.shape[0] < 4:
        return True
    products = (np.einsum("ij,ij->j", a, b) for a, b in ((v, v), (r, r), (v, r)))
    left = Sums(len(v), v.sum(0), r.sum(0), *products).fits()["affine"][2].sum()
    return bool(left <= np.square(v - r).sum() / 8 or left <= v.size * (FEW * pair.tolerance) ** 2)


def _sums_along(pair: Pair, axis: int) -> Sums:
    n = pair.shape[axis]
    totals = np.zeros((5, n))
    for s in blocks(pair.shape):
        length = s[axis].stop - s[axis].start
        v, r = (np.moveaxis(f64(x[s]), axis, 0).reshape(length, -1) for x in (pair.value, pair.reference))
        products = (np.einsum("ij,ij->i", a, b) for a, b in ((v, v), (r, r), (v, r)))
        totals[:, s[axis]] += np.stack([v.sum(1), r.sum(1), *products])
    return Sums(pair.value.size // n, *totals)


# Neither explained nor placed


def scattered(pair: Pair) -> Iterator[Match]:
    measured, size = pair.measured, pair.value.size
    if measured.wrong < 0.1 * size and measured.wrong_energy >= 0.99 * measured.dd:
        yield Match(_similarity(pair), {"wrong": measured.wrong, "size": size})


def mostly_offset(pair: Pair) -> Iterator[Match]:
    """The mean difference holds nine tenths of the energy: too little for the criterion, too much to leave unnamed."""
    measured = pair.measured
    mean = measured.d / pair.value.size
    share = mean * measured.d / measured.dd if 0 < measured.dd < math.inf else 0.0
    if share >= 0.9 and pair.value.size >= 32:
        facts = {**_similarity(pair), "offset": number(mean), "mostly": True}
        yield Match(facts, {"mean": mean, "rest": math.sqrt(max(0.0, measured.dd / pair.value.size - mean * mean))})


def noise(pair: Pair) -> Iterator[Match]:
    facts, size = _similarity(pair), pair.value.size
    snr, own, of_difference = facts["snr_db"], facts["correlation"], facts["difference_correlation"]
    if size < 32 or own is None or of_difference is None:
        return
    if own >= 0.1 and abs(of_difference) <= max(0.1, 3 / math.sqrt(size)):
        yield Match(facts, {"level": f"{abs(snr):.0f} dB {'below' if snr >= 0 else 'above'} it"})


def everywhere(pair: Pair) -> Iterator[Match]:
    facts = _similarity(pair)
    own = facts["correlation"]
    yield Match(facts, {"likeness": "" if own is None else f", correlation with the reference {wording.correlation(own)}"})


@once
def _similarity(pair: Pair) -> Facts:
    measured = pair.measured
    n, v, r, vv, rr, vr = measured.sums
    ratio = rr / measured.dd if measured.dd > 0 else math.nan
    return {
        "snr_db": number(10 * math.log10(ratio) if 0 < ratio < math.inf else math.nan),
        "correlation": number(_correlation(n, v, r, vv, rr, vr)),
        "difference_correlation": number(_correlation(n, measured.d, r, measured.dd, rr, measured.dr)),
    }


def _correlation(n: float, a: float, b: float, aa: float, bb: float, ab: float) -> float:
    """From sums; NaN if one side is constant."""
    scale = (aa - a * a / n) * (bb - b * b / n)
    return float((ab - a * b / n) / math.sqrt(scale)) if 1e-24 * aa * bb < scale < math.inf else math.nan
