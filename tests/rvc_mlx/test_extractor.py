"""HuBERT's convolutions on CPUs: in stretches, with the norm in the kernel, and grouped ones in blocks of frames."""

from __future__ import annotations

import numpy as np
import pytest

from rvc_mlx import Hubert, extractor, layers
from rvc_mlx.runtime import mx
from suites.inputs import recipe
from suites.inputs.weights import reduced_hubert


@pytest.fixture(scope="module")
def hubert_state():
    return recipe.make_state_dict(reduced_hubert(), 7)


def model(state, *names: str) -> Hubert:
    return Hubert.from_state_dict(state, device="cpu", optimize=["gemm_conv", *names])


def audio(samples: int, items: int = 1) -> np.ndarray:
    """With an offset and little of what is high, on which a variance loses digits."""
    noise = np.random.default_rng(samples).standard_normal((items, samples))
    return (0.05 + 0.02 * np.cumsum(noise, axis=1) / np.sqrt(samples) + 0.01 * noise).astype(np.float32)


@pytest.mark.parametrize("rows", [7, extractor.ROWS])
@pytest.mark.parametrize(("samples", "items"), [(400, 1), (719, 1), (16000, 1), (9111, 2)])
@pytest.mark.parametrize("name", ["tile_extractor", "block_groups"])
def test_each_alone_equals_plain(hubert_state, monkeypatch, name, samples, items, rows):
    monkeypatch.setattr(extractor, "ROWS", rows)
    monkeypatch.setattr(extractor, "SHORTEST_SAMPLES", 1)
    given, plain, fast = audio(samples, items), model(hubert_state), model(hubert_state, name)
    assert name in fast.optimize
    for call in ("extract", "features"):
        expected = getattr(plain, call)(given)
        assert np.abs(getattr(fast, call)(given) - expected).max() < 1e-5 * max(1.0, np.abs(expected).max())


def test_short_audio_takes_the_stages(hubert_state, monkeypatch):
    plain, fast = model(hubert_state), model(hubert_state, "tile_extractor")
    given = audio(extractor.SHORTEST_SAMPLES)
    assert np.array_equal(fast.extract(given[:, :-1]), plain.extract(given[:, :-1]))
    assert not np.array_equal(fast.extract(given), plain.extract(given))  # rounded otherwise


def test_the_norm_in_the_kernel_is_that_of_the_results():
    rng = np.random.default_rng(0)
    kernel, gain, bias = rng.standard_normal((5, 10)), rng.standard_normal(5), rng.standard_normal(5)
    windows = np.lib.stride_tricks.sliding_window_view(audio(4000)[0], 10)[::5]
    exact = windows.astype(np.float64) @ kernel.T
    exact = (exact - exact.mean(axis=0)) / np.sqrt(exact.var(axis=0) + 1e-5) * gain + bias
    whole = extractor.normed(kernel, gain, bias, windows, 1e-5)
    assert np.abs(np.c_[windows, np.ones(len(windows))] @ whole - exact).max() < 1e-9


@pytest.mark.parametrize(("frames", "taps", "padding"), [(1, 8, 4), (9, 8, 4), (30, 5, 2), (31, 4, 0)])
def test_blocks_of_frames(frames, taps, padding):
    rng = np.random.default_rng(frames)
    kernel = rng.standard_normal((6, 2, taps)).astype(np.float32)  # 3 groups
    x = mx.array(rng.standard_normal((frames, 6)).astype(np.float32))
    with mx.stream(mx.cpu):
        blocks = [mx.array(block.astype(np.float32)) for block in layers.frame_blocks(kernel, 3)]
        fast = np.array(layers._grouped_blocks(x, blocks, 3, taps, padding))
        plain = np.array(mx.conv1d(x[None], mx.array(kernel.transpose(0, 2, 1)), 1, padding, 1, 3))[0]
    assert fast.shape == plain.shape
    assert np.abs(fast - plain).max() < 1e-5
