"""The row of a run: which code was measured, and where it was started."""

from __future__ import annotations

import pytest
from made_runs import make_run

from reports.data.frame import load_book
from reports.documents.build import Pictures, compose
from reports.render import markdown

AROUND = {"working_repository": {"name": "songs", "commit": "f" * 40, "commit_clean": True}}


@pytest.mark.parametrize(
    ("environment", "cell"),
    [
        ({"commit": "a" * 40}, "aaaaaaaaaaaa"),
        ({"commit": "a" * 40, "commit_clean": False}, "aaaaaaaaaaaa with uncommitted changes"),
        ({"commit": "a" * 40, "version": "0.1.0"}, "aaaaaaaaaaaa, version 0.1.0"),
        ({"commit": None, "version": "0.1.0"}, "version 0.1.0"),
        (
            {"commit": "a" * 40, "version": "0.1.0", **AROUND},
            "aaaaaaaaaaaa, version 0.1.0; started in the repository songs ffffffffffff",
        ),
    ],
)
def test_the_commit_is_the_packages_own(tmp_path, environment, cell):
    book = load_book([make_run(tmp_path / "run", environment=environment)])
    assert f"| {cell} |" in markdown.render(compose(book, Pictures()))
