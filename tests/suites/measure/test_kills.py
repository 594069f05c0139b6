"""Runs are killed at random moments, themselves or a worker of theirs, and then completed.

``pytest tests/suites/measure/test_kills.py --kills 100`` kills more often than the default.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from command import suites
from made_runs import make_run
from quick_runs import figures, workers_inside

from reports.documents.build import write_report
from suites.base.paths import ROOT
from suites.base.records import read_lines, records, records_file

# one run takes some seconds more than this; kills come within it
LONGEST_WAIT_S = 5.0
KILLS_A_RUN = 5
TIMEOUT_S = 300
SETTINGS = (
    "measure=smoke", "durations=[0.3]", "suite.speech_clip=false", "threads=1", "backends=[mlx_cpu]",
    "measure.launches={min: 2, max: 2}", "measure.rounds={min: 3, max: 3}", "measure.warmup_seconds=0",
)  # fmt: skip


def test_killed_runs_lose_nothing(tmp_path, pytestconfig):
    """No kill loses or doubles a record, and every completed run looks like an unbroken one."""
    left, number, faults = pytestconfig.getoption("--kills"), 0, []
    rng, whole = np.random.default_rng(0), tmp_path / "whole"
    with workers_inside(), figures("time"):
        done = suites("run", "rmvpe", *SETTINGS, f"out={whole}")
    assert done.returncode == 0, done.stdout + done.stderr
    while left > 0:
        count = min(left, KILLS_A_RUN)
        faults += broken_and_completed(tmp_path / f"run-{number}", whole, count, rng)
        left, number = left - count, number + 1
    assert faults == []


def broken_and_completed(folder: Path, whole: Path, count: int, rng: np.random.Generator) -> list[str]:
    """One run, killed ``count`` times and completed: what is wrong with it."""
    faults: list[str] = []
    words = ["rmvpe", *SETTINGS, f"out={folder}"]
    for _ in range(count):
        before = _lines(folder)
        target = _kill(words, float(rng.uniform(0.2, LONGEST_WAIT_S)), worker=bool(rng.random() < 0.5), rng=rng)
        after = _lines(folder)
        if after[: len(before)] != before:
            faults.append(f"{folder.name}: killing {target} lost or changed a line")
        if (folder / "config.yaml").exists():
            words = [f"resume={folder}"]
    code, told = _run(words)
    if code:
        faults.append(f"{folder.name}: completing it ended with exit code {code}: {told}")
        return faults
    return faults + [f"{folder.name}: {fault}" for fault in flaws(folder, whole)]


def flaws(folder: Path, whole: Path) -> list[str]:
    """What a completed run has lost, doubled, or looks different in from an unbroken one."""
    lines, found = list(read_lines(records_file(folder))), []
    # a round that other work disturbed is timed again, but no two samples took equally long
    taken = [(*_key(x), x["round"], x["seconds"]) for x in lines if x["kind"] == "sample"]
    if len(taken) != len(set(taken)):
        found.append("a sample was written twice")
    keys = [sorted((r["case"], r["component"], r["backend"], r["status"]) for r in _closed(f)) for f in (folder, whole)]
    if keys[0] != keys[1]:
        found.append("its records are not those of an unbroken run")
    for record in _closed(folder):
        own = {x["round"] for x in lines if x["kind"] == "sample" and _key(x) == _key(record)}
        if sorted(own) != record.get("rounds", []):
            found.append(f"{_key(record)}: the record does not hold every sample")
    own, other = structure(folder), structure(whole)
    if own != other:
        first = next((i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), min(len(own), len(other)))
        told = " and ".join(repr(lines[first : first + 1]) for lines in (own, other))
        found.append(f"its report has another structure: {told}, {len(own)} and {len(other)} lines")
    return found


def structure(folder: Path) -> list[str]:
    """Headings, rows and pictures of a report, without any figure."""
    text = (folder / "report.md").read_text()
    return [re.sub(r"[\d.,–+-]+(e-?\d+)?", "0", line)[:40] for line in text.splitlines() if re.match("[#|!]", line)]


def _closed(folder: Path) -> list[dict[str, Any]]:
    return records(read_lines(records_file(folder)))


def _key(line: dict[str, Any]) -> tuple[str, str, str]:
    return line["case"], line["component"], line["backend"]


def _lines(folder: Path) -> list[bytes]:
    """Those that were written to their end."""
    path = folder / "records.jsonl"
    return (
        [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")] if path.exists() else []
    )


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "suites", "run", *words]


def _run(words: Sequence[str]) -> tuple[int, str]:
    """Exit code, and the last line that tells why."""
    with workers_inside(), figures("time"):
        done = suites("run", *words)
    lines = (done.stdout + done.stderr).splitlines()
    told = [x.strip() for x in lines if x.startswith("error")][-1:]
    # of a fault of the program: where it was, and what
    inner = [i for i, x in enumerate(lines) if x.startswith("  File ")][-1:]
    told += [x.strip() for i in inner for x in lines[i : i + 3]]
    return done.returncode, "; ".join(told)


def _kill(words: Sequence[str], wait_s: float, worker: bool, rng: np.random.Generator) -> str:
    """Start, wait, kill; a run whose worker was killed goes on to its own end."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(_command(words), cwd=ROOT, stdout=quiet, stderr=quiet)
    try:
        process.wait(wait_s)
        return "nothing: it had ended"
    except subprocess.TimeoutExpired:
        pass
    children = psutil.Process(process.pid).children() if worker else []
    if children:
        children[rng.integers(len(children))].kill()
        process.wait(TIMEOUT_S)
        return "a worker"
    process.kill()
    process.wait()
    time.sleep(0.2)  # its workers end with it
    return "the run"


def test_flaws_of_a_completed_run(tmp_path):
    """Whole against whole, then with a lost sample, then with a doubled one."""

    def drop(lines):
        return lines[1:]

    def double(lines):
        return [lines[0], *lines]

    made = {"whole": None, "same": None, "lost": drop, "twice": double}
    for name, change in made.items():
        with figures():
            write_report(make_run(tmp_path / name, change=change))
    assert flaws(tmp_path / "same", tmp_path / "whole") == []
    assert any("does not hold every sample" in flaw for flaw in flaws(tmp_path / "lost", tmp_path / "whole"))
    assert "a sample was written twice" in flaws(tmp_path / "twice", tmp_path / "whole")
