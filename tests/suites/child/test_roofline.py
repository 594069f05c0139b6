"""FLOPs and bytes against what can be worked out by hand, and peaks of this machine."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from suites.child import roofline
from suites.child.adapters import load_adapter
from suites.child.adapters.torch import TorchAdapter
from suites.child.roofline import peaks

FLOAT = 4
count = TorchAdapter("cpu").count


def test_a_matrix_product():
    a, b = torch.ones(5, 7), torch.ones(7, 3)
    found = count(lambda: a @ b)
    assert found == {"flops_products": 2 * 5 * 7 * 3, "flops_other": 0, "bytes": FLOAT * (5 * 7 + 7 * 3 + 5 * 3)}


def test_a_convolution():
    """Two FLOPs per weight and output value; input, weights, bias and output go through memory once."""
    layer, x = nn.Conv1d(4, 6, 3, padding=1), torch.ones(2, 4, 10)
    with torch.no_grad():
        found = count(lambda: layer(x))
    assert found["flops_products"] == 2 * (2 * 6 * 10) * (4 * 3)
    assert found["bytes"] == FLOAT * (2 * 4 * 10 + 6 * 4 * 3 + 6 + 2 * 6 * 10)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_gru_is_its_matrix_products(bidirectional):
    """Per step three gates, each a product with the input and one with the state."""
    steps, batch, inside, hidden, ways = 9, 2, 5, 4, 1 + bidirectional
    layer = nn.GRU(inside, hidden, batch_first=True, bidirectional=bidirectional)
    with torch.no_grad():
        found = count(lambda: layer(torch.ones(batch, steps, inside)))
    assert found["flops_products"] == ways * 2 * steps * batch * 3 * hidden * (inside + hidden)
    assert found["flops_other"] > ways * steps * batch * 3 * hidden  # sigmoids, tanh, sums


def test_attention():
    heads = [torch.ones(1, 2, 6, 8) for _ in range(3)]
    found = count(lambda: nn.functional.scaled_dot_product_attention(*heads))
    assert found["flops_products"] == 2 * (2 * 6 * 6 * 8) * 2  # scores, and their mean of the values


def test_elementwise():
    a, b = torch.ones(100), torch.ones(100)
    assert count(lambda: a + b) == {"flops_products": 0, "flops_other": 100, "bytes": 3 * 100 * FLOAT}
    assert count(lambda: a.mul_(2.0)) == {"flops_products": 0, "flops_other": 100, "bytes": 2 * 100 * FLOAT}
    assert count(lambda: torch.tanh(a.half()))["bytes"] == 100 * (FLOAT + 2) + 2 * 100 * 2


def test_what_moves_nothing_is_not_counted():
    a = torch.ones(4, 6)
    assert count(lambda: a.view(24)[3:].unsqueeze(0).transpose(0, 1)) == dict.fromkeys(
        ("flops_products", "flops_other", "bytes"), 0
    )
    assert count(lambda: a.t().contiguous())["bytes"] == 2 * 24 * FLOAT


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fourier_transform(batch):
    x = torch.ones(batch, 64)
    assert count(lambda: torch.fft.rfft(x))["flops_other"] == int(2.5 * batch * 64 * math.log2(64))


def test_the_work_of_two_calls_is_twice_the_work():
    a = torch.ones(8, 8)
    once, twice = count(lambda: a @ a), count(lambda: (a @ a, a @ a))
    assert twice == {name: 2 * value for name, value in once.items()}


@pytest.mark.parametrize("framework", ["torch", "mlx"])
def test_peaks_are_rates_of_this_machine(framework, monkeypatch):
    """Shortened; the same matrix and copy as in a run, smaller."""
    if framework == "mlx":
        pytest.importorskip("mlx.core")
    monkeypatch.setattr(roofline, "PEAK_SECONDS", 0.02)
    monkeypatch.setattr(roofline, "LARGEST_MATRIX", 256)
    monkeypatch.setattr(roofline, "COPIED_BYTES", 2**22)
    found = peaks(load_adapter(framework, "cpu"), "float32")
    assert set(found) == {"matmul_flops_per_s", "matmul_size", "copy_bytes_per_s"}
    assert 1e8 < found["matmul_flops_per_s"] < 1e15
    assert 1e8 < found["copy_bytes_per_s"] < 1e13
    assert found["matmul_size"] >= 512
