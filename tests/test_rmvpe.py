"""Behaviour that both sides share, on a tiny model."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_torch
import rvc_mlx


@pytest.fixture(scope="module")
def pair(tiny_state):
    return (
        rvc_mlx.RMVPE.from_state_dict(tiny_state, device="cpu"),
        reference_torch.RMVPE.from_state_dict(tiny_state),
    )


def mels(frames: int, batch: int | None = None, seed: int = 0) -> np.ndarray:
    shape = (128, frames) if batch is None else (batch, 128, frames)
    return (np.random.default_rng(seed).standard_normal(shape) * 2 - 5).astype(np.float32)


@pytest.mark.parametrize("frames", [17, 31, 32, 33, 64, 95, 130])
def test_sides_agree_at_any_length(pair, frames):
    ours, theirs = (model.salience(mels(frames)) for model in pair)
    assert ours.shape == (frames, 360)
    assert np.abs(ours - theirs).max() < 2e-6


def test_batch_equals_items(pair):
    for model in pair:
        batch = model.salience(mels(40, batch=3))
        assert batch.shape == (3, 40, 360)
        for i in range(3):
            np.testing.assert_allclose(batch[i], model.salience(mels(40, batch=3)[i]), atol=1e-6)


def test_chunks_are_independent(pair):
    """A block of its own gives what the same frames give as a whole input."""
    mel = mels(128)
    for model in pair:
        chunked = model.salience(mel, chunk=64)
        np.testing.assert_allclose(chunked[:64], model.salience(mel[:, :64]), atol=1e-6)
        np.testing.assert_allclose(chunked[64:], model.salience(mel[:, 64:]), atol=1e-6)
        assert np.abs(chunked - model.salience(mel)).max() > 1e-4


def test_blocks_follow_the_profile(side, tiny_state, monkeypatch):
    """Applio cuts long clips, the WebUI does not; ``chunk`` says otherwise."""
    monkeypatch.setattr(importlib.import_module(f"{side.__name__}.rmvpe"), "CHUNK_FRAMES", 64)
    mel, seen = mels(128), {}
    for profile in ("applio", "webui"):
        model = side.RMVPE.from_state_dict(tiny_state, device="cpu", profile=profile)
        whole, cut = model.salience(mel, chunk=0), model.salience(mel, chunk=64)
        np.testing.assert_array_equal(model.salience(mel), cut if profile == "applio" else whole)
        model.trace(mel[None], lambda path, array: seen.setdefault(path, array))
        assert np.abs(whole - cut).max() > 1e-4
        assert seen.pop("sigmoid").shape[1] == (64 if profile == "applio" else 128)
        seen.clear()


@pytest.mark.parametrize("chunk", [0, 31, 48, -32])
def test_a_chunk_must_be_a_multiple_of_32(pair, chunk):
    for model in pair:
        if chunk == 0:  # no limit, as None
            continue
        with pytest.raises(ValueError, match="multiple of 32"):
            model.salience(mels(64), chunk=chunk)


@pytest.mark.parametrize("frames", [1, 5, 16])
def test_too_few_frames_to_mirror(pair, frames):
    for model in pair:
        with pytest.raises(ValueError, match="too short"):
            model.salience(mels(frames))


def test_webui_profile_pads_with_zeros(side, tiny_state):
    model = side.RMVPE.from_state_dict(tiny_state, profile="webui", device="cpu")
    short = model.salience(mels(5))
    assert short.shape == (5, 360)
    padded = np.pad(mels(5), ((0, 0), (0, 27)))
    plain = side.RMVPE.from_state_dict(tiny_state, device="cpu").salience(padded)
    np.testing.assert_allclose(short, plain[:5], atol=1e-6)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((2, 16000)), "mono"),
        (np.array([0.0] * 5000 + [np.nan]), "1 NaN or infinite"),
        (np.array([np.inf] * 5000), "5000 NaN or infinite"),
        (np.zeros(160), "160 samples"),
        (np.zeros(2559), "too short"),
    ],
)
def test_bad_audio(pair, audio, message):
    for model in pair:
        with pytest.raises(ValueError, match=message):
            model.f0(audio)


@pytest.mark.parametrize(("name", "value"), [("dtype", "int8"), ("profile", "upstream"), ("device", "tpu")])
def test_bad_options(tiny_state, name, value):
    with pytest.raises(ValueError, match=value):
        rvc_mlx.RMVPE.from_state_dict(tiny_state, **{name: value})
    if name != "device":
        with pytest.raises(ValueError, match=value):
            reference_torch.RMVPE.from_state_dict(tiny_state, **{name: value})


def test_digital_silence(pair):
    """Valid input; with quiet weights no frame is voiced, and nothing is NaN."""
    for model in pair:
        f0 = model.f0(np.zeros(16000, np.float32), threshold=0.99)
        assert f0.shape == (101,)
        assert (f0 == 0).all()


def test_shortest_audio(pair):
    audio = np.random.default_rng(0).standard_normal(2560).astype(np.float32)
    ours, theirs = (model.f0(audio) for model in pair)
    assert ours.shape == theirs.shape == (17,)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_close(side, tiny_state, dtype):
    exact = side.RMVPE.from_state_dict(tiny_state, device="cpu").salience(mels(40))
    half = side.RMVPE.from_state_dict(tiny_state, device="cpu", dtype=dtype).salience(mels(40))
    assert half.dtype == np.float32
    assert 1e-6 < np.abs(half - exact).max() < (0.01 if dtype == "float16" else 0.08)


def test_repeated_calls_are_equal(pair, voice):
    for model in pair:
        np.testing.assert_array_equal(model.f0(voice[:16000]), model.f0(voice[:16000]))


def test_f0_is_the_three_in_a_row(pair, voice):
    audio = voice[:16000]
    for model in pair:
        np.testing.assert_allclose(model.f0(audio), model.decode(model.salience(model.mel(audio))), rtol=1e-6)


# ---------------------------------------------------------------------- decoding laws
saliences = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((6, 360), np.float32))


@settings(max_examples=25, deadline=None)
@given(salience=saliences, threshold=st.floats(0.0, 1.1))
def test_decoders_agree(pair, salience, threshold):
    ours, theirs = (model.decode(salience, threshold) for model in pair)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert ((ours == 0) == (salience.max(axis=1) <= np.float32(threshold))).all() or threshold > 1


@settings(max_examples=25, deadline=None)
@given(bins=st.lists(st.integers(0, 359), min_size=1, max_size=5))
def test_one_hot_frames_decode_to_their_bin(pair, bins):
    salience = np.zeros((len(bins), 360), np.float32)
    salience[np.arange(len(bins)), bins] = 0.5
    want = 10 * 2 ** ((1997.3794084376191 + 20 * np.array(bins)) / 1200)
    for model in pair:
        np.testing.assert_allclose(model.decode(salience), want, rtol=1e-12)


def test_decoding_nothing(pair):
    for model in pair:
        assert model.decode(np.zeros((3, 360), np.float32)).tolist() == [0, 0, 0]
        with pytest.raises(ValueError, match="360"):
            model.decode(np.zeros((3, 359), np.float32))
