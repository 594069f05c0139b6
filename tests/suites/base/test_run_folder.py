"""What a run folder is, and one clear line for what is missing or damaged in it."""

from __future__ import annotations

import json
from pathlib import Path

import made_suites
import numpy as np
import pytest

from suites.base.errors import UserError
from suites.base.lines import Record, Sample, Spread, Stage, Unmeasured
from suites.base.run_folder import RunFolder, own_folder


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder(made_suites.make_suite(tmp_path / "pipeline", "pipeline"))


@pytest.fixture
def trace(tmp_path) -> RunFolder:
    return RunFolder(made_suites.make_trace(tmp_path / "trace-rmvpe"))


def test_a_run(run):
    assert (run.exists, run.is_planned, run.is_trace) == (True, True, False)
    assert run.config()["suite"]["name"] == run.plan().suite == "pipeline"
    assert run.environment()["cpu"] == "Test CPU"
    assert run.plan().backends == list(made_suites.BACKENDS)
    measured = [line for line in run.results() if isinstance(line, Record)]
    assert [line.key for line in measured if line.case == "synthetic-1s"] == [
        key
        for backend in made_suites.BACKENDS
        for key in run.plan().keys
        if key[0] == "synthetic-1s" and key[2] == backend
    ]
    assert [line.reason for line in run.results() if isinstance(line, Unmeasured)] == ["MPS exists on macOS only"]
    for line in measured:
        taken = run.samples()[line.key]
        assert [taken[number].seconds for number in line.rounds] == line.samples_s
    assert {type(line) for line in run.lines()} == {Record, Sample, Unmeasured}


def test_a_trace(trace):
    assert (trace.exists, trace.is_planned, trace.is_trace) == (True, False, True)
    assert trace.plan().keys == []
    assert {type(line) for line in trace.lines()} == {Stage, Spread}
    assert (trace.results(), trace.samples()) == ([], {})


def test_names_of_own_folders_never_collide(tmp_path):
    made = [own_folder(tmp_path / "runs" / "now-rmvpe") for _ in range(12)]
    assert [path.name for path in made[:3]] == ["now-rmvpe", "now-rmvpe-2", "now-rmvpe-3"]
    assert len({path for path in made if path.is_dir()}) == 12
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        own_folder(tmp_path / "file" / "run")


def test_a_folder_of_runs(run, trace, tmp_path):
    folder = RunFolder(tmp_path)
    assert (folder.exists, folder.is_planned, folder.is_trace) == (False, False, False)
    assert [inner.path for inner in folder.runs()] == [run.path, trace.path]
    assert not {run.path, trace.path} & {inner.path for inner in RunFolder(tmp_path.parent).runs()}
    assert run.path in [inner.path for inner in RunFolder(tmp_path.parent).runs(depth=2)]


def test_what_is_drawn_and_heard(run):
    assert run.contours("synthetic-1s")["mel"].shape == (16, 60)
    assert run.spectra("synthetic-1s")["sample_rate"] == 40000
    assert run.audio_file("synthetic-1s", "mlx_cpu") == run.path / "audio" / "synthetic-1s.mlx_cpu.wav"


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b"PK\x03\x04"), lambda path: path.write_bytes(b"")]
)
def test_arrays_that_cannot_be_read_are_not_there(run, damage):
    damage(run.array_file("contours", "synthetic-1s"))
    assert run.contours("synthetic-1s") == {}


def test_pickles_are_not_loaded(run):
    np.savez(run.array_file("contours", "synthetic-1s"), f0=np.array([object()], dtype=object))
    assert run.contours("synthetic-1s") == {}


def test_what_an_interrupted_run_lacks(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.environment() == {}
    assert (folder.plan().backends, folder.plan().keys) == ([], [])
    with pytest.raises(UserError, match=r"not a run folder \(no config.yaml\)"):
        folder.config()
    with pytest.raises(UserError, match=r"records.jsonl: no such file; is this a run folder\?"):
        folder.results()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", ""),
        ("config.yaml", "a: ["),
        ("config.yaml", "[" * 10_000),
        ("config.yaml", "\x00"),
        ("config.yaml", "suite: {name: rmvpe}\n"),
        ("config.yaml", "suite: {name: 1}\nprecision: fp32\nprofile: applio\noverrides: []\n"),
        ("environment.json", "[]"),
        ("environment.json", "{"),
        ("environment.json", "[" * 100_000),
        ("plan.json", "[1]"),
        ("plan.json", "{"),
        ("plan.json", '{"suite": "rmvpe", "backends": [], "keys": [["a", "b"]]}'),
        ("plan.json", '{"suite": "rmvpe", "keys": []}'),
    ],
)
def test_a_damaged_file_is_named(run, name, text):
    (run.path / name).write_text(text)
    read = {"config.yaml": run.config, "environment.json": run.environment, "plan.json": run.plan}[name]
    with pytest.raises(UserError) as caught:
        read()
    assert str(caught.value) == f"{run.path / name}: is damaged"


def test_a_damaged_record_is_named(run):
    lines = run.records_file.read_text().splitlines()
    lines[3] = json.dumps(json.loads(lines[3]) | {"seconds": "fast"})
    run.records_file.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"^[^\n]*records.jsonl:4: not a record [^\n]*seconds[^\n]*$"):
        run.results()
