"""The section of accuracy: from records alone, every number with its record; absent with a reason without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import ENVIRONMENT, config_of, make_run
from matplotlib import pyplot as plt
from quick_runs import figures

from reports.data.frame import load, load_book
from reports.documents import sources
from reports.documents.build import Pictures, compose, write_report
from reports.figures import accuracy as accuracy_figures
from reports.render.document import Document, words_of
from reports.tables import accuracy
from suites.base.lines import SCHEMA
from suites.inputs.estimators import CONSENSUS, ESTIMATORS

SHARES = ("rpa", "rca", "octave_errors", "voicing_recall", "voicing_false_alarm", "overall_accuracy")
CASES = ("clean", "snr20", "snr0", "speech")
NAMES = ("torch_cpu", "mlx_cpu", "pyin", "praat", "harvest")
LEAST = {"rpa": {"value": 0.99, "limit": 0.98, "passed": True}}


def line(case: str, name: str, **more: Any) -> dict[str, Any]:
    ours = name in ("torch_cpu", "mlx_cpu")
    found = {"truth": "exact", "frames": 500, "scored_frames": 450, "voiced_frames": 300, "near_frames": 290}
    found |= {**dict.fromkeys(SHARES, 0.99 if ours else 0.9), "octave_errors": 0.01, "voicing_false_alarm": 0.02}
    found |= {"mean_cents": 4.0, "p95_cents": 12.0}
    if ours:
        found["limits"] = LEAST if case == "clean" else {}
    if case == "speech":
        found |= {"truth": "consensus of praat and harvest", "voicing_false_alarm": None}
        if name in CONSENSUS:
            found = {"truth": None, "reason": "it is the consensus"}
    check = {"value": 0.001, "limit": 0.05, "base": 0.05, "floor": 0, "passed": True, "of": "f0_max_cents"}
    parity = (
        {"frames": 500, "max_cents": 0.001, "voicing_mismatches": 0, "limits": {"f0_max_cents": check}}
        if name == "mlx_cpu"
        else None
    )
    return {
        "schema": SCHEMA, "kind": "record", "run": "run", "suite": "accuracy", "case": case, "component": "f0",
        "backend": name, "device": "cpu", "precision": "fp32", "profile": "applio", "time": "2026-01-02T03:04:05.678",
        "optimize": [], "blas": None, "threads": 2, "warnings": [], "reference": "torch_cpu" if ours else name,
        "workload": {"audio": "a", "duration_s": 5.0, "samples": 80000, "frames": 501, "weights": "w"},
        "samples_s": [0.5], "rounds": [0], "launches": [0], "calls": 1, "warmup_s": [], "warmup": [], "cold": [],
        "parent_cpu_share": None, "load_s": None, "first_call_s": None, "peak_rss_bytes": None,
        "peak_device_bytes": None, "parity": parity, "status": "passed", "reason": None, "accuracy": found,
        **({} if ours else {"estimator": {"title": ESTIMATORS[name].title, "package": "p 1.0", "neural": False,
                                          "settings": {"fmin": 32.7}}}),
        **more,
    }  # fmt: skip


@pytest.fixture
def undrawn():
    with figures():
        yield


@pytest.fixture
def run(tmp_path):
    return written(tmp_path / "run", [line(case, name) for case in CASES for name in NAMES])


def written(folder: Path, lines: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(config_of("accuracy", "fp32"))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    keys = [[case, "f0", name] for case in CASES for name in NAMES]
    (folder / "plan.json").write_text(json.dumps({"suite": "accuracy", "backends": NAMES[:2], "keys": keys}))
    (folder / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return folder


def document(*folders: Path) -> Document:
    return compose(load_book(list(folders)), Pictures())


def tables(of: Document) -> dict[str, list[list[str]]]:
    return {
        t.name: [[words_of(c if isinstance(c, tuple) else (c,)) for c in row] for row in t.rows] for t in of.tables()
    }


def test_every_number_has_its_record(run):
    book = load_book([run])
    assert sources.unfounded(compose(book, Pictures()), book) == []


def test_a_row_per_condition_and_backend(run):
    found = tables(document(run))
    rows = found["accuracy"]
    assert [(row[0], row[1]) for row in rows] == [(case, name) for case in CASES for name in NAMES[:2]]
    assert rows[0][2:9] == ["exact", "450", "300", "99.00", "99.00", "1.00", "99.00"]
    assert rows[0][9:] == ["2.00", "99.00", "4", "12", "RPA 98", "passed"]
    assert rows[-1][9] == "–"  # false alarms, of frames that are all voiced
    assert {row[1] for row in found["pitch"]} == set(CASES)
    assert found["accuracy-parity"][0][4:7] == ["f0_max_cents", "0.001", "0.05"]


def test_the_summary_tells_it(run, undrawn):
    text = write_report(run).path.read_text()
    assert "- accuracy, fp32: `mlx_cpu`, RPA in per cent: clean 99.0; from `torch_cpu` over 20 s of audio: 0" in text
    assert "- accuracy, fp32: `torch_cpu`, RPA in per cent: clean 99.0." in text


def test_estimators_beside_it(run):
    found = tables(document(run))
    assert [row[0] for row in found["estimators-rpa"]] == list(NAMES)
    assert found["estimators-rpa"][0] == ["torch_cpu", "99.0", "99.0", "99.0", "99.0", "0.1"]
    assert found["estimators-rpa"][3] == ["praat", "90.0", "90.0", "90.0", "–", "0.1"]
    assert [row[0] for row in found["estimators-settings"]] == list(NAMES[2:])
    assert found["estimators-settings"][0][2:] == ["p 1.0", "fmin 32.7", "0"]


def test_a_missing_condition_is_told(run, tmp_path, undrawn):
    lines = [line(case, name) for case in CASES for name in NAMES if (case, name) != ("snr0", "pyin")]
    lines = [
        one | {"status": "error", "reason": "lost", "accuracy": None} if one["case"] == "snr20" else one
        for one in lines
    ]
    other = written(tmp_path / "other", lines)
    rows = tables(document(other))["estimators-rpa"]
    assert rows[2] == ["pyin", "90.0", "–", "–", "90.0", "0.1"]
    text = write_report(other).path.read_text()
    assert "snr0, f0, pyin: planned, no record" in text


def test_without_a_run_there_is_a_reason(tmp_path):
    made = document(make_run(tmp_path / "rmvpe"))
    assert ("RMVPE accuracy", ("no run of `accuracy` among the runs: python -m suites run accuracy",)) in made.absent
    assert accuracy.sections(load_book([tmp_path / "rmvpe"])) == []
    assert "accuracy" not in tables(made)


def test_untrained_weights_are_not_judged(run, tmp_path, undrawn):
    lines = [line(case, name) for case in CASES for name in NAMES]
    for one in lines:
        one["accuracy"].pop("limits", None)
    text = write_report(written(tmp_path / "other", lines)).path.read_text()
    assert "shown and not judged" in text
    assert "shown and not judged" not in write_report(run).path.read_text()


def test_two_machines_in_one_table(run, tmp_path):
    lines = [line(case, name) for case in CASES for name in NAMES]
    other = written(tmp_path / "other", lines)
    (other / "environment.json").write_text(json.dumps(ENVIRONMENT | {"cpu": "Another CPU"}))
    book = load_book([run, other])
    made = compose(book, Pictures())
    assert {row[0] for row in tables(made)["accuracy"]} == {"A", "B"}
    assert sources.unfounded(made, book) == []


def test_figures(run):
    data = load(run)
    series = dict(accuracy_figures.series(data, "rpa"))
    assert series["praat"] == {"clean": 90, "snr20": 90, "snr0": 90}
    figure = accuracy_figures.accuracy(data)
    assert [axis.get_ylabel() for axis in figure.axes] == ["raw pitch accuracy (%)", "overall accuracy (%)"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["clean", "20", "0"]
    assert len(figure.axes[0].lines) == len(NAMES)
    assert "RMVPE, mlx_cpu, 20 dB: raw pitch accuracy 99.00 %" in [mark[3] for mark in figure.named_marks]
    figure = accuracy_figures.voicing(data)
    assert figure.axes[0].get_xlabel() == "voicing false alarm (%)"
    plt.close("all")


def test_nothing_empty_is_drawn(tmp_path):
    data = load(written(tmp_path / "run", [line("speech", name) for name in NAMES]))
    assert accuracy_figures.accuracy(data) is None
    assert accuracy_figures.voicing(data) is None


def test_same_records_same_bytes(run):
    def everything():
        write_report(run)
        return {p.name: p.read_bytes() for p in run.rglob("*") if p.is_file()}

    first = everything()
    assert {"accuracy.png", "voicing.png"} <= first.keys()
    assert everything() == first
