"""A voice that says which content model it was trained with is not converted with another one."""

from __future__ import annotations

import json
from pathlib import Path

import checkpoints as made
import pytest
import torch
from quick_runs import narrow_padding
from safetensors.numpy import save_file
from small_models import facts, hubert_state, module, pipeline, voice_state

from rvc_common.checkpoint import embedder_called, embedder_of

SIZES = {"hidden_size": 128, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("name", "embedder"),
    [
        ("contentvec", "contentvec"),
        ("contentvec768", "contentvec"),
        ("hubert_base", "contentvec"),
        ("hubert_base768", "contentvec"),
        ("lengyue233/content-vec-best", "contentvec"),
        ("japanese-hubert-base", "japanese-hubert-base"),
        ("rinna/japanese_hubert_base", "japanese-hubert-base"),
        ("hubert-base-korean", "korean-hubert-base"),
        (r"C:\models\chinese-hubert-base" + "\\", "chinese-hubert-base"),
        ("spin_v2", "spin-v2"),
        ("spin", "spin"),
        ("spinning", "spinning"),
        ("/home/me/My own", "my-own"),
    ],
)
def test_spellings(name, embedder):
    assert embedder_called(name) == embedder


def test_names_of_files(tmp_path):
    state = hubert_state()
    for folder, embedder in ("japanese-hubert-base", "japanese-hubert-base"), ("some", "some"):
        made.save_folder(tmp_path / folder, state, **SIZES)
        assert embedder_of(tmp_path / folder) == embedder_of(tmp_path / folder / "model.safetensors") == embedder
    torch.save(made.tensors(state), tmp_path / "hubert_base.pt")
    assert embedder_of(tmp_path / "hubert_base.pt") == "contentvec"
    hub = tmp_path / "models--TencentGameMate--chinese-hubert-base" / "snapshots" / "0123abc"
    hub.parent.mkdir(parents=True)
    assert embedder_of(made.save_folder(hub, state, **SIZES)) == "chinese-hubert-base"
    save_file(state, tmp_path / "a.safetensors", metadata={"format": "rvc-parity/1", "source": "spin-v2"})
    save_file(state, tmp_path / "b.safetensors", metadata={"format": "rvc-parity/1", "recipe": "3"})
    assert [embedder_of(tmp_path / name) for name in ("a.safetensors", "b.safetensors")] == ["spin-v2", None]


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        ("contentvec", "contentvec", True),
        ("my-own", "my-own", True),
        ("hubert-of-mine", "contentvec", True),  # its name does not tell
        (None, "spin", True),
        ("spin", None, True),
        ("spin", "contentvec", False),
        ("contentvec", "japanese-hubert-base", False),
        ("hubert-of-mine", "japanese-hubert-base", False),
        ("contentvec", "my-own", False),
    ],
)
def test_a_pipeline_refuses_another_content_model(given, wanted, fits):
    whole = pipeline("reference_torch")
    whole.hubert.embedder, whole.synthesizer.embedder = given, wanted
    parts = (whole.hubert, whole.rmvpe, whole.synthesizer)
    if fits:
        type(whole)(*parts)
    else:
        with pytest.raises(
            ValueError, match=rf"trained with the content model {wanted}, and {given} is given: give that"
        ):
            type(whole)(*parts)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    fields = {"embedder_model": "japanese-hubert-base", "state": voice_state("synth_v2_40k_f0")}
    voice = made.save_voice(tmp_path / "v.pth", config=facts("synth_v2_40k_f0")[0], **fields)
    (tmp_path / "f0.csv").write_text("0,200\n1,200\n")
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "in.wav", 0.1 * np.sin(np.arange(16000) / 20), 16000)
    return {"voice": voice, "hubert": made.save_folder(tmp_path / "contentvec", hubert_state(), **SIZES)}


@pytest.mark.parametrize("side", ["reference_torch", "rvc_mlx"])
def test_on_the_command_line(side, files, tmp_path, capsys):
    words = ["convert", str(tmp_path / "in.wav"), str(tmp_path / "out.wav"), "--f0", str(tmp_path / "f0.csv"), "-q"]
    words += ["--voice", str(files["voice"]), "--hubert", str(files["hubert"]), "--device", "cpu"]
    assert module(side, "__main__").main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: this voice was trained with the content model japanese-hubert-base, and contentvec")
    assert error.count("\n") == 1
    assert "--embedder japanese-hubert-base" in error
    assert not (tmp_path / "out.wav").exists()
    with narrow_padding():
        assert module(side, "__main__").main([*words, "--embedder", "japanese-hubert-base"]) == 0


def test_in_suites(files):
    """``weights.embedder`` reaches the pipeline that a worker loads."""
    import reference_torch
    from suites.definitions import SUITES
    from suites.inputs.weights import find_weights
    from suites.measure.config import compose_config

    suite = SUITES["pipeline"]
    rmvpe = find_weights("rmvpe", None, 3, "tiny", None, files["voice"].parent).path
    paths = {"rmvpe": str(rmvpe), **{name: str(path) for name, path in files.items()}}
    with pytest.raises(ValueError, match=r"weights\.embedder=japanese-hubert-base"):
        suite.load(reference_torch, paths, {}, compose_config("pipeline", []).settings(None))
    named = compose_config("pipeline", ["weights.embedder=japanese-hubert-base"]).settings(None)
    suite.load(reference_torch, paths, {}, named)
    assert json.dumps(named)
