"""What checkpoint files hold, read without PyTorch and without running code from them.

A ``.pt`` file is a zip of one pickle and raw tensor storages; before PyTorch 1.6 it was a row of
pickles with the storages behind them. What the pickles may name is decided in ``rvc_common.pickles``.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from rvc_common import CheckpointError, pickles
from rvc_common.formats import LEGACY_MAGIC, LEGACY_PROTOCOL, SAFETENSORS_TYPES, form_of

_STORAGE_TYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
    "BFloat16Storage": "bfloat16",
    "ComplexFloatStorage": "<c8",
    "ComplexDoubleStorage": "<c16",
    # of tensors that are no arrays; only their sizes matter
    "UntypedStorage": "<u1",
    "QInt8Storage": "<i1",
    "QUInt8Storage": "<u1",
    "QInt32Storage": "<i4",
}
_REBUILDING = ("_rebuild_tensor", "_rebuild_tensor_v2")


def _values(raw: bytes | memoryview, kind: str) -> np.ndarray:
    if kind == "bfloat16":  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, kind)


class _Storage(pickles.Inert):
    """Read when a tensor first needs it: an old-style file has its data behind the pickle."""

    def __init__(self, key: str, kind: str, count: int, fetch: Callable[[str], bytes]) -> None:
        self.key, self.kind, self.count, self.fetch = key, kind, count, fetch
        self.data: np.ndarray | None = None

    def values(self) -> np.ndarray:
        if self.data is None:
            self.data = _values(self.fetch(self.key), self.kind)
            if self.data.size < self.count:
                raise pickle.UnpicklingError(f"storage {self.key} is shorter than the {self.count} values it declares")
        return self.data


class _Tensor(pickles.Inert):
    def __init__(self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self) -> np.ndarray:
        data, offset, size, stride = self.storage.values(), self.offset, self.size, self.stride
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if math.prod(size) else offset - 1
        if offset < 0 or any(s < 0 for s in stride) or any(n < 0 for n in size) or last >= data.size:
            raise pickle.UnpicklingError("a tensor reaches outside its storage")
        steps = tuple(s * data.itemsize for s in stride)
        return np.lib.stride_tricks.as_strided(data[offset:], size, steps, writeable=False).copy()


def _tensor(storage: _Storage, *view: Any) -> _Tensor:
    return _Tensor(storage, *view)


class _Unpickler(pickles.Unpickler):
    tensors: ClassVar[Mapping[str, Any]] = {f"torch._utils.{name}": _tensor for name in _REBUILDING}

    def __init__(self, file: BinaryIO, fetch: Callable[[str], bytes]) -> None:
        super().__init__(file, encoding="utf-8")
        self.fetch = fetch
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        # the module says on which device it was
        return name if module.startswith("torch") and name in _STORAGE_TYPES else super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # a whole network, in files of before PyTorch 1.6
            return pid[1]
        _, kind, key, _, count, *view = pid
        if view and view[0] is not None:
            raise pickle.UnpicklingError("a storage that is a view of another one")
        if key not in self.storages:
            self.storages[key] = _Storage(key, _STORAGE_TYPES[kind], count, self.fetch)
        return self.storages[key]


def _arrays(content: Any) -> Any:
    """Tensors to arrays, at any depth of plain containers; mappings become plain dicts."""
    if isinstance(content, _Tensor):
        return content.array()
    if isinstance(content, pickles.Array):
        return content.value
    if isinstance(content, Mapping):
        return {k: _arrays(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_arrays(v) for v in content)
    return content


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
        root = name.removesuffix("/data.pkl")
        unpickler = _Unpickler(io.BytesIO(archive.read(name)), lambda key: archive.read(f"{root}/data/{key}"))
        return _arrays(pickles.wanted(unpickler.load()))


def _read_legacy(path: Path) -> Any:
    raw: dict[str, bytes] = {}
    with path.open("rb") as file:
        head = [_Unpickler(file, raw.__getitem__).load() for _ in range(3)]
        if head[:2] != [LEGACY_MAGIC, LEGACY_PROTOCOL] or not head[2]["little_endian"]:
            raise CheckpointError("not a readable checkpoint: of another version of PyTorch's format or byte order")
        unpickler = _Unpickler(file, raw.__getitem__)
        content = unpickler.load()
        for key in _Unpickler(file, raw.__getitem__).load():
            (count,) = struct.unpack("<q", file.read(8))
            kind = unpickler.storages[key].kind
            raw[key] = file.read(count * (2 if kind == "bfloat16" else np.dtype(kind).itemsize))
    return _arrays(pickles.wanted(content))


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays that are views of the mapped file: reading it whole takes seconds and twice its size of memory. The
    library, whose NumPy loader does not support bfloat16, checks the header."""
    from safetensors import safe_open

    with safe_open(path, "np") as checked, path.open("rb") as file:
        metadata = checked.metadata() or {}
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(bytes(data[8 : 8 + size])), data[8 + size :]
    header.pop("__metadata__", None)
    tensors = {
        name: _values(body[slice(*entry["data_offsets"])], SAFETENSORS_TYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }
    return tensors, metadata


def read_file(path: Path) -> tuple[Any, dict[str, str]]:
    """The ``rvc_common.checkpoint.Reader`` of this package."""
    form = form_of(path)
    if form == "safetensors":
        return _read_safetensors(path)
    return (_read_zip(path) if form == "zip" else _read_legacy(path)), {}
