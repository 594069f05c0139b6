"""What checkpoint files hold, read by PyTorch without running code from them."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from rvc_common import pickles
from rvc_common.formats import form_of

_REBUILDING = ("_rebuild_tensor", "_rebuild_tensor_v2")


class _Bytes:
    """A storage without a type, of tensors that are no arrays."""

    dtype = torch.uint8


class _Unpickler(pickles.Unpickler):
    # torch.load finds the other types of storages by itself
    tensors: ClassVar[Mapping[str, Any]] = {
        **{f"torch._utils.{name}": getattr(torch._utils, name) for name in _REBUILDING},
        "torch.storage.UntypedStorage": _Bytes,
    }


class _Pickles:
    """What ``torch.load`` opens pickles with, in the place of the module ``pickle``."""

    Unpickler = _Unpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: Any, **how: Any) -> Any:
        return _Unpickler(file, **how).load()


def _arrays(content: Any) -> Any:
    """Tensors to arrays, at any depth of plain containers; mappings become plain dicts."""
    if isinstance(content, torch.Tensor):
        tensor = content.detach()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(content, pickles.Array):
        return content.value
    if isinstance(content, Mapping):
        return {k: _arrays(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_arrays(v) for v in content)
    return content


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return _arrays({name: file.get_tensor(name) for name in file.keys()}), file.metadata() or {}  # noqa: SIM118


def read_file(path: Path) -> tuple[Any, dict[str, str]]:
    """The ``rvc_common.checkpoint.Reader`` of this package."""
    form = form_of(path)
    if form == "safetensors":
        return _read_safetensors(path)
    if form == "zip":  # torch.load does not compare check sums
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"Bad CRC-32 for file {damaged!r}")
    # weights_only=True knows no protocol above 2; the unpickler given here accepts no more than it
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are stand-ins here
        content = torch.load(file, map_location="cpu", weights_only=False, pickle_module=_Pickles)
    return _arrays(pickles.wanted(content)), {}
