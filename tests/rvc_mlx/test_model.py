"""Networks that are recorded once for each length (``compile_network``, meant for GPUs) on a CPU."""

from __future__ import annotations

import numpy as np
import pytest
import small_models

from rvc_mlx import layers, model, optimize
from rvc_mlx.gru import has_compiler


@pytest.fixture
def recorded(monkeypatch):
    if not has_compiler():
        pytest.skip("MLX cannot compile here")
    monkeypatch.setitem(
        optimize.OPTIMIZATIONS, "compile_network", optimize.OPTIMIZATIONS["compile_network"]._replace(cpu=True)
    )

    def made(module: str, kind: str, *given):
        cls = getattr(small_models.module("rvc_mlx", module), kind)
        names = ["compile_network", "fold_norm", "polyphase", "tile"]
        return cls.from_state_dict(*given, device="cpu", optimize=names)

    return made


def test_a_recorded_network_equals_the_plain_one(recorded):
    """Of any length and batch, and again: a graph has what its inputs had when it was recorded, and no more."""
    rng = np.random.default_rng(0)
    rmvpe = recorded("rmvpe", "RMVPE", small_models.rmvpe_state())
    hubert = recorded("hubert", "Hubert", small_models.hubert_state())
    voice = recorded(
        "synthesizer",
        "Synthesizer",
        small_models.voice_state("synth_v2_40k_f0"),
        *small_models.facts("synth_v2_40k_f0"),
    )
    plain = (
        small_models.rmvpe("plain"),
        small_models.hubert("plain"),
        small_models.synthesizer("plain", "synth_v2_40k_f0"),
    )
    for length in (20, 20, 33):
        mel = rng.standard_normal((2, 128, length)).astype(np.float32)
        assert np.abs(rmvpe.salience(mel) - plain[0].salience(mel)).max() < 2e-6
        audio = (0.1 * rng.standard_normal(100 * length)).astype(np.float32)
        for version in ("v1", "v2"):
            assert np.abs(hubert.features(audio, version) - plain[1].features(audio, version)).max() < 2e-5
        given = small_models.inputs(plain[2], length, batch=2)
        encoding = {name: given[name] for name in ("phone", "lengths", "pitch")}
        for ours, theirs in zip(voice.encode(**encoding), plain[2].encode(**encoding), strict=True):
            assert np.abs(ours - theirs).max() < 2e-5
        assert np.abs(voice.infer(**given, noise=1) - plain[2].infer(**given, noise=1)).max() < 2e-5
    assert len(rmvpe._graphs) == 1
    assert len(hubert._graphs) == 2  # v1 and v2
    assert len(voice._graphs) == 4  # the text encoder, the flow and the decoder's two parts


def test_what_is_watched_is_not_recorded(recorded):
    hubert, seen = recorded("hubert", "Hubert", small_models.hubert_state()), []
    hubert.features(np.zeros(4000, np.float32) + 0.1, watch=lambda path, value: seen.append(path))
    assert "encoder.layers.0" in seen
    assert "_graphs" not in hubert.__dict__


def test_a_decoder_that_is_not_recorded_still_waits_for_big_arrays(recorded, monkeypatch):
    """RefineGAN's carry holds F0 and draws, so it runs stage by stage, and its memory is bounded by waiting."""
    monkeypatch.setattr(layers, "EVAL_BYTES", 1)
    waited: list[bool] = []
    settle = layers.Weights.settle

    def counted(self, x):
        waited.append(not layers.recording.get())
        settle(self, x)

    monkeypatch.setattr(layers.Weights, "settle", counted)
    for name, waits in (("synth_v2_24k_f0_refinegan", True), ("synth_v2_40k_f0", False)):
        voice = recorded("synthesizer", "Synthesizer", small_models.voice_state(name), *small_models.facts(name))
        waited.clear()
        voice.infer(**small_models.inputs(voice, 12), noise=1)
        assert waited
        assert all(one is waits for one in waited)


def test_graphs_of_many_lengths_are_not_all_kept(recorded, monkeypatch):
    monkeypatch.setattr(model, "MOST_GRAPHS", 2)
    hubert = recorded("hubert", "Hubert", small_models.hubert_state())
    for samples in (4000, 4800, 5600, 4000, 4800):
        audio = np.full(samples, 0.1, np.float32)
        audio[::7] = -0.2
        assert np.abs(hubert.features(audio) - small_models.hubert("plain").features(audio)).max() < 2e-5
        assert all(len(graph.shapes) <= 2 for graph in hubert._graphs.values())
