"""The suite of number formats on tiny models, and what it makes of results that are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from command import strict
from command import suites as run_suites
from quick_runs import figures, workers_inside

from suites.base.errors import UserError
from suites.base.records import read_lines, records
from suites.definitions import SUITES, precision
from suites.definitions.precision import POLICIES, fidelity
from suites.measure.config import compose_config
from suites.metrics.parity import NotComparable

HALF = ("fp16", "bf16")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("precision") / "run"
    words = ["measure=smoke", "durations=[0.3]", "threads=1", "measure.warmup_seconds=0", "backends=[mlx_cpu]"]
    words += ["measure.first_calls=0"]
    with workers_inside(), figures("formats"):
        done = run_suites("run", "precision", *words, "~suite.components.synthesizer", f"out={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = list(read_lines(folder / "records.jsonl"))
    found = {r["component"]: r for r in records(lines) if "workload" in r}
    return folder, lines, found


def test_every_format_has_a_record(finished):
    _, lines, found = finished
    schema = strict()
    for line in lines:
        schema.validate(line)
    policies = [name for name in POLICIES if name != "tf32"]
    assert list(found) == [f"{model}.{name}" for model in ("rmvpe", "hubert") for name in policies]
    assert all(line["precision"] == POLICIES[name.partition(".")[2]].precision for name, line in found.items())
    assert all(line["parity"] is None and line["samples_s"] for line in found.values())


@pytest.mark.parametrize("model", ["rmvpe", "hubert"])
def test_fewer_bits_are_smaller_and_worse(finished, model):
    *_, found = finished
    of = {name: found[f"{model}.{name}"] for name in ("fp32", *HALF, "q8", "q6", "q4")}
    assert (
        of["fp32"]["weights_bytes"] > of["q8"]["weights_bytes"] > of["q6"]["weights_bytes"] > of["q4"]["weights_bytes"]
    )
    ratio = {name: line["fidelity"]["snr_db"] for name, line in of.items() if name != "fp32"}
    assert ratio["q8"] > ratio["q6"] + 6 > ratio["q4"] + 12
    assert min(ratio[name] for name in HALF) > 5
    assert of["fp32"].get("fidelity") is None


def test_the_report_shows_them(finished):
    folder, *_ = finished
    text = (folder / "report.md").read_text()
    assert "## Number formats" in text
    assert "| synthetic-0.3s | hubert | mlx_cpu | 30 dB | fp32 |" in text
    assert (folder / "plots" / "formats.png").exists()


# ---------------------------------------------------------------------- what is compared
def test_equal_results_have_no_error():
    features = {"features": np.ones((5, 3), np.float32)}
    assert fidelity("hubert", features, features, None)["snr_db"] is None


def test_overflow_is_no_result():
    features = {"features": np.ones((5, 3), np.float32)}
    with pytest.raises(NotComparable):
        fidelity("hubert", {"features": np.full((5, 3), np.nan, np.float32)}, features, None)


def test_pitch_is_that_of_the_trained_network():
    f0, salience = np.full(9, 200.0), np.full((9, 360), 0.5)
    own = {"f0": np.zeros(9), "own_salience": salience, "learned.f0": f0, "learned.own_salience": salience}
    sharp = {**own, "learned.f0": f0 * 2 ** (10 / 1200)}
    found = fidelity("rmvpe", sharp, own, None)
    assert found["p95_cents"] == pytest.approx(10)
    assert found["both_voiced_frames"] == 9


@pytest.mark.parametrize(
    ("component", "backend", "word"),
    [
        ("hubert.tf32", "mlx_cpu", "NVIDIA"),
        ("hubert.fp16", "mlx_cpu", None),
        ("hubert.tf32", "torch_cuda", None),
        ("hubert.q4", "torch_cpu", None),
    ],
)
def test_what_is_impossible_says_why(component, backend, word):
    reason = SUITES["precision"].impossible(component, backend)
    assert reason is None if word is None else word in reason


@pytest.mark.parametrize(
    ("flags", "left_out"),
    [(["avx2", "avx512f"], True), (["avx2", "avx512_fp16"], False), (["asimdhp"], False), (None, False)],
)
def test_pytorchs_float16_is_left_out_where_the_processor_has_none(monkeypatch, flags, left_out):
    monkeypatch.setattr(precision, "processor", lambda: flags and {"flags": flags})
    reason = SUITES["precision"].impossible("hubert.fp16", "torch_cpu")
    assert (reason is not None) == left_out
    assert SUITES["precision"].impossible("hubert.fp16", "mlx_cpu") is None


@pytest.mark.parametrize("word", ["quantize.rmvpe=4", "precision=fp16"])
def test_what_it_varies_by_itself_is_refused(word):
    with pytest.raises(UserError, match="has every number format by itself; leave out precision= and quantize"):
        compose_config("precision", ["measure=smoke", word])
