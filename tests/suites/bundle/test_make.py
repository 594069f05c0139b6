"""What a bundle holds, and that nothing of this project is needed to read it."""

from __future__ import annotations

import hashlib
import json
import re

import mlx.core as mx
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from made_bundles import few_probes, make_bundle
from safetensors.numpy import load_file, save_file

from rvc_common.noise import seeded
from suites.__main__ import main
from suites.bundle import make
from suites.bundle.stored import SCHEMA_FILE, json_schema, key_of
from suites.child.walks import Walker
from suites.definitions import SUITES
from suites.definitions import probes as of_models
from suites.trace.run import Sides

SMALL = ["measure=smoke", "durations=[0.5]"]


@pytest.fixture(scope="module")
def about(bundle):
    return json.loads((bundle / "bundle.json").read_text())


# ---------------------------------------------------------------------- the files
def test_the_schema_that_ships_is_that_of_the_types():
    """Made anew by ``python -m suites.bundle.stored``."""
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema()
    Draft202012Validator.check_schema(json_schema())


@pytest.fixture
def few():
    """Given salience, which two stages decode: what is told of a bundle does not depend on what is in it."""
    with few_probes("salience"):
        yield


def test_a_bundle_fits_its_schema_which_is_beside_it(bundle, about):
    schema = json.loads((bundle / "bundle.schema.json").read_text())
    assert schema == json_schema()
    Draft202012Validator(schema).validate(about)


def test_every_file_is_listed_with_its_checksum(bundle, about):
    files = {p.relative_to(bundle).as_posix(): p for p in bundle.rglob("*") if p.is_file() and p.name != "bundle.json"}
    assert {one["path"] for one in about["files"]} == set(files)
    for one in about["files"]:
        content = files[one["path"]].read_bytes()
        assert (one["bytes"], one["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("probe", [0, 1])
def test_values_are_as_they_are_described(bundle, about, probe):
    told = about["probes"][probe]
    stages = load_file(bundle / told["folder"] / "stages.safetensors")
    assert list(stages) != []
    assert {one["key"] for one in told["values"]} == set(stages)
    for one in told["values"]:
        array = stages[one["key"]]
        assert (one["shape"], one["dtype"]) == (list(array.shape), str(array.dtype))
        assert len(one["axes"]) == array.ndim
        assert one["meaning"]
        local = one["tolerance"]["local"]
        assert all(np.isclose(local["limit"][m], local["factor"][m] * local["floor"][m]) for m in ("rmse", "max_abs"))
    keys = [one["key"] for one in (*told["values"], *told["groups"])]
    assert len({key.lower() for key in keys}) == len(keys)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", key) for key in keys)


def test_mlx_reads_every_file(bundle):
    """It knows no float64; MLX-Swift reads with the same code."""
    for path in bundle.rglob("*.safetensors"):
        assert mx.load(str(path))


def test_the_values_are_those_of_the_reference(bundle, about, known):
    import reference_torch

    model = reference_torch.RMVPE.from_checkpoint(bundle / "weights" / "rmvpe.safetensors")
    audio = load_file(bundle / "clip" / "inputs.safetensors")["audio"]
    walker, seen = Walker(model.walk(audio)), 0
    keys = {one["name"]: one["key"] for one in about["probes"][0]["values"]}
    while walker.advance():
        name = walker.event.whole_path
        if name in keys and walker.event.product in walker.changed:
            # the number of threads decides the order of sums
            np.testing.assert_allclose(walker.array(walker.event.product), known[keys[name]], 1e-4, 1e-5)
            seen += 1
    assert seen > 400


def test_groups_end_with_their_last_part_and_have_limits_where_they_hold_no_others(about):
    told = about["probes"][0]
    groups = {one["name"]: one for one in told["groups"]}
    block = groups["unet.encoder.layers.0.conv.0"]
    assert block["value"] == "unet.encoder.layers.0.conv.0.add"
    assert block["first"] == "unet.encoder.layers.0.conv.0.conv.0"
    own = {one["name"]: one["tolerance"]["local"]["floor"]["max_abs"] for one in told["values"]}
    wider = [one["local"]["floor"]["max_abs"] / own[one["value"]] for one in groups.values() if one["local"]]
    assert len(wider) > 40
    assert np.median(wider) > 1  # the rounding of all its parts
    assert groups["unet.encoder"]["local"] is None


def test_values_kept_for_later_are_not_stored_twice(about):
    assert not any(one["entry"].startswith("skip") for one in about["probes"][0]["values"])


# ---------------------------------------------------------------------- noise, index, weights
def test_noise_is_in_the_bundle_as_it_is_drawn(tmp_path):
    # one has the run's seed, the other one of its own
    folder = make_bundle("synthesizer", tmp_path / "b", "seed=3", "durations=[0.2]", probes=["batch", "same shape"])
    about = json.loads((folder / "bundle.json").read_text())
    for probe in about["probes"]:
        inputs = load_file(folder / probe["folder"] / "inputs.safetensors")
        assert [one["index"] for one in probe["noise"]] == list(range(len(probe["noise"])))
        assert len(probe["noise"]) == 3
        for one in probe["noise"]:
            made = [seeded(seed)(one["index"], one["kind"], tuple(one["shape"])) for seed in (3, 4)]  # a probe's own
            assert any(np.array_equal(inputs[one["key"]], array) for array in made)
            assert any(value["stage"] == one["stage"] for value in probe["values"])
    assert about["facts"]["sample_rate"] == 40000
    assert any(0.6 < probe["settings"].get("rate", 1) < 0.8 for probe in about["probes"])


def test_a_pipeline_has_its_index_and_the_same_result_from_the_arrays_alone(tmp_path, monkeypatch):
    asked, with_vectors = [], Sides._with_vectors
    monkeypatch.setattr(Sides, "_with_vectors", lambda run, probe: asked.append(probe.name) or with_vectors(run, probe))
    monkeypatch.setattr(of_models, "SHORT_PAD_S", 0.1)
    folder = make_bundle("pipeline", tmp_path / "b", "durations=[0.2]", probes=["knobs"])
    assert set(asked) == {"knobs"}  # what is not walked costs no call of HuBERT
    about = json.loads((folder / "bundle.json").read_text())
    (knobs,) = about["probes"]
    assert "index" in [one["key"] for one in knobs["inputs"]]
    import reference_torch

    weights = {one["name"]: str(folder / one["file"]) for one in about["weights"]}
    settings = {"seed": 0, **knobs["settings"]}
    model = SUITES["pipeline"].load(reference_torch, weights, {}, settings)
    inputs = load_file(folder / knobs["folder"] / "inputs.safetensors")
    drawn = {one["index"]: inputs[one["key"]] for one in knobs["noise"]}
    names = ("transpose", "index_rate", "protect", "rms_mix", "speaker", "propose_hz")
    own = {name: settings[name] for name in names} | {"noise": lambda index, *_: drawn[index]}
    pipeline = model.pipeline_for(settings)
    audio, _ = pipeline.convert(inputs["audio"], settings["sample_rate"], index=inputs["index"], **own)
    np.testing.assert_allclose(audio, load_file(folder / "knobs" / "stages.safetensors")["audio"], 1e-4, 1e-5)


@pytest.mark.usefixtures("quick", "few")
def test_a_real_checkpoint_is_named_and_copied_if_asked(tmp_path, bundle, capsys):
    mine = f"weights.rmvpe={bundle / 'weights' / 'rmvpe.safetensors'}"
    for name, flags in (("named", []), ("copied", ["--weights"])):
        assert main(["bundle", "rmvpe", str(tmp_path / name), *flags, mine, *SMALL]) == 0
    assert "not copied, SHA-256" in capsys.readouterr().out
    (named,), (copied,) = (
        json.loads((tmp_path / name / "bundle.json").read_text())["weights"] for name in ("named", "copied")
    )
    assert named["file"] is None
    assert copied["file"] == "weights/rmvpe.safetensors"
    assert (
        named["sha256"]
        == copied["sha256"]
        == hashlib.sha256((tmp_path / "copied" / copied["file"]).read_bytes()).hexdigest()
    )
    ids = {json.loads((tmp_path / name / "bundle.json").read_text())["id"] for name in ("named", "copied")}
    assert len(ids) == 1


def test_keys_fit_every_file_system():
    assert key_of("enc_p.encoder:scores", ()) == "enc_p.encoder-scores"
    assert key_of("x#skip.0", ()) == "x--skip.0"
    assert key_of(":", ()) == "value"
    assert key_of("F0", {"f0"}) == "F0-2"
    assert len(key_of("n" * 300, ())) <= 200


# ---------------------------------------------------------------------- refused, and nothing is left
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rmvpee", "a"], "did you mean 'rmvpe'"),
        (["rmvpe", "file"], "is a file, not a folder"),
        (["rmvpe", "full"], "the folder is not empty"),
        (["rmvpe", "file/a"], "is not a folder"),
        (["rmvpe", "a", "out=b"], "the folder of a bundle is the second word"),
        (["rmvpe", "a", "backends=[mlx_cpu]"], "the values of one backend of PyTorch"),
        (["rmvpe", "a", "durations=[]"], "leaves nothing to trace"),
        (["rmvpe", "a", "audio=none.wav"], "audio none.wav: no such file"),
        (["rmvpe", "a", "weights.rmvpe=none.pt"], "no such file"),
        (["rmvpe", "a", "weights.rmvpe=file"], "not a readable checkpoint"),
        (["synthesizer", "a", "audio=file"], "makes its own inputs"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_what_cannot_be_done_is_told_in_a_line(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("content")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "own").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    assert main(["bundle", *words, "measure=smoke"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert message in told.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_nothing_half_written_is_left(error, tmp_path, monkeypatch, capsys):
    taken = make.Walked.take

    def stops(self, step):
        taken(self, step)
        if len(self.values) > 5:
            raise error

    monkeypatch.setattr(make.Walked, "take", stops)
    (tmp_path / "empty").mkdir()
    for place in ("new/deep", "empty"):
        assert main(["bundle", "rmvpe", str(tmp_path / place), *SMALL]) in (2, 130)
        assert "fault of the program" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


@pytest.mark.usefixtures("quick")
def test_a_reference_that_is_not_finite_makes_no_bundle(tmp_path, bundle, capsys):
    state = load_file(bundle / "weights" / "rmvpe.safetensors")
    state["unet.encoder.layers.0.conv.0.conv.0.weight"] = np.full((4, 1, 3, 3), 3e38, np.float32)
    save_file(state, tmp_path / "loud.safetensors", metadata={"format": "rvc-parity/1", "model": "rmvpe"})
    assert main(["bundle", "rmvpe", str(tmp_path / "b"), f"weights.rmvpe={tmp_path / 'loud.safetensors'}", *SMALL]) == 2
    assert "NaN or infinite values, first in stage unet.encoder.layers.0.conv.0.conv.0" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


@pytest.mark.usefixtures("quick", "few")
def test_quiet_and_json(tmp_path, capsys):
    assert main(["bundle", "rmvpe", str(tmp_path / "a"), *SMALL, "-q"]) == 0
    told = capsys.readouterr()
    assert told.out.count("\n") == 1
    assert told.err == ""
    assert main(["bundle", "rmvpe", str(tmp_path / "b"), *SMALL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["command"], found["model"], found["passed"]) == ("bundle", "rmvpe", True)
