"""Randomness as an argument: the arrays that a synthesis consumes, in upstream's order.

A *draw* is a callable ``draw(index, kind, shape) -> array`` with kind ``"normal"`` (standard) or
``"uniform"`` ([0, 1)); ``index`` counts from 0 over a whole conversion. A seed selects the
NumPy generator below, so both sides get the same arrays.
"""

from __future__ import annotations

from collections.abc import Callable

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

    def __call__(self, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        """The next array, float32.

        Raises ``ValueError``: the callable returned another shape, or values that are not finite."""
        array = np.asarray(self.draw(self.index, kind, shape), dtype=np.float32)
        if array.shape != shape:
            raise ValueError(f"noise: draw {self.index} ({kind}) has shape {array.shape} instead of {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"noise: draw {self.index} ({kind}) has NaN or infinite values")
        self.index += 1
        return array


def start_phases(draws: Draws, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform start phases of sines, float64; the fundamental's is drawn and then zero."""
    phases = draws("uniform", shape).astype(np.float64)
    phases[..., 0] = 0
    return phases
