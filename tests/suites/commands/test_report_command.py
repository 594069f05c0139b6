"""``report`` and ``compare`` as they are typed: what they write, what they say, and every way that it goes wrong."""

from __future__ import annotations

import errno
import importlib.util
from pathlib import Path

import made_runs
import made_suites
import pytest

from reports.documents import build, comparison, history
from reports.documents.build import Pictures
from suites.__main__ import main


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch, tmp_path):
    """Figures have tests of their own, and take seconds."""
    monkeypatch.setattr(build, "draw", lambda book, out: Pictures())
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path) -> Path:
    return made_suites.make_suite(tmp_path / "run", "hubert")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------- what it writes
def test_one_run_has_its_report_in_its_folder(run, capsys):
    before = files(run)
    assert main(["report", str(run)]) == 0
    assert files(run) - before == {"report.md", "report.html"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"report: {run}/report.md"
    assert lines[-2] == "passed: 12 of 12 records passed"
    assert lines[0] == "skipped torch_mps: MPS exists on macOS only"


def test_several_have_it_in_a_folder_of_its_own(run, tmp_path, capsys):
    other = made_suites.make_suite(tmp_path / "other", "memory")
    assert main(["report", str(run), str(other)]) == 0
    assert files(tmp_path / "report") == {"report.md", "report.html"}
    assert capsys.readouterr().out.splitlines() == [
        "2 runs, 0 traces: 24 of 24 records passed",
        "report: report/report.md",
    ]


def test_out_and_tables(run, tmp_path, capsys):
    assert main(["report", str(run), "--out", "here", "--tables", "csv"]) == 0
    assert {"report.md", "report.html", "tables/hubert-time.csv", "tables/runs.csv"} <= files(tmp_path / "here")
    tables = len(list((tmp_path / "here" / "tables").iterdir()))
    assert f"tables: here/tables, {tables} files" in capsys.readouterr().out


def test_parquet(run, tmp_path):
    pytest.importorskip("pyarrow")
    assert main(["report", str(run), "--out", "here", "--tables", "parquet"]) == 0
    assert (tmp_path / "here" / "tables" / "hubert-time.parquet").is_file()


def test_sources_print_and_write_nothing(run, capsys):
    before = files(run)
    assert main(["report", str(run), "--sources"]) == 0
    assert files(run) == before
    assert capsys.readouterr().out.splitlines()[-1].endswith("numbers, 0 without a record")


def test_a_missing_record_is_told_and_is_exit_2(run, capsys):
    lines = (run / "records.jsonl").read_text().splitlines(keepends=True)
    (run / "records.jsonl").write_text("".join(lines[:-1]))
    assert main(["report", str(run)]) == 2
    told = capsys.readouterr().out
    assert "planned, and without a record: 1" in told
    assert "synthetic-2s, features, mlx_cpu: planned, no record" in told


def test_a_failure_is_told_and_is_exit_1(tmp_path, capsys):
    trace = made_suites.make_trace(tmp_path / "trace")
    run = made_suites.make_suite(tmp_path / "run", "hubert")
    assert main(["report", str(run), str(trace)]) == 1
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("trace: First stage at fault: cnn (error")
    assert second == "1 run, 1 trace: 12 of 12 records passed"


def test_history(tmp_path, capsys, monkeypatch):
    """Without its figures, which tests/reports/documents/test_history.py looks at."""
    monkeypatch.setattr(history, "draw", lambda *_: {})
    for number in (1, 2):
        made_runs.make_run(tmp_path / "runs" / str(number), number, launches=2, rounds=2)
    assert main(["report", "--history", "runs"]) == 0
    assert "report: runs/history/report.md" in capsys.readouterr().out
    assert "report.html" in files(tmp_path / "runs" / "history")


def test_compare(tmp_path, capsys, monkeypatch):
    """Without its figures, which tests/reports/documents/test_comparison.py looks at."""
    monkeypatch.setattr(comparison, "draw", lambda *_: [])
    runs = [str(made_runs.make_run(tmp_path / name, 1, launches=2, rounds=2)) for name in ("a", "b")]
    main(["compare", *runs, "--out", "pair"])
    assert "report: pair/report.md" in capsys.readouterr().out
    assert {"report.md", "report.html"} <= files(tmp_path / "pair")


# ---------------------------------------------------------------------- what it says where it cannot
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["report"], "report what? name run folders, or a folder of runs, or --history FOLDER"),
        (["report", "nothing"], "nothing: no such folder"),
        (["report", "run/config.yaml"], "run/config.yaml: no such folder"),
        (["report", "run", "nothing"], "nothing: no such folder"),
        (["report", "empty"], "empty: neither a run folder nor a folder of runs (no config.yaml)"),
        (["report", "bare"], "bare/records.jsonl: no such file; is this a run folder?"),
        (["report", "--sources"], "report what? name run folders"),
        (["report", "run", "--sources", "--out", "x"], "leave out --out and --tables"),
        (["report", "run", "--tables", "xlsx"], "invalid choice: 'xlsx' (choose from 'csv', 'parquet')"),
        (["report", "run", "--tables"], "expected one argument; see python -m suites report --help"),
        (["report", "--nothing"], "unrecognized arguments: --nothing"),
        (["report", "trace", "--tables", "csv"], "a trace's tables are in its stages.csv"),
        (["report", "--history"], "expected one argument"),
        (["report", "--history", "nothing"], "nothing: no such folder"),
        (["report", "--history", "run"], "is a run itself"),
        (["report", "--history", "empty"], "no run folders"),
        (["report", "run", "--history", "empty"], "--history is a report of its own"),
        (["compare", "run"], "the following arguments are required: RUN"),
        (["compare", "run", "nothing"], "nothing"),
        (["compare", "nothing", "run"], "nothing: no such baseline"),
        (["compare", "run", "empty"], "empty: not a run folder (no config.yaml)"),
        (["compare", "run", "trace", "--out", "x"], "trace"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line_and_exit_2(words, told, run, tmp_path, capsys):
    made_suites.make_trace(tmp_path / "trace")
    for name in ("empty", "bare"):
        (tmp_path / name).mkdir()
    (tmp_path / "bare" / "config.yaml").write_text((run / "config.yaml").read_text())
    before = files(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert files(tmp_path) == before


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "plan.json", "records.jsonl"])
def test_a_damaged_file_is_named(name, run, capsys):
    (run / name).write_text("{\n")
    assert main(["report", str(run)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {run / name}")
    assert told.count("\n") == 1


def test_parquet_without_its_package_is_told_before_the_work(run, capsys, monkeypatch):
    whole = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else whole(name))
    before = files(run)
    assert main(["report", str(run), "--tables", "parquet"]) == 2
    assert capsys.readouterr().err == (
        "error: Parquet files need pyarrow: pip install -e '.[parquet]'; csv needs nothing more\n"
    )
    assert files(run) == before


@pytest.mark.parametrize("words", [[], ["--tables", "csv"]], ids=["document", "tables"])
def test_a_full_disk_is_told_with_the_folder(words, run, tmp_path, capsys, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*("reports.render.export.write_tables", full) if words else (build, "write", full))
    assert main(["report", str(run), "--out", str(tmp_path / "out"), *words]) == 2
    told = capsys.readouterr().err
    assert told == f"error: cannot write the report in {tmp_path / 'out'}: No space left on device; " + (
        "--out FOLDER for another place\n"
    )
