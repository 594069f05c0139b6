"""What the documents name must exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "pytorch-to-mlx.md").read_text()


@pytest.mark.parametrize(("path", "name"), sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", GUIDE))))
def test_the_tests_that_guard_a_point_exist(path, name):
    assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_every_point_has_a_test():
    points = re.split(r"^- ", GUIDE, flags=re.MULTILINE)[1:]
    assert len(points) > 30
    for point in points:
        assert "`tests/" in point, point


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/accuracy.md",
        "docs/measurement.md",
        "docs/parity.md",
        "docs/blas.md",
        "docs/gates.md",
        "docs/pytorch-to-mlx.md",
    ],
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target
