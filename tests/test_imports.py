"""Who may import whom: each rule in an interpreter of its own, with the other side missing."""

from __future__ import annotations

import subprocess
import sys
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


def python(blocked: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    script = BLOCK.format(blocked=set(blocked)) + code
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=120)


def modules(package: str) -> list[str]:
    files = (p.relative_to(ROOT).with_suffix("") for p in sorted((ROOT / package).rglob("*.py")))
    found = [".".join(p.parts) for p in files if p.stem not in ("__init__", "__main__")]
    return [name for name in found if name not in ADAPTERS.values()]


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


@pytest.mark.parametrize("command", ["list", "plan rmvpe", "--help"])
def test_commands_without_frameworks(command):
    done = python(FRAMEWORKS, f"from suites.__main__ import main; sys.exit(main({command.split()!r}))")
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_convert_without_torch(tmp_path, tiny_state):
    import torch

    torch.save({k: torch.from_numpy(v) for k, v in tiny_state.items()}, tmp_path / "a.pt")
    argv = ["convert", str(tmp_path / "a.pt"), str(tmp_path / "a.safetensors")]
    done = python(FRAMEWORKS, f"from suites.__main__ import main; sys.exit(main({argv!r}))")
    assert done.returncode == 0, done.stderr
    assert "all equal" in done.stdout
