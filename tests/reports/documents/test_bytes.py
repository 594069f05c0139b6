"""The same records, the same bytes: in another process, with other hashes, from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import made_suites
import pytest

from reports.documents import build
from suites.__main__ import main

ROOT = Path(__file__).parents[3]
# one figure of each kind of drawing is enough here; tests/reports/figures/test_plots.py draws them all
DRAWN = ("spectra", "growth")
SCRIPT = f"""
import sys
from reports.documents import build
from suites.__main__ import main

build.PLOTS = [plot for plot in build.PLOTS if plot.name in {DRAWN}]
sys.exit(main(["report", *sys.argv[1:]]))
"""


def report(folder: str, out: Path, cwd: Path, seed: str) -> dict[str, bytes]:
    command = [sys.executable, "-c", SCRIPT, folder, "--out", str(out), "--tables", "csv"]
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=120)
    assert done.returncode == 1, done.stderr  # its trace has found a fault
    return contents(out)


def report_here(folder: str, out: Path) -> dict[str, bytes]:
    """In this process, whose hashes are its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "PLOTS", [plot for plot in build.PLOTS if plot.name in DRAWN])
        assert main(["report", folder, "--out", str(out), "--tables", "csv"]) == 1
    return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> list[dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("bytes")
    made = folder / "made"
    for suite in ("pipeline", "memory"):
        made_suites.make_suite(made / suite, suite)
    made_suites.make_trace(made / "trace-rmvpe")
    (made / "pipeline" / "spectra" / "synthetic-2s.npz").unlink()
    return [
        report_here(str(made), folder / "one"),
        report("../made", folder / "elsewhere" / "two", folder / "one", "2"),
    ]


def test_every_file_has_the_same_bytes(built):
    first, second = built
    assert {"report.md", "report.html", "tables/validation.csv"} <= set(first)
    assert {name for name in first if name.endswith(".png")} == {
        "plots/answer.png",
        "plots/memory-growth.png",
        "plots/pipeline-spectra-synthetic-1s.png",
        "plots/trace-rmvpe-stages.png",
    }
    assert set(second) == set(first)
    assert [name for name in first if first[name] != second[name]] == []


def test_no_path_of_this_machine_is_in_it(built):
    for name in ("report.md", "report.html"):
        text = built[0][name].decode()
        assert "/tmp/" not in text
        assert str(Path.home()) not in text
