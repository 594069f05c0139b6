"""Ports: those that ship, and what the configuration says of a user's own. A port is called through an adapter class.

``+backends.NAME.adapter=MODULE:CLASS`` on the command line makes the backend NAME; a shipped port's name may stand in
place of ``MODULE:CLASS``. docs/ports.md has the class's methods.
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


class Peer(NamedTuple):
    """A port that ships. ``package``: the module that must be installed. ``device``: where it computes unless told."""

    adapter: str
    package: str
    device: str
    about: str


PEERS = {
    "onnxruntime": Peer(
        "suites.ports.onnx:OnnxRuntime", "onnxruntime", "cpu", "the reference exported, in ONNX Runtime"
    ),
    "openvino": Peer("suites.ports.onnx:OpenVino", "openvino", "cpu", "the same files in OpenVINO"),
    "mlx_rmvpe": Peer("suites.ports.mlx_rmvpe:Adapter", "mlx_rmvpe", "cpu", "RMVPE of mlx-rmvpe, from PyPI"),
    "mlx_contentvec": Peer(
        "suites.ports.mlx_contentvec:Adapter", "mlx_contentvec", "cpu", "HuBERT of mlx-contentvec, from PyPI"
    ),
    "torch_compile": Peer(
        "suites.ports.torch_compile:Adapter", "torch", "cpu", "reference_torch compiled by torch.compile"
    ),
}


# another name of an adapter that ships: ``adapter=onnx file=rmvpe.onnx``
ALIASES = {"onnx": "onnxruntime"}


def port_of(name: str, given: Any) -> Port:
    """A port from its part of the configuration.

    Raises ``UserError``: it has no adapter, or one of its values cannot be."""
    here = f"{WRITTEN}.{name}"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise UserError(f"{here}: a backend's name is a letter, then letters, digits and underscores")
    if name in PEERS and isinstance(given, Mapping):  # options of a shipped port under its own name
        if given.get("adapter", name) != name:
            raise UserError(f"{here}: is a port that ships; give yours another name")
        given = {**given, "adapter": name}
    if not isinstance(given, Mapping) or not isinstance(given.get("adapter"), str):
        raise UserError(f"{here}: which class calls the port? write +{here}.adapter=MODULE:CLASS")
    for field in FIELDS:
        if given.get(field) is not None and not isinstance(given[field], str):
            raise UserError(f"{here}.{field}={given[field]}: text is expected")
    for key in given:
        if key not in FIELDS and (alike := get_close_matches(key, FIELDS, 1, 0.8)):
            raise UserError(f"{here}.{key}: did you mean {alike[0]!r}? an option of your adapter needs another name")
    own = {field: given[field] for field in FIELDS if given.get(field) is not None}
    own["adapter"] = ALIASES.get(own["adapter"], own["adapter"])
    if peer := PEERS.get(own["adapter"]):
        own = {"device": peer.device, **own, "adapter": peer.adapter}
    module, _, label = own["adapter"].rpartition(":")
    if not module or not label.isidentifier():
        shipped = nearest(own["adapter"], PEERS)
        raise UserError(
            f"{here}.adapter={own['adapter']}: MODULE:CLASS or FILE.py:CLASS is expected, or a port that ships{shipped}"
        )
    if module.endswith(".py"):
        own["adapter"] = f"{_file(f'{here}.adapter', module)}:{label}"
    for field in ("python", "stages"):
        if field in own:
            own[field] = str(_file(f"{here}.{field}", own[field]))
    if own.get("device", "cpu") not in DEVICES:
        raise UserError(f"{here}.device={own['device']}{nearest(own['device'], DEVICES)}")
    return Port(**own, options={key: value for key, value in given.items() if key not in FIELDS})


def needed_by(port: Port) -> str:
    """The module whose absence means that a port cannot run in this interpreter."""
    return next((peer.package for peer in PEERS.values() if peer.adapter == port.adapter), "numpy")


def _file(what: str, name: str) -> Path:
    # not resolved: the interpreter of a virtual environment is a link, and works under its own name only
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise UserError(f"{what}={name}: no such file")
    return path
