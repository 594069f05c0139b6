"""Finds the order of axes in which a dumped array has the reference's values. Pure NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Axes = tuple[str, ...]
# orders of more axes are not tried
MOST_AXES = 5


class Arranged(NamedTuple):
    """``array`` in the reference's layout. ``how``: what the dumped layout is called; empty: it is the reference's.
    ``to``: the order of axes that the transpose leads to; empty where the shape alone differs."""

    array: np.ndarray
    how: str = ""
    to: str = ""


def arranged(value: np.ndarray, reference: np.ndarray, axes: Axes, right: Callable[[np.ndarray], bool]) -> Arranged:
    """The layout in which the values are ``right``; else the likeliest in which they fit; else as they are."""
    if value.shape == reference.shape and right(value):
        return Arranged(value)
    fitting = list(_layouts(value, reference, axes))
    for one in fitting:
        if right(one.array):
            return one
    if value.shape == reference.shape:
        return Arranged(value)
    if fitting:
        return min(fitting, key=lambda one: _distance(one.array, reference))
    return _of_other_lengths(value, reference, axes)


def _layouts(value: np.ndarray, reference: np.ndarray, axes: Axes) -> Iterator[Arranged]:
    """Every layout with the reference's number of values: axes in another order, then values in another shape."""
    if value.size != reference.size or not value.size:
        return
    squeezed = value.squeeze()
    long = [i for i, n in enumerate(reference.shape) if n > 1]
    shape = tuple(reference.shape[i] for i in long)
    if squeezed.ndim <= MOST_AXES and sorted(squeezed.shape) == sorted(shape):
        for order in itertools.permutations(range(squeezed.ndim)):
            turned = squeezed.transpose(order)
            if turned.shape == shape:
                # position of each of the reference's long axes in the value
                names = [""] * len(order)
                for place, axis in zip(order, long, strict=True):
                    names[place] = axes[axis]
                yield _named(turned.reshape(reference.shape), names, value, reference, axes)
        return
    if len(long) <= MOST_AXES:
        for order in itertools.permutations(long):
            flat = value.reshape([reference.shape[i] for i in order])
            turned = flat.transpose(np.argsort(order)) if len(order) > 1 else flat
            names = [axes[i] for i in order]
            found = _named(turned.reshape(reference.shape), names, value, reference, axes)
            yield found._replace(how=f"in one piece, {found.how}" if found.to else "in another shape")


def _named(array: np.ndarray, names: list[str], value: np.ndarray, reference: np.ndarray, axes: Axes) -> Arranged:
    own = [name for name, n in zip(axes, reference.shape, strict=True) if n > 1]
    if names == own:
        if value.shape == reference.shape:
            return Arranged(array)
        fewer, more = value.ndim < reference.ndim, value.ndim > reference.ndim
        return Arranged(array, f"with {'fewer' if fewer else 'more' if more else 'other'} axes of length 1")
    return Arranged(array, called(names, own), ", ".join(axes))


def called(names: list[str], own: list[str]) -> str:
    """The layout in words."""
    rest = [name for name in own if name != "channel"]
    if "channel" in own and names == [*rest, "channel"]:
        return "channels last"
    for first in ("frame", "sample"):
        if own[0] != first and names == [first, *(name for name in own if name != first)]:
            return "time first"
    return "with axes in the order " + ", ".join(names)


def _of_other_lengths(value: np.ndarray, reference: np.ndarray, axes: Axes) -> Arranged:
    """One axis is longer or shorter as well: the order in which the most lengths agree."""
    squeezed, wanted = value.squeeze(), reference.squeeze()
    if squeezed.ndim != wanted.ndim or squeezed.ndim > MOST_AXES:
        return Arranged(value)

    def agreeing(order: tuple[int, ...]) -> int:
        return sum(squeezed.shape[i] == n for i, n in zip(order, wanted.shape, strict=True))

    best = max(itertools.permutations(range(squeezed.ndim)), key=agreeing)  # of several the first: as it is
    if agreeing(best) < squeezed.ndim - 1:
        return Arranged(value)
    own = [name for name, n in zip(axes, reference.shape, strict=True) if n > 1]
    names = [""] * len(best)
    for place, name in zip(best, own, strict=True):
        names[place] = name
    turned = squeezed.transpose(best)
    full = iter(turned.shape)
    array = turned.reshape([next(full) if n > 1 else 1 for n in reference.shape])
    if names == own:
        return Arranged(array)
    return Arranged(array, called(names, own), ", ".join(axes))


def _distance(value: np.ndarray, reference: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        found = float(np.mean(np.square(np.asarray(value, np.float64) - reference)))
    return found if np.isfinite(found) else np.inf
