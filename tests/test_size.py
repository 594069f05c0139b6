"""The clone stays small: what is tracked together, and every picture of a published document."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_BYTES, MOST_PLOT_BYTES = 28 << 20, 60_000


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    """Bytes of every tracked file, by its path from the root."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    files = {name: ROOT / name for name in listed.split("\0") if name}
    return {name: path.stat().st_size for name, path in files.items() if path.exists()}


def test_the_tracked_tree_is_below_its_limit(sizes):
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:10]
    assert 0 < sum(sizes.values()) < MOST_BYTES, largest


def test_every_published_plot_is_below_its_limit(sizes):
    plots = {name: n for name, n in sizes.items() if name.startswith("reports/benchmarks/") and name.endswith(".png")}
    assert plots
    assert {name: n for name, n in plots.items() if n > MOST_PLOT_BYTES} == {}
