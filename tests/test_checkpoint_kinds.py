"""Voices and HuBERT as users have them: what both sides make of every layout, and what they refuse."""

from __future__ import annotations

import importlib
import json
import pickle
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import checkpoints as made
import numpy as np
import pytest
import torch

from rvc_common import CheckpointError, checkpoint
from rvc_common.config import CONFIG_NAMES
from rvc_common.keys import hubert_names

VOICES = sorted(p.stem for p in made.MANIFESTS.glob("synth_*.json"))
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old-style"])


@pytest.fixture
def reader(side: ModuleType) -> SimpleNamespace:
    return made.reading(side.__name__)


@pytest.fixture(scope="module")
def hubert_state() -> dict[str, np.ndarray]:
    return made.toy_state("hubert_contentvec")


def few(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Enough of it for what is refused before the weights are looked at."""
    return dict(list(state.items())[:9])


def assert_same(given, expected):
    assert given.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(given[key], value, err_msg=key)


# --- names and configuration


def test_weight_norm_names():
    state = made.toy_state("synth_v2_40k_f0")
    assert any(k.endswith(".weight_g") for k in state)
    in_memory = made.in_memory_names(state)
    assert in_memory.keys() != state.keys()
    assert_same(checkpoint.normalise_keys(in_memory), state)
    assert_same(checkpoint.normalise_keys(state), state)


def test_one_layer_with_both_names_is_named():
    both = {"dec.ups.0.weight_g": np.ones(1), "dec.ups.0.parametrizations.weight.original0": np.ones(1)}
    for state in (both, dict(reversed(both.items()))):
        with pytest.raises(CheckpointError, match=r"layer dec\.ups\.0 has its weight norm in both"):
            checkpoint.normalise_keys(state)


def test_config_by_position_and_by_name():
    facts = made.manifest("synth_v2_40k_f0")
    assert checkpoint.named_config(facts["config_list"]) == facts["config"] == checkpoint.named_config(facts["config"])
    assert list(checkpoint.named_config(dict(reversed(facts["config"].items())))) == list(CONFIG_NAMES)


CONFIGS = {
    "short": (lambda c: list(c.values())[:-1], "17 values instead of 18"),
    "type": (lambda c: "v2", "a list or a mapping, not str"),
    "missing": (lambda c: {k: v for k, v in c.items() if k != "n_heads"}, "n_heads is missing"),
    "unknown": (lambda c: c | {"n_head": 2}, "'n_head' is unknown"),
    "text": (lambda c: c | {"sr": "40k"}, "sr cannot be '40k'"),
    "negative": (lambda c: c | {"n_layers": -6}, "n_layers cannot be -6"),
    "layers": (lambda c: c | {"n_layers": 10**5}, "n_layers cannot be 100000"),
    "kernels": (lambda c: c | {"upsample_rates": [10**6] * 4}, "upsample_rates cannot be"),
    "bool": (lambda c: c | {"hidden_channels": True}, "hidden_channels cannot be True"),
    "nested": (lambda c: c | {"upsample_rates": [10, [2]]}, r"upsample_rates cannot be \[10, \[2\]\]"),
    "scalar": (lambda c: c | {"upsample_rates": 10}, "upsample_rates cannot be 10"),
    "flat": (lambda c: c | {"resblock_dilation_sizes": [1, 3, 5]}, "resblock_dilation_sizes cannot be"),
    "lengths": (lambda c: c | {"upsample_rates": [10, 2]}, "upsample_rates and upsample_kernel_sizes differ"),
    "dropout": (lambda c: c | {"p_dropout": float("nan")}, "p_dropout cannot be nan"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_absurd_config(case):
    change, message = CONFIGS[case]
    with pytest.raises(CheckpointError, match=message):
        checkpoint.named_config(change(made.manifest("synth_v2_40k_f0")["config"]))


# --- voices


@pytest.mark.parametrize("name", VOICES)
def test_voices_of_every_kind(reader, tmp_path, name):
    facts = made.manifest(name)
    voice = reader.read_voice(made.save_voice(tmp_path / "a.pth", name, torch.float32))
    assert_same(voice.state, made.toy_state(name))
    assert voice.config == facts["config"] | {"spk_embed_dim": 3}  # rows of the toy, not the stale 109
    assert (voice.version, voice.f0, voice.vocoder) == (facts["version"], bool(facts["f0"]), facts["vocoder"])


EXTRAS = {
    "epoch": 100, "info": None, "author": "Zoë", "lr": 1e-4, "list": [1, "a", None],
    "nested": {"speakers": {"0": "a"}, "deep": [{"x": 1}]}, "tuple": (1, 2),
}  # fmt: skip


# each value once, and each type of numbers in both formats, whose readers are not the same
@pytest.mark.parametrize(
    ("style", "dtype", "enc_q", "zipped"),
    [
        ("on disk", torch.float16, True, True),
        ("in memory", torch.float16, False, False),
        ("in memory", torch.float32, True, True),
        ("on disk", torch.float32, False, False),
        ("on disk", torch.bfloat16, False, True),
        ("in memory", torch.bfloat16, True, False),
    ],
)
def test_both_sides_read_the_same_voice(tmp_path, style, dtype, enc_q, zipped):
    state = made.toy_state("synth_v2_40k_f0", enc_q=enc_q)
    path = tmp_path / "a.pth"
    given = state if style == "on disk" else made.in_memory_names(state)
    made.save_voice(path, dtype=dtype, state=given, **EXTRAS)
    if not zipped:
        torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    ours, theirs = (made.reading(side).read_voice(path) for side in ("rvc_mlx", "reference_torch"))
    assert ours[1:] == theirs[1:]
    rounded = {k: torch.from_numpy(v).to(dtype).float().numpy() for k, v in state.items()}
    for voice in (ours, theirs):
        assert_same(voice.state, rounded)
        assert {v.dtype for v in voice.state.values()} == {np.dtype(np.float32)}


def test_absent_entries_have_meanings(reader, tmp_path):
    path = made.save_voice(tmp_path / "a.pth", "synth_v1_40k_f0", version=None, f0=None, sr=None)
    assert reader.read_voice(path)[2:] == ("v1", True, "HiFi-GAN", None)


FIELDS = {
    "vocoder": ("BigVGAN", "unknown vocoder 'BigVGAN': one of HiFi-GAN, MRF HiFi-GAN, RefineGAN"),
    "version": ("v3", "unknown version 'v3'"),
    "f0": (2, "unknown f0 2"),
    "config": ([1, 2], "2 values instead of 18"),
    "state": ({"enc_p.weight": np.zeros(2, np.float32)}, r"no emb_g\.weight"),
}


@pytest.mark.parametrize("field", FIELDS)
def test_wrong_entries(reader, tmp_path, field):
    value, message = FIELDS[field]
    with pytest.raises(CheckpointError, match=rf"a\.pth: .*{message}"):
        reader.read_voice(made.save_voice(tmp_path / "a.pth", **{field: value}))


def test_what_lacks_the_config_says_what_to_give(reader, tmp_path):
    state = made.tensors(made.toy_state("synth_v2_40k_f0", enc_q=True))
    torch.save({"model": state, "optimizer": {"state": {}}, "iteration": 3, "learning_rate": 1e-4}, tmp_path / "G.pth")
    torch.save(state, tmp_path / "bare.pth")
    made.save_voice(tmp_path / "no.pth", config=None)
    for name, what in ("G", "a training checkpoint"), ("bare", "a bare state dict"), ("no", ""):
        with pytest.raises(CheckpointError, match=rf"{name}\.pth: .*{what}.*give the exported voice file"):
            reader.read_voice(tmp_path / f"{name}.pth")


def test_safetensors_of_others_lack_the_config(reader, tmp_path):
    from safetensors.numpy import save_file

    save_file(made.toy_state("synth_v2_40k_f0"), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="lacks the voice's config"):
        reader.read_voice(tmp_path / "a.safetensors")
    save_file(made.toy_state("synth_v2_40k_f0"), tmp_path / "b.safetensors", metadata={"format": "rvc-parity/9"})
    with pytest.raises(CheckpointError, match="format rvc-parity/9 is not supported"):
        reader.read_voice(tmp_path / "b.safetensors")
    damaged = {"format": "rvc-parity/1", "config": "[1, 2"}
    save_file(made.toy_state("synth_v2_40k_f0"), tmp_path / "c.safetensors", metadata=damaged)
    with pytest.raises(CheckpointError, match="metadata is damaged"):
        reader.read_voice(tmp_path / "c.safetensors")
    assert reader.read_metadata(tmp_path / "b.safetensors") == {"format": "rvc-parity/9"}


class Runs:
    def __init__(self, name: str, *arguments: object) -> None:
        module, _, function = name.rpartition(".")
        self.call = (getattr(importlib.import_module(module), function), arguments)

    def __reduce__(self):
        return self.call


def hostile(target: Path) -> dict[str, Runs]:
    return {
        "system": Runs("os.system", f"touch {target}"),
        "eval": Runs("builtins.eval", f"open({str(target)!r}, 'w')"),
        "exec": Runs("builtins.exec", f"open({str(target)!r}, 'w')"),
        "open": Runs("io.open", str(target), "w"),
        "run": Runs("subprocess.check_output", ["touch", str(target)]),
    }


@pytest.mark.parametrize("name", hostile(Path("x")))
def test_voice_with_code_in_its_extras_is_refused(reader, tmp_path, name):
    target = tmp_path / "was_run"
    small = {"emb_g.weight": np.zeros((3, 2), np.float32)}
    made.save_voice(tmp_path / "a.pth", state=small, note=hostile(target)[name])
    for read in (reader.read_voice, reader.read_hubert, reader.read_rmvpe):
        with pytest.raises(CheckpointError, match=r"refused: the pickle asks for \S+"):
            read(tmp_path / "a.pth")
    assert not target.exists()


# --- HuBERT


@FORMATS
def test_fairseq_layout(reader, tmp_path, hubert_state, zipped):
    path = made.save_fairseq(tmp_path / "h.pt", hubert_state, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="this looks like a HuBERT checkpoint; expected RMVPE"):
        reader.read_rmvpe(path)
    assert_same(reader.read_hubert(path), hubert_state)


def test_a_fairseq_file_names_foreign_classes(tmp_path, hubert_state):
    path = made.save_fairseq(tmp_path / "h.pt", hubert_state)
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    assert {"fairseq_of_old.Dictionary", "fairseq_of_old.Choice", "argparse.Namespace"} <= set(names)


def test_every_name_of_fairseqs_base_model():
    """All 213 names one by one, and ``label_embs_concat``, the training targets, left out."""
    table = made.fairseq_table()
    given = {name: np.array(i) for i, name in enumerate(table)}
    found = hubert_names(given | {"label_embs_concat": np.zeros(3)})
    assert {name: int(value) for name, value in found.items()} == {new: i for i, new in enumerate(table.values())}
    assert set(table.values()) == {entry["key"] for entry in made.manifest("hubert_contentvec")["tensors"]}
    assert len(table) == 7 + 2 + 2 + 2 + 1 + 3 + 12 * 16 + 2 + 2


@FORMATS
@pytest.mark.parametrize("name", hostile(Path("x")))
def test_stand_ins_run_nothing(reader, tmp_path, hubert_state, name, zipped):
    target = tmp_path / "was_run"
    beside = {"extra_state": hostile(target)[name]}
    path = made.save_fairseq(tmp_path / "h.pt", few(hubert_state), beside=beside, _use_new_zipfile_serialization=zipped)
    for read in (reader.read_hubert, reader.read_rmvpe, reader.read_voice):
        with pytest.raises(CheckpointError, match="refused: the pickle asks for"):
            read(path)
    assert not target.exists()


def test_the_hostile_files_would_run(tmp_path, hubert_state):
    """Without protection the marker appears: the tests above would notice."""
    target = tmp_path / "was_run"
    pickle.loads(pickle.dumps(hostile(target)["run"]))
    assert target.exists()


@pytest.mark.parametrize(
    ("weights", "prefix", "style"),
    [
        ("model.safetensors", "", "on disk"),
        ("model.safetensors", "hubert.", "in memory"),
        ("pytorch_model.bin", "", "in memory"),
        ("pytorch_model.bin", "hubert.", "on disk"),
    ],
)
def test_hugging_face_folder_and_file(reader, tmp_path, hubert_state, weights, prefix, style):
    state = hubert_state if style == "on disk" else made.in_memory_names(hubert_state)
    state = {(k if k.startswith("final_proj") else prefix + k): v for k, v in state.items()}
    folder = made.save_folder(tmp_path / "hf", state, weights)
    assert_same(reader.read_hubert(folder), hubert_state)
    assert_same(reader.read_hubert(folder / weights), hubert_state)


def test_what_inference_does_not_need_may_be_absent(reader, tmp_path, hubert_state):
    state = {k: v for k, v in hubert_state.items() if not k.startswith(("final_proj", "masked"))}
    assert_same(reader.read_hubert(made.save_folder(tmp_path / "hf", state)), state)


def test_unknown_keys_are_left_to_the_model(reader, tmp_path, hubert_state):
    state = hubert_state | {"adapter.weight": np.zeros(2, np.float32)}
    assert "adapter.weight" in reader.read_hubert(made.save_folder(tmp_path / "hf", state))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("do_stable_layer_norm", True),
        ("feat_extract_norm", "layer"),
        ("hidden_act", "relu"),
        ("num_attention_heads", 5),
        ("conv_stride", [5, 2, 2, 2, 2, 2, 4]),
        ("layer_norm_eps", 1e-3),
        ("conv_bias", True),
    ],
)
def test_variants_are_refused(reader, tmp_path, hubert_state, name, value):
    folder = made.save_folder(tmp_path / "hf", few(hubert_state), **{name: value})
    with pytest.raises(CheckpointError, match=re.escape(f"hf: not HuBERT's base variant: {name} is {value!r}")):
        reader.read_hubert(folder)


def test_broken_folders(reader, tmp_path, hubert_state):
    with pytest.raises(CheckpointError, match=r"a: a folder without model\.safetensors or pytorch_model\.bin"):
        reader.read_hubert(made.save_folder(tmp_path / "a", hubert_state, ""))
    folder = made.save_folder(tmp_path / "b", hubert_state)
    for text in (None, "{", "[1]", json.dumps("x")):
        (folder / "config.json").unlink() if text is None else (folder / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"b: config\.json cannot be read"):
            reader.read_hubert(folder)
    with pytest.raises(CheckpointError, match="is a folder"):
        reader.read_rmvpe(folder)


def test_two_names_of_one_tensor(reader, tmp_path, hubert_state):
    state = hubert_state | {"hubert.final_proj.bias": hubert_state["final_proj.bias"]}
    with pytest.raises(CheckpointError, match="two of its keys mean the same tensor"):
        reader.read_hubert(made.save_folder(tmp_path / "hf", state))


# --- wrong kinds and damage


def test_wrong_kinds_say_what_they_look_like(reader, tmp_path, hubert_state, tiny_state):
    voice = made.save_voice(tmp_path / "voice.pth")
    hubert = made.save_fairseq(tmp_path / "hubert.pt", hubert_state)
    rmvpe = tmp_path / "rmvpe.pt"
    torch.save(made.tensors(tiny_state), rmvpe)
    other = tmp_path / "other.pt"
    torch.save({"a": torch.zeros(2)}, other)
    wrong = [
        (reader.read_hubert, voice, "this looks like a voice checkpoint; expected HuBERT"),
        (reader.read_hubert, rmvpe, "this looks like an RMVPE checkpoint; expected HuBERT"),
        (reader.read_hubert, other, "no supported kind of checkpoint (with a); expected HuBERT"),
        (reader.read_voice, hubert, "this looks like a HuBERT checkpoint; expected voice"),
        (reader.read_voice, rmvpe, "this looks like an RMVPE checkpoint; expected voice"),
        (reader.read_rmvpe, voice, "this looks like a voice checkpoint; expected RMVPE"),
    ]
    for read, path, message in wrong:
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert f"{path}: {message}" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_model_says_what_it_was_given(side):
    state = made.toy_state("hubert_contentvec")
    with pytest.raises(
        side.CheckpointError, match=r"not a checkpoint of this RMVPE: .*; this looks like a HuBERT checkpoint"
    ):
        side.RMVPE.from_state_dict(state)


@pytest.fixture(scope="module", params=[True, False], ids=["zip", "old-style"])
def whole_files(request, tmp_path_factory, hubert_state) -> dict[str, bytes]:
    folder, how = tmp_path_factory.mktemp("whole"), {"_use_new_zipfile_serialization": request.param}
    voice, hubert = made.save_voice(folder / "v.pth"), made.save_fairseq(folder / "h.pt", hubert_state, **how)
    torch.save(torch.load(voice, weights_only=True), voice, **how)
    return {path.name: path.read_bytes() for path in (voice, hubert)}


@pytest.mark.parametrize("kept", [0, 1, 40, 0.2, 0.6, 0.99])
def test_truncated(reader, tmp_path, whole_files, kept):
    for (name, data), read in zip(whole_files.items(), (reader.read_voice, reader.read_hubert), strict=True):
        path = tmp_path / name
        path.write_bytes(data[: kept if kept >= 1 or kept == 0 else int(len(data) * kept)])
        with pytest.raises(CheckpointError, match=rf"{path.name}: (not a readable|refused)"):
            read(path)


def test_missing(reader, tmp_path):
    for read in (reader.read_voice, reader.read_hubert, reader.read_rmvpe, reader.read_metadata):
        with pytest.raises(CheckpointError, match=r"a\.safetensors: no such file"):
            read(tmp_path / "a.safetensors")


def test_old_style_files_equal_new_ones(reader, tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    state = {"a": base.t(), "b": base[1:3, ::2], "c": torch.tensor(5), "d": torch.zeros(0, 3), "e": base.half()}
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    read = reader.read_file(tmp_path / "a.pt")
    assert_same(read, {k: v.numpy() for k, v in state.items()})


def test_bfloat16_safetensors(reader, tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.tensor([1.0, -2.5, 3e38]).bfloat16(), "n": torch.tensor(3)}, tmp_path / "a.safetensors")
    read = reader.read_file(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(read["a"], torch.tensor([1.0, -2.5, 3e38]).bfloat16().float().numpy())
    assert read["n"] == 3
