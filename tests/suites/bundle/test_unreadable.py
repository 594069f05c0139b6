"""Dumps and bundles that cannot be read: one sentence each, exit code 2, and no traceback."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from made_bundles import make_bundle, save, save_raw, save_tensors

from suites.__main__ import main

C = "unet.encoder.layers.0.conv.0.conv.0"


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def npy(change):
    return lambda good, folder: change(save(good, folder) / f"{C}.npy")


def array(value):
    return lambda good, folder: save({**good, C: np.array(value)}, folder)


def raw(change):
    return lambda good, folder: change(save_raw(good, folder))


DUMPS = {
    "empty file": (npy(lambda p: cut(p, 0)), "the file is empty"),
    "empty array": (array(np.zeros((0, 4))), "holds no values, shape [0, 4]"),
    "cut off": (npy(lambda p: cut(p, 5000)), "is cut off: 5000 bytes"),
    "cut off in its header": (npy(lambda p: cut(p, 20)), "is cut off: 20 bytes"),
    "garbage": (npy(lambda p: p.write_bytes(b"garbage" * 50)), "is no .npy file"),
    "objects": (array([{1: 2}]), "holds Python objects instead of numbers"),
    "text": (array(["a"]), "holds <U1 instead of numbers"),
    "complex": (array([1j]), "holds complex values"),
    "raw, cut off": (
        raw(lambda p: cut(p / f"{C}.bin", 131066)),
        "is cut off: 131066 bytes, shape [1, 4, 64, 128] takes 131072",
    ),
    "raw, too long": (
        raw(lambda p: (p / f"{C}.shape").write_text("1 2")),
        "is too long: 131072 bytes, shape [1, 2] takes 8",
    ),
    "raw, no shape": (raw(lambda p: (p / f"{C}.shape").write_text("many")), f"{C}.shape holds no shape"),
    "raw, empty": (raw(lambda p: cut(p / f"{C}.bin", 0)), "the file is empty"),
    "another kind": (lambda good, p: (save(good, p) / "x.pt").write_bytes(b"x"), "x.pt: not read; write .npy"),
    "an unknown name": (
        lambda good, p: save({**good, "unet.encodr.bn": good["mel"] * 2}, p),
        "unet.encodr.bn is no stage of this bundle; did you mean unet.encoder.bn?",
    ),
    "dumped twice": (
        lambda good, p: save_raw({"mel": save(good, p) and good["mel"]}, p),
        "mel was dumped twice: mel.bin and mel.npy",
    ),
    "not the input": (
        lambda good, p: (save(good, p), save({"audio": np.ones(8000, np.float32)}, p / "input")),
        "Not judged: the port ran on other inputs than the bundle's. input/audio: other values.",
    ),
    "a shorter input": (
        lambda good, p: (save(good, p), save({"audio": np.ones(7999, np.float32)}, p / "input")),
        "input/audio: shape [7999] instead of [8000]",
    ),
    "no such input": (
        lambda good, p: (save(good, p), save({"audo": np.ones(9)}, p / "input")),
        "input/audo is no input of probe 'clip'; did you mean audio?",
    ),
}


@pytest.mark.parametrize("kind", DUMPS)
def test_a_dump_that_cannot_be_judged_has_its_sentence(kind, good, tmp_path, judged):
    make, sentence = DUMPS[kind]
    make(good, tmp_path / "dump")
    code, told = judged(tmp_path / "dump")
    assert code == 2, told
    assert sentence in told, told


ALONE = {
    "nothing there": (lambda good, p: None, "no such file or folder"),
    "an empty folder": (lambda good, p: p.mkdir(), "holds no .npy"),
    "cut off": (
        lambda good, p: cut(save_tensors(good, p / "a.safetensors"), 100_000),
        "a.safetensors: is cut off: 100000 bytes",
    ),
    "its header cut off": (
        lambda good, p: cut(save_tensors(good, p / "a.safetensors"), 100),
        "is cut off: 100 bytes, its header alone takes",
    ),
    "no tensors": (
        lambda good, p: (p.mkdir(), (p / "a.safetensors").write_bytes(b"garbage" * 9)),
        "is no .safetensors file",
    ),
    "an empty file": (lambda good, p: (p.mkdir(), (p / "a.safetensors").write_bytes(b"")), "the file is empty"),
    "no archive": (lambda good, p: (p.mkdir(), (p / "a.npz").write_bytes(b"PK garbage")), "a.npz: is no .npz file"),
    "a part of an archive": (
        lambda good, p: (p.mkdir(), np.savez(p / "a.npz", **good), cut(p / "a.npz", 99_000)),
        "a.npz: is cut off: 99000 bytes",
    ),
    "another bundle": (
        lambda good, p: (save(good, p), (p / "bundle.id").write_text("0123\n")),
        "made for the bundle 0123, and",
    ),
    "said in a file": (
        lambda good, p: save_tensors(good, p / "clip.safetensors", metadata={"bundle": "0123"}),
        "made for the bundle 0123, and",
    ),
}


@pytest.mark.parametrize("kind", ALONE)
def test_a_dump_that_is_none_is_told_in_a_line(kind, good, tmp_path, judged):
    make, sentence = ALONE[kind]
    make(good, tmp_path / "dump")
    code, told = judged(tmp_path / "dump")
    assert code == 2
    assert told.strip().startswith("error: ")
    assert told.strip().count("\n") == 0
    assert sentence in told
    assert not (tmp_path / "judged").exists()


def test_the_dump_of_another_model(tmp_path, judged):
    other = make_bundle("hubert", tmp_path / "hubert", probes=["clip"])
    shutil.copytree(other / "clip", tmp_path / "dump")
    (tmp_path / "dump" / "inputs.safetensors").unlink()
    code, told = judged(tmp_path / "dump")
    assert code == 2
    assert "166 names are of no stage of this bundle of rmvpe" in told


def test_its_own_id_is_accepted(good, bundle, tmp_path, judged):
    own = json.loads((bundle / "bundle.json").read_text())["id"]
    (save(good, tmp_path / "dump") / "bundle.id").write_text(own + "\n")
    assert judged(tmp_path / "dump")[0] == 0


# ---------------------------------------------------------------------- bundles
def damaged(change):
    def make(folder):
        plain = json.loads((folder / "bundle.json").read_text())
        change(plain)
        (folder / "bundle.json").write_text(json.dumps(plain))

    return make


def flip(folder):
    path = folder / "clip" / "stages.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


BUNDLES = {
    "no folder": (shutil.rmtree, "not a bundle (no bundle.json)"),
    "no bundle.json": (lambda p: (p / "bundle.json").unlink(), "not a bundle (no bundle.json)"),
    "no JSON": (lambda p: (p / "bundle.json").write_text("{"), "bundle.json: is damaged"),
    "another JSON": (lambda p: (p / "bundle.json").write_text("[]"), "bundle.json: is damaged"),
    "of the future": (damaged(lambda plain: plain.update(schema=99)), "version 99, this program knows 1"),
    "a field is missing": (
        damaged(lambda plain: plain.pop("probes")),
        "bundle.json: is damaged (Object missing required",
    ),
    "no probes": (damaged(lambda plain: plain.update(probes=[])), "bundle.json: is damaged (no probes)"),
    "a file is missing": (lambda p: (p / "clip" / "stages.safetensors").unlink(), "is missing from the bundle"),
    "a byte is another": (flip, "is not what the bundle was made with; its checksum differs"),
}


@pytest.mark.parametrize("kind", BUNDLES)
def test_a_bundle_that_is_none_or_damaged(kind, bundle, good, tmp_path, capsys):
    change, sentence = BUNDLES[kind]
    shutil.copytree(bundle, tmp_path / "bundle")
    change(tmp_path / "bundle")
    save({"mel": good["mel"]}, tmp_path / "dump")
    assert main(["judge", str(tmp_path / "bundle"), str(tmp_path / "dump"), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert sentence in told.err
    assert not (tmp_path / "out").exists()
