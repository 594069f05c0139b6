"""README's results are those of the published runs."""

from __future__ import annotations

import pytest

from tools.readme import PUBLISHED, ROOT, filled


def test_the_results_in_readme_are_what_the_records_give():
    text = (ROOT / "README.md").read_text("utf-8")
    assert filled(text) == text, "python -m tools.readme"


def test_every_published_document_is_in_it():
    text = (ROOT / "README.md").read_text("utf-8")
    assert PUBLISHED
    for folder in PUBLISHED:
        assert f"({folder.relative_to(ROOT).as_posix()}/BENCHMARKS.md)" in text


def test_a_readme_without_a_place_for_them_is_refused():
    with pytest.raises(ValueError, match="between two comments"):
        filled("# rvc-parity\n")
