"""Faults of every kind, planted in random tensors of the shapes in use, are named by their kind and place."""

from __future__ import annotations

import re

import numpy as np
import pytest
from planted import (
    AUDIO,
    FEATURES,
    FIVE,
    LATENT,
    MAP,
    OF_CHANNELS,
    SALIENCE,
    SCORES,
    SHAPES,
    SMALL_MAP,
    TOLERANCE,
    along_second,
    delayed,
    find,
    named,
    noise,
    normal,
    put,
    rng,
    scaled,
)

from suites.metrics.locate import REGISTRY, Kind

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
    assert found.kind == "edge"
    assert found.sentence == f"last 20 keys; {fill:.4g} in the reference only there"
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


def masks(lengths):
    """Scores of a batch, -1e4 where a query or a key is beyond the item's length."""
    inside = np.arange(27) < np.array(lengths)[:, None]
    return np.where(inside[:, None, :, None] & inside[:, None, None], normal((3, 2, 27, 27)), -1e4)


def test_the_masks_of_another_batch():
    """No factor and no offset, of some queries or of all: each value is masked on one side only."""
    scores, of = normal((3, 2, 27, 27)), ((3, 2, 27, 27), SCORES[1])
    reference, other = (np.where(masks(lengths) == -1e4, -1e4, scores) for lengths in ([27, 18, 1], [9, 27, 26]))
    found = find(lambda x: other, of, reference)
    assert (found.kind, found.facts["missing"], found.facts["extra"]) == ("mask", 2160, 1296)
    assert (
        found.where
        == "2160 of 4374 values are -1e+04 in the reference only and 1296 of 4374 values are -1e+04 in this only"
    )
    found = find(lambda x: np.where(masks([27, 18, 27]) == -1e4, -1e4, scores), of, reference)
    assert found.sentence == "batch item 2 only; 1456 of 1458 values are -1e+04 in the reference only there"
    found = find(lambda x: scores, of, reference)
    assert (found.kind, found.where) == ("mask", "2266 of 4374 values are -1e+04 in the reference only")


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


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
def test_an_offset_of_some_frames(share):
    """One bin of 20 cents too high in some frames: the correlation is 1, and says nothing."""
    cents = pitch()
    some = rng.random(600) < share
    found = find(lambda x: x + 20 * (some & (x > 0)), ((600,), ("frame",)), cents, 0.01)
    assert (found.kind, found.where) == ("offset", f"an offset of 20 in {found.facts['wrong']} of 600 values")
    found = find(lambda x: x + 20 * np.where(some, 1, -1) * (x > 0), ((600,), ("frame",)), cents, 0.01)
    assert found.where == f"an offset of 20 or -20 in {np.count_nonzero(cents)} of 600 values"
    hertz = np.where(cents > 0, 10 * 2 ** (cents / 1200), 0)
    found = find(lambda x: x * np.where(some, 2 ** (20 / 1200), 1), ((600,), ("frame",)), hertz, 0.01)
    assert (found.kind, found.where.startswith("a factor of 1.012 (+0.1 dB) in ")) == ("gain", True)


def test_an_unknown_pattern_tells_its_size_and_where_it_is_not():
    found = find(lambda x: np.where(x > 0, np.abs(x) ** 1.1, x), AUDIO)
    assert re.match(r"in \d+ of 24000 values, in no known pattern, mean difference ", found.where)


def test_a_correlation_near_one_is_not_rounded_to_one():
    found = find(lambda x: x - 0.01 * x**3, AUDIO)
    assert re.match(r"everywhere, in no known pattern, mean difference .*, RMS .*, correlation .* 1 - ", found.where)


# The registry


def test_every_kind_has_a_sentence_and_unknown_ones_are_refused():
    kinds = {kind.name for group in REGISTRY for kind in group}
    assert len(kinds) == 25
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
    found = find(lambda x: np.where(rng.random(x.shape) < 0.003, x + normal(x.shape), x), of)
    assert found.kind == "scattered"
    assert found.where == f"scattered: {found.facts['wrong']} of {np.prod(of[0])} values differ"


def test_facts_of_the_largest_difference():
    found = find(put((1, 5, 30), by=100.0), LATENT)
    assert found.facts["at"] == {"batch": 1, "channel": 5, "frame": 30}
    assert found.facts["max_abs"] == pytest.approx(100, abs=5)
    assert (found.facts["wrong"], found.facts["values"]) == (1, 19200)
