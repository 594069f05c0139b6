"""Quantised weights: what they are widened to, beside MLX's own; and files that are damaged."""

from __future__ import annotations

import json

import checkpoints as made
import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from small_models import hubert_state, rmvpe_state, voice_state

from rvc_common import CheckpointError, quantized
from rvc_common.quantized import BITS, GROUPS, METADATA, forms, quantize, widen

READING = [made.reading(side) for side in ("reference_torch", "rvc_mlx")]


def matrix(rows: int, columns: int, seed: int = 0, scale: float = 0.05) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal((rows, columns))).astype(np.float32)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group", GROUPS)
def test_mlx_reads_the_same_values(bits, group):
    tensors, about = quantize({"a": matrix(24, 256)}, bits, group)
    codes, scales, biases = (mx.array(tensors[f"a.{part}"]) for part in ("codes", "scales", "biases"))
    wide = (array.astype(mx.float32) for array in (scales, biases))
    theirs = mx.dequantize(codes, *wide, group_size=group, bits=bits)
    np.testing.assert_array_equal(widen(tensors, about)["a"], np.array(theirs))


@pytest.mark.parametrize("bits", BITS)
def test_nearer_than_what_mlx_makes(bits):
    value = matrix(64, 512)
    ours = widen(*quantize({"a": value}, bits, 64))["a"]
    theirs = np.array(mx.dequantize(*mx.quantize(mx.array(value), 64, bits), group_size=64, bits=bits))
    assert np.linalg.norm(ours - value) < np.linalg.norm(theirs - value)


@given(
    st.sampled_from(BITS), st.sampled_from(GROUPS), st.integers(64, 90), st.integers(64, 300),
    st.sampled_from([1e-7, 1e-3, 0.05, 1.0, 1e5]), st.floats(-2, 2), st.integers(0, 2**20),
)  # fmt: skip
def test_no_value_is_further_off_than_a_step_allows(bits, group, rows, columns, scale, offset, seed):
    """Half a step, and what rounding the scale and the offset to float16 adds to a code."""
    value = matrix(rows, columns, seed, scale) + np.float32(offset * scale)
    tensors, about = quantize({"a": value}, bits, group)
    wide = widen(tensors, about)["a"]
    assert wide.shape == value.shape
    step = np.abs(tensors["a.scales"].astype(np.float64)).repeat(group, axis=1)[:, :columns]
    reach = np.abs(value).max() if tensors["a.scales"].dtype == np.float16 else 0.0
    assert (np.abs(wide - value) <= 0.5 * step + 1e-3 * reach + 1e-6 * np.abs(value) + step * 1e-3).all()


@pytest.mark.parametrize("value", [0.0, 3.0, -1e-4])
def test_a_constant_stays(value):
    constant = np.full((64, 128), value, np.float32)
    np.testing.assert_allclose(widen(*quantize({"a": constant}, 4, 64))["a"], constant, rtol=1e-3)


def test_scales_that_float16_would_spoil_are_float32():
    kinds = {scale: quantize({"a": matrix(64, 128, scale=scale)}, 8, 64)[0]["a.scales"].dtype for scale in (1e-6, 0.1)}
    assert kinds == {1e-6: np.float32, 0.1: np.float16}


@pytest.mark.parametrize(
    ("state", "matrices", "convolutions"),
    [(hubert_state, ("attention.q_proj.weight",), ("pos_conv_embed.conv.weight_v",)),
     (rmvpe_state, ("fc.0.gru.weight_hh_l0", "fc.1.weight"), ("unet.encoder.layers.0.conv.1.conv.3.weight",)),
     (lambda: voice_state("synth_v2_40k_f0"),
      ("enc_p.emb_phone.weight", "flow.flows.0.enc.res_skip_layers.0.weight_v"), ("dec.conv_pre.weight",))],
)  # fmt: skip
def test_matrices_take_the_bits_asked_for_and_convolutions_eight(state, matrices, convolutions):
    chosen = forms(state(), 4, 32)
    found = {name: (form.bits, form.group == 32) for name, form in chosen.items()}
    for ending in matrices:
        assert {v for k, v in found.items() if k.endswith(ending)} == {(4, True)}, ending
    for ending in convolutions:
        assert {v for k, v in found.items() if k.endswith(ending)} <= {(8, False)}, ending
    assert not any("bias" in name or "norm" in name or name.startswith("emb_g") for name in chosen)


def stored(path, state=rmvpe_state, bits=4, **changes):
    """A quantised file; ``changes``: of its tensors, None to leave one out, and of its metadata."""
    tensors, about = quantize(state(), bits, 32)
    about |= {name: value for name, value in changes.items() if isinstance(value, str)}
    tensors |= {name: value for name, value in changes.items() if isinstance(value, np.ndarray)}
    kept = {name: value for name, value in tensors.items() if changes.get(name, value) is not None}
    save_file(kept, path, metadata=about)
    return path


@pytest.mark.parametrize("side", READING)
@pytest.mark.parametrize("bits", BITS)
def test_both_sides_read_what_was_written(tmp_path, side, bits):
    expected = widen(*quantize(rmvpe_state(), bits, 32))
    found = side.read_rmvpe(stored(tmp_path / "a.safetensors", bits=bits))
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], value) for name, value in expected.items())


HEAD = "fc.1.weight"


def told(**form):
    """Metadata with one tensor whose form is another."""
    about = json.loads(quantize(rmvpe_state(), 4, 32)[1][METADATA])
    bits, group, shape = about["tensors"][HEAD]
    about["tensors"][HEAD] = [form.get("bits", bits), form.get("group", group), form.get("shape", shape)]
    return {METADATA: json.dumps(about)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({METADATA: "{"}, "its metadata does not say how it was made"),
        ({METADATA: "[]"}, "its metadata does not say how it was made"),
        ({METADATA: '{"tensors": {"a": 3}}'}, "its metadata does not say how it was made"),
        (told(bits=5), r"not supported: fc.1.weight has 5 bits .*codes of 4, 6, 8 bits are read"),
        (told(group=0), "not supported: fc.1.weight has 4 bits in groups of 0"),
        (told(shape=[]), "not supported: fc.1.weight .* the shape \\[\\]"),
        (told(group=64), "the parts of fc.1.weight do not fit 4 bits in groups of 64"),
        (told(bits=8), "the parts of fc.1.weight do not fit 8 bits in groups of 32"),
        (told(shape=[360, 4096]), "the parts of fc.1.weight do not fit"),
        ({f"{HEAD}.scales": None}, "1 parts are missing, first fc.1.weight.scales"),
        ({f"{HEAD}.codes": np.zeros((360, 64), np.float32)}, "the parts of fc.1.weight do not fit"),
        ({f"{HEAD}.biases": np.zeros((360, 3), np.float16)}, "the parts of fc.1.weight do not fit"),
    ],
)  # fmt: skip
def test_damaged_files_have_their_sentence(tmp_path, changes, message):
    path = stored(tmp_path / "a.safetensors", **changes)
    for side in READING:
        with pytest.raises(CheckpointError, match=message) as caught:
            side.read_rmvpe(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", READING)
def test_a_file_that_is_cut_off_and_one_of_another_model(tmp_path, side):
    path = stored(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="this looks like an RMVPE checkpoint"):
        side.read_hubert(path)
    (tmp_path / "b.safetensors").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated"):
        side.read_rmvpe(tmp_path / "b.safetensors")


def test_codes_of_every_width_are_a_stream_of_bits():
    for bits in BITS:
        form = quantized.Form(bits, 32, (2, 64))
        codes = np.random.default_rng(bits).integers(0, 1 << bits, (2, 64), np.uint8)
        words = quantized._packed(codes, form)
        numbers = [int.from_bytes(row.tobytes(), "little") for row in words]
        assert [[n >> bits * i & (1 << bits) - 1 for i in range(64)] for n in numbers] == codes.tolist()
        np.testing.assert_array_equal(quantized._unpacked(words, form), codes)


# ---------------------------------------------------------------------- faults of quantising
def both_kinds() -> dict[str, np.ndarray]:
    """A matrix and a convolution."""
    kernel = np.random.default_rng(3).standard_normal((24, 32, 7)).astype(np.float32)
    return {"a.weight": matrix(24, 256), "b.weight": kernel, "bias": matrix(1, 24)[0]}


@given(st.sampled_from(BITS), st.sampled_from(GROUPS), st.sampled_from([1e-6, 0.05, 30.0, 1e5]), st.floats(-2, 2))
def test_nothing_is_wrong_with_what_is_made_here(bits, group, scale, offset):
    state = {"a": matrix(40, 170, scale=scale) + np.float32(scale * offset)}
    assert quantized.faults(state, *quantize(state, bits, group)) == []


@pytest.mark.parametrize("bits", BITS)
def test_faults_of_quantising_are_named(bits):
    state = both_kinds()
    good, about = quantize(state, bits, 64)

    def told(changed: dict[str, np.ndarray], metadata: dict[str, str] = about) -> list[str]:
        return quantized.faults(state, good | changed, metadata)

    doubled = good["a.weight.scales"].copy()
    doubled[5, 2] *= 2
    (text,) = told({"a.weight.scales": doubled})
    assert text.startswith("a.weight: 1 of 96 groups are off by more than half a step, first of all group 2 of row 5")
    (text,) = told({"b.weight.biases": np.zeros_like(good["b.weight.biases"])})
    assert text.startswith("b.weight: 24 of 24 groups")

    whole = json.loads(about[METADATA])
    del whole["tensors"]["a.weight"]
    kept = {"a.weight": state["a.weight"]}
    assert told(kept, {METADATA: json.dumps(whole)}) == ["a.weight is not in fewer bits, as its kind is"]


def test_of_another_model():
    state = both_kinds()
    assert quantized.faults({"a.weight": state["a.weight"][:20]}, *quantize(state, 4, 64)) == [
        "a.weight is another model's",
        "b.weight is another model's",
    ]
