"""The suite rmvpe times a synthetic network and takes F0's parity from the shipped one, which has learnt pitch."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

import reference_torch
from reports.data.frame import load
from suites.__main__ import main
from suites.base.records import read_lines, records
from suites.definitions import SUITES
from suites.definitions.base import TRAINED, of_trained
from suites.inputs import recipe, weights
from suites.inputs.recordings import make_audio
from suites.inputs.weights import reduced_manifest
from suites.measure.verdict import Judge

SMALL = ["measure=smoke", "durations=[1]", "suite.speech_clip=false", "backends=[torch_cpu,mlx_cpu]", "threads=1"]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """As if it were the trained one: other weights than those that are timed, and biased so that frames are voiced."""
    state = recipe.make_state_dict(reduced_manifest(4, 64), 11)
    state["fc.1.bias"] = state["fc.1.bias"] + np.linspace(2, -4, 360).astype(np.float32)
    path = tmp_path_factory.mktemp("assets") / weights.SHIPPED
    save_file(state, path)
    return path


@pytest.mark.usefixtures("quick")
def test_f0_is_that_of_the_shipped_network(tmp_path, shipped, monkeypatch):
    monkeypatch.setattr(weights, "ASSETS", (shipped.parent,))
    folder = tmp_path / "run"
    assert main(["run", "rmvpe", *SMALL, "measure.first_calls=0", "measure.warmup_seconds=0", f"out={folder}"]) == 0
    expected = reference_torch.RMVPE.from_checkpoint(shipped).f0(make_audio("synthetic", 1.0, None, 0, 30).samples)
    assert expected.any()
    with np.load(folder / "contours" / "synthetic-1s.npz") as stored:
        np.testing.assert_array_equal(stored["f0.torch_cpu"], expected)
        np.testing.assert_allclose(stored["f0.mlx_cpu"], expected, rtol=1e-4)
    told = json.loads((folder / "environment.json").read_text())["weights"]
    assert "synthetic" in told["rmvpe"]["label"]
    assert "trained" in told["pitch"]["label"]
    found = {(r["component"], r["backend"]): r for r in records(read_lines(folder / "records.jsonl"))}
    assert found["f0", "mlx_cpu"]["parity"]["voiced_frames"] == np.count_nonzero(expected)
    assert len(found["f0", "mlx_cpu"]["samples_s"]) == 2
    assert load(folder).finds_pitch
    shutil.rmtree(folder)


def test_weights_that_were_named_answer_for_f0_themselves(tmp_path, shipped, monkeypatch):
    from suites.measure.config import compose_config
    from suites.measure.run_weights import weights_of

    monkeypatch.setattr(weights, "ASSETS", (shipped.parent,))
    assert set(weights_of(compose_config("rmvpe", [*SMALL, f"paths.cache={tmp_path}"]))) == {"rmvpe", "pitch"}
    assert set(weights_of(compose_config("rmvpe", [*SMALL, f"weights.rmvpe={shipped}"]))) == {"rmvpe"}
    assert set(weights_of(compose_config("ablation", [*SMALL[:1], f"paths.cache={tmp_path}"]))) == {
        "rmvpe", "hubert", "voice",
    }  # fmt: skip
    monkeypatch.setattr(weights, "ASSETS", (tmp_path / "nowhere",))
    assert set(weights_of(compose_config("rmvpe", [*SMALL, f"paths.cache={tmp_path}"]))) == {"rmvpe"}


def test_a_fault_shows_in_the_network_that_is_compared():
    rng = np.random.default_rng(0)
    salience = rng.random((50, 360)).astype(np.float32)
    f0 = np.full(50, 200.0)
    timed = {"f0": f0, "own_salience": salience}
    both = timed | {f"{TRAINED}{name}": array for name, array in timed.items()}
    assert of_trained(timed) is timed
    assert set(of_trained(both)) == {"f0", "own_salience"}
    limits = {"salience_max_abs": 1e-5, "voicing_mismatches": 0, "f0_max_cents": 0.01}
    judge = Judge(SUITES["rmvpe"], limits, {"threshold": 0.03}, both)
    assert judge("f0", both, False)["status"] == "passed"
    assert judge("f0", both | {"f0": 2 * f0}, False)["status"] == "passed"
    wrong = judge("f0", both | {f"{TRAINED}f0": 2 * f0}, False)
    assert (wrong["status"], wrong["parity"]["octave_errors"]) == ("failed", 50)
    assert judge("f0", both | {f"{TRAINED}f0": f0 * np.nan}, False)["status"] == "failed"
