"""Calls with everything on the device give what the plain calls give, every time that they are used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_models import SIDES, hubert, inputs, rmvpe, synthesizer

RNG = np.random.default_rng(3)
AUDIO = RNG.standard_normal(8000).astype(np.float32) * 0.1


def check(resident: Any, want: dict[str, np.ndarray]) -> None:
    """Twice: what a call changes in place would show in the second one."""
    for _ in range(2):
        found = resident.host(resident())
        assert found.keys() == want.keys()
        for name, array in want.items():
            assert found[name].shape == array.shape
            np.testing.assert_allclose(found[name], array, rtol=0, atol=2e-6 * max(1.0, np.abs(array).max()))


@pytest.mark.parametrize("side", SIDES)
def test_rmvpe(side):
    model = rmvpe(side)
    mel = model.mel(AUDIO)
    check(model.resident("mel", AUDIO), {"mel": mel})
    check(model.resident("network", mel), {"network": model.salience(mel)})


def test_both_sides_agree_on_the_gru():
    x = RNG.standard_normal((1, 40, 384)).astype(np.float32)
    ours, theirs = (model.resident("gru", x) for model in (rmvpe("rvc_mlx"), rmvpe("reference_torch")))
    check(ours, theirs.host(theirs()))


@pytest.mark.parametrize("side", SIDES)
def test_hubert(side):
    model = hubert(side)
    check(model.resident(AUDIO), {"features": model.features(AUDIO)})


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("voice", ["synth_v2_40k_f0", "synth_v2_48k_nof0", "synth_v2_24k_f0_refinegan"])
def test_synthesizer(side, voice):
    model = synthesizer(side, voice)
    given = inputs(model, frames=14, batch=2)
    phone = (given["phone"], given["lengths"], given["pitch"])
    m_p, logs_p = model.encode(*phone)
    check(model.resident("encode", *phone), {"m_p": m_p, "logs_p": logs_p})
    hidden = RNG.standard_normal((2, model.config.hidden_channels, 14)).astype(np.float32)
    attention = (hidden, given["lengths"])
    check(model.resident("attention", *attention), {"x": model.attention(*attention)})
    flow = (m_p, np.ones((2, 1, 14), np.float32), given["speaker"])
    check(model.resident("flow", *flow), {"x": model.flow(*flow)})
    decode = (m_p, given["f0"], given["speaker"], 7)
    check(model.resident("decode", *decode), {"audio": model.decode(*decode)})
    if model.has_f0:
        check(model.resident("source", given["f0"], 7), {"source": model.source(given["f0"], 7)})
