"""``export``: what it refuses, in a line and before any work; and what it says."""

from __future__ import annotations

import importlib.util
import json

import pytest
from command import suites

from suites.commands import export
from suites.export.make import Mismatch


@pytest.fixture
def installed(monkeypatch):
    """As if every package were there."""
    monkeypatch.setattr(export, "check_needs", lambda: None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rmvp"], "unknown part 'rmvp'; did you mean 'rmvpe'?"),
        (["measure=smoke"], "which part? one or more of rmvpe, hubert"),
        (["rmvpe", "weights.rmvpe=nowhere.pt"], "nowhere.pt: no such file"),
        (["rmvpe", "flow", "measure=smoke", "weights.voice=README.md"], "README.md: not a readable checkpoint"),
        (["rmvpe", "weights.voice=a.pth"], "weights.voice: nothing that is exported depends on it; known: weights"),
        (["rmvpe", "precision=fp16"], "precision: nothing that is exported depends on it"),
        (["rmvpe", "profile=both"], "profile=both; known: applio, webui"),
        (["vocoder", "suite.voice=none"], "suite.voice=none"),
        (["rmvpe", "measure=smoke", "out=README.md"], "README.md"),
    ],
)  # fmt: skip
def test_refused_in_a_line(installed, words, message):
    done = suites("export", "onnx", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_another_format():
    done = suites("export", "coreml", "rmvpe")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(("name", "extra"), [("torch", "torch"), ("onnx", "peers"), ("onnxruntime", "peers")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, name, extra):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda one: None if one == name else find(one) or True)
    done = suites("export", "onnx", "rmvpe", "measure=smoke")
    assert done.returncode == 2
    assert f"ONNX files need {name}, which is not installed: pip install -e '.[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_failed_check_is_told_and_the_others_are_made(installed, monkeypatch, tmp_path):
    def made(config, part, checkpoint, target):
        if part == "flow":
            raise Mismatch("flow: batch 1, length 3: z: max_abs 1, limit 0.1")
        return target

    checks = json.dumps([{"case": [1, 3], "max_abs": 1e-6}])
    monkeypatch.setattr(export, "_exported", made)
    monkeypatch.setattr(export, "facts_of", lambda path: {"checked": checks})
    done = suites("export", "onnx", "flow", "encoder", "measure=smoke", f"out={tmp_path}")
    assert done.returncode == 1
    assert "flow: batch 1, length 3: z: max_abs 1, limit 0.1; no file was written" in done.stdout
    assert f"encoder: {tmp_path / 'encoder.onnx'}, max error 1e-06 in 1 cases" in done.stdout
    told = json.loads(suites("export", "onnx", "flow", "measure=smoke", f"out={tmp_path}", "--json").stdout)
    assert (told["exit_code"], list(told["failed"])) == (1, ["flow"])
