"""Who may import whom: read from the sources, and tried in fresh interpreters in which the other side is missing."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BLOCK = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""

FRAMEWORKS = ("torch", "mlx", "transformers")
# the only modules of the harness that import one
ADAPTERS = {"torch": "suites.child.adapters.torch", "mlx": "suites.child.adapters.mlx"}
# and the ports that ship, each with its own package: by name alone, in the worker
PORTS = "suites.ports"


def python(blocked: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    script = BLOCK.format(blocked=set(blocked)) + code
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=120)


def modules(package: str) -> list[str]:
    files = (p.relative_to(ROOT).with_suffix("") for p in sorted((ROOT / package).rglob("*.py")))
    found = [".".join(p.parts) for p in files if p.stem not in ("__init__", "__main__")]
    return [name for name in found if name not in ADAPTERS.values() and not within(name, PORTS)]


def test_the_blocker_blocks():
    assert "No module named 'torch'" in python(("torch",), "import torch").stderr


@pytest.mark.parametrize(
    ("package", "without"),
    [
        ("rvc_common", (*FRAMEWORKS, "rvc_mlx", "reference_torch", "suites", "reports", "hydra")),
        ("rvc_mlx", ("torch", "reference_torch", "suites", "reports", "hydra")),
        ("reference_torch", ("mlx", "rvc_mlx", "suites", "reports", "hydra")),
        ("suites", FRAMEWORKS),
        ("reports", FRAMEWORKS),
    ],
)
def test_imports_without(package, without):
    done = python(without, f"import {package}\n" + "\n".join(f"import {name}" for name in modules(package)))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("framework", ADAPTERS)
def test_an_adapter_needs_its_own_framework_alone(framework):
    others = tuple(name for name in FRAMEWORKS if name != framework)
    done = python(others, f"import {ADAPTERS[framework]}")
    assert done.returncode == 0, done.stderr
    done = python((framework,), f"import {ADAPTERS[framework]}")
    assert "No module named" in done.stderr


def test_importing_rvc_mlx_loads_nothing_heavy():
    done = python((), "import rvc_mlx, rvc_mlx.files; print('mlx.core' in sys.modules)")
    assert done.stdout.strip() == "False"


def test_commands_without_frameworks():
    code = """
from suites.__main__ import main
for words in (["list"], ["plan", "rmvpe"], ["--help"]):
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    print(f"{words} ended with {code or 0}")
"""
    done = python(FRAMEWORKS, code)
    assert done.returncode == 0, done.stderr
    listed, planned, helped, _ = re.split(r"\[.*\] ended with 0\n", done.stdout)
    assert listed
    assert planned
    assert helped


def test_convert_without_torch(tmp_path, tiny_state):
    import torch

    torch.save({k: torch.from_numpy(v) for k, v in tiny_state.items()}, tmp_path / "a.pt")
    argv = ["convert", str(tmp_path / "a.pt"), str(tmp_path / "a.safetensors")]
    done = python(FRAMEWORKS, f"from suites.__main__ import main; sys.exit(main({argv!r}))")
    assert done.returncode == 0, done.stderr
    assert "all equal" in done.stdout


# ---------------------------------------------------------------------- rooms
# a file imports from its own room and from rooms to the left of it
ROOMS = {
    "suites": (
        "base", "metrics", "inputs", "definitions", "export", "faults", "child", "ports", "measure", "trace", "bundle",
        "gate", "selftest", "commands",
    ),
    "reports": ("data", "render", "tables", "figures", "documents"),
}  # fmt: skip
# whatever the order says: importer, imported
FORBIDDEN = (
    *(("suites." + room, "suites.child") for room in ROOMS["suites"] if room not in ("child", "ports")),
    *(("suites." + room, PORTS) for room in ROOMS["suites"] if room != "ports"),
    (PORTS, "suites.child.served"),
    *(("reports", "suites." + room) for room in ("child", "measure", "selftest", "commands")),
    ("reports.figures", "reports.tables"),
)
ACYCLIC = ("rvc_common", "rvc_mlx", "reference_torch", "suites", "reports")
MOST_IN_SUITES = 3


def sources(root: Path) -> dict[str, Path]:
    """Every module of the packages that exist below ``root``; a package by its own name."""
    files = [path for package in ACYCLIC for path in sorted((root / package).rglob("*.py"))]
    names = (path.relative_to(root).with_suffix("").parts for path in files)
    return {".".join(n[:-1] if n[-1] == "__init__" else n): path for n, path in zip(names, files, strict=True)}


def imported(module: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The project's modules that a file imports anywhere in it, in functions and under TYPE_CHECKING as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
            names = [name if name in known else origin for name in names]
        else:
            continue
        yield from (name for name in names if name in known)


def graph(root: Path) -> dict[str, set[str]]:
    known = sources(root)
    return {module: set(imported(module, path, known)) for module, path in known.items()}


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def violations(root: Path) -> list[str]:
    """Everything that breaks a rule."""
    edges = graph(root)
    found = []
    for package, rooms in ROOMS.items():
        folders = {path.relative_to(root / package).parts[0] for path in (root / package).glob("*/**/*.py")}
        found += [f"{package}/{name} has no place in the order of the rooms" for name in sorted(folders - set(rooms))]
        for importer, targets in edges.items():
            for target in sorted(targets):
                pair = [
                    next((i for i, r in enumerate(rooms) if within(m, f"{package}.{r}")), None)
                    for m in (importer, target)
                ]
                if None not in pair and pair[0] < pair[1]:
                    found.append(f"{importer} imports {target}, which is to its right")
    for importer, targets in edges.items():
        for one, other in FORBIDDEN:
            found += [f"{importer} imports {t}" for t in sorted(targets) if within(importer, one) and within(t, other)]
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        found.append("circle: " + " -> ".join(error.args[1]))
    direct = sorted(path.name for path in (root / "suites").glob("*.py"))
    if len(direct) > MOST_IN_SUITES:
        found.append(f"more than {MOST_IN_SUITES} files directly in suites/: {', '.join(direct)}")
    return found


def test_rooms():
    assert violations(ROOT) == []


def plant(root: Path, files: dict[str, str]) -> Path:
    """A small tree with all rooms, in which nothing is wrong but what ``files`` adds."""
    allowed = {
        "suites/gate/judge.py": "from ..base.records import Line\nfrom . import baseline\n",
        "suites/gate/baseline.py": "",
        "suites/base/records.py": "",
        "suites/child/server.py": "import importlib\nimportlib.import_module('suites.commands.doctor')\n",
        "suites/commands/doctor.py": "from suites.measure import runner\n",
        "suites/measure/runner.py": "",
        "reports/data/frame.py": "from suites.gate.judge import Line\n",
        "reports/documents/build.py": "from ..data import frame\nfrom ..figures.plots import draw\n",
        "reports/figures/plots.py": "",
    }
    rooms = [f"{package}/{room}/__init__.py" for package, names in ROOMS.items() for room in names]
    for name, text in ({"suites/__init__.py": "", **dict.fromkeys(rooms, "")} | allowed | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_sound_tree_has_no_violation(tmp_path):
    assert violations(plant(tmp_path, {})) == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("suites/base/a.py", "from ..gate.judge import judge", "suites.base.a imports suites.gate.judge, which is to"),
        ("suites/base/a.py", "import suites.gate.judge", "suites.base.a imports suites.gate.judge, which is to"),
        ("suites/base/a.py", "from suites import gate", "suites.base.a imports suites.gate, which is to"),
        ("suites/base/a.py", "def f():\n    from ..gate import judge", "suites.base.a imports suites.gate.judge"),
        ("reports/data/a.py", "from ..documents.build import x", "reports.data.a imports reports.documents.build"),
        (
            "reports/data/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..tables import b",
            "reports.data.a imports reports.tables, which is to",
        ),
        ("reports/figures/a.py", "from ..tables import b", "reports.figures.a imports reports.tables"),
        ("reports/data/a.py", "from suites.measure import runner", "reports.data.a imports suites.measure.runner"),
        ("suites/measure/a.py", "from ..child.server import main", "suites.measure.a imports suites.child.server"),
        ("suites/measure/a.py", "from ..ports import Adapter", "suites.measure.a imports suites.ports"),
        ("suites/gate/baseline.py", "from .judge import x", "circle: "),
        ("suites/attic/a.py", "", "suites/attic has no place in the order of the rooms"),
        ("suites/three.py", "", "more than 3 files directly in suites/"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, text, message):
    more = {"suites/one.py": "", "suites/two.py": ""} if file == "suites/three.py" else {}
    found = violations(plant(tmp_path, {file: text, **more}))
    assert any(message in line for line in found), found


def test_frame_needs_no_hydra_and_no_framework():
    code = (
        "from reports import frame\ntable = frame('tests/fixtures/run')\nprint(len(table), 'median_s' in table.columns)"
    )
    done = python((*FRAMEWORKS, "hydra", "omegaconf"), code)
    assert done.returncode == 0, done.stderr
    rows, known = done.stdout.split()
    assert int(rows) > 0
    assert known == "True"


def test_importing_reports_loads_nothing():
    assert python(("pandas", "suites"), "import reports").returncode == 0
    assert "cannot import name 'fraem'" in python((), "from reports import fraem").stderr
