"""Detectors of what holds for the values themselves: constants, factors and offsets, overall or per index; noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import wording
from .core import AXES, FEW, Facts, Match, Pair, Predict, Sums, blocks, dot, f64, number

NEGLIGIBLE = 1e-3  # of the reference's level: 60 dB below it
HALF, MOSTLY = 0.5, 0.9  # share of the values of which a mask is the first explanation, and that is told as everywhere
FEWEST = 8  # values that a rule about some of them must explain


def constant(pair: Pair, zero: bool) -> Iterator[Match]:
    (low, high), (low_r, high_r) = pair.measured.range_v, pair.measured.range_r
    # with a coarse tolerance it must be small relative to the difference as well
    small = min(pair.tolerance, pair.measured.max_abs / FEW)
    if zero and max(-low, high) <= small:
        yield Match({"constant": 0.0}, {})
    if not zero and (high - low) / 2 <= small and high_r - low_r > FEW * max(pair.tolerance, high - low):
        yield Match({"constant": number((low + high) / 2)}, {"text": f"{(low + high) / 2:.4g}"})


def near_zero(pair: Pair) -> Iterator[Match]:
    """Values far below the reference's level that no factor of the reference explains better: a missing mask."""
    if pair.measured.sums.vv <= NEGLIGIBLE**2 * pair.measured.sums.rr:
        most, most_r = (max(-low, high) for low, high in (pair.measured.range_v, pair.measured.range_r))
        facts = {"largest": number(most), "reference_largest": number(most_r)}
        yield Match(facts, {"most": f"{most:.3g}", "most_r": f"{most_r:.3g}"}, lambda s: np.zeros(1))


def sign(pair: Pair) -> Iterator[Match]:
    if pair.value.size >= 3:
        yield Match({}, {}, lambda s: -f64(pair.reference[s]))


def scaling(pair: Pair, model: str) -> Iterator[Match]:
    """One factor, one offset, or both; for at least 3 values, both for 5: fewer are explained by chance."""
    sums = pair.measured.sums
    (g, c), slope = map(float, sums.fit(model)), float(sums.fit("affine")[0])
    if pair.value.size < (5 if model == "affine" else 3):
        return
    if model == "gain" and not NEGLIGIBLE <= abs(g) <= 1 / NEGLIGIBLE and abs(slope - g) > abs(g) / 2:
        return  # the ratio of two levels, not a factor: the result does not vary with the reference by it
    if model != "offset" and not _varies_with(Sums(*map(float, sums)), g, c):
        return
    facts = {"factor": number(g), "db": number(20 * math.log10(abs(g))) if g else None} if model != "offset" else {}
    facts |= {"offset": number(c)} if model != "gain" else {}
    yield Match(facts, {"gain": wording.factor(g), "addend": f"{c:.4g}"}, lambda s: g * f64(pair.reference[s]) + c)


def _varies_with(sums: Sums, g: Any, c: Any) -> bool:
    """Whether factors and offsets explain the result itself. Where the reference is far larger, in places that one side
    masks, any small factor explains the difference."""
    left = sums.vv - 2 * (g * sums.vr + c * sums.v) + g * g * sums.rr + 2 * g * c * sums.r + c * c * sums.n
    return bool(np.sum(left) <= np.sum(sums.vv) / 16)


def masked(pair: Pair, share: float) -> Iterator[Match]:
    """Wherever both differ one of them is a certain value, such as zero or a masked score; at least in ``share``."""
    measured, size = pair.measured, pair.value.size
    small = min(pair.tolerance, measured.max_abs / FEW)
    flat = all(high - low <= 2 * small for low, high in (measured.range_v, measured.range_r))  # then it is an offset
    if flat or measured.wrong < max(FEWEST, share * size):
        return
    for c in dict.fromkeys((*measured.range_r, *measured.range_v, 0.0)):
        missing = extra = 0
        for _, v, r in blocks(pair.value, pair.reference):
            bad = np.abs(v - r) > pair.tolerance
            masks = np.abs(r - c) <= small, np.abs(v - c) <= small
            if (bad & ~masks[0] & ~masks[1]).any():
                break
            missing, extra = (n + int(np.count_nonzero(bad & m)) for n, m in zip((missing, extra), masks, strict=True))
        else:
            counts = {"the reference": missing, "this": extra}
            told = [f"{count} of {size} values are {c:.4g} in {side} only" for side, count in counts.items() if count]
            if size in counts.values():
                told = [f"{c:.4g} in {'the reference' if missing else 'this'} only everywhere"]
            yield Match({"constant": number(c), "missing": missing, "extra": extra}, {"text": " and ".join(told)})
            return


def of_some(pair: Pair, model: str) -> Iterator[Match]:
    """One addend, of either sign, or one factor, that holds nine tenths of the difference of all values that differ."""
    measured, tolerance, size = pair.measured, pair.tolerance, pair.value.size
    if not FEWEST <= measured.wrong < size:
        return
    total = np.zeros(5)
    for _, v, r in blocks(pair.value, pair.reference):
        v, r = (x[np.abs(v - r) > tolerance] for x in (v, r))
        d = v - r
        total += [d.sum(), np.abs(d).sum(), dot(d, d), dot(d, r), dot(r, r)]
    if not np.isfinite(total).all():  # the largest numbers there are: their squares are no numbers
        return
    mean, absolute, dd, dr, rr = total / measured.wrong
    words: Facts = {"wrong": measured.wrong, "size": size}
    if model == "gain":
        factor = 1 + dr / rr if rr > 0 else 1.0
        if dr * dr >= 0.99 * dd * rr and abs(factor) >= NEGLIGIBLE:
            left = _left(dd, dd - dr * dr / rr)
            yield Match({"factor": number(factor), **words, **left}, {"gain": wording.factor(factor)})
        return
    rest = math.sqrt(max(0.0, dd - absolute * absolute))
    if absolute > FEW * tolerance and absolute * absolute >= 0.9 * dd:
        one_sign = abs(mean) > 0.9 * absolute
        text = f"{mean:.4g}" if one_sign else f"{absolute:.4g} or {-absolute:.4g}"
        text += f" (RMS {rest:.2g} around it)" if rest > FEW * tolerance else ""
        facts = {"offset": number(mean if one_sign else absolute), **words, **_left(dd, rest * rest)}
        yield Match(facts, {"addend": text})


def _left(energy: float, left: float) -> Facts:
    """What a rule leaves of a difference, of its mean energies before and after, as ``explains`` tells it."""
    left = max(left, 1e-20 * energy)
    return {"remains": math.sqrt(left), "removed_db": round(10 * math.log10(energy / left), 1)}


def offset_of_nonzero(pair: Pair) -> Iterator[Match]:
    """One offset that leaves the reference's zeros alone, as in a pitch curve with unvoiced frames."""
    measured, reference = pair.measured, pair.reference
    nonzero = pair.value.size - measured.zeros
    if measured.zeros and nonzero >= 3:
        c = (measured.d - measured.d_at_zeros) / nonzero
        facts = {"offset": number(c), "zeros_kept": True}
        yield Match(facts, {"addend": f"{c:.4g}"}, lambda s: f64(reference[s]) + c * (reference[s] != 0))


def per_index(pair: Pair, model: str) -> Iterator[Match]:
    """A factor, an offset, or both for each index of one axis."""
    for axis, sums in pair.once(_sums_by_axis).items():
        g, c = sums.fit(model)
        if model != "offset" and not _varies_with(sums, g, c):
            continue
        effect = (g - 1) ** 2 * sums.rr + 2 * (g - 1) * c * sums.r + c * c * sums.n
        unchanged = (effect <= 1e-4 * effect.max()) & (effect <= 1e-4 * sums.rr)
        if np.count_nonzero(unchanged) >= len(g) / 2:  # the others are a place, not a rule of the axis
            continue
        facts: Facts = {"axis": pair.axes[axis]}
        facts |= {"factors": [number(g.min()), number(g.max())]} if model != "offset" else {}
        facts |= {"offsets": [number(c.min()), number(c.max())]} if model != "gain" else {}
        words = {"gains": f"{g.min():.4g} to {g.max():.4g}", "addends": f"{c.min():.4g} to {c.max():.4g}"}
        words["index"] = wording.noun(pair.axes[axis])
        yield Match(facts, words, _scaled(pair.reference, g, c, axis))


def _scaled(reference: np.ndarray, gain: np.ndarray, offset: np.ndarray, axis: int) -> Predict:
    shape = tuple(-1 if i == axis else 1 for i in range(reference.ndim))
    return lambda s: gain[s[axis]].reshape(shape) * f64(reference[s]) + offset[s[axis]].reshape(shape)


def _sums_by_axis(pair: Pair) -> dict[int, Sums]:
    """Sums along the axes for which a sample suggests an explanation, the likeliest axis first."""
    order = sorted(range(len(pair.axes)), key=lambda i: AXES.index(pair.axes[i]))
    long = (axis for axis in order if 2 <= pair.shape[axis] <= pair.value.size // 4)
    return {axis: _sums_along(pair, axis) for axis in long if _promising(pair, axis)}


def _promising(pair: Pair, axis: int) -> bool:
    """Whether factor and offset explain a sample: sums over all values take longer."""
    v, r = pair.lines(axis)
    if v.shape[1] < pair.shape[axis] or len(v) < 4:
        return True
    g, c = Sums(len(v), *_sums(v, r, (0,))).fit("affine")
    left = np.square(v - g * r - c).sum()
    return bool(left <= np.square(v - r).sum() / 8 or left <= v.size * (FEW * pair.tolerance) ** 2)


def _sums_along(pair: Pair, axis: int) -> Sums:
    totals = np.zeros((5, pair.shape[axis]))
    for s, v, r in blocks(pair.value, pair.reference):
        totals[:, s[axis]] += _sums(v, r, tuple(i for i in range(v.ndim) if i != axis))
    return Sums(pair.value.size // pair.shape[axis], *totals)


def _sums(v: np.ndarray, r: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.stack([x.sum(axis=axes) for x in (v, r, v * v, r * r, v * r)])


def scattered(pair: Pair) -> Iterator[Match]:
    measured, size = pair.measured, pair.value.size
    if measured.wrong < 0.1 * size and measured.wrong_energy >= 0.99 * measured.dd:
        yield Match(pair.once(_similarity), {"wrong": measured.wrong, "size": size})


def mostly_offset(pair: Pair) -> Iterator[Match]:
    """The mean difference holds nine tenths of the energy: short of the criterion, but not to be called noise."""
    measured, size, facts = pair.measured, pair.value.size, pair.once(_similarity)
    mean, own = measured.d / size, facts["correlation"]
    if size >= 32 and (own is None or own >= 0.5) and 0.9 * measured.dd <= mean * measured.d < math.inf:
        rest = math.sqrt(max(0.0, measured.dd / size - mean * mean))
        yield Match({**facts, "offset": number(mean), "mostly": True}, {"mean": mean, "rest": rest})


def noise(pair: Pair) -> Iterator[Match]:
    facts, size = pair.once(_similarity), pair.value.size
    snr, own, of_difference = facts.values()
    if size < 32 or own is None or of_difference is None:
        return
    if own >= 0.1 and abs(of_difference) <= max(0.1, 3 / math.sqrt(size)):
        level = f"{abs(snr):.0f} dB {'below' if snr >= 0 else 'above'} it"
        yield Match(facts, {"level": level, "extent": _extent(pair)})


def everywhere(pair: Pair) -> Iterator[Match]:
    own, measured, size = pair.once(_similarity)["correlation"], pair.measured, pair.value.size
    # a correlation knows neither of an offset nor of a factor
    text = f", mean difference {measured.d / size:.2g}, RMS {math.sqrt(measured.dd / size):.2g}"
    text += "" if own is None else f", correlation with the reference {wording.correlation(own)}"
    yield Match(pair.once(_similarity), {"likeness": text, "extent": _extent(pair)})


def _extent(pair: Pair) -> str:
    wrong, size = pair.measured.wrong, pair.value.size
    return "everywhere" if wrong > MOSTLY * size else f"in {wrong} of {size} values"


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
