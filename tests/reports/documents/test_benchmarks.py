"""The published documents say what the records beside them give, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reports.data.frame import load_book
from reports.documents import build, sources
from reports.render.document import Picture
from reports.render.markdown import render

ROOT = Path(__file__).parents[3]
FOLDERS = sorted(p.parent for p in (ROOT / "reports" / "benchmarks").glob("*/BENCHMARKS.md"))


def test_there_are_some():
    assert FOLDERS


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda p: p.name)
def published(request, tmp_path_factory):
    """The document, and one made anew; its pictures, which take long to draw, are those that are there."""
    folder = request.param.relative_to(ROOT)
    text = (request.param / "BENCHMARKS.md").read_text("utf-8")
    named = [Path(name) for name in re.findall(r"^!\[.*\]\((.*)\)$", text, re.MULTILINE)]

    def stored(make, path, alt, sources, name=""):
        found = Path("plots", path.name)
        return Picture(name or path.stem, alt, str(found), "", sources) if found in named else None

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(build, "drawn", stored)
        book = load_book([folder])
        made = build.compose(book, build.draw(book, tmp_path_factory.mktemp("drawn")))
    return request.param, text, named, book, made


def test_the_document_is_what_the_records_give(published):
    _, text, _, _, made = published
    assert render(made) == text


def test_every_picture_is_there_and_no_other(published):
    folder, _, named, _, _ = published
    assert sorted(named) == sorted(p.relative_to(folder) for p in (folder / "plots").glob("*.png"))


def test_every_number_is_founded(published):
    *_, book, made = published
    assert not sources.unfounded(made, book)
