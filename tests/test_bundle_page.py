"""The programs of docs/bundles.md: the one in Python runs, the one in C++ is compiled where a compiler is, and runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_bundles import shared_bundle
from quick_runs import figures

from suites.__main__ import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "bundles.md").read_text()
BLOCKS = dict(re.findall(r"^```\w+\n(?:#|//) file: (\S+)\n(.*?)^```", PAGE, re.M | re.S))
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


@pytest.fixture(scope="module")
def bundle(shared_folder: Path) -> Path:
    return shared_bundle(shared_folder)


def judged(bundle: Path, dump: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with figures():
        assert main(["judge", str(bundle), str(dump), "--out", str(dump.parent / "judged")]) == 0
    return capsys.readouterr().out


def test_the_one_in_python(bundle, tmp_path, capsys):
    (tmp_path / "port.py").write_text(BLOCKS["port.py"])
    program = [sys.executable, "-I", "port.py", str(bundle), "dump"]  # without this project on its path
    subprocess.run(program, cwd=tmp_path, check=True, timeout=60)
    assert "2 of the 438 values were dumped" in judged(bundle, tmp_path / "dump", capsys)


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_the_one_in_cpp(bundle, tmp_path, capsys):
    (tmp_path / "port.cpp").write_text(BLOCKS["port.cpp"])
    assert COMPILER is not None
    compiled = [COMPILER, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "port.cpp", "-o", "port"]
    subprocess.run(compiled, cwd=tmp_path, check=True, timeout=120)
    subprocess.run(["./port", str(bundle), "dump"], cwd=tmp_path, check=True, timeout=60)
    assert "1 of the 438 values were dumped" in judged(bundle, tmp_path / "dump", capsys)


def test_the_one_in_swift_is_said_not_to_have_been_run():
    assert "This code was not run here" in PAGE
