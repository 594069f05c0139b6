"""Every command that writes where a user says: what cannot be written is told before the work, in one line."""

from __future__ import annotations

import os
from pathlib import Path

import made_runs
import pytest

from rvc_common import checkpoint
from suites.__main__ import main
from suites.bundle import make
from suites.commands import compare, gate, judge
from suites.metrics import floors
from suites.selftest import alarms, faults, floor_table

FILES = {
    "gate --update": ["gate", "run", "--update", "--baseline"],
    "gate --junit": ["gate", "run", "--baseline", "base.json", "--junit"],
    "gate --json-file": ["gate", "run", "--baseline", "base.json", "--json-file"],
    "convert": ["convert", "in.pt"],
}
FOLDERS = {
    "report": ["report", "run", "--out"],
    "history": ["report", "--history", "runs", "--out"],
    "compare": ["compare", "run", "run", "--out"],
    "selftest aa": ["selftest", "aa", "out="],
    "selftest power": ["selftest", "power", "out="],
    "selftest faults": ["selftest", "faults", "out="],
    "bundle": ["bundle", "rmvpe"],
    "judge": ["judge", "bundle", "dump", "--out"],
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_runs.make_run(tmp_path / "run")
    for name in ("runs", "folder.pt"):
        (tmp_path / name).mkdir()
    for name in ("file", "in.pt", "base.json"):
        (tmp_path / name).write_text("content")
    for module, name in ((gate, "baseline_of"), (compare, "baseline_of"), (checkpoint, "read_content")):
        monkeypatch.setattr(module, name, lambda *_, name=name: pytest.fail(f"{name}: it began"))
    for module, name in ((alarms, "measured"), (faults, "_injected"), (floor_table, "measure")):
        monkeypatch.setattr(module, name, lambda *_, name=name: pytest.fail(f"{name}: it began"))
    monkeypatch.setattr(make.BundleRun, "execute", lambda *_: pytest.fail("it began"))
    monkeypatch.setattr(judge, "read_dump", lambda *_: pytest.fail("it began"))
    monkeypatch.setattr("reports.documents.build.load_book", lambda *_: pytest.fail("it began"))


def told(words: list[str], capsys) -> str:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return str(captured.err)


def with_output(words: list[str], path: str) -> list[str]:
    return [*words[:-1], words[-1] + path] if words[-1].endswith("=") else [*words, path]


@pytest.mark.parametrize("words", FILES.values(), ids=FILES)
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("folder.pt", "is a folder, not a file"),
        ("pipe.pt", "is a pipe or device, not a file"),
        ("file/out.pt", "file is not a folder"),
        ("n" * 253 + ".pt", "File name too long"),
        ("in.pt", "is the same file as"),
        ("closed/out.pt", "closed cannot be written (Read-only file system)"),
    ],
)
def test_files(words, path, reason, tmp_path, capsys, monkeypatch):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "closed").mkdir()
    opened = Path.open

    def closed(path, *given, **named):
        if path.parent.name == "closed":
            raise OSError(30, "Read-only file system")
        return opened(path, *given, **named)

    monkeypatch.setattr(Path, "open", closed)
    if reason.startswith("is the same"):
        words = ["gate", "in.pt", *words[2:]] if words[0] == "gate" else words
    before = sorted(tmp_path.rglob("*"))
    assert reason in told(with_output(words, path), capsys)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", FOLDERS.values(), ids=FOLDERS)
@pytest.mark.parametrize(
    ("path", "reason"), [("file", "is a file, not a folder"), ("file/sub", "is not a folder"), ("n" * 256, "too long")]
)
def test_folders(words, path, reason, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert reason in told(with_output(words, path), capsys)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_report_of_a_long_name(capsys):
    assert "File name too long" in told(["report", "run", "--name", "n" * 252], capsys)


def test_one_file_cannot_hold_both_verdicts(capsys):
    words = ["gate", "run", "--baseline", "base.json", "--junit", "same.xml", "--json-file", "./same.xml"]
    assert "output same.xml: is the same file as same.xml" in told(words, capsys)


def test_the_records_are_not_made_a_baseline(capsys):
    words = ["gate", "run", "--update", "--baseline", "run/records.jsonl"]
    assert "is the same file as run/records.jsonl" in told(words, capsys)


def test_the_table_of_floors_cannot_be_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(floors, "TABLE", tmp_path / "gone" / "floors.json")
    assert "gone does not exist" in told(["floors", "--update"], capsys)


@pytest.mark.parametrize("option", ["--baseline", "--junit", "--json-file"])
def test_an_empty_name(option, capsys):
    assert "the name is empty" in told(["gate", "run", "--baseline", "base.json", option, ""], capsys)


def test_the_home_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"output {tmp_path / 'file'}: is a file" in told(["compare", "run", "run", "--out", "~/file"], capsys)
