"""Exported parts compute what the reference computes, at any length; what does not is not kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
import small_models
from safetensors.numpy import save_file

from reference_torch import graphs
from suites.base.errors import UserError
from suites.export import make
from suites.export.make import Mismatch, export_to, exported, facts_of, session_of
from suites.export.parts import PARTS
from suites.inputs.weights import find_weights

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def checkpoint(model, folder, voice="synth_v2_40k_f0"):
    return find_weights(model, None, 5, "tiny", voice, folder).path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.mark.parametrize(
    ("part", "voice", "profile"),
    [
        ("rmvpe", None, "webui"),
        ("encoder", "synth_v1_40k_f0", "applio"),
        ("flow", "synth_v2_40k_f0", "applio"),
        ("vocoder", "synth_v2_24k_f0_refinegan", "applio"),
        ("vocoder", "synth_v2_48k_nof0", "webui"),
        ("synthesizer", "synth_v2_40k_f0", "webui"),
    ],
)
def test_every_part_passes_its_check(tmp_path, folder, part, voice, profile):
    path = export_to(tmp_path / "new" / f"{part}.onnx", part, checkpoint(PARTS[part].model, folder, voice), profile)
    facts = facts_of(path)
    assert facts["format"] == make.FORMAT
    assert (facts["part"], facts["profile"], facts["opset"]) == (part, profile, "18")
    assert len(facts["source_sha256"]) == 64
    session = session_of(path, 1)
    assert [one.name for one in session.get_inputs()] == list(json.loads(facts["inputs"]))
    assert [one.name for one in session.get_outputs()] == list(json.loads(facts["outputs"]))
    checks = json.loads(facts["checked"])
    assert {tuple(check["case"]) for check in checks} == set(PARTS[part].sizes)
    assert PARTS[part].traced not in {length for _, length in PARTS[part].sizes}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_features_are_the_reference_s_on_audio_of_any_length(tmp_path, folder, version):
    source = checkpoint("hubert", folder)
    session = session_of(exported("hubert", source, version=version, cache=tmp_path), 1)
    audio = np.random.default_rng(0).standard_normal((2, 5001)).astype(np.float32) / 5
    from reference_torch import Hubert

    wanted = Hubert.from_checkpoint(source).features(audio, version)
    assert np.abs(session.run(None, {"audio": audio})[0] - wanted).max() < 5e-5


def test_padding_is_inside(folder, tmp_path):
    """Frames that padding mirrors are those of the model."""
    source = checkpoint("rmvpe", folder)
    session = session_of(exported("rmvpe", source, cache=tmp_path), 1)
    from reference_torch import RMVPE

    model = RMVPE.from_checkpoint(source)
    for frames in (17, 31, 33, 96):
        mel = np.random.default_rng(frames).standard_normal((1, 128, frames)).astype(np.float32)
        found = session.run(None, {"mel": mel})[0]
        assert found.shape == (1, frames, 360)
        assert np.abs(found - model.salience(mel)).max() < 1e-5


def test_the_cache_is_made_once_and_again_where_it_is_damaged(tmp_path, folder, capsys):
    source = checkpoint("voice", folder)
    path = exported("flow", source, cache=tmp_path)
    assert path.parent == tmp_path / "onnx"
    content, made = path.read_bytes(), path.stat().st_mtime_ns
    assert exported("flow", source, cache=tmp_path).stat().st_mtime_ns == made
    assert exported("flow", source, profile="webui", cache=tmp_path) != path
    path.write_bytes(content[:-100])
    assert session_of(exported("flow", source, cache=tmp_path), 1)
    assert "is not what was written: made anew" in capsys.readouterr().err


def test_a_graph_that_computes_something_else_is_not_kept(tmp_path, folder, monkeypatch):
    class Wrong(graphs.Flow):
        def forward(self, z_p, mask, speaker):
            return super().forward(z_p, mask, speaker) * 1.001

    monkeypatch.setattr(graphs, "Flow", Wrong)
    source = checkpoint("voice", folder)
    with pytest.raises(Mismatch, match=r"^flow: batch 1, length 3: z: max_abs .*, limit"):
        exported("flow", source, cache=tmp_path)
    with pytest.raises(Mismatch):
        export_to(tmp_path / "flow.onnx", "flow", source)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_graph_of_one_length_is_not_kept(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(make, "dynamic_axes", lambda name: {})
    with pytest.raises(Mismatch, match=r"^flow: batch 1, length 3: onnxruntime: "):
        exported("flow", checkpoint("voice", folder), cache=tmp_path)


def test_a_checkpoint_that_the_reference_refuses_is_named(tmp_path, folder):
    with pytest.raises(UserError, match=r"rmvpe.*safetensors.*expected voice"):
        exported("flow", checkpoint("rmvpe", folder), cache=tmp_path)
    state = {k: v for k, v in small_models.hubert_state().items() if not k.startswith("final_proj")}
    save_file(state, tmp_path / "h.safetensors")
    with pytest.raises(UserError, match=r"h\.safetensors: this HuBERT has no final_proj"):
        exported("hubert", tmp_path / "h.safetensors", version="v1", cache=tmp_path)
    with pytest.raises(UserError, match="nowhere: no such file"):
        exported("hubert", tmp_path / "nowhere")
