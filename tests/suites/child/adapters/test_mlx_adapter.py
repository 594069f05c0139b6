"""What the worker's MLX side does to the package: small pieces."""

from __future__ import annotations

import ast
import contextlib
import importlib
from pathlib import Path

import pytest

import rvc_common
import rvc_mlx
from suites.child.adapters.mlx import PIECES, MlxAdapter

FILES = [file for package in (rvc_mlx, rvc_common) for file in Path(package.__file__).parent.glob("*.py")]


@pytest.mark.parametrize("path", PIECES)
def test_a_size_is_read_where_it_is_made_small(path):
    """A module that imports the name has a copy, which stays as it is: its blocks would never be small."""
    module, _, constant = path.rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), constant), int)
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[-1] == module.split(".")[-1]:
                assert constant not in [name.name for name in node.names], f"{file.name} line {node.lineno}"


def test_sizes_are_as_before_afterwards():
    def sizes() -> list[int]:
        return [getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2]) for path in PIECES]

    before = sizes()
    adapter = MlxAdapter.__new__(MlxAdapter)
    with contextlib.suppress(KeyError), adapter.small_pieces():
        small = sizes()
        raise KeyError
    assert (small, sizes()) == (list(PIECES.values()), before)
