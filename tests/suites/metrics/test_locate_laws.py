"""What holds for faults in tensors of any shape, and what a search may take."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from planted import (
    AUDIO,
    MAP,
    TOLERANCE,
    delayed,
    find,
    normal,
    put,
)

from suites.metrics.locate import AXES, ORDERED, axis_profile, core, locate

# how often all values of a pair may be read
MOST_PASSES = 20
shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=3, max_side=9)
quick = settings(max_examples=40, deadline=None)


def names(ndim, draw_from=AXES) -> st.SearchStrategy[tuple[str, ...]]:
    return st.permutations(draw_from).map(lambda axes: tuple(axes[:ndim]))


@quick
@given(st.data(), hnp.arrays(np.float32, shapes, elements=st.floats(-1e6, 1e6, width=32)))
def test_a_thing_equals_itself(data, x):
    assert locate(x, x, data.draw(names(x.ndim)), 0).kind == "none"


@quick
@given(st.data(), shapes, st.floats(-60, 60), st.booleans(), st.integers(0, 99))
def test_gains_are_recovered(data, shape, db, negative, seed):
    gain = 10 ** (db / 20) * (-1 if negative else 1)
    x = np.random.default_rng(seed).standard_normal(shape)
    found = locate(gain * x, x, data.draw(names(len(shape))), 1e-9)
    if abs(abs(gain) - 1) < 1e-6:
        assert found.kind in ("none", "sign", "gain")
    else:
        assert found.kind == "gain"
        assert found.facts["factor"] == pytest.approx(gain, rel=1e-6)


@quick
@given(st.data(), shapes, st.floats(-50, 50).filter(lambda x: abs(x) > 1e-3), st.integers(0, 99), st.booleans())
def test_offsets_are_recovered(data, shape, offset, seed, zeros):
    x = np.random.default_rng(seed).standard_normal((3, *shape[1:]))
    x[0] = 0 if zeros else x[0]
    found = locate(np.where(x == 0, 0, x + offset), x, data.draw(names(len(shape))), 1e-9)
    if x.size - np.count_nonzero(x == 0) >= 3:
        assert found.kind == "offset"
        assert found.facts["offset"] == pytest.approx(offset, rel=1e-6)


@quick
@given(st.data(), st.integers(-64, 64).filter(bool), st.integers(0, 99))
def test_shifts_are_recovered_with_their_sign(data, n, seed):
    along = data.draw(st.integers(0, 1))
    of = [((140, 20), ("frame", "bin")), ((2, 150), ("channel", "sample"))][along]
    x = np.random.default_rng(seed).standard_normal(of[0])
    value = np.moveaxis(delayed(np.moveaxis(x, along, -1), n), -1, along)
    found = locate(value, x, of[1], 1e-9)
    assert (found.kind, found.facts["axis"], found.facts["by"]) == ("shift", of[1][along], n)
    assert found.where.endswith("(late)" if n > 0 else "(early)")


@quick
@given(st.data(), shapes, st.integers(0, 99))
def test_a_single_index_is_named(data, shape, seed):
    axes = data.draw(names(len(shape)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    index = data.draw(st.integers(0, shape[axis] - 1))
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape)
    value = x + random.uniform(-0.25e-5, 0.25e-5, shape)
    place = (slice(None),) * axis + (index,)
    value[place] += random.uniform(1, 2, value[place].shape) * random.choice([-1, 1], value[place].shape)
    found = locate(value, x, axes, 1e-5)
    name = axes[axis]
    edge = name in ORDERED and index in (0, shape[axis] - 1)
    noun = "batch item" if name == "batch" else name
    assert found.where == (f"{'last' if index else 'first'} {noun}" if edge else f"{noun} {index} only")
    assert found.kind == ("edge" if edge else "part")


any_shape = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
any_type = st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_])


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([0.0, 1e-5, 1.0]), st.booleans())
def test_nothing_raises_and_all_facts_are_json(data, tolerance, alike):
    """Any two tensors: of any shapes and types, with NaN, infinities and the largest numbers there are."""
    reference = data.draw(hnp.arrays(data.draw(any_type), data.draw(any_shape)))
    shape = reference.shape if alike else data.draw(any_shape)
    value = data.draw(hnp.arrays(data.draw(any_type), shape))
    found = locate(value, reference, data.draw(names(reference.ndim)), tolerance)
    json.dumps(found.facts, allow_nan=False)
    assert found.kind
    assert found.where
    assert found.sentence.startswith(found.where)
    assert (found.kind == "shape") == (value.shape != reference.shape)


@pytest.mark.parametrize("large", [1.3e154, 1.35e154, 1e300])
def test_numbers_whose_squares_are_none_are_placed(large):
    reference, value = np.full((3, 3), 8.0), np.ones((3, 3))
    reference[0, 1:], value[0, :2] = 0.0, (large, 0.0)
    found = locate(value, reference, ("frame", "channel"), 0.0)
    assert found.where == "mostly channel 0, first frame"


@quick
@given(st.data(), shapes, st.integers(0, 99))
def test_the_profile_is_the_largest_difference_by_index(data, shape, seed):
    random = np.random.default_rng(seed)
    a, b = random.standard_normal((2, *shape))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    expected = np.moveaxis(np.abs(a - b), axis, 0).reshape(shape[axis], -1).max(axis=1)
    assert np.array_equal(axis_profile(a, b, axis), expected)


def test_a_profile_needs_equal_shapes():
    with pytest.raises(ValueError, match="no profile"):
        axis_profile(np.ones(2), np.ones(3), 0)
    with pytest.raises(ValueError, match="no profile"):
        axis_profile(np.ones(2), np.ones(2), 1)


# Size


@pytest.fixture
def values_read(monkeypatch):
    """How many values searches have read since the test began: the sizes of all blocks, in a list."""
    sizes, slices = [], core.slices

    def counted(shape):
        for block in slices(shape):
            sizes.append(math.prod(part.stop - part.start for part in block))
            yield block

    monkeypatch.setattr(core, "slices", counted)
    return sizes


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(lambda x: x + 0.01 * np.roll(x, 12345), "noise"), (put((..., -1, slice(None)), (..., -1)), "edge")],
)
def test_eight_million_values(fault, kind, values_read):
    """The longest way through, and one that looks at many views: all values some times, in a few MiB."""
    of = (1, 16, 640, 800), MAP[1]
    reference = normal(of[0])
    value = fault(reference.copy())
    tracemalloc.start()
    found = locate(value, reference, of[1], TOLERANCE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.kind == kind
    assert sum(values_read) < MOST_PASSES * value.size
    assert peak < 32 * 2**20


def test_a_minute_of_audio(values_read):
    """One long axis: its profile has an entry for each value."""
    of = (1, 2_880_000), AUDIO[1]
    assert find(lambda x: x - 0.1 * x**3, of).kind == "everywhere"
    assert sum(values_read) < MOST_PASSES * of[0][1]
