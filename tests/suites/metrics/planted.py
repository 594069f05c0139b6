"""Faults to plant in random tensors of the shapes in use, and the finding for one."""

from __future__ import annotations

import json

import numpy as np

from suites.metrics.locate import Finding, locate

TOLERANCE = 1e-5
MAP = (1, 16, 224, 128), ("batch", "channel", "row", "column")
SMALL_MAP = (1, 8, 56, 32), MAP[1]
LATENT = (2, 192, 50), ("batch", "channel", "frame")
FEATURES = (1, 49, 768), ("batch", "frame", "feature")
SCORES = (1, 2, 60, 60), ("batch", "head", "query", "key")
AUDIO = (1, 24000), ("batch", "sample")
SALIENCE = (90, 360), ("frame", "bin")
FIVE = (5,), ("frame",)
SHAPES = [MAP, LATENT, FEATURES, SCORES, AUDIO, SALIENCE, FIVE]
OF_CHANNELS = [MAP, LATENT, FEATURES, SALIENCE]  # their second axis is long enough to be matched by its values

rng = np.random.default_rng(11)


def named(of) -> str:
    return "x".join(map(str, of[0]))


def normal(shape) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def find(fault, of, reference=None, tolerance=TOLERANCE) -> Finding:
    """The finding for a faulty copy, with rounding noise on top."""
    shape, axes = of
    reference = normal(shape) if reference is None else reference
    value = np.asarray(fault(reference.copy()))
    value = value + rng.uniform(-TOLERANCE / 4, TOLERANCE / 4, value.shape).astype(np.float32)
    found = locate(value, reference, axes, tolerance)
    json.dumps(found.facts, allow_nan=False)
    return found


def put(*places, by=0.0):
    """A fault that sets places to ``by``, or to what it makes of them."""

    def fault(x):
        for place in places:
            x[place] = by(x[place]) if callable(by) else by
        return x

    return fault


def scaled(x):
    return 0.5 * x


def noise(x):
    return x + normal(x.shape)


def along_second(x, low=0.5, high=2.0):
    """A number for each index of the second axis, in random order."""
    numbers = rng.permutation(np.linspace(low, high, x.shape[1], dtype=np.float32))
    return numbers.reshape(-1, *[1] * (x.ndim - 2))


def delayed(x, n):
    """Along the last axis, filled with zeros."""
    out = np.zeros_like(x)
    if n > 0:
        out[..., n:] = x[..., :-n]
    else:
        out[..., :n] = x[..., -n:]
    return out
