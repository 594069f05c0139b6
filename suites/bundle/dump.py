"""Reads what a port dumped: which names, which arrays, and what is wrong with a file before its values are."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rvc_common.decoders import shown

from ..base.errors import UserError
from .tensors import BFLOAT16, Tensors, widened

SHAPES, ID_FILE = "shapes.json", "bundle.id"
RAW = (".bin", ".f32")
ENDINGS = (".npy", ".npz", ".safetensors", *RAW)
# beside a dump, and no part of it
IGNORED = ("", ".json", ".txt", ".md", ".log", ".shape", ".id", ".py", ".swift", ".cpp")
LOCAL, INPUT = "local", "input"
# half a unit in the last place of 1, of types that are coarser than float32
COARSE = {"float16": 2.0**-11, BFLOAT16: 2.0**-8}
Shape = tuple[int, ...]


class Unreadable(ValueError):
    """A file or a tensor that holds no values that can be compared; the message says why."""


class Dumped(NamedTuple):
    """One array of a dump. ``role``: ``local``, ``input`` or empty; ``read`` gives its values and their type's name,
    or raises ``Unreadable``. ``raw``: the file says nothing of its type."""

    probe: str
    role: str
    name: str
    file: str
    read: Callable[[], tuple[np.ndarray, str]]
    raw: bool = False


class Dump(NamedTuple):
    """``problems``: of files that hold nothing to compare."""

    arrays: list[Dumped]
    problems: list[str]
    ids: list[str]


def read_dump(path: Path, probes: Sequence[str], first: str) -> Dump:
    """Everything in a folder, or in one file. ``probes``: names and folders of the bundle's; ``first``: the one that
    names without any belong to.

    Raises ``UserError``: there is nothing, or nothing that can be read."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    arrays: list[Dumped] = []
    problems: list[str] = []
    ids: list[str] = []
    root = path if path.is_dir() else path.parent
    for file in files:
        inside = file.relative_to(root)
        ending = file.suffix.lower()
        if file.name == ID_FILE:
            ids.append(file.read_text(errors="replace").strip())
        elif ending not in ENDINGS:
            if ending not in IGNORED and not file.name.startswith("."):
                problems.append(f"{shown(inside)}: not read; write {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
        else:
            try:
                arrays += [_placed(*one, probes, first) for one in _arrays(file, inside, ids, probes)]
            except Unreadable as error:
                problems.append(f"{shown(inside)}: {error}")
            except OSError as error:
                problems.append(f"{shown(inside)}: cannot be read ({error.strerror or error})")
    if not arrays:
        raise UserError(f"{path}: {problems[0] if problems else 'holds no ' + ', '.join(ENDINGS)}")
    return Dump(arrays, problems, ids)


Read = Callable[[], tuple[np.ndarray, str]]


def _placed(words: list[str], file: str, read: Read, raw: bool, probes: Sequence[str], first: str) -> Dumped:
    """A name such as ``clip/local/mel`` in its parts; probe and role may stand in either order."""
    probe, role = first, ""
    while len(words) > 1 and (words[0] in probes or words[0] in (LOCAL, INPUT)):
        word = words.pop(0)
        probe, role = (word, role) if word in probes else (probe, word)
    return Dumped(probe, role, shown("/".join(words)), shown(file), read, raw)


def _arrays(
    file: Path, inside: Path, ids: list[str], probes: Sequence[str]
) -> Iterator[tuple[list[str], str, Read, bool]]:
    """Of one file the parts of each name, where it is from, and how it is read."""
    ending, folder = file.suffix.lower(), list(inside.parent.parts)
    stem = inside.name[: -len(ending)]
    if ending == ".safetensors" or ending == ".npz":
        place = [*folder, *([stem] if stem in (*probes, LOCAL, INPUT) else [])]
        if ending == ".npz":
            yield from ((place + name.split("/"), f"{inside}:{name}", read, False) for name, read in _archive(file))
            return
        try:
            tensors = Tensors(file)
        except ValueError as error:
            raise Unreadable(str(error)) from None
        if "bundle" in tensors.metadata:
            ids.append(str(tensors.metadata["bundle"]))
        for name in tensors.names:
            yield place + name.split("/"), f"{inside}:{name}", partial(_tensor, tensors, name), False
    elif ending == ".npy":
        yield [*folder, stem], str(inside), partial(_array, file), False
    else:
        yield [*folder, stem], str(inside), partial(_raw, file, stem), True


def _tensor(tensors: Tensors, name: str) -> tuple[np.ndarray, str]:
    return tensors[name], tensors.dtype(name)


def _archive(file: Path) -> Iterator[tuple[str, Read]]:
    if file.stat().st_size and not (_starts(file, b"PK\x03\x04") or _starts(file, b"PK\x05\x06")):
        raise Unreadable("is no .npz file")
    try:
        with np.load(file) as stored:
            names = list(stored.files)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise Unreadable(_why(file, error)) from None
    for name in names:
        yield name, partial(_member, file, name)


def _member(file: Path, name: str) -> tuple[np.ndarray, str]:
    try:
        with np.load(file) as stored:
            return _numbers(stored[name])
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise Unreadable(_why(file, error)) from None


def _array(file: Path) -> tuple[np.ndarray, str]:
    try:
        if file.stat().st_size and not _starts(file, b"\x93NUMPY"[: file.stat().st_size]):
            raise Unreadable("is no .npy file")
        return _numbers(np.load(file))
    except (ValueError, EOFError) as error:
        raise Unreadable(_why(file, error)) from None


def _starts(file: Path, mark: bytes) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(mark)) == mark


def _why(file: Path, error: Exception) -> str:
    """NumPy's several messages in the words of the other files'."""
    text = str(error)
    if file.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, Unreadable):
        return text
    if "Object arrays" in text:
        return "holds Python objects instead of numbers"
    if any(word in text for word in ("reshape", "EOF", "Failed to read")) or isinstance(
        error, EOFError | zipfile.BadZipFile
    ):
        return f"is cut off: {file.stat().st_size} bytes, its shape takes more"
    return text.splitlines()[0]


def _numbers(array: np.ndarray) -> tuple[np.ndarray, str]:
    if array.dtype.str.lstrip("<>|") == "V2":  # how NumPy saves a bfloat16 that other packages give it
        return widened(array.view("<u2")), BFLOAT16
    if array.dtype.kind == "c":
        raise Unreadable("holds complex values; dump real and imaginary part, or the magnitude")
    if array.dtype.kind not in "fiub":
        raise Unreadable(f"holds {array.dtype} instead of numbers")
    return array, f"big-endian {array.dtype.name}" if array.dtype.byteorder == ">" else array.dtype.name


# ---------------------------------------------------------------------- raw files
def _raw(file: Path, stem: str) -> tuple[np.ndarray, str]:
    data, shape = file.read_bytes(), _shape(file, stem)
    if not data:
        raise Unreadable("the file is empty")
    count = len(data) // 4 if shape is None else int(np.prod(shape, dtype=np.int64))
    kinds = {2 * count: "<f2", 4 * count: "<f4", 8 * count: "<f8"}
    if len(data) not in kinds or not count:
        if shape is None:
            raise Unreadable(f"is cut off: {len(data)} bytes are no whole number of float32 values")
        how = "is cut off" if len(data) < 4 * count else "is too long"
        raise Unreadable(f"{how}: {len(data)} bytes, shape {list(shape)} takes {4 * count} in float32")
    array = np.frombuffer(data, kinds[len(data)])
    return array if shape is None else array.reshape(shape), array.dtype.name


def _shape(file: Path, stem: str) -> Shape | None:
    """From ``NAME.shape`` or ``shapes.json`` beside the file; None: neither says it."""
    own, common = file.with_name(f"{stem}.shape"), file.with_name(SHAPES)
    if own.is_file():
        text = own.read_text(errors="replace").strip(" \t\r\n[]()")
        words = [word for word in re.split(r"[\s,xX]+", text) if word]
        if not all(word.isdecimal() for word in words):
            raise Unreadable(f"{own.name} holds no shape; write its lengths, such as 1 64 128")
        return tuple(map(int, words))
    if common.is_file():
        try:
            shapes: Mapping[str, Any] = dict(json.loads(common.read_text()))
            found = shapes.get(stem)
            return None if found is None else tuple(int(n) for n in found)
        except (ValueError, TypeError, RecursionError):
            raise Unreadable(f"{SHAPES} cannot be read; write " + '{"NAME": [1, 64, 128]}') from None
    return None


def other_readings(array: np.ndarray, raw: bool) -> Iterator[tuple[str, np.ndarray]]:
    """What the same bytes are if their type is another one than it seems, and how it is called."""
    array = np.ascontiguousarray(array)
    if array.dtype.itemsize > 1 and array.dtype.kind in "fiu":
        yield "big-endian", array.byteswap()
    if array.dtype.itemsize == 2 and (raw or array.dtype.kind in "iu"):
        yield BFLOAT16, widened(array.view("<u2"))
        yield "float16", array.view("<f2")
    if array.dtype.itemsize == 4 and raw:
        yield "int32", array.view("<i4")
        if array.ndim == 1:  # nothing says how many values there are
            yield "float16", array.view("<f2")
            yield BFLOAT16, widened(array.view("<u2"))
            if array.size % 2 == 0:
                yield "float64", array.view("<f8")
