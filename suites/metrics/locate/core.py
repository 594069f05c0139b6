"""A result and its reference, what detectors propose about it, and the criterion that accepts a proposal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar, cast, get_args

import numpy as np

KindName = Literal[
    "none", "empty", "shape", "not finite", "zero", "mask", "near zero", "sign", "gain", "offset", "affine", "roll",
    "shift", "flip", "permutation", "transposed", "reshaped", "edge", "part", "channel gain", "channel offset",
    "channel affine", "scattered", "noise", "everywhere",
]  # fmt: skip
Slices = tuple[slice, ...]
Predict = Callable[[Slices], np.ndarray]
Facts = dict[str, Any]
T = TypeVar("T")

ORDERED = ("frame", "sample", "row", "column", "query", "key", "bin", "band")
# in the order in which a factor per index is likely: the axes of biases and norms first
AXES = ("channel", "feature", "head", "band", "bin", "batch", *(a for a in ORDERED if a not in ("band", "bin")))

FEW = 4.0  # multiple of the tolerance that an explanation may leave as rounding
SPOILED = 0.05  # share of the values that an explanation may make worse
BLOCK = 1 << 16  # values converted to float64 at a time
SAMPLE = 1 << 17  # values that a search reads


def f64(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64)


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """Sum of products, without BLAS: its threads wait for each other when other processes use the cores."""
    return float(np.einsum("i,i->", a.ravel(), b.ravel()))


def number(x: float) -> float | None:
    """For JSON, which has neither NaN nor infinity."""
    return float(x) if math.isfinite(x) else None


def slices(shape: tuple[int, ...]) -> Iterator[Slices]:
    """Blocks that cover an array of this shape, at most ``BLOCK`` values each; none for an empty array."""
    if not shape:
        yield ()
        return
    step = max(1, BLOCK // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], step):
        rows = slice(start, min(start + step, shape[0]))
        yield from ((rows, *inner) for inner in slices(shape[1:]))


def blocks(value: np.ndarray, reference: np.ndarray) -> Iterator[tuple[Slices, np.ndarray, np.ndarray]]:
    """Each block's slices, and both arrays there in float64."""
    return ((s, f64(value[s]), f64(reference[s])) for s in slices(value.shape))


class Sums(NamedTuple):
    """Sums of results v, references r and their products; numbers, or one for each index of an axis."""

    n: Any
    v: Any
    r: Any
    vv: Any
    rr: Any
    vr: Any

    def fit(self, model: str) -> tuple[Any, Any]:
        """Least-squares factor and offset of ``gain``, ``offset`` or ``affine``."""
        n, v, r, _, rr, vr = (np.asarray(x, np.float64) for x in self)
        if model == "offset":
            return np.ones_like(v), (v - r) / n
        if model == "gain":
            return np.divide(vr, rr, out=np.ones_like(v), where=rr > 0), np.zeros_like(v)
        spread = rr - r * r / n
        slope = np.divide(vr - v * r / n, spread, out=np.ones_like(v), where=spread > 1e-12 * rr)
        return slope, (v - slope * r) / n


class Measured:
    """One pass over a pair with d = v - r, the result minus the reference."""

    def __init__(self, pair: Pair) -> None:
        self.max_abs, self.at = -1.0, (0,) * len(pair.shape)
        self.wrong, self.wrong_energy = 0, 0.0  # of values beyond the tolerance
        self.zeros, self.d_at_zeros = 0, 0.0  # where the reference is zero
        self.profiles = [np.zeros(n) for n in pair.shape]
        totals, ends = np.zeros(8), np.array([[math.inf, -math.inf]] * 2)
        for s, v, r in blocks(pair.value, pair.reference):
            d = v - r
            products = (dot(a, b) for a, b in ((v, v), (r, r), (v, r), (d, d), (d, r)))
            totals += [v.sum(), r.sum(), d.sum(), *products]
            if zeros := r.size - int(np.count_nonzero(r)):
                self.zeros, self.d_at_zeros = self.zeros + zeros, self.d_at_zeros + float(d[r == 0].sum())
            ends[:, 0] = np.minimum(ends[:, 0], [v.min(), r.min()])
            ends[:, 1] = np.maximum(ends[:, 1], [v.max(), r.max()])
            d = np.abs(d)
            beyond = d > pair.tolerance
            self.wrong += int(np.count_nonzero(beyond))
            self.wrong_energy += float(np.square(d[beyond]).sum())
            for axis, profile in enumerate(self.profiles):
                _raise(profile, d, s, axis)
            if d.max() > self.max_abs:
                self.max_abs = float(d.max())
                inner = np.unravel_index(d.argmax(), d.shape)
                self.at = tuple(int(i) + part.start for i, part in zip(inner, s, strict=True))
        total_v, total_r, self.d, vv, rr, vr, self.dd, self.dr = totals.tolist()
        self.sums = Sums(pair.value.size, total_v, total_r, vv, rr, vr)
        self.range_v, self.range_r = ends.tolist()


class Pair:
    """A result and its reference with the names of the axes. ``measured`` needs equal shapes and finite values."""

    def __init__(self, value: np.ndarray, reference: np.ndarray, axes: tuple[str, ...], tolerance: float) -> None:
        self.value, self.reference, self.axes, self.tolerance = value, reference, axes, tolerance
        self.shape = value.shape
        self.computed: dict[tuple[Any, ...], Any] = {}

    @cached_property
    def measured(self) -> Measured:
        return Measured(self)

    def once(self, function: Callable[..., T], *args: Any) -> T:
        """The function's result for this pair, computed once: several detectors read it."""
        key = (function, *args)
        if key not in self.computed:
            self.computed[key] = function(self, *args)
        return cast(T, self.computed[key])

    def like(self, value: np.ndarray, reference: np.ndarray) -> Pair:
        return Pair(value, reference, self.axes, self.tolerance)

    def agrees(self) -> bool:
        """Whether all values are within the tolerance; NaN never is."""
        return all((np.abs(v - r) <= self.tolerance).all() for _, v, r in blocks(self.value, self.reference))

    def beyond(self, threshold: float) -> int:
        return sum(int(np.count_nonzero(np.abs(v - r) > threshold)) for _, v, r in blocks(self.value, self.reference))

    def at(self, s: Slices) -> Pair:
        return self.like(self.value[s], self.reference[s])

    def cut(self, axis: int, start: int, stop: int) -> Pair:
        return self.at((slice(None),) * axis + (slice(start, stop),))

    def is_zero(self) -> bool:
        """Whether the result is within the tolerance of zero."""
        return all((np.abs(f64(self.value[s])) <= self.tolerance).all() for s in slices(self.shape))

    def lines(self, axis: int, longest: int = SAMPLE) -> tuple[np.ndarray, np.ndarray]:
        """Lines of both arrays along an axis, float64 ``[lines, n]``: all, or ``SAMPLE`` values chosen at random.

        If the axis is longer than ``longest``, a section of that length around the largest difference.
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
        v, r = (f64(x[where]).reshape(len(chosen), -1) for x in views)
        return v, r


def axis_profile(value: np.ndarray, reference: np.ndarray, axis: int) -> np.ndarray:
    """Largest absolute difference at each index of one axis ``[n]``, float64; NaN where a difference is NaN.

    Raises ``ValueError``: the shapes differ, or there is no such axis."""
    if value.shape != reference.shape or not -value.ndim <= axis < value.ndim:
        raise ValueError(f"no profile along axis {axis} of {list(value.shape)} and {list(reference.shape)}")
    axis %= value.ndim
    profile = np.zeros(value.shape[axis])
    with np.errstate(all="ignore"):
        for s, v, r in blocks(value, reference):
            _raise(profile, np.abs(v - r), s, axis)
    return profile


def _raise(profile: np.ndarray, block: np.ndarray, s: Slices, axis: int) -> None:
    here = block.max(axis=tuple(i for i in range(block.ndim) if i != axis))
    np.maximum(profile[s[axis]], here, out=profile[s[axis]])


class Finding(NamedTuple):
    """What the difference is: ``kind`` for programs, ``where`` for readers, ``facts`` as JSON values.

    Where values were compared, ``facts`` holds ``max_abs``, ``at`` (index of that value by axis name), ``wrong`` and
    ``values`` (counts). An explanation adds ``remains`` (largest difference from its prediction) and ``removed_db``
    (how far it lowers the difference, at most 300). ``edge`` and ``part`` add ``axes`` (places by axis name),
    ``zero_there`` and, if the difference inside the place has an explanation, ``inside`` (its kind, where and facts).
    """

    kind: KindName
    where: str
    facts: Facts

    @property
    def sentence(self) -> str:
        """``where`` and what is known about the values inside that place: "last row and column; zero there"."""
        if self.facts.get("zero_there"):
            return f"{self.where}; zero there"
        inside = self.facts.get("inside")
        return f"{self.where}; {inside['where'].removesuffix(' everywhere')} there" if inside else self.where


class Match(NamedTuple):
    """What a detector proposes; ``facts`` and ``words`` fill the sentence of its kind.

    ``predict`` gives the values expected in a block of ``within`` (None: the pair); a match without it needs no test.
    """

    facts: Facts
    words: dict[str, Any]
    predict: Predict | None = None
    within: Pair | None = None


class Kind:
    """A row of the registry: a kind, its sentence as a template, and the detector whose matches fill it in.

    Raises ``ValueError``: the name is no kind."""

    def __init__(self, name: KindName, sentence: str, detect: Callable[..., Iterator[Match]], *options: Any) -> None:
        if name not in get_args(KindName):
            raise ValueError(f"unknown kind of difference {name!r}")
        self.name, self.sentence, self.detect, self.options = name, sentence, detect, options

    def findings(self, pair: Pair) -> Iterator[Finding]:
        """The matches that meet the criterion."""
        for facts, words, predict, within in self.detect(pair, *self.options):
            fit = {} if predict is None else explains(pair, within or pair, predict)
            if fit is not None:
                yield Finding(self.name, self.sentence.format(**{**facts, **words}), {**facts, **fit})


def search(groups: Sequence[Sequence[Kind]], pair: Pair) -> Finding | None:
    """The finding of the first group that has one.

    Within a group it is the first that leaves only rounding; else the first that no other surpasses by 10 dB, as a
    gain may surpass a sign.
    """
    for group in groups:
        rough = []
        for found in (found for kind in group for found in kind.findings(pair)):
            if found.facts.get("remains", 0.0) <= FEW * pair.tolerance:
                return found
            rough.append(found)
        if rough:
            best = max(found.facts["removed_db"] for found in rough)
            return next(found for found in rough if found.facts["removed_db"] >= best - 10)
    return None


def explains(pair: Pair, within: Pair, predict: Predict) -> Facts | None:
    """``remains`` and ``removed_db`` of a prediction that meets the criterion; stops reading as soon as it cannot."""
    before = left = most_before = most = 0.0
    spoiled = 0
    for s, v, r in blocks(within.value, within.reference):
        d, e = np.abs(v - r), np.abs(v - predict(s))
        before, left = before + dot(d, d), left + dot(e, e)
        most_before, most = max(most_before, float(d.max())), max(most, float(e.max()))
        spoiled += int(np.count_nonzero((d <= pair.tolerance) & (e > FEW * pair.tolerance)))
        # 12 dB, a sixteenth of the energy, is the least that is required
        if left > pair.measured.dd / 16 or spoiled > SPOILED * within.value.size:
            return None
    if not 0 < before < math.inf or most_before <= pair.tolerance:
        return None
    if not (left <= before / 100 or (left <= before / 16 and most <= FEW * pair.tolerance)):
        return None
    removed = 10 * math.log10(before / max(left, 1e-30 * before, 1e-300))
    return {"remains": number(most), "removed_db": round(removed, 1)}


def view(array: np.ndarray) -> Predict:
    """A prediction that is already an array."""
    return lambda s: f64(array[s])
