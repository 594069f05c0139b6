"""The packages' source: nothing in a forward pass reads a value back only to look at it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("rvc_mlx", "reference_torch")
MODULES = [
    path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if path.name != "__main__.py"
]


def synchronising(source: str) -> Iterator[str]:
    """Where ``print`` is used or ``.item`` is taken: each waits for the device, and no trace can see it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id == "print":
            yield f"print in line {node.lineno}"
        elif isinstance(node, ast.Attribute) and node.attr == "item":
            yield f".item in line {node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_forward_pass_prints_or_waits_for_a_number(path):
    assert list(synchronising(path.read_text())) == []


def test_every_model_is_among_the_modules():
    names = {f"{path.parent.name}/{path.stem}" for path in MODULES}
    for package in PACKAGES:
        wanted = (
            "rmvpe",
            "hubert",
            "synthesizer",
            "pipeline",
            "text_encoder",
            "flow",
            "vocoder",
            "source",
            "refinegan",
        )
        assert {f"{package}/{name}" for name in wanted} <= names


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(x):\n    print(x.mean())", ["print in line 2"]),
        ("def f(x):\n    return x.sum().item()", [".item in line 2"]),
        ("report = print", ["print in line 1"]),
        ("read = x.item", [".item in line 1"]),
        ("for name in d.items():\n    log.print_all('print(1)')", []),
        ("# print(x.item())", []),
    ],
)
def test_the_search_finds_them_and_nothing_else(source, found):
    assert list(synchronising(source)) == found
