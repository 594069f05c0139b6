"""The noise of a conversion: the arrays of a seed, in order, also where another thread draws them beforehand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import pipeline

from rvc_common import noise
from rvc_common.noise import Draws, seeded

KINDS = st.sampled_from(["normal", "uniform"])
SHAPES = st.tuples(st.integers(1, 3), st.integers(0, 40), st.integers(1, 5))


@given(seed=st.integers(0, 2**32), index=st.integers(0, 9), kind=KINDS, shape=SHAPES, more=st.integers(0, 50))
def test_more_values_begin_with_the_same(seed, index, kind, shape, more):
    """So an upper bound of a size is enough to begin with."""
    draw, values = seeded(seed), math.prod(shape)
    begun = draw(index, kind, (values + more,))
    assert (begun[:values].reshape(shape) == draw(index, kind, shape)).all()


@given(
    wanted=st.lists(st.tuples(KINDS, SHAPES), min_size=1, max_size=5),
    begun=st.lists(st.tuples(KINDS, st.integers(0, 300)), max_size=6),
)
def test_what_is_begun_changes_nothing(wanted, begun):
    """Of another kind or too small included."""
    plain, ahead = Draws(5), Draws(5)
    ahead.begin(begun)
    for kind, shape in wanted:
        assert (plain(kind, shape) == ahead(kind, shape)).all()


def test_a_callable_is_called_when_its_array_is_needed():
    calls = []

    def draw(index, kind, shape):
        calls.append((index, kind, shape))
        return np.zeros(shape, np.float32)

    draws = Draws(draw)
    draws.begin([("normal", 10)])
    assert calls == []
    draws("normal", (2, 5))
    assert calls == [(0, "normal", (2, 5))]


def test_a_generator_that_is_replaced_is_the_one_used():
    """As a walk does that keeps what is drawn."""
    draws = Draws(5)
    draws.begin([("normal", 4)])
    draws.draw = lambda index, kind, shape: np.ones(shape)
    assert (draws("normal", (4,)) == 1).all()


@pytest.mark.parametrize("voice", ["synth_v2_40k_f0", "synth_v2_32k_f0_mrf", "synth_v2_48k_nof0"])
def test_a_conversion_draws_nothing_twice(voice, monkeypatch):
    """Every size that is begun with is large enough, and for the right array."""
    drawn = []

    def recorded(seed):
        draw = seeded(seed)

        def counted(index, kind, shape):
            drawn.append(index)
            return draw(index, kind, shape)

        return counted

    monkeypatch.setattr(noise, "seeded", recorded)
    windows = {"x_pad": 0.1, "x_query": 0.2, "x_center": 0.6, "x_max": 0.8}
    made = pipeline("reference_torch", voice, windows=windows)
    audio = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)
    f0 = None if voice.endswith("nof0") else np.full(100, 200.0)
    made.convert(audio, 16000, f0=f0, noise=4)
    assert len(drawn) >= 2
    assert sorted(drawn) == list(range(len(drawn)))
