"""What is no checkpoint is named for what it is, and what trainers store beside the weights does no harm."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import gzip
import io
import json
import pathlib
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import checkpoints as made
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from small_models import facts, hubert_state, rmvpe_state, voice_state

import reference_torch
import rvc_mlx

VOICE = "synth_v2_40k_f0"
SIDES = (reference_torch, rvc_mlx)
CLASSES = {"voice": "Synthesizer", "rmvpe": "RMVPE", "hubert": "Hubert"}
KINDS = pytest.mark.parametrize("kind", CLASSES)
STATES = {"voice": lambda: voice_state(VOICE), "rmvpe": rmvpe_state, "hubert": hubert_state}


def load(side: ModuleType, kind: str, path: Path) -> Any:
    return getattr(side, CLASSES[kind]).from_checkpoint(path, device="cpu")


def refused(side: ModuleType, kind: str, path: Path) -> str:
    """The error, without the path that it begins with."""
    with pytest.raises(side.CheckpointError) as caught:
        load(side, kind, path)
    text = str(caught.value)
    assert text.startswith(f"{path}"), text
    assert "\n" not in text
    return text.removeprefix(f"{path}").removeprefix(": ")


def save(kind: str, path: Path, state: dict[str, Any], fields: dict[str, Any] | None = None, **how: Any) -> Path:
    content: dict[str, Any] = {k: v if torch.is_tensor(v) else torch.from_numpy(np.array(v)) for k, v in state.items()}
    if kind == "voice":
        content = {"weight": content, "config": facts(VOICE)[0], "version": "v2", "f0": 1, "sr": 40000} | (fields or {})
    torch.save({k: v for k, v in content.items() if v is not None}, path, **how)
    return path


# --- other files


def archive(names: list[str]) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as made_of:
            for name in names:
                made_of.writestr(name, b"x")
        return file.getvalue()


def tape() -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as made_of:
            made_of.addfile(tarfile.TarInfo("voice.pth"))
        return file.getvalue()


def header(text: bytes, length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text


FLOAT8 = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
LONG = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
NO_CHECKPOINTS = {
    "empty.pth": (b"", "not a readable checkpoint: the file is empty; copy or download it again"),
    "empty.safetensors": (b"", "not a readable checkpoint: the file is empty; copy or download it again"),
    "lfs.pth": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        "but a Git LFS pointer; fetch the file",
    ),
    "lfs.safetensors": (b"version https://git-lfs.github.com/spec/v1\n", "but a Git LFS pointer; fetch the file"),
    "page.pth": (b"\n <!DOCTYPE html><html></html>", "but a web page; the download failed"),
    "answer.pth": (b'{"error": "not found"}', "but JSON text"),
    "text.pth": (b"Entry not found", "neither a PyTorch file nor .safetensors"),
    "zeros.pth": (bytes(1000), "neither a PyTorch file nor .safetensors"),
    "voice.zip": (archive(["V/model.pth", "V/added.index"]), "but a zip archive; unpack it and give V/model.pth"),
    "report.docx": (archive(["[Content_Types].xml"]), "but a zip archive; give the .pth or .pt"),
    "tape.pth": (tape(), "but a tar archive; unpack it"),
    "packed.pth": (gzip.compress(b"x"), "but a compressed file; unpack it"),
    "packed.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(50), "but an archive; unpack it"),
    "net.onnx": (b"\x08\x07\x12\x07pytorch" + bytes(50), "but an ONNX network"),
    "net.pth": (b"\x08\x07\x12\x07pytorch" + bytes(50), "but an ONNX network"),
    "voice.index": (b"IwFl" + bytes(90), "but a faiss index; give it as the index"),
    "voice.npy": (b"\x93NUMPY\x01\x00" + bytes(90), "but a NumPy array"),
    "voice.wav": (b"RIFF\x00\x00\x00\x00WAVEfmt ", "but a recording"),
    "pickle.pth": (b"\x80\x04}\x94.", "a pickle, but not one that PyTorch saved"),
    "half.pth": (archive(["a/data.pkl"])[:40], "truncated or damaged, its end is missing"),
    "text.safetensors": (header(b"{not json" + bytes(9)), "its .safetensors header is damaged"),
    "list.safetensors": (header(b"[1, 2]"), "its .safetensors header is damaged"),
    "long.safetensors": (header(b"{}", 1 << 60), "its .safetensors header is truncated or damaged"),
    "short.safetensors": (header(LONG) + bytes(8), "truncated, 78 of 86 bytes are there"),
    "float8.safetensors": (header(FLOAT8) + bytes(4), "tensor a is of type F8_E4M3, which is not supported"),
    "none.safetensors": (header(b"{}"), "holds no weights"),
}


@pytest.mark.parametrize("name", NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_named(side, tmp_path, name):
    content, message = NO_CHECKPOINTS[name]
    (tmp_path / name).write_bytes(content)
    for kind in CLASSES:
        assert message in refused(side, kind, tmp_path / name)


def test_the_form_is_told_by_the_content(side, tmp_path):
    save_file(rmvpe_state(), tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").rename(tmp_path / "a.pt")
    torch.save(made.tensors(rmvpe_state()), tmp_path / "b.safetensors")
    for name in ("a.pt", "b.safetensors"):
        load(side, "rmvpe", tmp_path / name)


@KINDS
def test_a_flipped_byte(kind, tmp_path):
    path = save(kind, tmp_path / "a.pth", STATES[kind]())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    for side in SIDES:
        assert "damaged (BadZipFile: Bad CRC-32" in refused(side, kind, path)


def test_what_torch_saves_besides_weights(side, tmp_path):
    network = torch.nn.Linear(2, 2)
    torch.save(network, tmp_path / "whole.pt")
    torch.save(network, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.jit.script(network).save(tmp_path / "program.pt")
    torch.save([1], tmp_path / "list.pt")
    for kind in CLASSES:
        for name in ("whole.pt", "old.pt"):
            text = refused(side, kind, tmp_path / name)
            assert text == "holds an object (torch.nn.modules.linear.Linear), not its weights; save its state_dict()"
        assert "but a TorchScript program" in refused(side, kind, tmp_path / "program.pt")
        assert refused(side, kind, tmp_path / "list.pt") == "holds no weights of a supported model"


def test_folders(side, tmp_path):
    (tmp_path / "voice").mkdir()
    (tmp_path / "voice" / "a.pth").touch()
    for kind in ("voice", "rmvpe"):
        assert refused(side, kind, tmp_path / "voice") == "is a folder; give the file itself, such as a.pth"
    state, sizes = hubert_state(), {"hidden_size": 128, "num_attention_heads": 2}
    load(side, "hubert", made.save_folder(tmp_path / "good", state, model_type="hubert", **sizes))
    for name in ("wav2vec2", "wavlm"):
        folder = made.save_folder(tmp_path / name, state, model_type=name, **sizes)
        for path in (folder, folder / "model.safetensors"):
            text = refused(side, "hubert", path)
            assert text.startswith(f"config.json says that this is a {name!r} model; expected HuBERT"), text
    (tmp_path / "good" / "config.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "config.json is a Git LFS pointer; fetch the file" in refused(side, "hubert", tmp_path / "good")


# --- other models

OTHERS = {
    "D_100.pth": ("discriminators.0.convs.0.weight_v", "a discriminator (D_*.pth), which only training needs"),
    "wavlm.pt": ("encoder.layers.0.attention.rel_attn_embed.weight", "WavLM"),
    "wav2vec.pt": ("wav2vec2.feature_extractor.conv_layers.0.conv.weight", "wav2vec 2.0"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_are_named(side, tmp_path, name):
    key, what = OTHERS[name]
    state = {"encoder.pos_conv_embed.conv.bias": torch.ones(2), key: torch.ones(2, 2)}
    for content in (state, {"model": state, "optimizer": {"state": {}}, "iteration": 3}):
        torch.save(content, tmp_path / name)
        for kind in CLASSES:
            assert refused(side, kind, tmp_path / name).startswith(f"this looks like {what}; expected ")


# --- damaged weights


def spoiled(values: np.ndarray, value: float) -> np.ndarray:
    values = values.copy()
    values.flat[3] = value
    return values


DAMAGE = {
    "NaN": (lambda v: spoiled(v, np.nan), "{key} (has NaN or infinite values)"),
    "infinity": (lambda v: spoiled(v, -np.inf), "{key} (has NaN or infinite values)"),
    "too large": (lambda v: np.full(v.shape, 1e300), "{key} (has NaN or infinite values)"),
    "integers": (lambda v: np.ones(v.shape, np.int64), "{key} (of type int64)"),
    "booleans": (lambda v: np.ones(v.shape, bool), "{key} (of type bool)"),
    "complex": (lambda v: np.ones(v.shape, np.complex64), "{key} (of type complex64)"),
    "sparse": (lambda v: torch.from_numpy(v).to_sparse(), "{key!r} is no plain tensor (torch._utils._rebuild_sparse"),
    "float8": (lambda v: torch.from_numpy(v).to(torch.float8_e4m3fn), "{key!r} is no plain tensor (torch._utils."),
}


@pytest.mark.filterwarnings("error")
@KINDS
@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_weights_are_named(kind, tmp_path, name):
    spoil, message = DAMAGE[name]
    state = STATES[kind]()
    key = next(k for k, v in state.items() if v.ndim > 1)
    path = save(kind, tmp_path / "a.pth", state | {key: spoil(state[key])})
    for side in SIDES:
        assert message.format(key=key) in refused(side, kind, path)


@KINDS
def test_weights_of_zero(kind, tmp_path):
    path = save(kind, tmp_path / "a.pth", {k: v * 0 for k, v in STATES[kind]().items()})
    for side in SIDES:
        assert refused(side, kind, path).endswith("all of its weights are zero")


def test_negative_variance(side, tmp_path):
    key = "unet.encoder.bn.running_var"
    path = save("rmvpe", tmp_path / "a.pt", rmvpe_state() | {key: np.full(1, -1, np.float32)})
    assert f"{key} (has a negative variance)" in refused(side, "rmvpe", path)


# --- what works


class Choice(enum.Enum):
    ONE = 1


class Thing:
    def __init__(self) -> None:
        self.inside = {"a": [1]}


Pair = collections.namedtuple("Pair", "a b")
GONE = (Choice, Thing, Pair)


def extras() -> dict[str, Any]:
    return {
        "size": torch.Size([1, 2]), "device": torch.device("cpu"), "dtype": torch.float16, "set": {1, 2},
        "frozen": frozenset([3]), "ordered": collections.OrderedDict(a=1), "counts": collections.Counter("aab"),
        "default": collections.defaultdict(list, a=[Thing()]), "number": np.float64(3), "whole": np.int64(3),
        "text": np.str_("x"), "array": np.arange(4.0), "kind": np.dtype("f4"), "when": datetime.datetime(2024, 1, 2),
        "zone": datetime.UTC, "path": pathlib.Path("/a/b"), "args": argparse.Namespace(a=1, b=[Thing()]),
        "choice": Choice.ONE, "pair": Pair(1, 2), "complex": 1j, "bytes": b"abc", "mutable": bytearray(b"x"),
        "range": range(3), "class": int, "parameter": torch.nn.Parameter(torch.ones(2)),
        "sparse": torch.eye(3).to_sparse(), "float8": torch.ones(2).to(torch.float8_e4m3fn),
        "uint16": torch.ones(2, dtype=torch.uint16), "waves": torch.ones(2, dtype=torch.complex64),
        "touched": Touching(), "optimizer": {"state": {0: {"exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 1.0}]},
    }  # fmt: skip


class Touching:
    """A call that is not on the list of hostile ones: it is not made all the same."""

    target = Path("was_run")

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize(
    ("protocol", "zipped"), [(2, True), (2, False), (3, True), (4, False), (5, True)]
)  # a pickle is read the same way in both
def test_extras_do_no_harm(tmp_path, monkeypatch, protocol, zipped):
    """Both sides read the same, also where the classes are gone."""
    monkeypatch.chdir(tmp_path)
    module = ModuleType("old_trainer")
    for thing in GONE:
        monkeypatch.setattr(thing, "__module__", "old_trainer")
        setattr(module, thing.__name__, thing)
    sys.modules["old_trainer"] = module
    how = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
    try:
        path = save("voice", tmp_path / "a.pth", voice_state(VOICE), extras(), **how)
    finally:
        del sys.modules["old_trainer"]
    ours, theirs = (made.reading(side).read_content(path) for side in ("rvc_mlx", "reference_torch"))
    assert ours.fields.keys() == theirs.fields.keys() == {"config", "version", "f0", "sr", *extras()}
    for name, value in ours.fields.items():
        if name not in ("args", "default"):
            assert str(value).partition(" object")[0] == str(theirs.fields[name]).partition(" object")[0], name
    assert [ours.fields[n] for n in ("number", "whole", "text", "size", "bytes", "set")] == [
        3,
        3,
        "x",
        (1, 2),
        b"abc",
        {1, 2},
    ]
    np.testing.assert_array_equal(ours.fields["array"], np.arange(4.0))
    for key, value in voice_state(VOICE).items():
        np.testing.assert_array_equal(ours.state[key], value)
        np.testing.assert_array_equal(theirs.state[key], value)
    assert not (tmp_path / "was_run").exists()


WRAPPED = {
    "model": lambda state: {"model": state, "optimizer": {"state": {}}, "global_step": 3},
    "state_dict": lambda state: {"state_dict": state, "hyper_parameters": argparse.Namespace(a=1)},
    "parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "both": lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
    "parameters": lambda state: {k: torch.nn.Parameter(v, v.is_floating_point()) for k, v in state.items()},
    "arrays": lambda state: {key: value.numpy() for key, value in state.items()},
}


@pytest.mark.parametrize("name", WRAPPED)
def test_state_dicts_of_trainers(tmp_path, name):
    for kind, state in (("rmvpe", rmvpe_state()), ("hubert", hubert_state())):
        torch.save(WRAPPED[name](made.tensors(state)), tmp_path / "a.pt")
        for side in ("rvc_mlx", "reference_torch"):
            found = made.reading(side).read_content(tmp_path / "a.pt", expected=kind).state
            assert found.keys() == state.keys()
            assert all(np.array_equal(found[key], value) for key, value in state.items())


def test_a_training_checkpoint_with_a_config(side, tmp_path):
    more = {"optimizer": {"state": {0: torch.ones(2)}}, "config": facts(VOICE)[0], "version": "v2", "f0": 1}
    torch.save({"model": made.tensors(voice_state(VOICE)), **more}, tmp_path / "G_100.pth")
    assert load(side, "voice", tmp_path / "G_100.pth").version == "v2"


# --- entries that are absent, and those of ddPn08's fork


def wide(name: str, width: int) -> dict[str, np.ndarray]:
    """The state of a voice that takes real features."""
    state = dict(voice_state(name))
    rows = state["enc_p.emb_phone.weight"].shape[0]
    random = np.random.default_rng(0)
    return state | {"enc_p.emb_phone.weight": random.standard_normal((rows, width)).astype(np.float32)}


@pytest.mark.parametrize(("name", "width", "version"), [(VOICE, 768, "v2"), ("synth_v1_40k_f0", 256, "v1")])
def test_the_weights_tell_the_version(side, tmp_path, name, width, version):
    absent = {"version": None, "f0": None, "config": facts(name)[0]}
    model = load(side, "voice", save("voice", tmp_path / "a.pth", wide(name, width), absent))
    assert (model.version, model.has_f0, model.vocoder) == (version, True, "HiFi-GAN")


@pytest.mark.parametrize("name", ["synth_v2_48k_nof0", "synth_v2_32k_f0_mrf", "synth_v2_24k_f0_refinegan"])
def test_the_weights_tell_pitch_and_vocoder(side, tmp_path, name):
    config, _, f0, vocoder = facts(name)
    path = save("voice", tmp_path / "a.pth", voice_state(name), {"f0": None, "config": config, "version": "v2"})
    assert (load(side, "voice", path).has_f0, load(side, "voice", path).vocoder) == (f0, vocoder)


def test_ddpn08s_voices(side, tmp_path):
    """19 values; the width of the features stands before the sample rate."""
    config = facts(VOICE)[0]

    def path(width: int, **fields: Any) -> Path:
        more = {"config": [*config[:17], width, config[17]], "version": None, "info": "3epoch", "sr": "40k"}
        return save("voice", tmp_path / "a.pth", wide(VOICE, 768), more | fields)

    for fields in ({}, {"version": "v1"}, {"embedder_output_layer": 12, "embedder_name": "contentvec"}):
        model = load(side, "voice", path(768, **fields))
        assert (model.version, model.phone_channels, model.sample_rate) == ("v2", 768, 40000)
    text = refused(side, "voice", path(256))
    assert text == "config: emb_channels is 256, but the weights take features of 768 values"
    text = refused(side, "voice", path(768, embedder_output_layer=9))
    assert text == "embedder_output_layer 9 is not supported with features of 768 values"
    assert "config has 20 values instead of 18" in refused(side, "voice", path(768, config=[*range(1, 21)]))
