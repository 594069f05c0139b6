"""Conversion keeps every value, both ways, and refuses what is not a model."""

from __future__ import annotations

import argparse
import json
import os
import re

import checkpoints as made
import numpy as np
import pytest
import torch
from command import suites
from small_models import facts, hubert_state, voice_state

from rvc_common.checkpoint import read_metadata
from rvc_common.config import named_config
from suites.__main__ import main
from suites.base.errors import UserError
from suites.commands import convert as module
from suites.commands.convert import convert

READING = [made.reading(side) for side in ("reference_torch", "rvc_mlx")]


@pytest.fixture
def checkpoint(tmp_path, tiny_state):
    torch.save({k: torch.from_numpy(v) for k, v in tiny_state.items()}, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def save_voice(path, name="synth_v2_40k_f0", dtype=torch.float16, **fields):
    """A voice that loads, with a stale count of speakers as upstream's have it."""
    config = facts(name)[0]
    config[15] = 109
    return made.save_voice(path, name, dtype, **{"state": voice_state(name), "config": config} | fields)


def assert_bits(given: dict, expected: dict):
    assert given.keys() == expected.keys()
    for key, value in expected.items():
        assert given[key].dtype == value.dtype, key
        assert torch.equal(given[key], value), key


def test_there_and_back(tmp_path, checkpoint, tiny_state):
    text = convert(checkpoint, tmp_path / "a.safetensors")
    assert "rmvpe, 741 tensors" in text
    convert(tmp_path / "a.safetensors", tmp_path / "b.pt", "rmvpe")
    assert_bits(torch.load(tmp_path / "b.pt", weights_only=True), made.tensors(tiny_state))
    metadata = read_metadata(tmp_path / "a.safetensors")
    assert {k: metadata[k] for k in ("format", "model", "source")} == {
        "format": "rvc-parity/1", "model": "rmvpe", "source": "a.pt",
    }  # fmt: skip
    assert len(metadata["source_sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.pt", "is the same file as"),
        ("a.bin", r"write \.safetensors or \.pt or \.pth"),
        ("nowhere/a.safetensors", "nowhere does"),
    ],
)
def test_bad_targets(tmp_path, checkpoint, name, message):
    with pytest.raises((UserError, OSError), match=message):
        convert(checkpoint, tmp_path / name, "rmvpe")
    assert not list(tmp_path.glob("*.part"))


def test_another_model(tmp_path, checkpoint):
    save_voice(tmp_path / "v.pth")
    with pytest.raises(UserError, match="this looks like a voice checkpoint; expected RMVPE"):
        convert(tmp_path / "v.pth", tmp_path / "a.safetensors", "rmvpe")
    with pytest.raises(UserError, match="this looks like an RMVPE checkpoint; expected voice"):
        convert(checkpoint, tmp_path / "a.safetensors", "voice")
    torch.save({"a": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="expected RMVPE, HuBERT or a voice"):
        convert(tmp_path / "x.pt", tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_incomplete_rmvpe(tmp_path, tiny_state):
    torch.save(made.tensors({k: v for k, v in tiny_state.items() if k != "cnn.bias"}), tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a\.pt: not a checkpoint of this RMVPE: 1 missing \(cnn\.bias\)"):
        convert(tmp_path / "a.pt", tmp_path / "a.safetensors")


DAMAGE = {
    "missing": (lambda state, key: {k: v for k, v in state.items() if k != key}, "1 missing"),
    "unexpected": (lambda state, key: state | {"more.weight": np.ones(2, np.float32)}, "1 unexpected"),
    "misshapen": (lambda state, key: state | {key: state[key][..., :-1]}, "1 misshapen"),
    "integers": (lambda state, key: state | {key: state[key].astype(np.int32)}, "of type int32"),
    "infinite": (lambda state, key: state | {key: np.full(state[key].shape, 1e300)}, "has NaN or infinite values"),
    "zero": (lambda state, key: {k: v * 0 for k, v in state.items()}, "all of its weights are zero"),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("kind", ["voice", "hubert", "rmvpe"])
def test_what_no_side_loads(tmp_path, tiny_state, kind, name):
    spoil, message = DAMAGE[name]
    state = {"voice": voice_state("synth_v2_40k_f0"), "hubert": hubert_state(), "rmvpe": tiny_state}[kind]
    state = spoil(
        state, next(k for k in reversed(state) if k.endswith(".weight") and k != "emb_g.weight" and state[k].ndim > 1)
    )
    if kind == "voice":
        save_voice(tmp_path / "a.pth", dtype=torch.float64, state=state)
    else:
        torch.save(made.tensors(state), tmp_path / "a.pth")
    with pytest.raises(UserError, match=rf"a\.pth: .*{message}"):
        convert(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_objects_of_trainers_are_left_out(tmp_path):
    source = save_voice(tmp_path / "v.pth", args=argparse.Namespace(a=1), kind=[torch.float16], epoch=3, tags={"a"})
    assert "left out, since they are objects of other programs: args, kind" in convert(source, tmp_path / "w.pth")
    again = torch.load(tmp_path / "w.pth", weights_only=True)
    assert {name: again.get(name) for name in ("epoch", "tags", "args", "kind")} == {
        "epoch": 3, "tags": {"a"}, "args": None, "kind": None,
    }  # fmt: skip


EXTRAS = {"epoch": 3, "model_name": "Zoë", "loss": float("inf"), "nested": {"a": [1, {"b": 2.5}], "t": True, "n": None}}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("synth_v2_40k_f0", torch.float16),
        ("synth_v2_40k_f0", torch.float32),
        ("synth_v2_32k_f0_mrf", torch.float16),
        ("synth_v2_48k_nof0", torch.float16),
        ("synth_v1_40k_f0", torch.float32),
    ],
)
def test_voice_there_and_back(tmp_path, name, dtype):
    source = save_voice(tmp_path / "v.pth", name, dtype, **EXTRAS)
    convert(source, tmp_path / "v.safetensors")
    convert(tmp_path / "v.safetensors", tmp_path / "w.pth")
    before, after = (torch.load(p, weights_only=True) for p in (source, tmp_path / "w.pth"))
    assert_bits(after.pop("weight"), before.pop("weight"))
    assert after == before
    assert after["config"][15] == 109  # the stale count too
    voices = [side.read_voice(p) for side in READING for p in (source, tmp_path / "v.safetensors")]
    for voice in voices[1:]:
        assert voice[1:] == voices[0][1:]
        assert all(np.array_equal(voice.state[k], v) for k, v in voices[0].state.items())
    size = sum(v.nbytes for v in voice_state(name).values()) * (2 if dtype == torch.float32 else 1)
    assert (tmp_path / "v.safetensors").stat().st_size < size + 100_000


def test_metadata_of_a_voice(tmp_path):
    source = save_voice(tmp_path / "v.pth", **EXTRAS, odd=(1, 2), blob=torch.ones(2))
    text = convert(source, tmp_path / "v.safetensors")
    assert "left out, since JSON cannot hold them: blob, odd" in text
    metadata = read_metadata(tmp_path / "v.safetensors")
    assert (metadata["version"], metadata["f0"], metadata["vocoder"]) == ("v2", "1", "HiFi-GAN")
    assert (metadata["sample_rate"], metadata["profile"], metadata["model"]) == ("40000", "applio", "voice")
    assert json.loads(metadata["config"]) == named_config(facts("synth_v2_40k_f0")[0]) | {"spk_embed_dim": 109}
    assert json.loads(metadata["extras"]) == EXTRAS | {"sr": 40000}


def test_export_of_the_webui(tmp_path):
    save_voice(tmp_path / "v.pth", info="200epoch", sr="40k")
    convert(tmp_path / "v.pth", tmp_path / "v.safetensors")
    assert read_metadata(tmp_path / "v.safetensors")["profile"] == "webui"
    convert(tmp_path / "v.safetensors", tmp_path / "w.safetensors")
    assert read_metadata(tmp_path / "w.safetensors")["profile"] == "webui"
    convert(tmp_path / "w.safetensors", tmp_path / "w.pth")
    assert torch.load(tmp_path / "w.pth", weights_only=True)["sr"] == "40k"


def test_in_memory_names_come_back_as_on_disk(tmp_path):
    state = voice_state("synth_v2_40k_f0")
    save_voice(tmp_path / "v.pth", state=made.in_memory_names(state))
    convert(tmp_path / "v.pth", tmp_path / "v.safetensors")
    convert(tmp_path / "v.safetensors", tmp_path / "w.pth")
    assert_bits(torch.load(tmp_path / "w.pth", weights_only=True)["weight"], made.tensors(state, torch.float16))


@pytest.mark.parametrize("layout", ["fairseq", "folder"])
def test_hubert_there_and_back(tmp_path, layout):
    state = dict(hubert_state())
    state["final_proj.weight"] = state["final_proj.weight"].astype(np.float16)
    if layout == "fairseq":
        source = made.save_fairseq(tmp_path / "h.pt", state)
    else:
        source = made.save_folder(tmp_path / "h", state, hidden_size=128, num_attention_heads=2)
    assert "hubert, 213 tensors" in convert(source, tmp_path / "h.safetensors")
    convert(tmp_path / "h.safetensors", tmp_path / "i.pt")
    assert_bits(torch.load(tmp_path / "i.pt", weights_only=True), made.tensors(state))
    for side in READING:
        for path in (source, tmp_path / "h.safetensors", tmp_path / "i.pt"):
            given = side.read_hubert(path)
            assert given.keys() == state.keys()
            assert all(np.array_equal(given[k], v) for k, v in state.items())
    assert read_metadata(tmp_path / "h.safetensors")["source"] == source.name


def test_hostile_voice(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'was_run'}",))

    save_voice(tmp_path / "v.pth", note=Evil())
    with pytest.raises(UserError, match="refused: the pickle asks for"):
        convert(tmp_path / "v.pth", tmp_path / "v.safetensors")
    assert not (tmp_path / "was_run").exists()
    assert not (tmp_path / "v.safetensors").exists()


@pytest.mark.usefixtures("quick")
def test_check_on_every_side(tmp_path, checkpoint):
    text = convert(checkpoint, tmp_path / "a.safetensors", check=True)
    assert "rvc_mlx: loads both, and gives bit for bit the same own_salience [101, 360]" in text
    assert "reference_torch: loads both" in text


@pytest.mark.usefixtures("quick")
def test_check_notices_a_difference_of_one_bit(tmp_path, monkeypatch):
    source = save_voice(tmp_path / "v.pth")

    def results(worker, kind, path, folder, profile):
        return {"audio": np.full((1, 8), 1.0 if path.suffix == ".pth" else last)}

    monkeypatch.setattr(module, "_results", results)
    last = 1.0
    assert "rvc_mlx: loads both" in convert(source, tmp_path / "v.safetensors", check=True)
    last = np.nextafter(1, 2)
    with pytest.raises(UserError, match="rvc_mlx: audio of the two files differs"):
        convert(source, tmp_path / "v.safetensors", check=True)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("backend", ["mlx_cpu", "torch_cpu"])
def test_check_of_a_voice_runs_it(tmp_path, backend, monkeypatch):
    """Under the profile that it was exported with: this one's rates run in the WebUI alone."""
    monkeypatch.setattr(module, "SIDES", {"side": backend})
    name, whole = "odd_v2_30k_f0_webui", {"info": "200epoch", "sr": "30k"}
    source = save_voice(tmp_path / "v.pth", name, state=voice_state(name), config=facts(name)[0], **whole)
    text = convert(source, tmp_path / "v.safetensors", check=True)
    assert "side: loads both, and gives bit for bit the same infer [1, " in text


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("bits", "least_db"), [(4, 8), (6, 18), (8, 26)])
def test_fewer_bits(tmp_path, checkpoint, tiny_state, bits, least_db):
    """The file says what was done, every command reads it, and both sides are off by the same."""
    target = tmp_path / "q.safetensors"
    lines = convert(checkpoint, target, check=True, bits=bits, group=32).splitlines()
    assert re.search(
        rf"7 matrices in {bits} bits \(groups of 32\) and 68 convolutions in 8, off by \d+\.\d\d%", lines[0]
    )
    wide = sum(4 * value.size for value in tiny_state.values()) / 1e6
    assert re.fullmatch(rf"6\.\d+ MB instead of {wide:.3g} in float32 \(0\.2\d\d\); loading widens .*", lines[1])
    ratios = [float(re.search(r"own_salience ([\d.]+) dB$", line)[1]) for line in lines[2:]]
    assert [line.partition(":")[0] for line in lines[2:]] == ["rvc_mlx", "reference_torch"]
    assert ratios[0] == pytest.approx(ratios[1], abs=0.1)
    assert min(ratios) > least_db
    about = json.loads(read_metadata(target)["quantization"])
    assert (about["bits"], about["group"]) == (bits, 32)
    # and back: the widened values, in a file like any other
    convert(target, tmp_path / "wide.pt")
    wide_state = torch.load(tmp_path / "wide.pt", weights_only=True)
    assert wide_state.keys() == tiny_state.keys()
    assert {value.dtype for name, value in wide_state.items() if name.endswith("weight_hh_l0")} == {torch.float32}


def test_a_quantised_voice_keeps_what_a_voice_has(tmp_path):
    source = save_voice(tmp_path / "v.pth", embedder_model="contentvec")
    convert(source, tmp_path / "q.safetensors", bits=4)
    read = made.reading("rvc_mlx")
    exact, found = read.read_voice(source), read.read_voice(tmp_path / "q.safetensors")
    assert found[1:] == exact[1:]
    assert np.array_equal(found.state["emb_g.weight"], exact.state["emb_g.weight"])
    assert not np.array_equal(found.state["enc_p.emb_phone.weight"], exact.state["enc_p.emb_phone.weight"])


def test_a_ratio_of_equal_results_is_told_in_words():
    value = np.ones(3)
    assert (module._ratio(value, value), module._ratio(value * 1.1, value)) == ("the same", "20.0 dB")


def test_bits_that_cannot_be_stored(tmp_path, checkpoint, capsys):
    assert main(["convert", str(checkpoint), str(tmp_path / "a.pt"), "--quantize", "4"]) == 2
    assert "write .safetensors" in capsys.readouterr().err
    for words, message in ((["--quantize", "5"], "choose from 4, 6, 8"), (["--group", "7"], "choose from 32, 64, 128")):
        assert main(["convert", str(checkpoint), str(tmp_path / "a.safetensors"), *words]) == 2
        assert message in capsys.readouterr().err.replace("'", "")
    assert not (tmp_path / "a.safetensors").exists()


def test_check_says_what_is_not_installed(tmp_path, checkpoint, monkeypatch):
    """And the worker of the other side is a process."""
    monkeypatch.setattr(module, "impossible", lambda name: f"{name} is not installed")
    with pytest.raises(UserError, match="install mlx or torch"):
        convert(checkpoint, tmp_path / "a.safetensors", check=True)
    one = lambda name: "torch is not installed" if name == "torch_cpu" else None  # noqa: E731
    monkeypatch.setattr(module, "impossible", one)
    text = convert(checkpoint, tmp_path / "a.safetensors", check=True)
    assert "reference_torch: not checked, torch is not installed" in text
    assert "rvc_mlx: loads both" in text


def test_command_line(tmp_path):
    save_voice(tmp_path / "v.pth")
    words = ["convert", str(tmp_path / "v.pth"), str(tmp_path / "v.safetensors")]
    done = suites(*words, "--model", "voice")
    assert done.returncode == 0, done.stderr
    assert "voice, " in done.stdout
    done = suites(*words, "--model", "hubert")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
