"""Faults of every kind, planted in random tensors of the shapes in use, are named by their kind and place."""

from __future__ import annotations

import json
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from suites.metrics.locate import AXES, ORDERED, REGISTRY, Finding, Kind, axis_profile, locate

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


# All values


@pytest.mark.parametrize("of", SHAPES, ids=named)
@pytest.mark.parametrize(
    ("fault", "kind", "where"),
    [
        (lambda x: x, "none", "no difference beyond the tolerance of 1e-05"),
        (lambda x: 0 * x, "zero", "zero everywhere"),
        (lambda x: 0 * x + 0.25, "zero", "constant (0.25) everywhere"),
        (lambda x: -x, "sign", "opposite sign everywhere"),
        (scaled, "gain", "a constant factor of 0.5 (-6.0 dB) everywhere"),
        (lambda x: x + 0.25, "offset", "a constant offset of 0.25 everywhere"),
        (lambda x: 2 * x + 0.25, "affine", "a constant factor of 2 (+6.0 dB) and offset of 0.25 everywhere"),
        (lambda x: np.flip(x, -1), "flip", "the {axis} axis reversed"),
        (lambda x: delayed(x, 1), "shift", "shifted by 1 {axis} (late)"),
        (lambda x: delayed(x, -1), "shift", "shifted by 1 {axis} (early)"),
    ],
)
def test_what_affects_all_values(of, fault, kind, where):
    found = find(fault, of)
    assert (found.kind, found.where) == (kind, where.format(axis=of[1][-1]))


@pytest.mark.parametrize("of", SHAPES[:-1], ids=named)
def test_what_has_no_explanation(of):
    found = find(lambda x: x + 0.01 * normal(x.shape), of)
    assert (found.kind, found.where) == ("noise", "noise everywhere, not correlated with the reference, 40 dB below it")
    assert find(lambda x: normal(x.shape), of).kind == "everywhere"
    assert find(np.tanh, of).kind == "everywhere"


@pytest.mark.parametrize("of", SHAPES[:-1], ids=named)
def test_moved_around(of):
    last = of[1][-1]
    n = of[0][-1]
    found = find(lambda x: np.roll(x, -3, -1), of)
    assert (found.kind, found.facts["by"]) == ("roll", -3)
    assert found.where.startswith("rolled by 3 ")
    found = find(lambda x: np.roll(x, n // 2, -1), of)
    assert (found.kind, found.where) == ("roll", f"halves of the {last} axis swapped")


def test_halves_of_channels():
    found = find(lambda x: np.concatenate([x[:, 96:], x[:, :96]], axis=1), LATENT)
    assert (found.kind, found.where) == ("roll", "halves of the channel axis swapped")


@pytest.mark.parametrize("of", OF_CHANNELS, ids=named)
def test_another_order_of_one_axis(of):
    order = rng.permutation(of[0][1])
    found = find(lambda x: x[:, order], of)
    assert found.kind == "permutation"
    assert found.facts["axis"] == of[1][1]
    assert found.facts["order"] == order[:64].tolist()


def test_words_for_orders():
    assert find(lambda x: x[:, [1, 0]], SCORES).where == "heads 0 and 1 exchanged"
    swapped = [0, 1, 7, *range(3, 7), 2, *range(8, 192)]
    assert find(lambda x: x[:, swapped], LATENT).where == "channels 2 and 7 exchanged"

    def by_feature(x):
        return x.reshape(1, 49, 12, 64).swapaxes(2, 3).reshape(x.shape)

    assert find(by_feature, FEATURES).where == "features interleaved: 12 x 64 read column by column"

    def phases(x):
        return x.reshape(1, 10, 2400).swapaxes(1, 2).reshape(x.shape)

    assert find(phases, AUDIO).where == "samples interleaved: 10 x 2400 read column by column"


def test_dead_channels_do_not_hide_an_order():
    reference = normal(LATENT[0])
    reference[:, 20:60] = 0
    assert find(lambda x: x[:, rng.permutation(192)], LATENT, reference).kind == "permutation"


def test_axes_exchanged():
    found = find(lambda x: x.swapaxes(2, 3), SCORES)
    assert (found.kind, found.where) == ("transposed", "axes query and key swapped")


def test_reshaped_instead_of_transposed():
    found = find(lambda x: x.transpose(0, 2, 3, 1).reshape(x.shape), MAP)
    assert (found.kind, found.where) == ("reshaped", "values transposed to the order row, column, channel and not back")
    found = find(lambda x: x.reshape(1, 768, 49).swapaxes(1, 2), FEATURES)
    assert found.where == "values reshaped to the order feature, frame, then transposed back"


@pytest.mark.parametrize("fill", [-1e4, 1e6])
def test_a_missing_mask_is_no_factor(fill):
    """Scores where the reference is masked: their ratio, about -1e-6, is not a factor."""
    scores = normal(SCORES[0])
    masked = scores.copy()
    masked[..., 40:] = fill
    found = find(lambda x: scores, SCORES, masked)
    largest = np.abs(scores[..., 40:]).max()
    assert found.kind == "edge"
    assert found.sentence == (
        f"last 20 keys; effectively zero (at most {largest:.3g}, reference up to {abs(fill):.3g}) there"
    )
    assert "factor" not in found.sentence
    assert find(lambda x: 0 * masked + 0.5, SCORES, 0 * masked + fill).kind == "offset"


def test_a_mask_too_many_is_an_offset():
    """A mask on the wrong side: the ratio of the two levels is not a factor either."""
    found = find(lambda x: x - 1e4, SCORES, normal(SCORES[0]))
    assert (found.kind, found.where) == ("offset", "a constant offset of -1e+04 everywhere")
    assert find(lambda x: x * 0 - 1e4, SCORES, np.full(SCORES[0], 0.01)).kind == "offset"


@pytest.mark.parametrize("factor", [2.0**-15, 2.0**15])
def test_an_extreme_factor_is_still_a_gain(factor):
    """Integer samples read as floating point, and the reverse."""
    reference = 1e4 * normal(AUDIO[0])
    assert find(lambda x: factor * x, AUDIO, reference).kind == "gain"


# Offsets


def pitch(frames=600):
    """A curve in cents with unvoiced frames, which are zero."""
    cents = 4500 + 400 * np.sin(np.arange(frames) / 40) + 5 * rng.standard_normal(frames)
    return np.where(rng.random(frames) < 0.4, 0, cents)


def test_an_offset_that_spares_zeros():
    """One bin of 20 cents too high: voiced frames only, so that no offset of all frames fits."""
    cents = pitch()
    found = find(lambda x: np.where(x > 0, x + 20, 0), ((600,), ("frame",)), cents, 0.01)
    assert (found.kind, found.facts["zeros_kept"]) == ("offset", True)
    assert found.facts["offset"] == pytest.approx(20, abs=1e-3)
    assert found.sentence == "a constant offset of 20 wherever the reference is not zero"


def test_an_offset_under_noise_is_named():
    """Too noisy for an explanation, and the correlation is near one: the offset is what is wrong."""
    cents = np.abs(pitch()) + 1
    found = find(lambda x: x + 20 + 4 * rng.standard_normal(x.shape), ((600,), ("frame",)), cents, 0.01)
    assert (found.kind, found.facts["mostly"]) == ("offset", True)
    assert found.facts["offset"] == pytest.approx(20, abs=1)
    assert found.where.startswith("mostly a constant offset of ")


def test_a_correlation_near_one_is_not_rounded_to_one():
    found = find(lambda x: x - 0.01 * x**3, AUDIO)
    assert found.where.startswith("everywhere, in no known pattern, correlation with the reference 1 - ")


# The registry


def test_every_kind_has_a_sentence_and_unknown_ones_are_refused():
    kinds = {kind.name for group in REGISTRY for kind in group}
    assert len(kinds) == 24
    with pytest.raises(ValueError, match="unknown kind of difference 'gian'"):
        Kind("gian", "", lambda pair: iter(()))


# By index


@pytest.mark.parametrize("of", [*OF_CHANNELS, SCORES], ids=named)
def test_a_factor_or_offset_for_each_index(of):
    name = of[1][1]
    for kind, fault in (
        ("channel gain", lambda x: x * along_second(x)),
        ("channel offset", lambda x: x + along_second(x)),
        ("channel affine", lambda x: x * along_second(x) + along_second(x)),
    ):
        found = find(fault, of)
        assert (found.kind, found.facts["axis"]) == (kind, name)
    assert found.where.endswith(f"for each {name}")


def test_a_missing_gamma_and_beta():
    gamma, beta = rng.uniform(0.5, 1.5, 768), rng.normal(0, 0.2, 768)
    plain = normal(FEATURES[0])
    assert find(lambda x: plain, FEATURES, plain * gamma + beta).kind == "channel affine"
    assert find(lambda x: plain * gamma, FEATURES, plain * gamma + beta).kind == "channel offset"
    assert find(lambda x: plain, FEATURES, plain * gamma).kind == "channel gain"


def test_one_loud_channel_does_not_decide_alone():
    """Scaled by 1.5, a channel at 100 times the level holds nearly all of the energy: it is not a gain of all."""
    loud = normal(FEATURES[0])
    loud[..., 7] *= 100
    found = find(put((..., 7), by=lambda x: 1.5 * x), FEATURES, loud)
    assert found.sentence == "feature 7 only; a constant factor of 1.5 (+3.5 dB) there"


def test_an_index_that_is_left_alone_is_no_place():
    gamma = rng.uniform(0.5, 1.5, 192)[:, None]
    gamma[[3, 50, 51]] = 1
    assert find(lambda x: x * gamma, LATENT).where.endswith("for each channel")
    gamma[:96] = 1
    assert find(lambda x: x * gamma, LATENT).sentence.startswith("channels 96 to 191; a different factor")


# Edges


@pytest.mark.parametrize(
    ("of", "fault", "where"),
    [
        (MAP, put((..., -1, slice(None)), (..., -1)), "last row and column"),
        (SMALL_MAP, put((..., slice(2), slice(None)), (..., -1)), "first 2 rows and last column"),
        (
            SMALL_MAP,
            lambda x: np.pad(x[..., 2:-2, 2:-2], [(0, 0)] * 2 + [(2, 2)] * 2),
            "first and last 2 rows and columns",
        ),
        (SMALL_MAP, put((..., -1, slice(None))), "last row"),
        (SMALL_MAP, put((..., slice(-2, None), slice(-1, None))), "where last 2 rows and last column meet"),
        (LATENT, put((..., slice(3))), "first 3 frames"),
        (LATENT, put((..., [0, 1, -2, -1])), "first and last 2 frames"),
        (LATENT, put((..., [0, 1, -1])), "first 2 and last 1 frames"),
        (AUDIO, put((..., slice(-5, None))), "last 5 samples"),
        (SCORES, put((..., [0, -1])), "first and last key"),
        (SALIENCE, put(-1, (..., -1)), "last frame and bin"),
        (FIVE, put(-1), "last frame"),
    ],
)
def test_edges(of, fault, where):
    found = find(fault, of)
    assert (found.kind, found.where) == ("edge", where)
    assert found.facts["zero_there"]
    assert found.sentence == f"{where}; zero there"


def test_edges_that_are_not_zero():
    found = find(put((..., -1, slice(None)), (..., -1), by=noise), MAP)
    assert found.sentence == "last row and column"
    assert not found.facts["zero_there"]
    found = find(put((..., slice(-10, None)), by=scaled), LATENT)
    assert found.sentence == "last 10 frames; a constant factor of 0.5 (-6.0 dB) there"
    assert found.facts["inside"]["kind"] == "gain"


def test_edges_of_sparse_maps():
    """After a ReLU most values are zero on both sides: the last row is wrong at some columns only."""
    sparse = np.maximum(normal(MAP[0]) - 1.5, 0)
    assert find(put((..., -1, slice(None)), (..., -1)), MAP, sparse).sentence == "last row and column; zero there"
    assert find(put((..., -1)), MAP, sparse).sentence == "last column; zero there"


def test_most_of_the_difference():
    found = find(lambda x: put((..., -1, slice(None)))(x + 1e-3 * normal(x.shape)), MAP)
    assert (found.kind, found.sentence) == ("edge", "mostly last row; zero there")
    assert found.facts["mostly"]


# Parts


@pytest.mark.parametrize(
    ("of", "place", "where"),
    [
        (LATENT, (slice(None), 7), "channel 7 only"),
        (LATENT, (slice(None), slice(96, None)), "channels 96 to 191"),
        (LATENT, 1, "batch item 1 only"),
        (LATENT, (..., slice(30, 40)), "frames 30 to 39"),
        (LATENT, (..., slice(None, None, 2)), "every 2nd frame"),
        (LATENT, (..., slice(1, None, 3)), "every 3rd frame from 1"),
        (LATENT, (slice(None), [3, 9, 12]), "channels 3, 9 and 12"),
        (LATENT, (1, 7), "batch item 1, channel 7 only"),
        (LATENT, (slice(None), 7, slice(-3, None)), "channel 7, last 3 frames"),
        (SCORES, (0, 1), "head 1 only"),
        (FEATURES, (..., slice(256, None)), "features 256 to 767"),
        (AUDIO, (..., slice(4000, 8000)), "samples 4000 to 7999"),
        (AUDIO, (0, 5), "sample 5 only"),
        (SALIENCE, (slice(None), slice(None, None, 5)), "every 5th bin"),
        (FIVE, 2, "frame 2 only"),
        (FIVE, slice(1, 3), "frames 1 to 2"),
    ],
)
def test_parts(of, place, where):
    found = find(put(place, by=lambda x: x + 1 + np.abs(normal(np.shape(x)))), of)
    assert (found.kind, found.where) == ("edge" if where.endswith("last 3 frames") else "part", where)
    assert set(found.facts["axes"]) <= set(of[1])


def test_seams_of_tiles():
    seams = np.arange(24000) % 4000 < 10
    assert find(lambda x: x + 0.01 * seams, AUDIO).sentence == (
        "10 of every 4000 samples; a constant offset of 0.01 there"
    )


def test_edges_within_a_part():
    found = find(put((0, 1, -1), (0, 1, slice(None), -1), by=noise), SCORES)
    assert found.sentence == "head 1 only; last query and key there"


def test_a_part_reversed():
    found = find(put((slice(None), slice(96, None)), by=lambda x: np.flip(x, -1)), LATENT)
    assert found.sentence == "channels 96 to 191; the frame axis reversed there"


@pytest.mark.parametrize("of", [*SHAPES[:-1], ((50, 4), ("frame", "feature")), ((300,), ("frame",))], ids=named)
@pytest.mark.parametrize("level", [0.4, 1, 2, 30])
def test_the_peaks_of_noise_are_no_place(of, level):
    """Where noise comes near the tolerance, a few values exceed it, or a few do not: by coincidence."""
    found = find(lambda x: x + level * TOLERANCE * normal(x.shape), of)
    assert found.kind in ("none", "noise", "scattered")


@pytest.mark.parametrize("of", SHAPES[:-1], ids=named)
def test_scattered(of):
    found = find(lambda x: np.where(rng.random(x.shape) < 0.003, x + 1, x), of)
    assert found.kind == "scattered"
    assert found.where == f"scattered: {found.facts['wrong']} of {np.prod(of[0])} values differ"


def test_facts_of_the_largest_difference():
    found = find(put((1, 5, 30), by=100.0), LATENT)
    assert found.facts["at"] == {"batch": 1, "channel": 5, "frame": 30}
    assert found.facts["max_abs"] == pytest.approx(100, abs=5)
    assert (found.facts["wrong"], found.facts["values"]) == (1, 19200)


# Not comparable


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


# Laws

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


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(lambda x: x + 0.01 * np.roll(x, 12345), "noise"), (put((..., -1, slice(None)), (..., -1)), "edge")],
)
def test_eight_million_values(fault, kind):
    """The longest way through, and one that looks at many views, in seconds and a few MiB."""
    of = (1, 16, 640, 800), MAP[1]
    reference = normal(of[0])
    value = fault(reference.copy())
    tracemalloc.start()
    start = time.perf_counter()
    found = locate(value, reference, of[1], TOLERANCE)
    elapsed, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.kind == kind
    assert elapsed < 3
    assert peak < 32 * 2**20


def test_a_minute_of_audio():
    """One long axis: its profile has an entry for each value."""
    start = time.perf_counter()
    assert find(lambda x: x - 0.1 * x**3, ((1, 2_880_000), AUDIO[1])).kind == "everywhere"
    assert time.perf_counter() - start < 3
