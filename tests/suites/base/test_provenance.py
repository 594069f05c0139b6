"""Which code ran: never the commit of a repository that merely lies around the package."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from suites.base import environment, provenance

PROJECT = '[project]\nname = "rvc-parity"\nversion = "9.8"\n'
UNKNOWN = {"version": None, "commit": None, "commit_clean": None}


def repository(folder, project=PROJECT):
    """With one commit, and its name."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(project)
    own = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*own, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(autouse=True)
def _nothing_stated(monkeypatch):
    monkeypatch.delenv(provenance.COMMIT_STATED, raising=False)


def test_a_clone_is_read_by_git(tmp_path, monkeypatch):
    commit, other = repository(tmp_path / "clone"), repository(tmp_path / "other")
    monkeypatch.setenv(provenance.COMMIT_STATED, "feed")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))  # as in a git hook
    assert other
    none = tmp_path / "none"
    clean = {"version": "9.8", "commit": commit, "commit_clean": True}
    assert provenance.package(tmp_path / "clone", none) == clean
    (tmp_path / "clone" / "pyproject.toml").write_text(PROJECT + "#")
    assert provenance.package(tmp_path / "clone", none) == clean | {"commit_clean": False}


def test_what_is_built_says_so_wherever_it_lies(tmp_path):
    repository(tmp_path / "other")
    built = {"version": "1.2", "commit": "abc", "commit_clean": True}
    (tmp_path / "built.json").write_text(json.dumps(built))
    assert provenance.package(tmp_path / "other", tmp_path / "built.json") == built


def test_a_repository_around_a_copy_is_not_ours(tmp_path, monkeypatch):
    repository(tmp_path / "other", '[project]\nname = "other"\nversion = "1"\n')
    copy, none = tmp_path / "other" / "vendor", tmp_path / "none"
    copy.mkdir()
    shutil.copy(provenance.ROOT / "pyproject.toml", copy)
    assert provenance.package(tmp_path / "other", none) == UNKNOWN
    known = provenance.package(copy, none)
    assert known == UNKNOWN | {"version": known["version"]}
    monkeypatch.setenv(provenance.COMMIT_STATED, "feed")
    assert provenance.package(copy, none) == known | {"commit": "feed", "commit_stated": True}


def test_the_repository_around_the_working_folder_is_a_fact_of_its_own(tmp_path, monkeypatch):
    commit = repository(tmp_path / "other")
    inner = tmp_path / "other" / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    around = {"name": "other", "commit": commit, "commit_clean": True}
    assert provenance.working_repository() == {"working_repository": around}
    assert provenance.working_repository(tmp_path / "other") == {}
    facts = environment.describe()
    assert facts["working_repository"] == around
    assert facts["commit"] != commit
    monkeypatch.chdir(tmp_path)
    assert provenance.working_repository() == {}


def test_a_repository_without_a_commit(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    assert provenance.working_repository()["working_repository"]["commit"] is None


def test_the_build_writes_what_the_package_reads():
    text = (provenance.ROOT / "hatch_build.py").read_text()
    assert "provenance.package()" in text
    assert provenance.BUILT.parent == provenance.ROOT / "suites" / "data"
    assert provenance.package()["version"] is not None
