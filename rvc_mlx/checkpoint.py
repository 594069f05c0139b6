"""Reading checkpoints without PyTorch, strictly and without running code from them.

A ``.pt`` file is a zip of one pickle and raw tensor storages. The pickle is opened with an
unpickler that knows five names (how a tensor is rebuilt, its storage types, an ordered dict)
and refuses every other one, so a hostile file has nothing to call.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that belongs to another model."""


class _Storage(NamedTuple):
    data: np.ndarray


_STORAGE_TYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "BFloat16Storage": "bfloat16",
}


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    data = storage.data
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if math.prod(size) else offset - 1
    if offset < 0 or any(s < 0 for s in stride) or any(n < 0 for n in size) or last >= data.size:
        raise pickle.UnpicklingError("a tensor reaches outside its storage")
    steps = tuple(s * data.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(data[offset:], size, steps, writeable=False).copy()


def _rebuild_parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
} | {("torch", name): name for name in _STORAGE_TYPES}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(data))
        self.archive, self.root = archive, root
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"refused: the pickle asks for {module}.{name}, which a state dict does not need"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        _, kind, key, _, count = pid
        if key not in self.storages:
            raw = self.archive.read(f"{self.root}/data/{key}")
            kind = _STORAGE_TYPES[kind]
            if kind == "bfloat16":  # the upper half of a float32
                data = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                data = np.frombuffer(raw, kind)
            if data.size < count:
                raise pickle.UnpicklingError(f"storage {key} is shorter than the {count} values it declares")
            self.storages[key] = _Storage(data)
        return self.storages[key]


def _read_pickle(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        head = path.read_bytes()[:2]
        why = (
            "an old-style pickle; save it again with torch.save"
            if head[:1] == b"\x80"
            else "truncated or not a checkpoint"
        )
        raise CheckpointError(f"{path}: not a readable .pt archive ({why})")
    with zipfile.ZipFile(path) as archive:
        pickles = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError(f"{path}: not a .pt archive (no data.pkl inside)")
        return _Unpickler(archive.read(pickles[0]), archive, pickles[0].removesuffix("/data.pkl")).load()


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read a bare state dict (``.pt``, ``.pth`` or ``.safetensors``) as NumPy arrays.

    Floating tensors come back as float32 (upstream often stores float16), others as stored.

    Raises:
        CheckpointError: missing, truncated or malicious file, or not a bare state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        tensors = _read_pickle(path)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # a pickle is a program: damaged ones fail in arbitrary ways
        raise CheckpointError(f"{path}: not a readable checkpoint; it may be truncated ({error!r:.120})") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(v, np.ndarray) for v in tensors.values()):
        raise CheckpointError(f"{path}: not a bare state dict (expected names mapped to tensors)")
    return {str(k): (v.astype(np.float32) if v.dtype.kind == "f" else v) for k, v in tensors.items()}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    return {k: (v.astype(np.float32) if v.dtype.kind not in "iub" else v) for k, v in tensors.items()}


def check_keys(model: str, expected: Mapping[str, tuple[int, ...]], state: Mapping[str, np.ndarray]) -> None:
    """Compare names and shapes; ``num_batches_tracked`` counters are ignored.

    Raises:
        CheckpointError: lists the first missing, unexpected and misshapen keys and their counts.
    """
    given = {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    problems = {
        "missing": [k for k in expected if k not in given],
        "unexpected": [k for k in given if k not in expected],
        "misshapen": [
            f"{k} {list(given[k])} instead of {list(s)}" for k, s in expected.items() if k in given and given[k] != s
        ],
    }
    told = [f"{len(v)} {kind} ({', '.join(v[:3])}{', ...' if len(v) > 3 else ''})" for kind, v in problems.items() if v]
    if told:
        raise CheckpointError(f"not a checkpoint of this {model}: " + "; ".join(told))
