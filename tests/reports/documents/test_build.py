"""Reports of a stored run: the same text and pictures each time, and nothing wrong when a record is missing."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import made_suites
import numpy as np
import pytest
from quick_runs import figures

from reports import frame
from reports.data.frame import load
from reports.data.trace import command
from reports.documents import build
from reports.documents.build import Pictures, write_report
from reports.figures.plots import PLOTS
from reports.render.document import significant
from suites.base.errors import UserError

STORED = Path(__file__).parents[2] / "fixtures" / "run"


@pytest.fixture
def run(tmp_path):
    shutil.copytree(STORED, tmp_path / "run", ignore=shutil.ignore_patterns("expected.md"))
    return tmp_path / "run"


def test_the_stored_run_gives_the_stored_report(run):
    """After a meant change: python -m suites report on the fixture, and read the difference."""
    assert write_report(run).path.read_text() == (STORED / "expected.md").read_text()


@pytest.fixture
def undrawn(monkeypatch):
    """Figures have tests of their own, and take seconds."""
    monkeypatch.setattr(build, "draw", lambda book, out: Pictures())


def edit(run, change):
    lines = [json.loads(text) for text in (run / "records.jsonl").read_text().splitlines()]
    (run / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in change(lines)))


def test_the_order_of_the_records_changes_nothing(run, undrawn):
    """A run that was resumed closed them in another one."""
    before = write_report(run).path.read_text()
    edit(run, lambda lines: lines[::-1])
    assert write_report(run).path.read_text() == before


def test_contours_without_the_reference_are_not_drawn(run):
    """It was lost when they were kept; the run has been resumed since. The other figures are of no matter here."""
    (run / "contours").mkdir(exist_ok=True)
    for case in load(run).cases:
        np.savez(run / "contours" / f"{case}.npz", **{"f0.mlx_cpu": np.full(100, 200.0), "mel": np.zeros((128, 100))})
    with figures("f0"):
        write_report(run)
    assert not list((run / "plots").glob("f0-*"))


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [("failed", 1, "**Failed**"), ("error", 2, "**Incomplete**"), ("not_comparable", 2, "**Incomplete**")],
)
def test_statuses(run, status, code, word, undrawn):
    def change(lines):
        for line in lines:
            if line["kind"] == "record" and line["component"] == "f0" and line["backend"] == "mlx_cpu":
                line |= {"status": status, "reason": "because", "parity": None}
        return lines

    edit(run, change)
    built = write_report(run)
    assert built.exit_code == code
    text = built.path.read_text()
    assert word in text
    assert "because" in text


def test_a_run_without_records(run, undrawn):
    edit(run, lambda lines: [])
    built = write_report(run)
    assert built.exit_code == 2
    assert "**Incomplete**" in built.path.read_text()


def test_not_a_run(tmp_path):
    with pytest.raises(UserError, match="neither a run folder nor a folder of runs"):
        write_report(tmp_path)


def test_speedup_is_the_median_of_paired_ratios(run, undrawn):
    data = load(run)
    case = data.cases[0]
    ours, theirs = (data.find(case, "f0", b)["samples_s"] for b in ("mlx_cpu", "torch_cpu"))
    ratios = sorted(t / o for o, t in zip(ours, theirs, strict=True))
    e = data.speedup(case, "f0", "mlx_cpu")
    assert ratios[0] <= e.value <= ratios[-1]
    assert data.speedup(case, "f0", "torch_cpu") is None
    text = write_report(run).path.read_text()
    assert f"{e.value:.2f}× [{e.low:.2f}, {e.high:.2f}] of `torch_cpu`, `fp32`" in text


def test_frame_in_two_lines(run):
    table = frame(run)
    assert {"case", "component", "backend", "median_s", "workload.duration_s"} <= set(table.columns)
    assert (table["median_s"] > 0).all()


def test_command_repeats_the_run(run):
    words = command("run", load(run).config).split()
    assert words[:5] == ["python", "-m", "suites", "run", "rmvpe"]
    assert "measure=smoke" in words
    assert "'durations=[1,1.5]'" in words


def test_no_table_has_ragged_rows(run, undrawn):
    text = write_report(run).path.read_text()
    for block in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.M):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_a_thousand_records(tmp_path, monkeypatch, undrawn):
    """All of them are in the tables; how long it takes is printed. Figures do not grow with their number."""
    monkeypatch.setitem(made_suites.CASES, "rmvpe", tuple(f"synthetic-{seconds}s" for seconds in range(1, 126)))
    made_suites.make_suite(tmp_path / "run", "rmvpe")
    started = time.perf_counter()
    built = write_report(tmp_path / "run")
    print(f"1,000 records without figures: {time.perf_counter() - started:.1f} s")
    assert built.exit_code == 0
    assert built.notes[-1] == "passed: 1000 of 1000 records passed"
    assert {t.name: len(t.rows) for t in built.document.tables()}["rmvpe-time"] == 250
    run = load(tmp_path / "run")
    assert sum(len(list(plot.of(run))) for plot in PLOTS) < 25


FORMS = {0: "0", 123456.0: "123456", 0.0512: "0.0512", 1.5e-7: "1.50e-07", 1234.5: "1234", 2.5: "2.5"}


@pytest.mark.parametrize(("value", "text"), FORMS.items())
def test_printed_forms(value, text):
    assert significant(value) == text


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ([3.94, 59.2], "3.9 to 59.2 %"),
        ([3.94, 6347.9], "3.9 to over 100 %"),
        ([250.0, 900.0], "over 100 %, which is not at all"),
    ],
)
def test_a_speedup_that_is_not_known_says_so(shares, text):
    assert build._per_cent(shares) == text
