"""The suite accuracy as a user starts it, on a tiny network that has learnt nothing: every figure but the verdict."""

from __future__ import annotations

import importlib.util
import json
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import strict
from quick_runs import figures, workers_inside
from safetensors.numpy import save, save_file

from suites.__main__ import main
from suites.base.errors import UserError
from suites.base.records import read_lines, records
from suites.definitions.accuracy import judged
from suites.inputs import recipe, testset, weights
from suites.measure.accuracy import ANNOTATIONS, EXACT, unmeasured
from suites.measure.config import compose_config
from suites.metrics.pitch import accuracy

SMALL = ["measure=smoke", "backends=[torch_cpu,mlx_cpu]", "threads=1", "suite.estimators=[praat]"]
TWO = ["suite.conditions=[clean,high]"]


@pytest.fixture(scope="module")
def network(tmp_path_factory, tiny_state):
    path = tmp_path_factory.mktemp("network") / "tiny.safetensors"
    save_file(tiny_state, path)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, network):
    folder = tmp_path_factory.mktemp("accuracy") / "run"
    with workers_inside(), figures():
        code = main(["run", "accuracy", *SMALL, *TWO, f"weights.rmvpe={network}", f"out={folder}"])
    return folder, code


def closed(folder):
    return {(r["case"], r["backend"]): r for r in records(read_lines(folder / "records.jsonl"))}


def test_every_backend_and_estimator_has_its_record(finished):
    folder, code = finished
    assert code == 0  # untrained: shown, and not judged
    schema = strict()
    for line in read_lines(folder / "records.jsonl"):
        schema.validate(line)
    found = closed(folder)
    names = ("torch_cpu", "mlx_cpu", "praat")
    assert set(found) == {(case, name) for case in ("clean", "high") for name in names}
    for (_, name), record in found.items():
        assert record["status"] == "passed"
        assert record["accuracy"]["truth"] == "exact"
        assert len(record["samples_s"]) == 1
        assert bool(record.get("estimator")) == (name == "praat")
        assert bool((record["parity"] or {}).get("limits")) == (name == "mlx_cpu")
    checks = found["clean", "mlx_cpu"]["parity"]["limits"]
    assert {n: c["limit"] for n, c in checks.items()} == {"voicing_mismatches": 0, "f0_max_cents": 0.05}
    assert found["clean", "praat"]["accuracy"]["rpa"] > 0.9
    assert found["clean", "torch_cpu"]["accuracy"]["limits"] == {}


def test_figures_can_be_computed_again_from_what_is_kept(finished):
    folder, _ = finished
    made = testset.make("clean", 1.25, 0)
    with np.load(folder / "contours" / "clean.npz") as stored:
        arrays = dict(stored)
    np.testing.assert_array_equal(arrays["f0.truth"], made.f0_hz)
    np.testing.assert_array_equal(arrays["scored"], made.scored)
    for name in ("torch_cpu", "mlx_cpu", "praat"):
        again = accuracy(arrays[f"f0.{name}"], arrays["f0.truth"], arrays["scored"])
        record = closed(folder)["clean", name]["accuracy"]
        assert again == {figure: record[figure] for figure in again}


@pytest.mark.usefixtures("quick")
def test_what_is_measured_is_not_measured_again(finished, tmp_path):
    """One record is lost: a backend's case is measured again, since backends are compared; nothing else is."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    lines = (folder / "records.jsonl").read_text().splitlines(keepends=True)
    gone = [line for line in lines if json.loads(line)["case"] == "high" and json.loads(line)["backend"] == "mlx_cpu"]
    assert len(gone) == 2
    (folder / "records.jsonl").write_text("".join(line for line in lines if line not in gone))
    before = closed(folder)
    assert main(["run", f"resume={folder}"]) == 0
    after = closed(folder)
    assert len(after) == 6
    measured = {key for key in after if key not in before or after[key]["time"] != before[key]["time"]}
    assert measured == {("high", "torch_cpu"), ("high", "mlx_cpu")}
    written = (folder / "records.jsonl").read_text()
    assert main(["run", f"resume={folder}"]) == 0
    assert (folder / "records.jsonl").read_text() == written


@pytest.mark.usefixtures("quick")
def test_an_estimator_that_is_missing_is_skipped(tmp_path, network, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "parselmouth" else find(name, *a))
    words = [*SMALL, "suite.conditions=[clean]", f"weights.rmvpe={network}", "backends=[torch_cpu]"]
    assert main(["run", "accuracy", *words, f"out={tmp_path / 'run'}"]) == 0
    record = closed(tmp_path / "run")["all", "praat"]
    assert (record["status"], record["reason"]) == (
        "skipped",
        "praat-parselmouth is not installed: pip install -e '.[pitch]'",
    )


# ---------------------------------------------------------------------- a recording of the user's
@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording")
    made = testset.make("clean", 2.0, 9)
    soundfile.write(folder / "my voice.wav", made.samples, 16000)
    rows = "".join(f"{i / 100:.2f},{f0:.3f}\n" for i, f0 in enumerate(made.f0_hz))
    (folder / "my voice.csv").write_text("time_s,f0_hz\n" + rows)
    return folder


@pytest.mark.usefixtures("quick")
def test_annotations_of_a_recording(tmp_path, network, recording):
    words = [f"audio={recording / 'my voice.wav'}", f"suite.f0={recording / 'my voice.csv'}"]
    folder = tmp_path / "run"
    assert main(["run", "accuracy", *SMALL, *words, f"weights.rmvpe={network}", f"out={folder}"]) == 0
    found = closed(folder)
    assert {case for case, _ in found} == {"file"}
    assert {r["accuracy"]["truth"] for r in found.values()} == {ANNOTATIONS}
    assert found["file", "praat"]["accuracy"]["rpa"] > 0.9
    assert found["file", "praat"]["accuracy"]["scored_frames"] == 201


@pytest.mark.usefixtures("quick")
def test_without_annotations_there_must_be_a_consensus(tmp_path, network, recording):
    words = [f"audio={recording / 'my voice.wav'}", f"weights.rmvpe={network}", "backends=[torch_cpu]"]
    assert main(["run", "accuracy", *SMALL, *words, f"out={tmp_path / 'run'}"]) == 0
    found = closed(tmp_path / "run")["file", "torch_cpu"]
    assert found["accuracy"] == {"truth": None, "reason": "no truth: harvest did not run", "limits": {}}
    assert "no truth: harvest did not run" in (tmp_path / "run" / "report.md").read_text()


def fails(words, capsys):
    """The error line of a run that cannot begin."""
    assert main(["run", "accuracy", *SMALL, *words]) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["suite.f0=a.csv"], "annotations of which recording? name it: audio=FILE"),
        (["suite.conditions=[clean,loud]"], "suite.conditions: loud"),
        (["suite.estimators=[prat]"], "did you mean 'praat'?"),
        (["suite.least.clean.rpa=98"], "suite.least.clean.rpa=98: a number from 0 to 1"),
        (["+suite.least.clean.speed=1"], "suite.least.clean: speed"),
        (["weights.rmvpe=nowhere.pt"], "weights.rmvpe=nowhere.pt: no such file"),
        (["weights.hubert=h.pt"], "the suite accuracy does not load it"),
    ],
)
def test_what_cannot_be_is_told(tmp_path, words, message, capsys):
    assert message in fails([*words, f"out={tmp_path / 'run'}"], capsys)


def test_bad_annotations_are_told_before_anything_is_measured(tmp_path, recording, capsys):
    (tmp_path / "a.csv").write_text("0.0,100\n0.1,x\n")
    words = [f"audio={recording / 'my voice.wav'}", f"suite.f0={tmp_path / 'a.csv'}", f"out={tmp_path / 'run'}"]
    assert "a.csv:2: '0.1,x' is not time_s,f0_hz" in fails(words, capsys)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------- the shipped checkpoint
def test_without_the_shipped_checkpoint_another_must_be_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(weights, "ASSETS", (tmp_path / "assets",))
    line = fails([f"out={tmp_path / 'run'}"], capsys)
    assert "rmvpe-small.safetensors is missing; name another one: weights.rmvpe=FILE" in line


@pytest.mark.usefixtures("quick")
def test_the_shipped_checkpoint_is_judged(tmp_path, monkeypatch):
    """It has learnt nothing here, so it fails; with other limits it passes, or is shown. Narrow, as packing takes
    long."""
    monkeypatch.setattr(weights, "ASSETS", (tmp_path,))
    state = recipe.make_state_dict(weights.reduced_manifest(2, 16), 7)
    state["fc.1.bias"] -= 20  # no frame is voiced
    (tmp_path / f"{weights.SHIPPED}.xz").write_bytes(lzma.compress(save(state), preset=0))
    words = [*SMALL, "suite.conditions=[clean]", "backends=[torch_cpu]", "suite.estimators=[]"]
    least = ["suite.least.clean.rpa=0.98", "suite.least.clean.overall_accuracy=0.96"]
    assert main(["run", "accuracy", *words, *least, f"out={tmp_path / 'run'}"]) == 1
    record = closed(tmp_path / "run")["clean", "torch_cpu"]
    assert record["status"] == "failed"
    assert "rpa 0.0000 (at least 0.98); overall_accuracy" in record["reason"]
    words += ["suite.least.clean.overall_accuracy=0"]
    assert main(["run", "accuracy", *words, f"out={tmp_path / 'again'}"]) == 0


def test_a_missing_figure_is_no_pass():
    least = {"rpa": 0.9, "rca": None}
    assert judged({"rpa": 0.95}, least)["rpa"]["passed"]
    assert not judged({"rpa": 0.85}, least)["rpa"]["passed"]
    assert not judged({"rpa": None}, least)["rpa"]["passed"]
    assert list(judged({"rpa": 0.9}, least)) == ["rpa"]
    assert judged({"rpa": 0.9}, None) == {}


def test_whose_fault_it_is_that_there_is_no_figure():
    assert unmeasured({"truth": EXACT, "reason": "NaN"}) == "NaN"
    assert unmeasured({"truth": None, "reason": "no consensus"}) is None
    assert unmeasured({"truth": EXACT, "rpa": 1.0}) is None


def test_what_is_asked_of_it():
    asked = compose_config("accuracy", []).suite.least
    assert asked == {"clean": {"rpa": 0.98, "overall_accuracy": 0.96}, "snr10": {"rpa": 0.95}}


def test_ten_minutes_in_full_and_ten_seconds_in_smoke():
    for measure, least, most in (("smoke", 10, 10), ("quick", 120, 180), ("full", 600, 900)):
        config = compose_config("accuracy", [f"measure={measure}"])
        assert least <= max(config.durations) * len(config.suite.conditions) <= most


def test_unknown_annotations_do_not_reach_into_the_recording(tmp_path, recording):
    from suites.definitions import SUITES
    from suites.definitions.plan import Case

    (tmp_path / "late.csv").write_text("100,200\n100.01,200\n")
    config = compose_config("accuracy", [f"audio={recording}/my voice.wav", f"suite.f0={tmp_path}/late.csv"])
    with pytest.raises(UserError, match="no voiced time lies within the recording's"):
        SUITES["accuracy"].audio(Case("file", "file", None, str(Path(recording) / "my voice.wav")), config)
