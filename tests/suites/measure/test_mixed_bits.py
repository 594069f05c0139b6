"""How many bits every layer needs: on made-up layers whose errors are known, and on a tiny HuBERT."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from command import suites as run_suites
from hypothesis import given
from hypothesis import strategies as st
from quick_runs import workers_inside
from safetensors.numpy import save_file
from small_models import hubert_state

from rvc_common.checkpoint import read_metadata
from rvc_common.quantized import Form
from suites.base.errors import UserError
from suites.measure.mixed_bits import Bits, Part, choose, fewest

LAYERS = {f"layers.{i}.weight": np.zeros((64, 64), np.float32) for i in range(4)}
STRENGTH = {"layers.0.weight": 1e-2, "layers.1.weight": 1e-4, "layers.2.weight": 1e-3, "layers.3.weight": 1e-6}


def noise(own: Bits) -> float | None:
    """Errors of layers add up, and fall with the square of a code's step."""
    power = sum(STRENGTH[name] * (15 / (2**bits - 1)) ** 2 for name, bits in own.items() if bits is not None)
    return -10 * np.log10(power) if power else None


@pytest.mark.parametrize("within", [10, 25, 40, 60, 90])
def test_the_result_is_within_what_was_asked_for(within):
    found = fewest(LAYERS, 4, 64, within, noise)
    assert found.ratio >= within
    assert found.ratio == pytest.approx(noise(found.bits) or 300)


def test_the_layers_that_matter_most_get_more_bits():
    bits = fewest(LAYERS, 4, 64, 33, noise).bits
    assert bits["layers.0.weight"] > bits["layers.2.weight"] >= bits["layers.1.weight"] == bits["layers.3.weight"] == 4


def test_errors_that_add_up_to_more_are_made_up_for():
    def worse(own: Bits) -> float | None:
        alone = sum(bits is not None for bits in own.values()) == 1
        found = noise(own)
        return found if alone or found is None else found - 7

    assert fewest(LAYERS, 4, 64, 40, worse).ratio >= 40


def test_what_cannot_be_reached_is_said():
    with pytest.raises(UserError, match="no choice of bits keeps the result within 40 dB"):
        fewest(LAYERS, 4, 64, 40, lambda own: 20.0)


@given(st.lists(st.tuples(st.floats(1e-9, 1.0), st.booleans()), min_size=1, max_size=9), st.floats(1e-12, 1.0))
def test_a_choice_keeps_to_its_budget(layers, budget):
    parts = [
        Part(str(i), {"a": Form(4, 64, (64, 128)) if matrix else Form(8, 384, (64, 128, 3))}, 4, power)
        for i, (power, matrix) in enumerate(layers)
    ]
    levels = choose(parts, budget)
    assert sum(one.error(level) for one, level in zip(parts, levels, strict=True)) <= budget
    assert all(level in one.levels for one, level in zip(parts, levels, strict=True))
    assert choose(parts, 1e9) == [one.levels[0] for one in parts]


def test_a_network_as_a_user_has_it(tmp_path):
    save_file(hubert_state(), tmp_path / "hubert.safetensors")
    target = tmp_path / "mixed.safetensors"
    with workers_inside():
        done = run_suites(
            "convert", str(tmp_path / "hubert.safetensors"), str(target), "--quantize", "4", "--within", "30"
        )
    assert done.returncode == 0, done.stderr
    told = re.search(r"([\d.]+) dB together", done.stdout)
    assert told
    assert float(told[1]) >= 30
    layers = re.findall(r"^  encoder\.layers\.(\d+): ", done.stdout, re.MULTILINE)
    assert layers == sorted(layers, key=int)
    assert re.search(r"^  final_proj: 4 bits, no difference in 4$", done.stdout, re.MULTILINE)
    about = json.loads(read_metadata(target)["quantization"])
    assert about["mixed"]
    assert len({bits for bits, *_ in about["tensors"].values()}) > 1


@pytest.mark.parametrize(
    ("words", "message"), [(["--within", "40"], "--within needs --quantize"), (["--within", "x"], "dB")]
)
def test_refusals(tmp_path, words, message):
    done = run_suites("convert", "a.pt", str(tmp_path / "b.safetensors"), *words)
    assert done.returncode == 2
    assert message in done.stderr
