"""``.safetensors`` files: written one tensor at a time, and read without loading the rest.

The library's own functions want every tensor in memory, and know no bfloat16 in NumPy.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

# as the format names them, little-endian; bfloat16 is not among NumPy's
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "|b1",
}  # fmt: skip
NAMES = {np.dtype(kind): name for name, kind in DTYPES.items() if name != "BF16"}
BFLOAT16 = "bfloat16"
LARGEST_HEADER = 100_000_000


class TensorFile:
    """A file of tensors in the order in which they are added; it is there from ``close`` on."""

    def __init__(self, path: Path) -> None:
        self.path, self._part = path, path.with_name(f"{path.name}.data")
        self._header: dict[str, Any] = {}
        self._data = self._part.open("wb")

    def add(self, key: str, array: np.ndarray) -> None:
        stored = np.ascontiguousarray(array, np.asarray(array).dtype.newbyteorder("<"))
        start = self._data.tell()
        self._data.write(stored.tobytes())
        place = {"dtype": NAMES[stored.dtype], "shape": list(array.shape), "data_offsets": [start, self._data.tell()]}
        self._header[key] = place

    def close(self) -> None:
        self._data.close()
        text = json.dumps(self._header, separators=(",", ":")).encode()
        text = text.ljust(-(-len(text) // 8) * 8)  # the data are aligned
        with self.path.open("wb") as file, self._part.open("rb") as data:
            file.write(len(text).to_bytes(8, "little") + text)
            shutil.copyfileobj(data, file)
        self._part.unlink()


class Tensors:
    """The tensors of a file by name; each is read when it is asked for.

    Raises ``ValueError``: it is no such file, or it is cut off; says in which way."""

    def __init__(self, path: Path) -> None:
        self.path, size = path, path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size == 0:
                raise ValueError("the file is empty")
            if size < 8 or length > LARGEST_HEADER:
                raise ValueError("is no .safetensors file")
            if size < 8 + length:
                raise ValueError(f"is cut off: {size} bytes, its header alone takes {8 + length}")
            try:
                header = dict(json.loads(file.read(length)))
                self.metadata = dict(header.pop("__metadata__", {}))
                self._places = {str(name): _Place(place, 8 + length) for name, place in header.items()}
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ValueError("is no .safetensors file: its header cannot be read") from None
        needed = max((place.stop for place in self._places.values()), default=0)
        if size < needed:
            raise ValueError(f"is cut off: {size} bytes, its tensors take {needed}")

    @property
    def names(self) -> list[str]:
        return list(self._places)

    def dtype(self, name: str) -> str:
        place = self._places[name]
        return BFLOAT16 if place.kind == "BF16" else np.dtype(DTYPES[place.kind]).name

    def __getitem__(self, name: str) -> np.ndarray:
        place = self._places[name]
        with self.path.open("rb") as file:
            file.seek(place.start)
            data = file.read(place.stop - place.start)
        array = np.frombuffer(data, DTYPES[place.kind]).reshape(place.shape)
        return widened(array) if place.kind == "BF16" else array


class _Place:
    """Where a tensor is in its file."""

    def __init__(self, place: dict[str, Any], first: int) -> None:
        self.kind, self.shape = str(place["dtype"]), [int(n) for n in place["shape"]]
        start, stop = map(int, place["data_offsets"])
        self.start, self.stop = first + start, first + stop
        values = np.dtype(DTYPES[self.kind]).itemsize * math.prod(self.shape)
        if min(self.shape, default=0) < 0 or start < 0 or stop - start != values:
            raise ValueError("a tensor's size is not that of its shape")


def widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16, as 16-bit integers, in float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
