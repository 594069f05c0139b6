"""The two sides read side by side: same names, same calls, same stages, same facts."""

from __future__ import annotations

import importlib
import inspect

import numpy as np
import pytest
from small_models import pipeline

import reference_torch
import rvc_mlx
from rvc_common.stages import ENTRIES
from suites.child.walks import Walker
from suites.inputs.voice import synthesize

METHODS = ["from_checkpoint", "from_state_dict", "mel", "salience", "decode", "cents", "f0", "trace"]


def test_exports():
    assert sorted(rvc_mlx.__all__) == sorted(reference_torch.__all__)


@pytest.mark.parametrize("name", METHODS)
def test_calls_take_the_same_arguments(name):
    ours, theirs = (inspect.signature(getattr(package.RMVPE, name)) for package in (rvc_mlx, reference_torch))
    assert list(ours.parameters) == list(theirs.parameters)
    assert [p.default for p in ours.parameters.values()] == [p.default for p in theirs.parameters.values()]


@pytest.mark.parametrize("name", ["RMVPEConfig"])
def test_configurations_have_the_same_fields(name):
    ours, theirs = (importlib.import_module(f"{p}.rmvpe") for p in ("rvc_mlx", "reference_torch"))
    assert getattr(ours, name)().__dict__ == getattr(theirs, name)().__dict__


def test_constants_agree():
    for module in ("rmvpe", "audio"):
        ours, theirs = (importlib.import_module(f"{p}.{module}") for p in ("rvc_mlx", "reference_torch"))
        shared = [n for n in vars(theirs) if n.isupper() and isinstance(getattr(theirs, n), int | float)]
        assert shared
        assert {n: getattr(ours, n) for n in shared} == {n: getattr(theirs, n) for n in shared}


def test_plain_stages_have_the_same_names_and_shapes(tiny_state):
    mel = np.random.default_rng(0).standard_normal((2, 128, 40)).astype(np.float32)
    found: list[dict[str, tuple[int, ...]]] = []
    for package, options in ((rvc_mlx, {"optimize": "none", "device": "cpu"}), (reference_torch, {})):
        shapes: dict[str, tuple[int, ...]] = {}
        package.RMVPE.from_state_dict(tiny_state, **options).trace(
            mel, lambda p, v, s=shapes: s.__setitem__(p, v.shape)
        )
        found.append(shapes)
    ours, theirs = found
    assert list(ours) == list(theirs)
    assert all(ours[name] == theirs[name] for name in theirs)
    assert "unet.decoder.layers.0.conv1.0" in theirs


def test_optimised_stages_are_a_subset(tiny_state):
    mel = np.random.default_rng(0).standard_normal((1, 128, 40)).astype(np.float32)
    plain: set[str] = set()
    fast: dict[str, np.ndarray] = {}
    reference_torch.RMVPE.from_state_dict(tiny_state).trace(mel, lambda p, v: plain.add(p))
    rvc_mlx.RMVPE.from_state_dict(tiny_state, device="cpu").trace(mel, fast.__setitem__)
    assert set(fast) <= plain
    assert {"unet.encoder.layers.0.pool", "unet.decoder.layers.4", "cnn", "fc.0", "fc.1"} <= set(fast)


@pytest.mark.parametrize("voice", ["synth_v2_40k_f0", "synth_v2_24k_f0_refinegan"])
def test_every_stage_declares_the_axes_of_its_value(voice):
    """And whether it decides or ranks: both sides say the same of every stage that both have."""
    audio = synthesize(0.5, seed=3).audio
    found: list[dict[str, tuple[object, ...]]] = []
    for side in ("reference_torch", "rvc_mlx"):
        model, said = pipeline(side, voice, windows={"x_pad": 0.1}), {}
        index = np.random.default_rng(0).standard_normal((50, model.synthesizer.phone_channels), np.float32)
        walker = Walker(model.walk(audio, 16000, index=index, index_rate=0.5))
        while walker.advance():
            event, value = walker.event, walker.array(walker.event.product)
            assert value is not None
            axes = event.axes_of(event.product, value.ndim)
            assert axes in (event.axes, ENTRIES.get(event.product)), event.whole_path
            said[event.whole_path] = (axes, event.decides, event.ranks)
        found.append(said)
    theirs, ours = found
    assert {path for path, (_, decides, _) in theirs.items() if decides} >= {"f0.cents", "f0", "pitchf", "pitch"}
    assert {path: said for path, said in theirs.items() if path in ours} == ours
