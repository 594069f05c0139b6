"""Ports of a user's own: what the configuration says of them. A port is called through an adapter class of theirs.

``+backends.NAME.adapter=MODULE:CLASS`` on the command line makes the backend NAME. docs/ports.md has the class's
methods.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from .errors import UserError, nearest

# where on the command line a port is described, and in the configuration
WRITTEN, STORED = "backends", "ports"
# of a draw of noise, among the inputs of a port: the call that takes it, and its number
NOISE = "noise.{call}.{number}"
DEVICES = ("cpu", "cuda", "gpu", "mps")


class Port(NamedTuple):
    """``adapter``: ``MODULE:CLASS`` or ``FILE.py:CLASS``. ``python``: the interpreter that it runs in; None: this one.
    ``device``: where it computes, which decides whose time its own is divided into. ``stages``: a file of lines
    ``its name: our name``. ``options``: everything else, handed to the adapter's ``load``."""

    adapter: str
    python: str | None = None
    device: str = "cpu"
    stages: str | None = None
    options: Mapping[str, Any] = {}


FIELDS = tuple(name for name in Port._fields if name != "options")


def port_of(name: str, given: Any) -> Port:
    """A port from its part of the configuration.

    Raises ``UserError``: it has no adapter, or one of its values cannot be."""
    here = f"{WRITTEN}.{name}"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise UserError(f"{here}: a backend's name is a letter, then letters, digits and underscores")
    if not isinstance(given, Mapping) or not isinstance(given.get("adapter"), str):
        raise UserError(f"{here}: which class calls the port? write +{here}.adapter=MODULE:CLASS")
    for field in FIELDS:
        if given.get(field) is not None and not isinstance(given[field], str):
            raise UserError(f"{here}.{field}={given[field]}: text is expected")
    for key in given:
        if key not in FIELDS and (alike := get_close_matches(key, FIELDS, 1, 0.8)):
            raise UserError(f"{here}.{key}: did you mean {alike[0]!r}? an option of your adapter needs another name")
    own = {field: given[field] for field in FIELDS if given.get(field) is not None}
    module, _, label = own["adapter"].rpartition(":")
    if not module or not label.isidentifier():
        raise UserError(f"{here}.adapter={own['adapter']}: MODULE:CLASS or FILE.py:CLASS is expected")
    if module.endswith(".py"):
        own["adapter"] = f"{_file(f'{here}.adapter', module)}:{label}"
    for field in ("python", "stages"):
        if field in own:
            own[field] = str(_file(f"{here}.{field}", own[field]))
    if own.get("device", "cpu") not in DEVICES:
        raise UserError(f"{here}.device={own['device']}{nearest(own['device'], DEVICES)}")
    return Port(**own, options={key: value for key, value in given.items() if key not in FIELDS})


def _file(what: str, name: str) -> Path:
    # not resolved: the interpreter of a virtual environment is a link, and works under its own name only
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise UserError(f"{what}={name}: no such file")
    return path
