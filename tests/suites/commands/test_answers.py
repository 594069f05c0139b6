"""What every command prints: results on stdout, errors on stderr; a line with --quiet, one object with --json."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import made_runs
import pytest
from made_bundles import few_probes
from quick_runs import figures, workers_inside

from reports.documents import build
from reports.documents.build import Pictures
from suites.__main__ import COMMANDS, NoTerminal, emit, main
from suites.base.outcome import FAILED, PASSED, Answer
from suites.child import roofline
from suites.commands import export
from suites.inputs.weights import find_weights
from suites.measure import probe, told
from suites.selftest import known
from suites.selftest.known import Reading
from suites.trace import profile
from suites.trace.run import TraceRun

ROOT = Path(__file__).parents[3]
SMALL = ("measure=smoke", "durations=[0.3]", "backends=[torch_cpu,mlx_cpu]", "threads=1", "suite.speech_clip=false")
SMALL += ("measure.first_calls=0", "measure.warmup_seconds=0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[str]:
    """Made ones, before and after."""
    folder = tmp_path_factory.mktemp("runs")
    return [str(made_runs.make_run(folder / name, 1)) for name in ("before", "after")]


@pytest.fixture
def lines(runs, tmp_path, tmp_path_factory, monkeypatch) -> dict[str, list[str]]:
    """A line of every command; nothing is timed but one tiny run and one tiny trace."""
    monkeypatch.setattr(profile, "SECONDS", 0.0)
    for name, value in (("PEAK_SECONDS", 0.01), ("LARGEST_MATRIX", 256), ("COPIED_BYTES", 2**22)):
        monkeypatch.setattr(roofline, name, value)
    monkeypatch.setattr(build, "draw", lambda book, out: Pictures())
    monkeypatch.setattr(probe, "estimators", lambda timeout_s: {"praat": None, "pyin": "librosa is not installed"})
    monkeypatch.setattr(known, "readings", lambda backend: iter([Reading("a sleep", "1 ms", "2 ms", 1.0, 0.02)]))
    # without the packages that it needs
    monkeypatch.setattr(export, "check_needs", lambda: None)
    monkeypatch.setattr(export, "_exported", lambda *_: tmp_path / "flow.onnx")
    monkeypatch.setattr(export, "facts_of", lambda path: {"checked": '[{"case": [1, 3], "max_abs": 0.0}]'})
    before, after = runs
    checkpoint = tmp_path / "rmvpe.safetensors"
    found = find_weights("rmvpe", None, 3, "tiny", None, tmp_path_factory.getbasetemp() / "weights")
    baseline = str(tmp_path / "baseline.json")
    return {
        "list": ["list"],
        "plan": ["plan", "pipeline", "measure=smoke"],
        "run": ["run", "rmvpe", *SMALL, f"out={tmp_path / 'run'}"],
        "report": ["report", after, "--out", str(tmp_path / "report")],
        "compare": ["compare", before, after],
        "gate": ["gate", after, "--baseline", baseline, "--update"],
        "trace": ["trace", "hubert", *SMALL, "durations=[0.3]", "suite.trace.plain=false", f"out={tmp_path / 'trace'}"],
        "profile": ["profile", "rmvpe", *SMALL, f"out={tmp_path / 'profile'}"],
        "selftest": ["selftest", "known"],
        "floors": ["floors"],
        "doctor": ["doctor"],
        "convert": ["convert", str(found.path), str(checkpoint)],
        "export": ["export", "onnx", "flow", "measure=smoke"],
        "completion": ["completion", "bash"],
    }


# of bundles and dumps: tests/suites/bundle
TOLD = [name for name in COMMANDS if name not in ("bundle", "judge")]


@pytest.mark.parametrize("name", TOLD)
def test_json_is_one_object_and_nothing_else(name, lines, capsys):
    with workers_inside(), figures(), few_probes("clip", kind=TraceRun):
        code = main([*lines[name], "--json"])
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    found = json.loads(captured.out)
    assert (found["command"], found["exit_code"], found["passed"]) == (name, code, code == 0)
    assert len(found) > 3
    assert code == (FAILED if name == "selftest" else PASSED)
    assert "error" not in captured.err


@pytest.mark.parametrize("name", [name for name in TOLD if name not in ("run", "trace", "profile", "completion")])
def test_quiet_is_one_line(name, lines, capsys):
    with workers_inside():
        main(["-q", *lines[name]])
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert captured.out.strip()


def test_a_quiet_run_tells_its_result(tmp_path, lines, capsys):
    with workers_inside(), figures():
        main([*lines["run"], "-q"])
    assert capsys.readouterr().out == f"passed: 8 of 8 records passed; report: {tmp_path}/run/report.md\n"


def test_a_run_without_a_terminal_has_a_line_per_finished_case(lines, capsys):
    with workers_inside(), figures():
        main([*lines["run"], "durations=[0.3,0.4]"])
    captured = capsys.readouterr()
    cases = [line for line in captured.out.splitlines() if line.startswith("synthetic-")]
    assert [line.partition(": ")[0] for line in cases] == ["synthetic-0.3s", "synthetic-0.4s"]
    assert all("f0 torch_cpu" in line and line.endswith("8 of 8 records passed") for line in cases)
    assert not {"\r", "\x1b"} & set(captured.out + captured.err)


def test_on_a_terminal_the_table_grows(lines, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with workers_inside(), figures():
        main([*lines["run"], "measure.launches={min: 2, max: 2}"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("case ", "synthetic-"))]
    assert [row.split()[0] for row in rows] == ["case", "synthetic-0.3s", "synthetic-0.3s", "synthetic-0.3s"]
    assert ["launch 1" in rows[1], "launch 2" in rows[2], "8 of 8 records passed" in rows[3]] == [True] * 3
    assert all(row.count(" ms") == 2 for row in rows[1:])


@pytest.mark.parametrize("word", ["--json", "-q"])
@pytest.mark.parametrize(
    ("words", "code"), [(["plan", "rmvp"], 2), (["compare", "nothing", "else"], 2), (["gate"], 2), (["nonsense"], 2)]
)
def test_errors_go_to_stderr(words, code, word, capsys):
    assert main([*words, word]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    if word == "--json":
        assert json.loads(captured.out) == {
            "command": words[0], "exit_code": code, "passed": False, "error": captured.err[7:-1],
        }  # fmt: skip
    else:
        assert captured.out == ""


def test_who_reads_no_more_is_no_error():
    """Such as ``| head``."""
    command = [sys.executable, "-m", "suites", "plan", "rmvpe"]
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.stdout
    assert done.stderr
    done.stdout.close()
    assert done.stderr.read() == ""
    assert done.wait() == 2


def test_a_stream_that_is_no_terminal(capsys):
    stream = NoTerminal(sys.stdout)
    print("x", file=stream)
    assert not stream.isatty()
    assert capsys.readouterr().out == "x\n"


def test_numbers_that_json_lacks_are_text(capsys):
    emit("run", ["--json"], Answer(0, "", {"value": float("nan"), "list": [float("inf")]}))
    assert json.loads(capsys.readouterr().out)["value"] == "nan"


# ---------------------------------------------------------------------- what this machine can run
def test_list_tells_what_works(lines, capsys):
    with workers_inside():
        assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^  torch_cpu +ready$", text, re.MULTILINE)
    assert re.search(r"^  torch_mps +not here: MPS exists on macOS only$", text, re.MULTILINE)
    assert re.search(r"pyin: pYIN +not here: librosa is not installed\n", text)
    for word in ("rmvpe", "quick", "full", "smoke", "gemm_conv", "gru_kernel", "weights cached in"):
        assert word in text


def test_a_framework_that_crashes_is_told(monkeypatch):
    """In its own process: the others are not touched."""
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setattr(probe, "impossible", lambda name: None if name == "mlx_cpu" else "left out")
    monkeypatch.setattr(probe, "BACKENDS", {"mlx_cpu": None})
    monkeypatch.setattr("suites.measure.launch.sys.executable", "/bin/false")
    found = probe.backends(1, 20, ["mlx_cpu", "torch_cpu"])
    assert found["mlx_cpu"]["reason"].startswith("cannot be started: mlx_cpu: the worker ended with exit code 1")
    assert found["torch_cpu"] == {"reason": "left out"}


def test_an_estimator_that_cannot_be_imported_is_told(monkeypatch):
    monkeypatch.setattr(probe, "IMPORT", "import sys; sys.exit('ImportError: no such library')")
    found = probe.estimators(20)
    assert found["praat"] == "parselmouth cannot be imported: ImportError: no such library"
    monkeypatch.setattr(probe, "IMPORT", "import time; time.sleep(9)")
    assert probe.estimators(0.2)["praat"].startswith("importing parselmouth takes longer")


def test_a_case_that_is_not_timed_together_with_others_has_a_line(capsys):
    closed = {("a", "f0", "x"): "passed", ("a", "f0", "y"): "failed", ("b", "f0", "x"): "passed"}
    told.finished(SimpleNamespace(shows_progress=True, closed=closed), "a")
    told.finished(SimpleNamespace(shows_progress=False, closed=closed), "b")
    assert capsys.readouterr().out == "a: 1 of 2 records passed\n"
