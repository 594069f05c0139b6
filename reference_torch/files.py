"""What checkpoint files hold, read by PyTorch without running code from them."""

from __future__ import annotations

import pickle
import pickletools
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from rvc_common import CheckpointError, RefusedError


class _StandIn:
    """Takes the place of a foreign class or function: accepts every call and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __new__(cls, *_: Any, **__: Any) -> _StandIn:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None: ...


def _plain_dict(*_: Any) -> dict[Any, Any]:
    return {}


# the restricted unpickler fills nothing but plain dicts, so a stand-in would not do
_FILLED = {"collections.defaultdict": _plain_dict}


def _globals(file: IO[bytes]) -> set[str]:
    """Names that one pickle asks for, from its opcodes only, as written and as Python 3 has them."""
    names = set()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL":
            module, name = str(argument).split(" ", 1)
            # protocol 2 writes what was renamed since by its old name, and the loader renames some back
            names |= {f"{module}.{name}", f"{IMPORT_MAPPING.get(module, module)}.{name}"}
            names.add(".".join(NAME_MAPPING.get((module, name), (module, name))))
    return names


def _foreign_globals(path: Path) -> set[str]:
    # torch.serialization.get_unsafe_globals_in_checkpoint cannot read files from before PyTorch 1.6
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
            with archive.open(name) as file:
                return _globals(file)
    with path.open("rb") as file:
        return set().union(*(_globals(file) for _ in range(4)))  # magic number, protocol, system, content


def _load(path: Path, foreign: bool) -> Any:
    if not foreign:
        return _arrays(torch.load(path, map_location="cpu", weights_only=True))
    inert: list[Any] = [(_FILLED.get(name, _StandIn), name) for name in sorted(_foreign_globals(path))]
    with torch.serialization.safe_globals(inert):
        content = torch.load(path, map_location="cpu", weights_only=True)
    # the other entries are the trainer's own objects
    return {"model": _arrays(content["model"])} if isinstance(content, Mapping) and "model" in content else {}


def _arrays(content: Any) -> Any:
    """Tensors to arrays, at any depth of plain containers; mappings become plain dicts."""
    if isinstance(content, torch.Tensor):
        tensor = content.detach()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(content, Mapping):
        return {k: _arrays(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_arrays(v) for v in content)
    return content


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return _arrays({name: file.get_tensor(name) for name in file.keys()}), file.metadata() or {}  # noqa: SIM118


def read_file(path: Path, foreign: bool = False) -> tuple[Any, dict[str, str]]:
    """The ``rvc_common.checkpoint.Reader`` of this package: pickles are opened with ``weights_only=True`` only."""
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else (_load(path, foreign), {})
    except Exception as error:  # a damaged file fails in arbitrary ways
        raise _refusal_or_damage(path, error) from error


def _refusal_or_damage(path: Path, error: Exception) -> CheckpointError:
    text = str(error) or type(error).__name__
    name = re.search(r"[Uu]nsupported (?:global: GLOBAL|GLOBAL|class) (\S+)", text)
    if name and isinstance(error, pickle.UnpicklingError):
        return RefusedError(f"{path}: refused: the pickle asks for {name[1]}, which a checkpoint does not need")
    return CheckpointError(f"{path}: not a readable checkpoint; it may be truncated ({text.splitlines()[0][:120]})")
