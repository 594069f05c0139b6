"""HuBERT: both sides agree within float32's rounding; versions, profiles, batches, bad input."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from small_models import SIDES, hubert, hubert_state, module

from rvc_common import CheckpointError


def clips(samples: int, batch: int = 1) -> np.ndarray:
    return (np.random.default_rng(samples).standard_normal((batch, samples)) * 0.1).astype(np.float32)


@functools.cache
def reference_and_truth(samples: int, version: str) -> tuple[np.ndarray, np.ndarray]:
    models = hubert("reference_torch"), hubert("reference_torch", dtype="float64")
    want, truth = (model.features(clips(samples, 2), version) for model in models)
    return want, truth


@pytest.mark.parametrize("samples", [400, 719, 720, 5000, 41234])
@pytest.mark.parametrize("side", ["rvc_mlx", "plain"])
def test_sides_agree(side, samples):
    for version in ("v1", "v2"):
        (want, truth), got = reference_and_truth(samples, version), hubert(side).features(clips(samples, 2), version)
        assert got.shape == want.shape == (2, (samples - 400) // 320 + 1, 64 if version == "v1" else 128)
        assert np.abs(got - truth).max() <= 8 * max(np.abs(want - truth).max(), 1e-7)


@pytest.mark.parametrize("side", SIDES)
def test_the_webuis_v1_takes_the_ninth_layer(side):
    model, audio = hubert(side), clips(4000)
    seen: dict[str, np.ndarray] = {}
    model.features(audio, "v2", watch=seen.__setitem__)
    weight, bias = hubert_state()["final_proj.weight"], hubert_state()["final_proj.bias"]
    webui = seen["encoder.layers.8"] @ weight.T + bias
    assert np.abs(model.features(audio, "v1", "webui") - webui).max() < 1e-5
    assert np.abs(model.features(audio, "v1", "applio") - webui).max() > 1e-2
    assert (model.features(audio, "v2", "webui") == model.features(audio, "v2", "applio")).all()


@pytest.mark.parametrize("side", SIDES)
def test_the_parts_in_a_row_are_the_whole(side):
    model, audio = hubert(side), clips(9000)[0]
    assert model.extract(audio).shape == (27, 32)
    assert np.abs(model.encode(model.extract(audio)) - model.features(audio)).max() < 1e-6
    assert model.features(audio[None]).shape == (1, *model.features(audio).shape)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(399, np.float32), "at least 400"),
        (np.full(1000, np.nan, np.float32), "NaN"),
        (np.zeros((1, 2, 1000), np.float32), r"\[n\] or \[B, n\]"),
        (np.zeros(1000, np.int16), "floats"),
    ],
)
def test_bad_audio_is_refused(side, audio, message):
    with pytest.raises(ValueError, match=message):
        hubert(side).features(audio)
    with pytest.raises(ValueError, match="v1 or v2"):
        hubert(side).features(np.zeros(1000, np.float32), "v3")


@pytest.mark.parametrize("side", ["reference_torch", "rvc_mlx"])
def test_strict_loading(side):
    build, state = module(side, "hubert").Hubert.from_state_dict, hubert_state()
    for key in list(state)[::9]:
        if key == "masked_spec_embed":  # plays no part in inference and may be left out
            continue
        for wrong in ({k: v for k, v in state.items() if k != key}, state | {f"{key}x": state[key]}):
            with pytest.raises(CheckpointError) as caught:
                build(wrong, **SIDES[side])
            assert key in str(caught.value)


@pytest.mark.parametrize("side", ["reference_torch", "rvc_mlx"])
def test_without_its_last_projection_it_serves_v2_only(side):
    state = {k: v for k, v in hubert_state().items() if not k.startswith("final_proj")}
    model = module(side, "hubert").Hubert.from_state_dict(state, **SIDES[side])
    assert model.features(clips(4000)[0]).shape == (12, 128)
    with pytest.raises(ValueError, match="final_proj"):
        model.features(clips(4000)[0], "v1")


@pytest.mark.parametrize("side", ["reference_torch", "rvc_mlx"])
def test_too_few_layers_for_the_webuis_v1(side):
    state = {k: v for k, v in hubert_state().items() if not re.match(r"encoder\.layers\.([5-9]|1\d)\.", k)}
    model = module(side, "hubert").Hubert.from_state_dict(state, **SIDES[side])
    with pytest.raises(ValueError, match="5 layers"):
        model.features(clips(4000)[0], "v1", "webui")


def test_silence_is_finite():
    for side in SIDES:
        assert np.isfinite(hubert(side).features(np.zeros(4000, np.float32))).all()
