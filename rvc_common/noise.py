"""Randomness as an argument: the arrays that a synthesis consumes, in upstream's order.

A *draw* is a callable ``draw(index, kind, shape) -> array`` with kind ``"normal"`` (standard) or
``"uniform"`` ([0, 1)); ``index`` counts from 0 over a whole conversion. A seed selects the
NumPy generator below, so both sides get the same arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial

import numpy as np

Draw = Callable[[int, str, tuple[int, ...]], np.ndarray]


def seeded(seed: int) -> Draw:
    """The project's generator: PCG64 seeded with (seed, index), float32."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"noise must be a seed from 0 or a callable, not {seed!r}")

    def draw(index: int, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        generator = np.random.default_rng([int(seed), index])
        if kind == "uniform":
            return generator.random(shape, dtype=np.float32)
        return generator.standard_normal(shape, dtype=np.float32)

    return draw


def kept(noise: int | Draw) -> Draw:
    """The same arrays, each drawn once and kept: for calls that are repeated, and timed without the drawing."""
    draw, arrays = noise if callable(noise) else seeded(noise), {}

    def drawn(index: int, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        key = (index, kind, shape)
        if key not in arrays:
            arrays[key] = draw(index, kind, shape)
        return arrays[key]

    return drawn


class Draws:
    """Hands out the arrays of one conversion in order, from ``index`` on."""

    def __init__(self, noise: int | Draw, index: int = 0) -> None:
        self.index = index
        self.draw: Draw = noise if callable(noise) else seeded(noise)
        self._seeded = None if callable(noise) else self.draw
        self._ahead: dict[int, tuple[str, Future[np.ndarray]]] = {}

    def begin(self, sizes: Sequence[tuple[str, int]]) -> None:
        """Draw the next arrays in another thread: per array its kind, and the most values that it may have.

        The generator's values do not depend on how many are asked for. A callable is called when its array is needed,
        as ever.
        """
        if self.draw is not self._seeded:
            return
        for index, (kind, size) in enumerate(sizes, self.index):
            if index not in self._ahead:
                self._ahead[index] = kind, _drawer().submit(partial(self.draw, index, kind, (size,)))

    def __call__(self, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        """The next array, float32.

        Raises ``ValueError``: the callable returned another shape, or values that are not finite."""
        array = self._drawn(kind, shape)
        array = np.asarray(self.draw(self.index, kind, shape) if array is None else array, dtype=np.float32)
        if array.shape != shape:
            raise ValueError(f"noise: draw {self.index} ({kind}) has shape {array.shape} instead of {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"noise: draw {self.index} ({kind}) has NaN or infinite values")
        self.index += 1
        return array

    def _drawn(self, kind: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """What was begun, where it is of this kind and large enough."""
        begun, values = self._ahead.pop(self.index, None), math.prod(shape)
        if begun is None or begun[0] != kind or self.draw is not self._seeded:
            return None
        array = begun[1].result()
        return array[:values].reshape(shape) if array.size >= values else None


@cache
def _drawer() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "noise")


def start_phases(draws: Draws, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform start phases of sines, float64; the fundamental's is drawn and then zero."""
    phases = draws("uniform", shape).astype(np.float64)
    phases[..., 0] = 0
    return phases
