"""The self-test of probes: what coverage.py reports becomes branches, and each has a sentence or fails."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from suites.base.errors import UserError
from suites.base.outcome import FAILED, PASSED
from suites.selftest import reach
from suites.selftest.reach import PACKAGE, Branch, missed_branches
from suites.selftest.unreached import WHY

SOURCE = '''
def used(x):
    """Text."""
    if x > 1:
        return 2
    return 1

class Kind:
    def unused(self):
        for one in self:
            print(one)

if used(0) == 3:
    print(3)
'''


@pytest.fixture
def report(tmp_path) -> tuple[Path, dict[str, Any]]:
    """A package of one module, and what coverage.py says of it after it was imported."""
    package = tmp_path / "made"
    package.mkdir()
    (package / "one.py").write_text(SOURCE)
    found = {"executed_lines": [2, 4, 6, 8, 9, 13], "summary": {"num_branches": 6}}
    found["missing_branches"] = [[4, 5], [10, 11], [10, -9], [13, 14]]
    return package, {"made/one.py": found}


def test_what_was_never_taken(report):
    package, found = report
    count, missed = missed_branches(found, package)
    assert count == 6 + 2
    assert missed == [
        Branch("one.Kind.unused", "", "one.py:9"),
        Branch("one.used", "if x > 1:", "one.py:4"),
        Branch("one", "if used(0) == 3:", "one.py:13"),
    ]
    assert [branch.key for branch in missed] == ["one.Kind.unused", "one.used: if x > 1:", "one: if used(0) == 3:"]


@pytest.mark.parametrize("key", ["one.used: if x > 1:", "one.used", "one"])
def test_a_sentence_is_on_a_branch_or_on_what_it_is_in(monkeypatch, key):
    monkeypatch.setattr(reach, "WHY", {key: "cannot matter"})
    assert Branch("one.used", "if x > 1:", "one.py:4").why == "cannot matter"
    assert Branch("two.used", "if x > 1:", "two.py:4").why is None


def test_a_branch_without_a_sentence_fails(monkeypatch, report):
    package, found = report
    monkeypatch.setattr(reach, "missed_branches", lambda _: missed_branches(found, package))
    monkeypatch.setattr(reach, "_measured", lambda folder: found)
    monkeypatch.setattr(reach.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(reach, "WHY", {"one.used": "small numbers only", "one.Kind": "made by nobody"})
    answer = reach.reach([])
    assert answer.exit_code == FAILED
    assert "5 of 8 branches" in answer.text
    assert "- one.py:13 one: if used(0) == 3:" in answer.text.splitlines()
    assert answer.line.endswith("1 without a reason")
    monkeypatch.setattr(reach, "WHY", {"one": "a made module", "gone.function": "was here once"})
    answer = reach.reach([])
    assert answer.exit_code == PASSED
    assert "gone.function: has a reason, and is taken here or is no longer there" in answer.text


def test_it_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(reach.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package coverage: pip install -e '\.\[dev\]'"):
        reach.reach([])
    with pytest.raises(UserError, match="unknown option 'only'"):
        reach.reach(["only=rmvpe"])


def test_every_reason_is_about_something_that_exists():
    functions, lines = set(), set()
    for file in PACKAGE.glob("*.py"):
        functions |= {file.stem, *(name for name, *_ in reach._functions(ast.parse(file.read_text()), file.stem))}
        lines |= {f"{file.stem} {line.strip()}" for line in file.read_text().splitlines()}
    for key in WHY:
        function, _, line = key.partition(": ")
        assert any(name == function or name.startswith(f"{function}.") for name in functions), key
        assert not line or f"{function.partition('.')[0]} {line}" in lines, key
