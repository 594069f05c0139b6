"""Synthetic weights: the same everywhere, made once, whole or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from rvc_common.config import RMVPEConfig
from rvc_mlx.keys import rmvpe_shapes
from suites.base.errors import UserError
from suites.inputs import recipe
from suites.inputs.weights import (
    MANIFESTS,
    cache_folder,
    find_weights,
    reduced_hubert,
    reduced_manifest,
    reduced_voice,
    shipped,
    voice_manifest,
)


def test_full_size_is_the_manifest():
    manifest = recipe.load_manifest("suites/data/manifests/rmvpe.json")
    assert reduced_manifest(16, 256)["tensors"] == manifest["tensors"]


def test_reduced_sizes_follow_the_architecture(tiny_state):
    shapes = rmvpe_shapes(RMVPEConfig(width=4, hidden=64))
    assert shapes == {k: v.shape for k, v in tiny_state.items() if not k.endswith("num_batches_tracked")}


def test_made_once(tmp_path, monkeypatch):
    first = find_weights("rmvpe", None, 3, "tiny", None, tmp_path)
    monkeypatch.setattr(recipe, "make_state_dict", lambda *_: pytest.fail("made twice"))
    assert find_weights("rmvpe", None, 3, "tiny", None, tmp_path) == first
    assert "synthetic, seed 3" in first.label
    assert sorted(p.name for p in tmp_path.iterdir()) == [first.path.name, f"{first.path.name}.sha256"]


@pytest.mark.parametrize("damage", [b"", b"x" * 4000])
def test_a_damaged_file_is_made_anew_and_told(tmp_path, damage, capsys):
    first = find_weights("voice", None, 3, "tiny", "synth_v2_40k_f0", tmp_path)
    whole = first.path.read_bytes()
    first.path.write_bytes(damage)
    assert find_weights("voice", None, 3, "tiny", "synth_v2_40k_f0", tmp_path) == first
    assert first.path.read_bytes() == whole  # whoever made it
    told = capsys.readouterr().err
    assert told == f"cached file {first.path} is not what was written: made anew\n"


def test_the_shipped_network_is_unpacked_anew_where_it_is_damaged(tmp_path, capsys):
    first = shipped(tmp_path)
    if not first.path.is_relative_to(tmp_path):
        pytest.skip("it is not packed here")
    first.path.write_bytes(first.path.read_bytes()[:-1])
    assert shipped(tmp_path) == first
    assert "made anew" in capsys.readouterr().err


def test_runs_that_fill_the_cache_at_once_make_the_same(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(find_weights, "voice", None, 5, "tiny", "synth_v2_40k_f0", tmp_path) for _ in range(4)]
        assert len({one.result() for one in found}) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_the_cache_folder_is_absolute_or_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert cache_folder(None) == tmp_path / "cache" / "rvc-parity"
    assert cache_folder("own") == tmp_path / "own"
    monkeypatch.delenv("XDG_CACHE_HOME")

    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    assert cache_folder("own") == tmp_path / "own"
    with pytest.raises(UserError, match=r"no home folder is known .*; set paths\.cache=FOLDER"):
        cache_folder(None)


def test_the_file_holds_the_recipe(tmp_path):
    path = find_weights("rmvpe", None, 3, "tiny", None, tmp_path).path
    want = recipe.make_state_dict(reduced_manifest(4, 64), 3)
    got = load_file(path)
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[k], want[k]) for k in want)


def test_a_broken_generation_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "make_state_dict", fail)
    with pytest.raises(KeyboardInterrupt):
        find_weights("rmvpe", None, 3, "tiny", None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"set paths\.cache=FOLDER"):
        find_weights("rmvpe", None, 3, "tiny", None, tmp_path / "file")


def test_missing_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"weights\.rmvpe=.*no such file"):
        find_weights("rmvpe", str(tmp_path / "rmvpe.pt"), 0, "full", None, tmp_path)


VOICES = sorted(p.stem for p in MANIFESTS.glob("synth_*.json"))


def shapes(manifest):
    return {t["key"]: tuple(t["shape"]) for t in manifest["tensors"]}


def test_reduced_hubert_fits_together():
    manifest = reduced_hubert()
    found, config = shapes(manifest), manifest["config"]
    width = config["hidden_size"]
    assert found["feature_projection.projection.weight"] == (width, config["conv_dim"][-1])
    groups = config["num_conv_pos_embedding_groups"]
    assert found["encoder.pos_conv_embed.conv.weight_v"] == (width, width // groups, config["num_conv_pos_embeddings"])
    assert found["final_proj.weight"] == (config["classifier_proj_size"], width)
    assert found.keys() == shapes(recipe.load_manifest(MANIFESTS / "hubert_contentvec.json")).keys()


@pytest.mark.parametrize("name", VOICES)
def test_reduced_voices_fit_together(name):
    manifest = reduced_voice(name)
    found, config = shapes(manifest), manifest["config"]
    hubert = reduced_hubert()["config"]
    wide = hubert["classifier_proj_size" if manifest["version"] == "v1" else "hidden_size"]
    assert found["enc_p.emb_phone.weight"] == (config["hidden_channels"], wide)
    assert found["emb_g.weight"] == (config["spk_embed_dim"], config["gin_channels"])
    assert found["enc_p.proj.weight"][0] == 2 * config["inter_channels"]
    assert found["flow.flows.0.pre.weight"][1] == config["inter_channels"] // 2
    assert found["dec.cond.weight"][1] == config["gin_channels"]
    assert list(config.values()) == manifest["config_list"]
    assert not any(key.startswith("enc_q.") for key in found)
    assert found.keys() == shapes(voice_manifest(name)).keys()
