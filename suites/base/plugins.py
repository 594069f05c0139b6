"""Modules outside this repository that add suites, backends, metrics or estimators.

``RVC_PARITY_PLUGINS=first,second`` names them. They are imported by ``suites.definitions``, in the parent and in every
worker, and add to its tables; a folder ``conf`` next to a plugin extends ``conf/``. See docs/extending.md.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path

from .errors import UserError
from .paths import CONF

VARIABLE = "RVC_PARITY_PLUGINS"


def names() -> tuple[str, ...]:
    return tuple(name for name in os.environ.get(VARIABLE, "").split(",") if name)


def load() -> None:
    """Import the plugins. Raises ``UserError``: one cannot be found."""
    _folders()
    for name in names():
        importlib.import_module(name)


def _folders() -> list[Path]:
    found = []
    for name in names():
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            spec = None
        if spec is None or spec.origin is None:
            raise UserError(f"{VARIABLE}: there is no module {name!r}; is its folder in PYTHONPATH?")
        found.append(Path(spec.origin).parent / "conf")
    return [folder for folder in found if folder.is_dir()]


def conf_files(kind: str) -> dict[str, Path]:
    """The files of ``conf/KIND``, the plugins' included, by name."""
    return {path.stem: path for folder in (CONF, *_folders()) for path in sorted((folder / kind).glob("*.yaml"))}


def search_path() -> list[str]:
    """The override with which Hydra finds the plugins' configurations."""
    folders = ",".join(f"'file://{folder}'" for folder in _folders())
    return [f"hydra.searchpath=[{folders}]"] if folders else []
