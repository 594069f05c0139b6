"""Adapters of ports that ship: one module each, named in ``base.ports.PEERS``. Imported in their worker alone.

A module needs NumPy and the package that it is for. The worker may run in another interpreter, in which this project is
not installed: its packages are then found beside this one.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

OURS = ("rvc_common", "rvc_mlx", "reference_torch")
ROOT = str(Path(__file__).parents[2])


class Beside:
    """Finds this project's packages where nothing else does, and nothing that is installed beside them."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [ROOT]) if name in OURS else None


sys.meta_path.append(Beside)
