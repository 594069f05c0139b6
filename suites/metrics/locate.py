"""Where two tensors differ, and in which way. Pure NumPy.

The size of a difference says that a port is wrong; its place and its kind say what is wrong: zeros in the last row are
a padding fault, exchanged axes a layout fault, a factor per channel a normalisation that is missing.

===================  =====================================================================  ==========================
kind                 the result against the reference                                       what leaves it
===================  =====================================================================  ==========================
``none``             all within tolerance
``empty``            equal shapes without a value                                           input too short
``shape``            another shape: longer, shorter, swapped; and how the rest compares     padding, upsampling, layout
``not finite``       NaN or infinity on either side                                         1/0, log 0, overflow
``zero``             all zero, or all one value, where the reference is not                 a branch that is left out
``sign``             all with the other sign
``gain``             all by one factor                                                      scale, wrong constant
``offset``           all by one addend                                                      bias of one value
``affine``           all by one factor and one addend                                       normalisation of the input
``roll``             moved along one axis, what leaves at one end enters at the other       halves swapped
``shift``            moved along one axis, by 1024 positions at most; ends not counted     padding on the wrong side
``flip``             one axis backwards                                                     flow flip, kernel flip
``permutation``      the indices of one axis in another order                               grouping, interleaving
``transposed``       axes of equal length exchanged                                         weight or attention layout
``reshaped``         the values of another order of axes, read in this one                  reshape for a transpose
``edge``             wrong only in the first or last positions of ordered axes              padding, ``output_padding``
``part``             wrong only at some indices of some axes                                masks, one head, one layer
``channel gain``     a factor for each index of an axis                                     gamma, norm
``channel offset``   an addend for each index of an axis                                    bias, beta
``channel affine``   both                                                                   norm left out
``scattered``        a few values without a pattern                                         ties, thresholds
``noise``            everywhere, not correlated with the reference                          precision, random numbers
``everywhere``       none of these                                                          another computation
===================  =====================================================================  ==========================

They are tried from top to bottom and the first that explains the difference is told; ``edge`` and ``part`` are tried
a second time after ``channel affine``, then for where *most* of the difference is. The ordered axes are all but batch,
channel, head and feature. The factor or addend per index is sought for every axis; ``facts["axis"]`` names it.

**Criterion.** An explanation predicts the result from the reference. It counts if what remains (result minus
prediction, root mean square) is at least 20 dB below the difference on the same values; or at least 12 dB below and
nowhere more than four tolerances. In no case may it spoil more than 5 % of the values, that is, move values that agreed
away by more than four tolerances: else one loud value decided alone. Of related explanations that leave more than four
tolerances, a later one is told if it removes 10 dB more. A place counts if everything outside it is within the
tolerance (of a second try: holds 1 % of the difference's energy at most and nowhere a tenth of its peak) and if so many
clean values outside are no coincidence, given how many inside are clean; and if the difference inside is 12 dB above
that outside, root mean square.

Memory: values become float64 in blocks of 65536; searches look at 131072 values, or at one line of up to a million.
Beyond that only profiles and lists of indices are kept, some 30 bytes per index of the longest axis, and ``inside`` may
copy up to four million values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

Slices = tuple[slice, ...]
Predict = Callable[[Slices], np.ndarray]
Facts = dict[str, Any]

ORDERED = ("frame", "sample", "row", "column", "query", "key", "bin", "band")
# where a factor per index is likelier first: the axes of biases and norms
AXES = ("channel", "feature", "head", "band", "bin", "batch", *(a for a in ORDERED if a not in ("band", "bin")))

REACH = 1024  # positions that a shift is sought for, half the axis at most
FEW = 4.0  # tolerances that may remain
SPOILED = 0.05  # share of the values that an explanation may spoil
BLOCK = 1 << 16  # values at a time in float64
FEW_RUNS = 6  # of wrong indices that are listed
SAMPLE = 1 << 17  # values that a search looks at
LONGEST_ROLL = 1 << 20  # of an axis: a roll needs whole lines
LONGEST_ORDER = 2048  # of an axis: a permutation needs the distances of all pairs of indices
LARGEST_COPY = 1 << 22  # values


class Finding(NamedTuple):
    """What the difference is: ``kind`` for machines, ``where`` for people, ``facts`` as JSON values.

    ``facts`` holds, where values were compared, ``max_abs``, ``at`` (index by axis name of that value), ``wrong``
    and ``values`` (counts); for an explanation ``remains`` (largest difference from its prediction) and ``removed_db``
    (how far it lowers the difference, 300 at most); for ``edge`` and ``part`` also ``axes`` (places by axis name),
    ``zero_there`` and, where the difference inside the place has an explanation, ``inside`` (its kind, where, facts).
    """

    kind: str
    where: str
    facts: Facts

    @property
    def sentence(self) -> str:
        """``where`` with what is known of the inside of the place: "last row and column; zero there"."""
        if self.facts.get("zero_there"):
            return f"{self.where}; zero there"
        inside = self.facts.get("inside")
        return f"{self.where}; there {inside['where'].removeprefix('everywhere, ')}" if inside else self.where


def locate(value: np.ndarray, reference: np.ndarray, axes: tuple[str, ...], tolerance: float) -> Finding:
    """Where and how ``value`` differs from ``reference``.

    Args:
        value: real numbers of any type and shape.
        reference: the same.
        axes: the name of each dimension of ``reference``, of ``AXES``, each at most once.
        tolerance: the largest difference of two values that counts as rounding, in their unit.

    Raises:
        ValueError: the names do not fit the reference, complex numbers, or a tolerance that is none.
    """
    value, reference = np.asarray(value), np.asarray(reference)
    if len(axes) != reference.ndim or len(set(axes)) != len(axes) or not set(axes) <= set(AXES):
        raise ValueError(f"axes {axes} do not name each of the reference's {reference.ndim} dimensions once")
    if np.iscomplexobj(value) or np.iscomplexobj(reference):
        raise ValueError("complex values: give real and imaginary part as two tensors")
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance {tolerance}")
    with np.errstate(all="ignore"):  # squares of extreme values overflow; no explanation then counts
        if value.shape != reference.shape:
            return _other_shape(value, reference, axes, tolerance)
        return _same_shape(_Pair(value, reference, axes, tolerance))


def axis_profile(value: np.ndarray, reference: np.ndarray, axis: int) -> np.ndarray:
    """Largest absolute difference by index of one axis ``[n]``, float64; NaN where a difference is.

    Raises:
        ValueError: other shapes, or no such axis.
    """
    if value.shape != reference.shape or not -value.ndim <= axis < value.ndim:
        raise ValueError(f"no profile along axis {axis} of {list(value.shape)} and {list(reference.shape)}")
    axis %= value.ndim
    profile = np.zeros(value.shape[axis])
    with np.errstate(all="ignore"):
        for s in _blocks(value.shape):
            _raise_profile(profile, np.abs(_f64(value[s]) - _f64(reference[s])), s, axis)
    return profile


def _same_shape(pair: _Pair) -> Finding:
    if pair.value.size == 0:
        return Finding("empty", "nothing to compare", {"values": 0})
    broken = _not_finite(pair)
    if broken is not None:
        return broken
    measured = pair.measured
    facts = {
        "max_abs": _json(measured.max_abs),
        "at": dict(zip(pair.axes, measured.at, strict=True)),
        "wrong": measured.wrong,
        "values": pair.value.size,
    }
    if measured.max_abs <= pair.tolerance:
        return Finding("none", f"nowhere: all within {pair.tolerance:.3g}", facts)
    found = (
        _explained(pair)
        or _place(pair, pair.tolerance)
        or _by_index(pair)
        or _place(pair, max(pair.tolerance, measured.max_abs / 10))
        or _spread(pair)
    )
    return Finding(found.kind, found.where, {**facts, **found.facts})


# Blocks and sums


def _f64(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64)


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    """Sum of products; not by BLAS, whose threads wait for each other when the machine has other work."""
    return float(np.einsum("i,i->", a.ravel(), b.ravel()))


def _json(x: float) -> float | None:
    """JSON knows no NaN and no infinity."""
    return float(x) if math.isfinite(x) else None


def _blocks(shape: tuple[int, ...]) -> Iterator[Slices]:
    """Slices that cover an array of this shape, at most ``BLOCK`` values each; none of an empty one."""
    if 0 in shape:
        return
    if not shape:
        yield ()
        return
    rest = math.prod(shape[1:])
    step = max(1, BLOCK // max(1, rest))
    for start in range(0, shape[0], step):
        here = slice(start, min(start + step, shape[0]))
        if rest <= BLOCK:
            yield (here, *(slice(0, n) for n in shape[1:]))
        else:
            yield from ((here, *inner) for inner in _blocks(shape[1:]))


def _raise_profile(profile: np.ndarray, block: np.ndarray, s: Slices, axis: int) -> None:
    """Take the maxima of a block into the profile of its axis."""
    others = tuple(i for i in range(block.ndim) if i != axis)
    np.maximum(profile[s[axis]], block.max(axis=others), out=profile[s[axis]])


class _Sums(NamedTuple):
    """Sums of results v, references r and their products; numbers, or one for each index of an axis."""

    n: Any
    v: Any
    r: Any
    vv: Any
    rr: Any
    vr: Any

    def fits(self) -> dict[str, tuple[Any, Any, Any]]:
        """By model the least-squares factor, addend and remaining sum of squares."""
        n, v, r, vv, rr, vr = (np.asarray(x, np.float64) for x in self)
        one, none = np.ones_like(v), np.zeros_like(v)
        spread = rr - r * r / n
        gain = np.divide(vr, rr, out=one.copy(), where=rr > 0)
        slope = np.divide(vr - v * r / n, spread, out=one.copy(), where=spread > 1e-12 * rr)
        models = {"gain": (gain, none), "offset": (one, (v - r) / n), "affine": (slope, (v - slope * r) / n)}
        return {
            name: (g, c, vv + g * g * rr + n * c * c - 2 * g * vr - 2 * c * v + 2 * g * c * r)
            for name, (g, c) in models.items()
        }


class _Measured(NamedTuple):
    """What one pass over a pair yields; d is the result minus the reference."""

    max_abs: float
    at: tuple[int, ...]
    wrong: int
    wrong_energy: float
    sums: _Sums
    d: float
    dd: float
    dr: float
    range_v: tuple[float, float]
    range_r: tuple[float, float]
    profiles: list[np.ndarray]


class _Pair:
    """Two tensors of one shape, of finite values, at least one."""

    def __init__(self, value: np.ndarray, reference: np.ndarray, axes: tuple[str, ...], tolerance: float) -> None:
        self.value, self.reference, self.axes, self.tolerance = value, reference, axes, tolerance
        self.shape = value.shape

    @cached_property
    def measured(self) -> _Measured:
        totals, wrong, wrong_energy, largest, at = np.zeros(8), 0, 0.0, -1.0, (0,) * len(self.shape)
        ends = np.array([math.inf, -math.inf] * 2)
        profiles = [np.zeros(n) for n in self.shape]
        for s in _blocks(self.shape):
            v, r = _f64(self.value[s]), _f64(self.reference[s])
            d = v - r
            products = (_dot(a, b) for a, b in ((v, v), (r, r), (v, r), (d, d), (d, r)))
            totals += [v.sum(), r.sum(), d.sum(), *products]
            ends[::2] = np.minimum(ends[::2], [v.min(), r.min()])
            ends[1::2] = np.maximum(ends[1::2], [v.max(), r.max()])
            d = np.abs(d)
            beyond = d > self.tolerance
            wrong += int(np.count_nonzero(beyond))
            wrong_energy += float(np.square(d[beyond]).sum())
            for axis, profile in enumerate(profiles):
                _raise_profile(profile, d, s, axis)
            if d.max() > largest:
                largest = float(d.max())
                inner = np.unravel_index(d.argmax(), d.shape)
                at = tuple(int(i) + here.start for i, here in zip(inner, s, strict=True))
        sum_v, sum_r, sum_d, vv, rr, vr, dd, dr = totals.tolist()
        low_v, high_v, low_r, high_r = ends.tolist()
        return _Measured(
            max_abs=largest,
            at=at,
            wrong=wrong,
            wrong_energy=wrong_energy,
            sums=_Sums(self.value.size, sum_v, sum_r, vv, rr, vr),
            d=sum_d,
            dd=dd,
            dr=dr,
            range_v=(low_v, high_v),
            range_r=(low_r, high_r),
            profiles=profiles,
        )

    def cut(self, axis: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Views of both, a range of one axis."""
        s = (slice(None),) * axis + (slice(start, stop),)
        return self.value[s], self.reference[s]

    def lines(self, axis: int, longest: int = SAMPLE) -> tuple[np.ndarray, np.ndarray]:
        """Lines of both along an axis, float64 ``[lines, n]``: all, or ``SAMPLE`` values by random choice.

        Of an axis longer than ``longest`` a piece about the largest difference.
        """
        n = self.shape[axis]
        start = 0
        if n > longest:
            start = int(np.clip(self.measured.profiles[axis].argmax() - longest // 2, 0, n - longest))
        views = [np.moveaxis(x, axis, -1)[..., start : start + longest] for x in (self.value, self.reference)]
        others = views[0].shape[:-1]
        count, wanted = math.prod(others), max(1, SAMPLE // min(n, longest))
        chosen = np.arange(count) if count <= wanted else np.random.default_rng(0).choice(count, wanted, replace=False)
        where = np.unravel_index(chosen, others) if others else ()
        v, r = (_f64(x[where]).reshape(len(chosen), -1) for x in views)
        return v, r


# Words


def _noun(axis: str, count: int = 1) -> str:
    name = "batch item" if axis == "batch" else axis
    if count == 1:
        return name
    return "queries" if axis == "query" else f"{name}s"


def _many(n: int, axis: str) -> str:
    return f"{n} {_noun(axis, n)}"


def _ordinal(n: int) -> str:
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def _list(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _factor(factor: float) -> str:
    """An epsilon at the wrong place leaves a factor that differs in the fifth digit."""
    return f"{factor:.4g}" if abs(factor - 1) >= 1e-3 else f"{factor:.7g}"


def _db(factor: float) -> str:
    if not factor:
        return "nothing is left"
    level = 20 * math.log10(abs(factor))
    return f"{level:+.1f} dB" if abs(level) >= 0.1 or level == 0 else f"{level:+.1g} dB"


# Explanations: the criterion


class _Candidate(NamedTuple):
    """An explanation: a prediction for the values of a view, block by block."""

    kind: str
    where: str
    facts: Facts
    value: np.ndarray
    reference: np.ndarray
    predict: Predict


def _explains(candidate: _Candidate, pair: _Pair) -> Finding | None:
    """The candidate as a finding, if it meets the criterion; stops as soon as it cannot."""
    value, reference, tolerance = candidate.value, candidate.reference, pair.tolerance
    before = left = most_before = most = 0.0
    spoiled = 0
    for s in _blocks(value.shape):
        v = _f64(value[s])
        d, e = np.abs(v - _f64(reference[s])), np.abs(v - candidate.predict(s))
        before, left = before + _dot(d, d), left + _dot(e, e)
        most_before, most = max(most_before, float(d.max())), max(most, float(e.max()))
        spoiled += int(np.count_nonzero((d <= tolerance) & (e > FEW * tolerance)))
        # 12 dB, a sixteenth of the energy, is asked in any case
        if left > pair.measured.dd / 16 or spoiled > SPOILED * value.size:
            return None
    if not 0 < before < math.inf or most_before <= tolerance:
        return None
    if not (left <= before / 100 or (left <= before / 16 and most <= FEW * tolerance)):
        return None
    removed = 10 * math.log10(before / max(left, 1e-30 * before, 1e-300))
    facts = {**candidate.facts, "remains": _json(most), "removed_db": round(removed, 1)}
    return Finding(candidate.kind, candidate.where, facts)


def _scaled(reference: np.ndarray, gain: Any, offset: Any, axis: int | None = None) -> Predict:
    """``gain * reference + offset``, both numbers or one for each index of an axis."""

    def predict(s: Slices) -> np.ndarray:
        g, c = gain, offset
        if axis is not None:
            shape = tuple(-1 if i == axis else 1 for i in range(reference.ndim))
            g, c = gain[s[axis]].reshape(shape), offset[s[axis]].reshape(shape)
        return g * _f64(reference[s]) + c

    return predict


def _gathered(reference: np.ndarray, axis: int, order: np.ndarray) -> Predict:
    """The indices of one axis in another order."""

    def predict(s: Slices) -> np.ndarray:
        here: tuple[Any, ...] = (*s[:axis], order[s[axis]], *s[axis + 1 :])
        return _f64(reference[here])

    return predict


def _seen(view: np.ndarray) -> Predict:
    return lambda s: _f64(view[s])


# Explanations of all values


def _explained(pair: _Pair) -> Finding | None:
    """What explains all values at once, the more specific first."""
    return _constant(pair) or _pointwise(pair) or _moved(pair) or _reordered(pair) or _exchanged(pair)


def _first(pair: _Pair, candidates: Iterator[_Candidate]) -> Finding | None:
    """The first that leaves only rounding; else the first that no other surpasses by 10 dB, as a gain does a sign."""
    rough = []
    for candidate in candidates:
        found = _explains(candidate, pair)
        if found is not None and found.facts["remains"] <= FEW * pair.tolerance:
            return found
        if found is not None:
            rough.append(found)
    best = max((found.facts["removed_db"] for found in rough), default=0.0)
    return next((found for found in rough if found.facts["removed_db"] >= best - 10), None)


def _constant(pair: _Pair) -> Finding | None:
    measured, tolerance = pair.measured, pair.tolerance
    low, high = measured.range_v
    # a result that small beside the difference is none, even if the tolerance is coarse
    small = min(tolerance, measured.max_abs / FEW)
    if max(-low, high) <= small:
        return Finding("zero", "zero everywhere", {"constant": 0.0})
    if (high - low) / 2 <= small and measured.range_r[1] - measured.range_r[0] > FEW * max(tolerance, high - low):
        return Finding("zero", f"constant ({(low + high) / 2:.4g}) everywhere", {"constant": _json((low + high) / 2)})
    return None


def _pointwise(pair: _Pair) -> Finding | None:
    def candidates() -> Iterator[_Candidate]:
        value, reference = pair.value, pair.reference
        if value.size < 3:  # a factor would explain a single value, and two too easily
            return
        changed = _scaled(reference, -1.0, 0.0)
        yield _Candidate("sign", "everywhere, with the sign changed", {}, value, reference, changed)
        fits = {name: (float(g), float(c)) for name, (g, c, _) in pair.measured.sums.fits().items()}
        words = {
            "gain": "everywhere, by a constant factor {g} ({db})",
            "offset": "everywhere, by a constant offset {c:.4g}",
            "affine": "everywhere, by a constant factor {g} ({db}) and offset {c:.4g}",
        }
        for kind, (g, c) in fits.items():
            if kind == "affine" and value.size < 5:  # two numbers explain four values too easily
                continue
            facts = {"factor": _json(g), "db": _json(20 * math.log10(abs(g))) if g else None, "offset": _json(c)}
            kept = {"gain": ("factor", "db"), "offset": ("offset",), "affine": tuple(facts)}[kind]
            where = words[kind].format(g=_factor(g), c=c, db=_db(g))
            yield _Candidate(kind, where, {k: facts[k] for k in kept}, value, reference, _scaled(reference, g, c))

    return _first(pair, candidates())


# Explanations of all values: moved along one axis


def _moved(pair: _Pair) -> Finding | None:
    for axis, n in enumerate(pair.shape):
        lags = [_best_roll(pair, axis)] if 3 <= n <= LONGEST_ROLL else []
        if n >= 4:
            lags.append(_best_lag(pair, axis))
        for lag in dict.fromkeys(lags):
            found = _moved_by(pair, axis, lag) if lag else None
            if found is not None:
                return found
    return None


def _nearest(errors: np.ndarray, lags: np.ndarray, scale: float) -> int:
    """The lag of the least error; of equally good ones, as a periodic signal has, the nearest. 0 after an overflow."""
    good = lags[errors <= errors.min() * (1 + 1e-6) + 1e-12 * scale]
    return int(good[np.abs(good).argmin()]) if len(good) else 0


def _best_roll(pair: _Pair, axis: int) -> int:
    """The circular lag with the least squared difference, from minus to plus half the axis."""
    v, r = pair.lines(axis, LONGEST_ROLL)
    n = v.shape[1]
    cross = np.fft.irfft((np.fft.rfft(v) * np.fft.rfft(r).conj()).sum(axis=0), n)
    energy = _dot(v, v) + _dot(r, r)
    lags = np.arange(n)
    return _nearest(energy - 2 * cross, np.where(lags > n // 2, lags - n, lags), energy)


def _best_lag(pair: _Pair, axis: int) -> int:
    """The lag within ``REACH`` with the least mean squared difference where both overlap."""
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


def _moved_by(pair: _Pair, axis: int, lag: int) -> Finding | None:
    """The result delayed by ``lag``: a roll if the vacated end holds what left at the other, else a shift."""
    n, name = pair.shape[axis], pair.axes[axis]
    late, early = max(lag, 0), max(-lag, 0)
    value, reference = pair.cut(axis, late, n - early)
    source = pair.cut(axis, early, n - late)[1]
    direction = "late" if lag > 0 else "early"
    where = f"shifted by {_many(abs(lag), name)} ({direction})"
    facts = {"axis": name, "by": lag}
    if value.size < 4:  # too few to tell from chance
        return None
    found = _explains(_Candidate("shift", where, facts, value, reference, _seen(source)), pair)
    if found is None:
        return None
    vacated, was = pair.cut(axis, 0, late) if lag > 0 else pair.cut(axis, n - early, n)
    wrapped = pair.cut(axis, n - late, n)[1] if lag > 0 else pair.cut(axis, 0, early)[1]
    zero = _largest(vacated) <= pair.tolerance
    if not zero and _explains(_Candidate("roll", where, facts, vacated, was, _seen(wrapped)), pair) is not None:
        if 2 * abs(lag) == n:
            return Finding("roll", f"halves of the {name} axis swapped", {**found.facts, "by": n // 2})
        rolled = f"rolled by {_many(abs(lag), name)} ({direction}), wrapping around"
        return Finding("roll", rolled, found.facts)
    if abs(lag) > min(REACH, n // 2) or n < 4:
        return None
    return Finding("shift", where, {**found.facts, "zero_filled": zero})


def _largest(x: np.ndarray) -> float:
    return max((float(np.abs(_f64(x[s])).max()) for s in _blocks(x.shape)), default=0.0)


# Explanations of all values: another order


def _reordered(pair: _Pair) -> Finding | None:
    def flips() -> Iterator[_Candidate]:
        for axis, name in enumerate(pair.axes):
            if pair.shape[axis] >= 3:  # two exchanged are a permutation
                back = _seen(np.flip(pair.reference, axis))
                yield _Candidate("flip", f"the {name} axis reversed", {"axis": name}, pair.value, pair.reference, back)

    def orders() -> Iterator[_Candidate]:
        for find in (_interleaved, _matched):
            for axis in range(len(pair.axes)):
                order = find(pair, axis)
                if order is not None:
                    where, facts = _told_order(order, pair.axes[axis])
                    predict = _gathered(pair.reference, axis, order)
                    yield _Candidate("permutation", where, facts, pair.value, pair.reference, predict)

    return _first(pair, itertools.chain(flips(), orders()))


def _interleaved(pair: _Pair, axis: int) -> np.ndarray | None:
    """The axis split in two and read by columns, as by heads before features or phases before frames."""
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


def _matched(pair: _Pair, axis: int) -> np.ndarray | None:
    """For each index of an axis the reference's index that it matches best, each used once; None if all stay."""
    n = pair.shape[axis]
    if not 2 <= n <= LONGEST_ORDER or pair.value.size < 4 * n:
        return None
    v, r = (x[:: max(1, len(x) // 256)][:256].T for x in pair.lines(axis))
    distance = np.square(v).sum(1)[:, None] + np.square(r).sum(1)[None] - 2 * v @ r.T
    own, best = distance.diagonal(), distance.min(axis=1)
    # equal channels, as dead ones are, match each other: they stay
    slack = 1e-12 * np.square(v).sum(1)
    stays = own <= FEW * best + slack + v.shape[1] * pair.tolerance**2
    order = np.where(stays, np.arange(n), -1)
    distance[:, order[stays]] = math.inf
    for index in np.flatnonzero(~stays):
        order[index] = distance[index].argmin()
        distance[:, order[index]] = math.inf
    return None if stays.all() else order


def _told_order(order: np.ndarray, name: str) -> tuple[str, Facts]:
    n, moved = len(order), np.flatnonzero(order != np.arange(len(order)))
    facts: Facts = {"axis": name, "moved": len(moved), "order": order[:64].tolist()}
    if len(moved) == 2:
        return f"{_noun(name, 2)} {moved[0]} and {moved[1]} exchanged", facts
    columns = int(order[1])  # of a column the values stand a row apart
    if columns > 1 and n % columns == 0 and np.array_equal(order, np.arange(n).reshape(-1, columns).T.ravel()):
        facts["split"] = [n // columns, columns]
        return f"{_noun(name, n)} interleaved: {n // columns} x {columns} read by columns", facts
    return f"{_noun(name, n)} in another order ({len(moved)} of {n} moved)", facts


def _exchanged(pair: _Pair) -> Finding | None:
    """Axes in another order: of equal length, or read as if they stood in the right one."""

    def candidates() -> Iterator[_Candidate]:
        value, reference = pair.value, pair.reference
        for order in _axis_orders(pair.shape):
            turned = reference.transpose(order)
            names = [pair.axes[i] for i in order if pair.shape[i] > 1]
            facts = {"order": names}
            if turned.shape == pair.shape:
                moved = [pair.axes[i] for i, j in enumerate(order) if i != j]
                where = f"axes {_list(moved)} {'swapped' if len(moved) == 2 else 'turned round'}"
                yield _Candidate("transposed", where, facts, value, reference, _seen(turned))
                continue
            read = f"the order {', '.join(names)}"
            seen, was = value.reshape(turned.shape), reference.reshape(turned.shape)
            yield _Candidate("reshaped", f"values in {read}, not turned back", facts, seen, was, _seen(turned))
            back = np.argsort(order)
            where = f"values read in {read}, and turned back"
            yield _Candidate("reshaped", where, facts, value, reference, _seen(was.transpose(back)))

    return _first(pair, candidates())


def _axis_orders(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Orders of the axes longer than one, of four at most; exchanges of two before others."""
    long = [i for i, n in enumerate(shape) if n > 1]
    if len(long) > 4:
        return
    orders = []
    for turned in itertools.permutations(long):
        to = dict(zip(long, turned, strict=True))
        orders.append(tuple(to.get(i, i) for i in range(len(shape))))
    yield from sorted(orders, key=lambda order: sum(i != j for i, j in enumerate(order)))[1:]


# A factor or addend for each index of an axis


def _by_index(pair: _Pair) -> Finding | None:
    sums: dict[int, _Sums] = {}
    for axis in sorted(range(len(pair.axes)), key=lambda i: AXES.index(pair.axes[i])):
        n = pair.shape[axis]
        if 2 <= n <= pair.value.size // 4 and _promising(pair, axis):
            sums[axis] = _sums_along(pair, axis)

    def candidates() -> Iterator[_Candidate]:
        for model in ("gain", "offset", "affine"):
            for axis, of_axis in sums.items():
                g, c, _ = of_axis.fits()[model]
                if _mostly_idle(of_axis, g, c):
                    continue
                told = {
                    "gain": f"factor ({g.min():.4g} to {g.max():.4g})",
                    "offset": f"offset ({c.min():.4g} to {c.max():.4g})",
                }
                words = told.get(model) or f"{told['gain']} and {told['offset']}"
                facts: Facts = {"axis": pair.axes[axis]}
                if model != "offset":
                    facts["factors"] = [_json(g.min()), _json(g.max())]
                if model != "gain":
                    facts["offsets"] = [_json(c.min()), _json(c.max())]
                where = f"a different {words} for each {_noun(pair.axes[axis])}"
                predict = _scaled(pair.reference, g, c, axis)
                yield _Candidate(f"channel {model}", where, facts, pair.value, pair.reference, predict)

    return _first(pair, candidates())


def _mostly_idle(sums: _Sums, g: np.ndarray, c: np.ndarray) -> bool:
    """Whether half of the indices are left within 1 % as they are: the others are a place then, no law of the axis."""
    effect = (g - 1) ** 2 * sums.rr + 2 * (g - 1) * c * sums.r + c * c * sums.n
    idle = (effect <= 1e-4 * effect.max()) & (effect <= 1e-4 * sums.rr)
    return bool(np.count_nonzero(idle) >= len(g) / 2)


def _promising(pair: _Pair, axis: int) -> bool:
    """Whether the freest model explains the sample: the sums of all values take longer."""
    v, r = pair.lines(axis)
    if v.shape[1] < pair.shape[axis] or v.shape[0] < 4:
        return True
    pairs = ((v, v), (r, r), (v, r))
    sums = _Sums(len(v), v.sum(0), r.sum(0), *(np.einsum("ij,ij->j", a, b) for a, b in pairs))
    left = sums.fits()["affine"][2].sum()
    return bool(left <= np.square(v - r).sum() / 8 or left <= v.size * (FEW * pair.tolerance) ** 2)


def _sums_along(pair: _Pair, axis: int) -> _Sums:
    n = pair.shape[axis]
    totals = np.zeros((5, n))
    for s in _blocks(pair.shape):
        here = s[axis].stop - s[axis].start
        v, r = (np.moveaxis(_f64(x[s]), axis, 0).reshape(here, -1) for x in (pair.value, pair.reference))
        products = (np.einsum("ij,ij->i", a, b) for a, b in ((v, v), (r, r), (v, r)))
        totals[:, s[axis]] += np.stack([v.sum(1), r.sum(1), *products])
    return _Sums(pair.value.size // n, *totals)


# Places


class _Form(NamedTuple):
    """The wrong indices of one axis: ``mask`` marks them, holes filled."""

    axis: int
    kind: str  # "edge", "one", "range", "every", "runs" or "some"
    text: str
    facts: Facts
    mask: np.ndarray


def _form(bad: np.ndarray, axis: int, name: str) -> _Form | None:
    """The wrong indices in words; None if all are wrong, or none."""
    n, indices = len(bad), np.flatnonzero(bad)
    if len(indices) in (0, n):
        return None
    first, last = _margins(bad) if name in ORDERED else (0, 0)
    if first or last:
        mask = (np.arange(n) < first) | (np.arange(n) >= n - last)
        return _Form(axis, "edge", _told_edges([(name, first, last)]), {"first": first, "last": last}, mask)
    low, high = int(indices[0]), int(indices[-1])
    if low == high:
        return _Form(axis, "one", f"{_noun(name)} {low}", {"from": low, "to": low}, bad)
    length = high - low + 1
    if length < n and len(indices) >= 0.8 * length:
        mask = np.zeros(n, bool)
        mask[low : high + 1] = True
        return _Form(axis, "range", f"{_noun(name, 2)} {low} to {high}", {"from": low, "to": high}, mask)
    period = _period(bad)
    if period:
        places = np.unique(indices % period)
        start = f" from {places[0]}" if places[0] else ""
        every = f"every {_ordinal(period)} {_noun(name)}{start}"
        text = every if len(places) == 1 else f"{len(places)} of every {period} {_noun(name, 2)}"
        mask = np.isin(np.arange(n) % period, places)
        return _Form(axis, "every", text, {"every": period, "indices": places[:16].tolist()}, mask)
    stops = np.flatnonzero(np.diff(indices, append=-1) != 1)
    runs = zip(indices[[0, *(stops[:FEW_RUNS] + 1)][:-1]], indices[stops[:FEW_RUNS]], strict=True)
    shown = [str(start) if start == stop else f"{start} to {stop}" for start, stop in runs]
    facts = {"count": len(indices), "indices": indices[:16].tolist()}
    if len(stops) <= FEW_RUNS:
        return _Form(axis, "runs", f"{_noun(name, 2)} {_list(shown)}", facts, bad)
    return _Form(axis, "some", f"{len(indices)} of {n} {_noun(name, 2)} ({', '.join(shown)}, ...)", facts, bad)


def _margins(bad: np.ndarray) -> tuple[int, int]:
    """How many wrong positions at the start and at the end, if they lie only there; half of all at most."""
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
    """The period of a pattern that is seen at least three times, holes filled."""
    indices = np.flatnonzero(bad)
    # tiles are longer than any pattern in a network: their length shows as the distance of the first two runs
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


def _told_edges(edges: list[tuple[str, int, int]]) -> str:
    """Name, positions at the start, positions at the end: "last row and column", "first 2 rows and last column"."""
    groups: dict[tuple[int, int], list[str]] = {}
    for name, first, last in edges:
        groups.setdefault((first, last), []).append(name)
    told = []
    for (first, last), names in groups.items():
        nouns = _list([_noun(name, max(first, last)) for name in names])
        if first and last:
            how_many = "" if first == last == 1 else f" {last}"
            told.append(f"first{'' if first == last else f' {first}'} and last{how_many} {nouns}")
        else:
            k = first or last
            told.append(f"{'first' if first else 'last'}{f' {k}' if k > 1 else ''} {nouns}")
    return _list(told)


def _forms(bads: list[np.ndarray], axes: tuple[str, ...], wrong: int) -> list[_Form]:
    """The axes along which the wrong values keep to some indices, and that by no coincidence.

    By coincidence an index is clean with the probability that a value is clean (as inside the place), to the power of
    the values at that index. Less than a tenth of such coincidences must be expected; where most indices are wrong, a
    thousandth, as noise that is everywhere leaves some index clean now and then.
    """
    forms = [form for axis, name in enumerate(axes) if (form := _form(bads[axis], axis, name)) is not None]
    size = math.prod(len(bad) for bad in bads)
    for form in forms:
        size = size // len(form.mask) * int(np.count_nonzero(form.mask))
    clean = math.log10((size - wrong + 0.5) / (size + 1))

    def evident(form: _Form) -> bool:
        n, inside = len(form.mask), int(np.count_nonzero(form.mask))
        each, most = size // inside, 2 * inside > n
        if inside == 1 or (form.kind == "runs" and not most):
            return True
        if form.kind in ("runs", "some"):
            return each >= 4 and math.log10(n) + each * clean < math.log10(n - inside) - 3
        choices = n * n if form.kind == "every" else n
        return math.log10(choices) + (n - inside) * each * clean < (-3 if most else -1)

    return [form for form in forms if evident(form)]


def _place(pair: _Pair, threshold: float) -> Finding | None:
    """The place that holds all differences beyond the threshold, and nearly all of their energy."""
    return _box(pair, threshold) or _margins_of_axes(pair, threshold)


def _told_forms(forms: list[_Form]) -> str:
    edges = [form for form in forms if form.kind == "edge"]
    rest = [form.text for form in forms if form.kind != "edge"]
    if len(edges) > 1:
        rest.append(f"where {_list([form.text for form in edges])} meet")
    else:
        rest += [form.text for form in edges]
    return ", ".join(rest) + (" only" if forms[-1].kind == "one" and not edges else "")


def _box(pair: _Pair, threshold: float) -> Finding | None:
    """Some indices of some axes, wrong where they meet."""
    strict = threshold <= pair.tolerance
    wrong = pair.measured.wrong if strict else _count_beyond(pair, threshold)
    forms = _forms([profile > threshold for profile in pair.measured.profiles], pair.axes, wrong)
    firm = [form for form in forms if form.kind != "some"]
    if not strict:  # the peaks of noise that is everywhere lie at some indices or other
        forms = firm
    if len(firm) < len(forms):
        # a sparse last row is wrong at some columns only, and the last column is not: first and last tell it better
        part = _part(pair, firm)
        edges = _margins_of_axes(part, threshold) if part is not None else None
        if edges is not None and not firm:
            return edges
        forms = firm if edges is not None else forms
    if not forms or not _stands_out(pair, _energy_at(pair, forms), _size_at(pair, forms), strict):
        return None
    facts: Facts = {"axes": {pair.axes[form.axis]: form.facts for form in forms}}
    if not strict:
        facts["mostly"] = True
    inside = _inside(pair, forms)
    if inside is not None and inside.kind.startswith("channel"):
        # an index that a factor or offset happens to leave alone makes no place of all the others
        overall = _by_index(pair)
        if overall is not None:
            return overall
    facts["zero_there"] = inside is not None and inside.kind == "zero" and inside.facts["constant"] == 0
    if inside is not None:
        facts["inside"] = {"kind": inside.kind, "where": inside.where, "facts": inside.facts}
    kind = "edge" if any(form.kind == "edge" for form in forms) else "part"
    return Finding(kind, ("" if strict else "mostly ") + _told_forms(forms), facts)


def _stands_out(pair: _Pair, energy: float, size: int, strict: bool) -> bool:
    """Whether the difference in a place is 12 dB above that outside, not the tail of what is everywhere.

    Of a place that holds most of the difference only, 99 % of the energy are asked too.
    """
    outside = max(0.0, pair.measured.dd - energy)
    level = energy / size >= 16 * outside / max(1, pair.value.size - size)
    return level and (strict or outside <= pair.measured.dd / 100)


def _size_at(pair: _Pair, forms: list[_Form]) -> int:
    size = pair.value.size
    for form in forms:
        size = size // len(form.mask) * int(np.count_nonzero(form.mask))
    return size


def _count_beyond(pair: _Pair, threshold: float) -> int:
    blocks = _blocks(pair.shape)
    return sum(int(np.count_nonzero(np.abs(_f64(pair.value[s]) - _f64(pair.reference[s])) > threshold)) for s in blocks)


def _energy_at(pair: _Pair, forms: list[_Form]) -> float:
    energy = 0.0
    for s in _blocks(pair.shape):
        d = _f64(pair.value[s]) - _f64(pair.reference[s])
        for form in forms:
            d = d.compress(form.mask[s[form.axis]], axis=form.axis)
        energy += _dot(d, d)
    return energy


def _inside(pair: _Pair, forms: list[_Form]) -> Finding | None:
    """What explains the difference within a place."""
    part = _part(pair, forms)
    return None if part is None else _explained(part) or _margins_of_axes(part, pair.tolerance) or _by_index(part)


def _part(pair: _Pair, forms: list[_Form]) -> _Pair | None:
    """The pair within a place; None if that takes a large copy."""
    value, reference = pair.value, pair.reference
    for form in forms:
        indices = np.flatnonzero(form.mask)
        steps = np.diff(indices)
        if len(indices) == 1 or (steps == steps[0]).all():
            step = int(steps[0]) if len(steps) else 1
            s = (slice(None),) * form.axis + (slice(int(indices[0]), int(indices[-1]) + 1, step),)
            value, reference = value[s], reference[s]
        elif value.size // pair.shape[form.axis] * len(indices) <= LARGEST_COPY:
            value, reference = value.take(indices, form.axis), reference.take(indices, form.axis)
        else:
            return None
    return _Pair(value, reference, pair.axes, pair.tolerance)


def _margins_of_axes(pair: _Pair, threshold: float) -> Finding | None:
    """The first and last positions of at least two axes, wrong wherever one of them is."""
    long = [axis for axis, n in enumerate(pair.shape) if n >= 3]
    # along one axis, the margins of the others would make all wrong: only their middle is looked at
    middles = [slice(n // 4 or 1, n - (n // 4 or 1)) if n >= 3 else slice(0, n) for n in pair.shape]
    edges: dict[int, tuple[int, int]] = {}
    for axis in long:
        middle = (*middles[:axis], slice(None), *middles[axis + 1 :])
        first, last = _margins(axis_profile(pair.value[middle], pair.reference[middle], axis) > threshold)
        if first or last:
            edges[axis] = (first, last)
    if len(edges) < 2:
        return None
    inner = tuple(slice(edges.get(i, (0, 0))[0], n - edges.get(i, (0, 0))[1]) for i, n in enumerate(pair.shape))
    rest = _Pair(pair.value[inner], pair.reference[inner], pair.axes, pair.tolerance)
    size = pair.value.size - rest.value.size
    strict = threshold <= pair.tolerance
    wrong = pair.measured.wrong if strict else _count_beyond(pair, threshold)
    chance = math.log10(max(pair.shape)) + rest.value.size * math.log10((max(0, size - wrong) + 0.5) / (size + 1))
    if chance >= -3 or rest.measured.max_abs > threshold:
        return None
    if not _stands_out(pair, pair.measured.dd - rest.measured.dd, size, strict):
        return None
    facts: Facts = {"axes": {pair.axes[i]: {"first": first, "last": last} for i, (first, last) in edges.items()}}
    if not strict:
        facts["mostly"] = True
    facts["zero_there"] = all(_largest(slab) <= pair.tolerance for slab in _slabs(pair, edges))
    told = _told_edges([(pair.axes[i], first, last) for i, (first, last) in edges.items()])
    return Finding("edge", ("" if strict else "mostly ") + told, facts)


def _slabs(pair: _Pair, edges: dict[int, tuple[int, int]]) -> Iterator[np.ndarray]:
    for axis, (first, last) in edges.items():
        n = pair.shape[axis]
        yield pair.cut(axis, 0, first)[0]
        yield pair.cut(axis, n - last, n)[0]


# Neither explained nor placed


def _spread(pair: _Pair) -> Finding:
    measured, size = pair.measured, pair.value.size
    n, v, r, vv, rr, vr = measured.sums
    ratio = rr / measured.dd if measured.dd > 0 else math.nan
    snr = 10 * math.log10(ratio) if 0 < ratio < math.inf else math.nan
    with_value = _correlation(n, v, r, vv, rr, vr)
    with_difference = _correlation(n, measured.d, r, measured.dd, rr, measured.dr)
    facts = {"snr_db": _json(snr), "correlation": _json(with_value), "difference_correlation": _json(with_difference)}
    if measured.wrong < 0.1 * size and measured.wrong_energy >= 0.99 * measured.dd:
        return Finding("scattered", f"scattered: {measured.wrong} of {size} values", facts)
    alike = abs(with_difference) <= max(0.1, 3 / math.sqrt(size)) and with_value >= 0.1
    if size >= 32 and alike:
        level = f"{abs(snr):.0f} dB {'below' if snr >= 0 else 'above'} it"
        return Finding("noise", f"everywhere, not correlated with the reference, {level}", facts)
    told = f", correlation with the reference {with_value:.3g}" if math.isfinite(with_value) else ""
    return Finding("everywhere", f"everywhere{told}", facts)


def _correlation(n: float, a: float, b: float, aa: float, bb: float, ab: float) -> float:
    """From sums; NaN where one is constant."""
    scale = (aa - a * a / n) * (bb - b * b / n)
    return float((ab - a * b / n) / math.sqrt(scale)) if 1e-24 * aa * bb < scale < math.inf else math.nan


# Not comparable value by value


def _not_finite(pair: _Pair) -> Finding | None:
    facts: Facts = {}
    told = []
    for side, name, x in (("value", "result", pair.value), ("reference", "reference", pair.reference)):
        counts, first, bads = _count_not_finite(x)
        if first is None:
            continue
        at = dict(zip(pair.axes, first, strict=True))
        facts[side] = {**counts, "first": at}
        amount = _list([f"{n} {'NaN' if what == 'nan' else 'infinite'}" for what, n in counts.items() if n])
        index = ", ".join(f"{_noun(axis)} {i}" for (axis, i), n in zip(at.items(), pair.shape, strict=True) if n > 1)
        place = _told_forms(forms) if (forms := _forms(bads, pair.axes, sum(counts.values()))) else ""
        whole = place if place and sum(counts.values()) > 1 else ""
        told.append(f"{amount} in the {name}{f', first at {index}' if index else ''}{f' ({whole})' if whole else ''}")
    return Finding("not finite", "; ".join(told), facts) if told else None


def _count_not_finite(x: np.ndarray) -> tuple[dict[str, int], tuple[int, ...] | None, list[np.ndarray]]:
    """How many NaN and infinities, the index of the first of them, and which indices of each axis hold one."""
    counts, first = {"nan": 0, "inf": 0}, None
    profiles = [np.zeros(n, bool) for n in x.shape]
    for s in _blocks(x.shape):
        block = _f64(x[s])
        bad = ~np.isfinite(block)
        if not bad.any():
            continue
        nan = int(np.count_nonzero(np.isnan(block)))
        counts["nan"] += nan
        counts["inf"] += int(np.count_nonzero(bad)) - nan
        if first is None:
            inner = np.unravel_index(bad.argmax(), bad.shape)
            first = tuple(int(i) + here.start for i, here in zip(inner, s, strict=True))
        for axis, profile in enumerate(profiles):
            _raise_profile(profile, bad, s, axis)
    return counts, first, profiles


def _other_shape(value: np.ndarray, reference: np.ndarray, axes: tuple[str, ...], tolerance: float) -> Finding:
    shapes: Facts = {"shape": list(value.shape), "reference_shape": list(reference.shape)}
    if not value.size or not reference.size:
        where = f"{'the result' if not value.size else 'the reference'} is empty"
        return Finding("shape", where, shapes)
    if value.ndim != reference.ndim:
        where, rest = f"{value.ndim} {'axis' if value.ndim == 1 else 'axes'} instead of {reference.ndim}", None
        if value.size == reference.size:
            where += ", as many values; read in order"
            rest = _same_shape(_Pair(value.reshape(reference.shape), reference, axes, tolerance))
        return _with_rest(where, shapes, rest, "they agree")
    if sorted(value.shape) == sorted(reference.shape):
        return _turned(value, reference, axes, tolerance, shapes)
    return _longer(value, reference, axes, tolerance, shapes)


def _with_rest(where: str, facts: Facts, rest: Finding | None, agrees: str = "the rest agrees") -> Finding:
    """A finding of another shape together with that of the values that can be compared."""
    if rest is None:
        return Finding("shape", where, facts)
    told = agrees if rest.kind == "none" else f"the rest: {rest.sentence}"
    link = " " if where.endswith("order") and rest.kind == "none" else "; "
    return Finding("shape", f"{where}{link}{told}", {**facts, "rest": {"kind": rest.kind, "where": rest.where}})


def _turned(
    value: np.ndarray, reference: np.ndarray, axes: tuple[str, ...], tolerance: float, shapes: Facts
) -> Finding:
    """The same lengths in another order."""
    best: tuple[tuple[int, ...], Finding] | None = None
    for order in itertools.permutations(range(value.ndim)) if value.ndim <= 5 else ():
        if value.transpose(order).shape != reference.shape:
            continue
        found = _same_shape(_Pair(value.transpose(order), reference, axes, tolerance))
        if best is None or found.kind == "none":
            best = order, found
        if found.kind == "none":
            break
    if best is None:
        return Finding("shape", "axes in another order", shapes)
    order, found = best
    moved = [axes[i] for i, j in enumerate(order) if i != j and value.shape[i] != reference.shape[i]]
    where = f"axes {_list(moved)} {'swapped' if len(moved) == 2 else 'in another order'}"
    return _with_rest(where, {**shapes, "swapped": moved}, found)


def _longer(
    value: np.ndarray, reference: np.ndarray, axes: tuple[str, ...], tolerance: float, shapes: Facts
) -> Finding:
    """Axes that are longer or shorter; the part that both have is compared where it fits."""
    more = {i: a - b for i, (a, b) in enumerate(zip(value.shape, reference.shape, strict=True)) if a != b}
    amount = {i: f"one {_noun(axes[i])}" if abs(k) == 1 else _many(abs(k), axes[i]) for i, k in more.items()}
    longer = [amount[i] for i, k in more.items() if k > 0]
    shorter = [amount[i] for i, k in more.items() if k < 0]
    told = [f"{_list(words)} {how}" for words, how in ((longer, "longer"), (shorter, "shorter")) if words]
    where = _list(told)
    facts = {**shapes, "longer": {axes[i]: k for i, k in more.items()}}
    common = tuple(min(a, b) for a, b in zip(value.shape, reference.shape, strict=True))
    for at, offsets in _alignments(more):
        v, r = (_cut(x, offsets, common) for x in (value, reference))
        if _agree(v, r, tolerance):
            return _with_rest(f"{where} {at}", {**facts, "at": at}, Finding("none", "", {}))
    strided = _strided(value, reference, axes, tolerance) if len(more) == 1 else None
    if strided is not None:
        return Finding("shape", f"{where}; {strided}", {**facts, "strided": True})
    crop = tuple(slice(0, n) for n in common)
    return _with_rest(where, facts, _same_shape(_Pair(value[crop], reference[crop], axes, tolerance)))


def _alignments(more: dict[int, int]) -> Iterator[tuple[str, dict[int, int]]]:
    """Where the surplus may be, and how much of it is then at the start, by axis."""
    yield "at the end", dict.fromkeys(more, 0)
    yield "at the start", {i: abs(k) for i, k in more.items()}
    yield "at both ends", {i: abs(k) // 2 for i, k in more.items()}
    if len(more) == 1:
        ((axis, k),) = more.items()
        for start in range(1, min(abs(k), 128)):
            yield f"({start} at the start, {abs(k) - start} at the end)", {axis: start}


def _cut(x: np.ndarray, offsets: dict[int, int], common: tuple[int, ...]) -> np.ndarray:
    """The common part, the offset applied to the side that is longer."""
    starts = [offsets.get(i, 0) if n > common[i] else 0 for i, n in enumerate(x.shape)]
    return x[tuple(slice(start, start + n) for start, n in zip(starts, common, strict=True))]


def _agree(value: np.ndarray, reference: np.ndarray, tolerance: float) -> bool:
    """Whether all values agree; NaN agrees with nothing."""
    return all((np.abs(_f64(value[s]) - _f64(reference[s])) <= tolerance).all() for s in _blocks(value.shape))


def _strided(value: np.ndarray, reference: np.ndarray, axes: tuple[str, ...], tolerance: float) -> str | None:
    """An upsampling or downsampling that is missing."""
    axis = next(i for i, (a, b) in enumerate(zip(value.shape, reference.shape, strict=True)) if a != b)
    a, b = value.shape[axis], reference.shape[axis]
    long, short = (value, reference) if a > b else (reference, value)
    step = -(-max(a, b) // min(a, b))
    thinned = long[(slice(None),) * axis + (slice(None, None, step),)]
    if thinned.shape != short.shape or not _agree(thinned, short, tolerance):
        return None
    every = f"every {_ordinal(step)} {_noun(axes[axis])}"
    return f"{every} of it agrees" if a > b else f"it is {every} of the reference"
