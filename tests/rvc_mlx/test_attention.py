"""Attention in blocks, beside MLX's and float64."""

from __future__ import annotations

import numpy as np
import pytest
import small_models

import rvc_mlx.synthesizer
from rvc_mlx import attention
from rvc_mlx.attention import blocked_attention
from rvc_mlx.hubert import fastest_attention
from rvc_mlx.runtime import mx


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with mx.stream(mx.cpu):
        yield


def exact(q, k, v):
    scores = np.float64(q) @ np.float64(k).transpose(0, 1, 3, 2) / 8
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize("frames", [1, 2, 31, 128, 200])
@pytest.mark.parametrize("values", [1, 100, 1 << 17])
def test_blocks_of_any_size(monkeypatch, frames, values):
    """Also of a row at a time, and where the last one is shorter."""
    monkeypatch.setattr(attention, "BLOCK_VALUES", values)
    q, k, v = np.random.default_rng(frames).standard_normal((3, 2, 3, frames, 64), np.float32)
    got = np.array(blocked_attention()(*(mx.array(x) for x in (q / 8, k, v))))
    assert got.shape == q.shape
    assert np.abs(got - exact(q, k, v)).max() < 3e-6


def exact_relative(q, k, v, keys, values):
    """Definition: a key at offset o has ``keys[reach + o]`` added to it, its value ``values[reach + o]``."""
    frames, reach = q.shape[2], len(keys) // 2
    scores = np.float64(q) @ np.float64(k).transpose(0, 1, 3, 2)
    for i in range(frames):
        for j in range(max(0, i - reach), min(frames, i + reach + 1)):
            scores[:, :, i, j] += np.float64(q[:, :, i]) @ keys[j - i + reach]
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    output = weights @ v
    for i in range(frames):
        for j in range(max(0, i - reach), min(frames, i + reach + 1)):
            output[:, :, i] += weights[:, :, i, j, None] * values[j - i + reach]
    return output


@pytest.mark.parametrize("frames", [1, 2, 7, 11, 50])
@pytest.mark.parametrize("values", [1, 100, 1 << 17])
def test_blocks_with_relative_positions(monkeypatch, frames, values):
    """Also of fewer frames than the positions reach, and of blocks shorter than that."""
    monkeypatch.setattr(attention, "BLOCK_VALUES", values)
    rng = np.random.default_rng(frames)
    q, k, v = rng.standard_normal((3, 2, 2, frames, 12), np.float32)
    keys, offsets = rng.standard_normal((2, 21, 12), np.float32)
    want = exact_relative(q, k, v, keys, offsets)
    for two_streams in (False, True):
        attend = attention.blocked_relative_attention(two_streams)
        got = np.array(attend(*(mx.array(x) for x in (q, k, v, keys, offsets))))
        assert got.shape == q.shape
        assert np.abs(got - want).max() < 3e-6


@pytest.mark.parametrize(("frames", "lengths", "own"), [(127, 127, False), (128, 128, True), (140, 139, False)])
def test_the_text_encoder_without_all_scores(monkeypatch, frames, lengths, own):
    """Short or masked inputs take the stages one by one."""
    seen = []
    blocked = attention.blocked_relative_attention

    def counted(two_streams):
        attend = blocked(two_streams)
        return lambda q, *rest: seen.append(q.shape) or attend(q, *rest)

    monkeypatch.setattr(attention, "blocked_relative_attention", counted)
    voice, facts = small_models.voice_state("synth_v2_40k_f0"), small_models.facts("synth_v2_40k_f0")
    voices = [
        rvc_mlx.synthesizer.Synthesizer.from_state_dict(voice, *facts, device="cpu", optimize=optimize)
        for optimize in ("block_attention", "none")
    ]
    given = small_models.inputs(voices[0], frames)
    call = given["phone"], np.array([lengths]), given["pitch"]
    for ours, plain in zip(*(voice.encode(*call) for voice in voices), strict=True):
        assert np.abs(ours - plain).max() < 1e-5
    assert bool(seen) == own


def test_scores_of_any_size():
    """All of the weight on one key, and none anywhere else."""
    q, k, v = np.random.default_rng(3).standard_normal((3, 1, 1, 140, 64), np.float32)
    q *= 3000
    got = np.array(blocked_attention()(*(mx.array(x) for x in (q / 8, k, v))))
    assert np.abs(got - exact(q, k, v)).max() < 1e-4


@pytest.mark.parametrize(("frames", "own"), [(127, False), (128, True)])
def test_short_inputs_are_mlxs(monkeypatch, frames, own):
    seen = []
    monkeypatch.setattr(attention, "blocked_attention", lambda: lambda q, k, v: seen.append(q.shape) or q)
    attend = fastest_attention(frozenset({"block_attention"}))
    attend(*(mx.zeros((1, 2, frames, 64)) for _ in range(3)))
    assert bool(seen) == own


def test_a_value_that_is_no_number_is_not_hidden():
    q, k, v = np.random.default_rng(4).standard_normal((3, 1, 1, 130, 64), np.float32)
    q[0, 0, 7, 3] = np.nan
    got = np.array(blocked_attention()(*(mx.array(x) for x in (q, k, v))))
    assert np.isnan(got[0, 0, 7]).all()
    assert np.isfinite(np.delete(got[0, 0], 7, axis=0)).all()
