"""MLX's layers beside PyTorch's own, one by one; each guards a difference between the frameworks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rvc_mlx import hubert, layers, source
from rvc_mlx.layers import Weights
from rvc_mlx.runtime import mx

METHODS = [frozenset(), frozenset({"gemm_conv", "polyphase"})]
WAYS = pytest.mark.parametrize("methods", METHODS, ids=["plain", "products"])


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with mx.stream(mx.cpu):
        yield


def weights(module: nn.Module, methods: frozenset[str]) -> Weights:
    state = {f"layer.{name}": tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    return Weights(state, mx.float32, methods)


def compare(layer: layers.Layer, module: nn.Module, channels: int, length: int, batch: int = 2) -> None:
    x = torch.randn(batch, channels, length)
    with torch.inference_mode():
        want = module(x).numpy()
    got = np.array(layer(mx.array(x.transpose(1, 2).numpy()))).transpose(0, 2, 1)
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-5 * max(1.0, np.abs(want).max())


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.integers(1, 11),
    dilation=st.integers(1, 5),
    c_in=st.integers(1, 9),
    c_out=st.integers(1, 9),
    bias=st.booleans(),
    methods=st.sampled_from(METHODS),
)
def test_dilated_convolution(kernel, dilation, c_in, c_out, bias, methods):
    padding = dilation * (kernel - 1) // 2
    module = nn.Conv1d(c_in, c_out, kernel, padding=padding, dilation=dilation, bias=bias)
    layer = weights(module, methods).conv("layer", padding=padding, dilation=dilation)
    compare(layer, module, c_in, 61)


@settings(max_examples=40, deadline=None)
@given(stride=st.integers(1, 12), taps=st.integers(1, 24), c_in=st.integers(1, 5), methods=st.sampled_from(METHODS))
def test_strided_convolution(stride, taps, c_in, methods):
    padding = max(0, taps - stride) // 2
    module = nn.Conv1d(c_in, 4, taps, stride, padding)
    compare(weights(module, methods).conv("layer", stride=stride, padding=padding), module, c_in, 97)


@WAYS
def test_strided_convolution_in_blocks(methods, monkeypatch):
    monkeypatch.setattr(layers, "UNFOLD_VALUES", 64)
    module = nn.Conv1d(3, 4, 5, 2)
    compare(weights(module, methods).conv("layer", stride=2), module, 3, 200)


@WAYS
def test_grouped_convolution(methods, monkeypatch):
    monkeypatch.setattr(layers, "UNFOLD_VALUES", 1024)
    module = nn.Conv1d(12, 12, 16, padding=8, groups=4)
    compare(weights(module, methods).conv("layer", padding=8, groups=4), module, 12, 50)


@WAYS
@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), (1, 2), (3, 2)])
def test_grouped_convolution_with_steps(methods, stride, dilation):
    module = nn.Conv1d(8, 8, 5, stride, padding=2, dilation=dilation, groups=4)
    layer = weights(module, methods).conv("layer", stride=stride, padding=2, dilation=dilation, groups=4)
    compare(layer, module, 8, 50)


def test_grouped_convolution_on_cuda_is_not_cudnns(monkeypatch):
    """It writes out of bounds there, with or without optimisations."""
    module = nn.Conv1d(12, 12, 16, padding=8, groups=4)
    monkeypatch.setattr(layers, "_computes_on_cuda", lambda: True)
    layer = weights(module, frozenset()).conv("layer", padding=8, groups=4)
    single = weights(module, frozenset())
    monkeypatch.setattr(mx, "conv1d", lambda *_: pytest.fail("MLX's convolution"))
    compare(layer, module, 12, 50)
    with pytest.raises(pytest.fail.Exception):  # the others are still MLX's
        compare(single.conv("layer", padding=8), nn.Conv1d(3, 12, 16, padding=8), 3, 50)


@settings(max_examples=60, deadline=None)
@given(
    stride=st.integers(1, 12),
    extra=st.integers(0, 12),
    c_in=st.integers(1, 6),
    length=st.integers(1, 20),
    methods=st.sampled_from(METHODS),
    data=st.data(),
)
def test_transposed_convolution(stride, extra, c_in, length, methods, data):
    """Any kernel, padding and output padding: the place where ports lose the last sample."""
    taps = stride + extra
    padding = data.draw(st.integers(0, min(taps - 1, (taps + (length - 1) * stride - 1) // 2)))
    output_padding = data.draw(st.integers(0, stride - 1)) if stride > 1 else 0
    module = nn.ConvTranspose1d(c_in, 3, taps, stride, padding, output_padding)
    made = weights(module, methods)
    layer = made.conv_transpose("layer", stride=stride, padding=padding, output_padding=output_padding)
    compare(layer, module, c_in, length)


@WAYS
@pytest.mark.parametrize("axis", [0, 2])
def test_weight_norm_is_folded_along_its_axis(methods, axis):
    module = nn.utils.parametrizations.weight_norm(nn.Conv1d(6, 4, 5, padding=2), dim=axis)
    g, v = (getattr(module.parametrizations.weight, f"original{i}") for i in (0, 1))
    with torch.no_grad():
        g.mul_(torch.rand_like(g) + 0.5)
    state = {"layer.weight_g": g, "layer.weight_v": v, "layer.bias": module.bias}
    state = {name: tensor.detach().numpy() for name, tensor in state.items()}
    compare(Weights(state, mx.float32, methods).conv("layer", padding=2), module, 6, 30)


def test_linear_and_norm():
    for module, layer in (
        (nn.Linear(7, 5), lambda w: w.linear("layer")),
        (nn.LayerNorm(7, 1e-5), lambda w: w.norm("layer", 1e-5)),
    ):
        x = torch.randn(2, 9, 7)
        got = np.array(layer(weights(module, frozenset()))(mx.array(x.numpy())))
        assert np.abs(got - module(x).detach().numpy()).max() < 1e-6


@pytest.mark.parametrize("frames", [1, 2, 50, 70001])
def test_norm_over_time_keeps_its_digits(frames):
    """One running float32 sum over 70,000 frames would be off by 1e-4."""
    generator = torch.Generator().manual_seed(frames)  # two values that nearly agree would magnify their rounding
    x = torch.randn(1, 4, frames, dtype=torch.float64, generator=generator) * 3 + 5
    want = nn.functional.group_norm(x, 4, eps=hubert.NORM_EPS).numpy() if frames > 1 else np.zeros((1, 4, 1))
    got = np.array(hubert.norm_over_time(mx.array(x.transpose(1, 2).numpy().astype(np.float32)))).transpose(0, 2, 1)
    assert np.abs(got - want).max() < 5e-6


def test_gelu_is_the_exact_one():
    x = np.linspace(-12, 12, 20001)
    want = nn.functional.gelu(torch.from_numpy(x)).numpy()
    by_tanh = nn.functional.gelu(torch.from_numpy(x), approximate="tanh").numpy()
    for function in (hubert.gelu, hubert.rational_gelu):
        error = np.abs(np.array(function(mx.array(x.astype(np.float32)))) - want).max()
        assert error < 3e-6
        assert error < np.abs(by_tanh - want).max() / 100


def test_the_phase_of_a_long_clip_keeps_its_digits():
    """Ten minutes at 40 kHz: a running float32 sum would have lost the phase altogether."""
    f0 = np.full((1, 60000), 400.3, np.float32)
    sines = np.array(source.sine(f0, 40000, 400, np.zeros((1, 1)))[0, -400:, 0])
    samples = np.arange(60000 * 400 - 400, 60000 * 400) + 1
    cycles = np.float64(np.float32(400.3)) * samples / 40000 % 1
    assert np.abs(sines - np.sin(2 * np.pi * cycles)).max() < 2e-5
