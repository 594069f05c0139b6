"""Configurations that are read, and temporary folders where none can be written."""

from __future__ import annotations

import json
import tempfile

import pytest

from suites.base.backends import worker_environment
from suites.base.errors import UserError
from suites.base.files import read_json, read_yaml, scratch_folder


@pytest.mark.parametrize("in_memory", [True, False])
def test_no_temporary_folder_is_one_line(monkeypatch, in_memory):
    with scratch_folder(in_memory) as folder:
        assert folder.is_dir()
    assert not folder.exists()

    def none(**_):
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", none)
    with pytest.raises(UserError, match=r"^no temporary folder can be written .*; set TMPDIR=FOLDER$"):
        scratch_folder(in_memory).__enter__()


def test_workers_have_the_same_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", "inner")
    assert worker_environment("fp32", 1)["TMPDIR"] == str(tmp_path / "inner")
    monkeypatch.delenv("TMPDIR")
    assert "TMPDIR" not in worker_environment("fp32", 1)


def test_who_changes_what_was_read_has_one_of_his_own(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: {b: [1]}")
    read_yaml(path)["a"]["b"].append(2)
    assert read_yaml(path) == {"a": {"b": [1]}}
    path.write_text("a: {b: [3]}")  # as long as before
    assert read_yaml(path) == {"a": {"b": [3]}}


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, -0, -0.0, 0.1, 5e-324, 123456789012345678901234567890, true, null], "b": "\\u00e9 \U0001f600"}',
        '{"a": 1, "a": 2}', "NaN", "[-Infinity, 1e400]", '"\\udcff.wav"', "", "[1", "nan", "1 2", "\\udcff",
    ],
)  # fmt: skip
def test_json_is_read_as_the_standard_library_reads_it(text):
    def read(by):
        try:
            return repr(by(text.encode()))
        except ValueError as error:
            return str(error)

    assert read(read_json) == read(json.loads)
