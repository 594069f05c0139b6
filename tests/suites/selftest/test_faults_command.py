"""``selftest faults`` and ``floors``: what is wrong is told before any work, and no folder is written over."""

from __future__ import annotations

import pytest
from command import suites


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["selftest", "faults", "only=["], "only=[: not a regular expression"),
        (["selftest", "faults", "seed=x"], "seed=x: a whole number from 0"),
        (["selftest", "faults", "clean=-1"], "clean=-1: a whole number from 0"),
        (["selftest", "aa", "full=yes"], "full=yes; known: true, false"),
        (["selftest", "aa", "policy=nope"], "nope"),
        (["selftest", "power", "durations=[0]"], "durations=0: a number from 0.16"),
        (["floors", "--update", "backends=[x]"], "unknown backend 'x'"),
        (["trace", "all", "out=x"], "out=x: several traces need a folder each"),
        (["floors", "precision=fp16"], "options count with --update only"),
        (["floors", "--update", "what=stage"], "what=stage; did you mean 'stages'"),
        (["floors", "--update", "suites=memory", "what=stages"], "suites=memory: no trace of it goes into the table"),
        (["floors", "--update", "suites=rmvp"], "suites=rmvp; did you mean 'rmvpe'"),
        (["floors", "--update", "precision=fp32,tf32"], "precision=fp32,tf32"),
    ],
)
def test_mistakes_are_explained(words, message):
    done = suites(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "outcomes.jsonl").write_text("mine")
    done = suites("selftest", "faults", "only=rmvpe", "clean=0", f"out={tmp_path}")
    assert done.returncode == 2
    assert "holds something already; give out= a folder of its own" in done.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("outcomes.jsonl", "mine")]
