"""A result and its reference, read in blocks of float64, with the sums and profiles that the detectors share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np

Slices = tuple[slice, ...]
P = ParamSpec("P")
T = TypeVar("T")

ORDERED = ("frame", "sample", "row", "column", "query", "key", "bin", "band")
# in the order in which a factor per index is likely: the axes of biases and norms first
AXES = ("channel", "feature", "head", "band", "bin", "batch", *(a for a in ORDERED if a not in ("band", "bin")))

FEW = 4.0  # multiple of the tolerance that an explanation may leave as rounding
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


def blocks(shape: tuple[int, ...]) -> Iterator[Slices]:
    """Slices that cover an array of this shape, at most ``BLOCK`` values each; none for an empty array."""
    if 0 in shape:
        return
    if not shape:
        yield ()
        return
    rest = math.prod(shape[1:])
    step = max(1, BLOCK // max(1, rest))
    for start in range(0, shape[0], step):
        rows = slice(start, min(start + step, shape[0]))
        if rest <= BLOCK:
            yield (rows, *(slice(0, n) for n in shape[1:]))
        else:
            yield from ((rows, *inner) for inner in blocks(shape[1:]))


def paired_blocks(value: np.ndarray, reference: np.ndarray) -> Iterator[tuple[Slices, np.ndarray, np.ndarray]]:
    """Each block's slices with both arrays there in float64."""
    return ((s, f64(value[s]), f64(reference[s])) for s in blocks(value.shape))


def raise_profile(profile: np.ndarray, block: np.ndarray, s: Slices, axis: int) -> None:
    """Merge the maxima of a block into the profile of one axis."""
    others = tuple(i for i in range(block.ndim) if i != axis)
    np.maximum(profile[s[axis]], block.max(axis=others), out=profile[s[axis]])


def axis_profile(value: np.ndarray, reference: np.ndarray, axis: int) -> np.ndarray:
    """Largest absolute difference at each index of one axis ``[n]``, float64; NaN where a difference is NaN.

    Raises:
        ValueError: the shapes differ, or there is no such axis.
    """
    if value.shape != reference.shape or not -value.ndim <= axis < value.ndim:
        raise ValueError(f"no profile along axis {axis} of {list(value.shape)} and {list(reference.shape)}")
    axis %= value.ndim
    profile = np.zeros(value.shape[axis])
    with np.errstate(all="ignore"):
        for s, v, r in paired_blocks(value, reference):
            raise_profile(profile, np.abs(v - r), s, axis)
    return profile


def largest(x: np.ndarray) -> float:
    return max((float(np.abs(f64(x[s])).max()) for s in blocks(x.shape)), default=0.0)


def agree(value: np.ndarray, reference: np.ndarray, tolerance: float) -> bool:
    """Whether all values are within the tolerance; NaN never is."""
    return all((np.abs(v - r) <= tolerance).all() for _, v, r in paired_blocks(value, reference))


class Sums(NamedTuple):
    """Sums of results v, references r and their products; numbers, or one for each index of an axis."""

    n: Any
    v: Any
    r: Any
    vv: Any
    rr: Any
    vr: Any

    def fits(self) -> dict[str, tuple[Any, Any, Any]]:
        """For each model the least-squares factor and offset, and the sum of squares that remains."""
        n, v, r, vv, rr, vr = (np.asarray(x, np.float64) for x in self)
        ones, zeros = np.ones_like(v), np.zeros_like(v)
        spread = rr - r * r / n
        gain = np.divide(vr, rr, out=ones.copy(), where=rr > 0)
        slope = np.divide(vr - v * r / n, spread, out=ones.copy(), where=spread > 1e-12 * rr)
        models = {"gain": (gain, zeros), "offset": (ones, (v - r) / n), "affine": (slope, (v - slope * r) / n)}
        return {
            name: (g, c, vv + g * g * rr + n * c * c - 2 * g * vr - 2 * c * v + 2 * g * c * r)
            for name, (g, c) in models.items()
        }


class Measured(NamedTuple):
    """The result of one pass over a pair; d is the result minus the reference."""

    max_abs: float
    at: tuple[int, ...]
    wrong: int  # values beyond the tolerance
    wrong_energy: float
    sums: Sums
    d: float
    dd: float
    dr: float
    zeros: int  # of the reference
    d_at_zeros: float
    range_v: tuple[float, float]
    range_r: tuple[float, float]
    profiles: list[np.ndarray]


class Pair:
    """A result and its reference with the names of the axes. ``measured`` needs equal shapes and finite values."""

    def __init__(self, value: np.ndarray, reference: np.ndarray, axes: tuple[str, ...], tolerance: float) -> None:
        self.value, self.reference, self.axes, self.tolerance = value, reference, axes, tolerance
        self.shape = value.shape
        self.computed: dict[tuple[Any, ...], Any] = {}

    @cached_property
    def measured(self) -> Measured:
        totals, wrong, wrong_energy, max_abs, at = np.zeros(8), 0, 0.0, -1.0, (0,) * len(self.shape)
        zeros, d_at_zeros = 0, 0.0
        ends = np.array([math.inf, -math.inf] * 2)
        profiles = [np.zeros(n) for n in self.shape]
        for s, v, r in paired_blocks(self.value, self.reference):
            d = v - r
            products = (dot(a, b) for a, b in ((v, v), (r, r), (v, r), (d, d), (d, r)))
            totals += [v.sum(), r.sum(), d.sum(), *products]
            if here := r.size - int(np.count_nonzero(r)):
                zeros, d_at_zeros = zeros + here, d_at_zeros + float(d[r == 0].sum())
            ends[::2] = np.minimum(ends[::2], [v.min(), r.min()])
            ends[1::2] = np.maximum(ends[1::2], [v.max(), r.max()])
            d = np.abs(d)
            beyond = d > self.tolerance
            wrong += int(np.count_nonzero(beyond))
            wrong_energy += float(np.square(d[beyond]).sum())
            for axis, profile in enumerate(profiles):
                raise_profile(profile, d, s, axis)
            if d.max() > max_abs:
                max_abs = float(d.max())
                inner = np.unravel_index(d.argmax(), d.shape)
                at = tuple(int(i) + part.start for i, part in zip(inner, s, strict=True))
        v, r, d, vv, rr, vr, dd, dr = totals.tolist()
        low_v, high_v, low_r, high_r = ends.tolist()
        return Measured(
            max_abs, at, wrong, wrong_energy, Sums(self.value.size, v, r, vv, rr, vr), d, dd, dr, zeros, d_at_zeros,
            (low_v, high_v), (low_r, high_r), profiles,
        )  # fmt: skip

    def cut(self, axis: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Views of both arrays, limited to a range of one axis."""
        s = (slice(None),) * axis + (slice(start, stop),)
        return self.value[s], self.reference[s]

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


def once(function: Callable[Concatenate[Pair, P], T]) -> Callable[Concatenate[Pair, P], T]:
    """Compute once for each pair and arguments: several detectors read the same result."""

    @functools.wraps(function)
    def cached(pair: Pair, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (function, *args, *kwargs.items())
        if key not in pair.computed:
            pair.computed[key] = function(pair, *args, **kwargs)
        found: T = pair.computed[key]
        return found

    return cached
