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
        *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
    ],
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target


GLOSSARY = re.findall(r"^- \*\*(.+?)\*\*: (.+)$", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)


def test_the_glossary_is_sorted_and_has_each_term_once():
    terms = [term for term, _ in GLOSSARY]
    assert len(terms) > 40
    assert terms == sorted(set(terms), key=str.lower)
    assert all(text.endswith(".") for _, text in GLOSSARY)


@pytest.mark.parametrize("name", sorted({name for _, text in GLOSSARY for name in re.findall(r"`([^`]+)`", text)}))
def test_names_in_the_glossary_exist(name):
    """Paths in the checkout, everything else in the code or in the configuration."""
    if "/" in name:
        assert (ROOT / name).exists()
        return
    word = re.escape(name.rstrip("="))
    files = [path for folder in ("suites", "rvc_mlx", "conf") for path in (ROOT / folder).rglob("*.*")]
    texts = (path.read_text() for path in files if path.suffix in (".py", ".yaml"))
    folders = {path.name for path in ROOT.iterdir()}
    assert name in folders or any(re.search(rf"(?<!\w){word}(?!\w)", text) for text in texts), name
