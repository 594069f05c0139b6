"""Tensors that cannot be compared value by value, and arguments that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from planted import (
    FEATURES,
    FIVE,
    LATENT,
    find,
    normal,
    put,
)

from suites.metrics.locate import locate


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (lambda x: np.concatenate([x, x[:, :1]], 1), "1 frame longer at the end; the rest agrees"),
        (lambda x: np.concatenate([x[:, :1] + 1, x], 1), "1 frame longer at the start; the rest agrees"),
        (lambda x: x[:, 1:-1], "2 frames shorter at both ends; the rest agrees"),
        (lambda x: x[:, 1:-3], "4 frames shorter (1 at the start, 3 at the end); the rest agrees"),
        (lambda x: x[:, :-1, :-1], "1 frame and 1 feature shorter at the end; the rest agrees"),
        (lambda x: x[:, ::2], "24 frames shorter; it is every 2nd frame of the reference"),
        (lambda x: np.repeat(x, 2, 1), "49 frames longer; every 2nd frame of it agrees"),
        (lambda x: x.swapaxes(1, 2), "axes frame and feature swapped; the rest agrees"),
        (lambda x: x[0], "2 axes instead of 3 with the same number of values; in order they agree"),
        (lambda x: x[:, :0], "the result is empty"),
        (lambda x: 0.5 * x[:, :-1], "1 frame shorter; the rest: a constant factor of 0.5 (-6.0 dB) everywhere"),
        (
            lambda x: np.concatenate([0 * x[:, :3], x], 1)[:, :50],
            "1 frame longer; the rest: shifted by 3 frames (late)",
        ),
    ],
)
def test_other_shapes(fault, where):
    found = find(fault, FEATURES)
    assert (found.kind, found.where) == ("shape", where)
    assert found.facts["reference_shape"] == [1, 49, 768]


def test_not_finite():
    found = find(put((1, 5), by=np.nan), LATENT)
    assert found.kind == "not finite"
    assert found.where == (
        "50 NaN in the result, first at batch item 1, channel 5, frame 0 (batch item 1, channel 5 only)"
    )
    assert found.facts == {"value": {"nan": 50, "inf": 0, "first": {"batch": 1, "channel": 5, "frame": 0}}}
    reference = normal(FIVE[0])
    reference[3] = -np.inf
    assert locate(reference, reference, FIVE[1], 1).where == (
        "1 infinite in the result, first at frame 3; 1 infinite in the reference, first at frame 3"
    )


def test_nothing_is_no_agreement():
    assert locate(np.ones((0, 3)), np.ones((0, 3)), ("frame", "bin"), 1).kind == "empty"


@pytest.mark.parametrize("axes", [(), ("frame", "frame"), ("frame", "time"), ("frame", "bin", "row")])
def test_axes_must_fit(axes):
    with pytest.raises(ValueError, match="do not name"):
        locate(np.ones((2, 2)), np.ones((2, 2)), axes, 0)


def test_other_misuse_is_refused():
    with pytest.raises(ValueError, match="complex"):
        locate(np.ones(2, complex), np.ones(2), ("frame",), 0)
    for tolerance in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="tolerance"):
            locate(np.ones(2), np.ones(2), ("frame",), tolerance)
