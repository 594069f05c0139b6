"""What checkpoint files hold, read without PyTorch and without running code from them.

A ``.pt`` file is a zip of one pickle and raw tensor storages; before PyTorch 1.6 it was a row of
pickles with the storages behind them. The pickles are opened with an unpickler that accepts a few
names (how a tensor is rebuilt, its storage types, an ordered dict) and refuses every other one,
so a hostile file has nothing to call.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from rvc_common import CheckpointError, RefusedError

LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


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
}
_SAFETENSORS_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1",
}  # fmt: skip
# PyTorch's own loader refuses these even where a caller allows them
_NEVER = ("sys", "os", "posix", "nt")


def _values(raw: bytes, kind: str) -> np.ndarray:
    if kind == "bfloat16":  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, kind)


class _Storage:
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


class _Tensor:
    def __init__(self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self) -> np.ndarray:
        data, offset, size, stride = self.storage.values(), self.offset, self.size, self.stride
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if math.prod(size) else offset - 1
        if offset < 0 or any(s < 0 for s in stride) or any(n < 0 for n in size) or last >= data.size:
            raise pickle.UnpicklingError("a tensor reaches outside its storage")
        steps = tuple(s * data.itemsize for s in stride)
        return np.lib.stride_tricks.as_strided(data[offset:], size, steps, writeable=False).copy()


class _StandIn:
    """Takes the place of a foreign class or function: accepts every call and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __new__(cls, *_: Any, **__: Any) -> _StandIn:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None: ...

    def __setitem__(self, _: Any, __: Any) -> None: ...

    def append(self, _: Any) -> None: ...


def _parameter(data: _Tensor, *_: Any) -> _Tensor:
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
} | {("torch", name): name for name in _STORAGE_TYPES}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], fetch: Callable[[str], bytes], foreign: bool) -> None:
        super().__init__(file)
        self.fetch, self.foreign = fetch, foreign
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if self.foreign and module not in _NEVER:
            return _StandIn
        raise RefusedError(f"refused: the pickle asks for {module}.{name}, which a checkpoint does not need")

    def persistent_load(self, pid: Any) -> _Storage:
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
    if isinstance(content, Mapping):
        return {k: _arrays(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_arrays(v) for v in content)
    return content


def _finish(content: Any, foreign: bool) -> Any:
    if foreign:  # an optimizer's history may be several times the model, and nobody asks for it
        content = {"model": content["model"]} if isinstance(content, Mapping) and "model" in content else {}
    return _arrays(content)


def _read_zip(path: Path, foreign: bool) -> Any:
    with zipfile.ZipFile(path) as archive:
        pickles = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError("not a readable .pt archive (no data.pkl inside)")
        root = pickles[0].removesuffix("/data.pkl")
        unpickler = _Unpickler(
            io.BytesIO(archive.read(pickles[0])), lambda key: archive.read(f"{root}/data/{key}"), foreign
        )
        return _finish(unpickler.load(), foreign)


def _read_legacy(path: Path, foreign: bool) -> Any:
    raw: dict[str, bytes] = {}
    with path.open("rb") as file:
        head = [_Unpickler(file, raw.__getitem__, False).load() for _ in range(3)]
        if head[:2] != [LEGACY_MAGIC, LEGACY_PROTOCOL] or not head[2]["little_endian"]:
            raise CheckpointError("not a readable .pt file (a pickle, but not one of PyTorch)")
        unpickler = _Unpickler(file, raw.__getitem__, foreign)
        content = unpickler.load()
        for key in _Unpickler(file, raw.__getitem__, False).load():
            (count,) = struct.unpack("<q", file.read(8))
            kind = unpickler.storages[key].kind
            raw[key] = file.read(count * (2 if kind == "bfloat16" else np.dtype(kind).itemsize))
    return _finish(content, foreign)


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import deserialize, safe_open

    # the library's NumPy loader does not support bfloat16
    tensors = {
        name: _values(entry["data"], _SAFETENSORS_TYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in deserialize(path.read_bytes())
    }
    with safe_open(path, "np") as file:
        return tensors, file.metadata() or {}


def read_file(path: Path, foreign: bool = False) -> tuple[Any, dict[str, str]]:
    """The ``rvc_common.checkpoint.Reader`` of this package."""
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        if zipfile.is_zipfile(path):
            return _read_zip(path, foreign), {}
        with path.open("rb") as file:
            if file.read(1) != b"\x80":
                raise CheckpointError("not a readable .pt archive (truncated or not a checkpoint)")
        return _read_legacy(path, foreign), {}
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from None
    except Exception as error:  # a pickle is a program: damaged ones fail in arbitrary ways
        raise CheckpointError(f"{path}: not a readable checkpoint; it may be truncated ({error!r:.120})") from error
