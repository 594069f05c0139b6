"""Which code ran: the package's version and commit, and the repository that the work was started in.

Imported by the build as well (``hatch_build.py``), so it needs the standard library alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from .paths import DATA, ROOT

PROJECT = "rvc-parity"
# made by a build: what is installed has neither pyproject.toml nor git
BUILT = DATA / "built.json"
COMMIT_STATED = "RVC_PARITY_COMMIT"  # for a copy of a checkout that has no git
# a git hook sets these, and then git looks into its own repository whatever the folder
REDIRECTIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")


def package(root: Path = ROOT, built: Path = BUILT) -> dict[str, Any]:
    """``version`` and ``commit`` of this package: as it was built, else from the clone that it lies in, else as the
    variable ``RVC_PARITY_COMMIT`` says, and then ``commit_stated`` is set."""
    found: dict[str, Any] = {"version": None, "commit": None, "commit_clean": None}
    if built.is_file():
        found |= json.loads(built.read_text())
    elif version := _version(root):
        found |= {"version": version}
        if (top := _git(root, "rev-parse", "--show-toplevel")) and root.samefile(top):  # not one around a copy
            found |= _state(root)
    if found["commit"] is None and (stated := os.environ.get(COMMIT_STATED)):
        found |= {"commit": stated, "commit_stated": True}
    return found


def working_repository(root: Path = ROOT) -> dict[str, Any]:
    """``working_repository``: name and commit of the repository around the working folder; empty where that is none,
    or this package's own."""
    top = _git(None, "rev-parse", "--show-toplevel")
    if not top or root.resolve() == Path(top).resolve():
        return {}
    return {"working_repository": {"name": Path(top).name, **_state(Path(top))}}


def _version(root: Path) -> str | None:
    """Of the project whose root this is; None where that is another project."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
        return str(project["version"]) if project["name"] == PROJECT else None
    except (OSError, ValueError, KeyError):
        return None


def _state(folder: Path) -> dict[str, Any]:
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    return {"commit": commit, "commit_clean": None if status is None else status == ""}


def _git(folder: Path | None, *words: str) -> str | None:
    own = {name: value for name, value in os.environ.items() if name not in REDIRECTIONS}
    try:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=10, check=True, cwd=folder, env=own
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
