"""What kind of file a checkpoint is, told by its content whatever its name; what is none is named for what it is."""

from __future__ import annotations

import json
import pickletools
import zipfile
from pathlib import Path
from typing import BinaryIO

from . import CheckpointError

# how files of PyTorch before 1.6 begin, as a pickle
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SAFETENSORS_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1",
}  # fmt: skip
AGAIN = "copy or download it again"
_UNPACK = "unpack it and give the file inside"
_HEAD_BYTES, _TAR_MAGIC_AT = 512, 257
# first bytes, what such a file is, and what to do
_OTHERS = (
    ((b"version https://git-lfs",), "a Git LFS pointer", "fetch the file itself: git lfs pull, or download it again"),
    ((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"), "a compressed file", _UNPACK),
    ((b"7z\xbc\xaf\x27\x1c", b"Rar!"), "an archive", _UNPACK),
    ((b"Ix", b"Iw", b"IH"), "a faiss index", "give it as the index"),
    ((b"\x93NUMPY",), "a NumPy array", "an array of vectors is an index: give it as the index"),
    ((b"RIFF", b"ID3", b"fLaC", b"OggS"), "a recording", "a model is wanted here"),
    ((b"\x89HDF", b"GGUF", b"%PDF", b"\x89PNG"), "another program's file", "give PyTorch's file or .safetensors"),
)


def form_of(path: Path) -> str:
    """``zip`` or ``pickle``, PyTorch's two forms, or ``safetensors``.

    Raises ``CheckpointError``: an empty, truncated or damaged file, or one that is no checkpoint; it says which."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if not head:
            raise CheckpointError(f"not a readable checkpoint: the file is empty; {AGAIN}")
        if (other := other_kind(head)) is not None:
            raise CheckpointError(f"not a checkpoint but {other}")
        # the length of its header in eight bytes, of which the last four are zero, and JSON; first, as the length may
        # begin like a pickle
        if head[4:8] == bytes(4) and head[8:9] == b"{":
            _check_header(file, path.stat().st_size)
            return "safetensors"
        if head.startswith(b"PK\x03\x04"):
            _check_zip(path)
            return "zip"
        if head.startswith(b"\x80"):
            _check_magic(file)
            return "pickle"
        if path.suffix == ".safetensors":
            _check_header(file, path.stat().st_size)
            return "safetensors"
    if head.lstrip()[:1] in (b"{", b"["):
        raise CheckpointError("not a checkpoint but JSON text; give the file with the weights")
    # a protocol buffer: the version of the format, then the program that wrote it, or the graph
    if path.suffix == ".onnx" or (head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x3a")):
        raise CheckpointError("not a checkpoint but an ONNX network; give the .pth or .pt that it was made from")
    raise CheckpointError("not a readable checkpoint: neither a PyTorch file nor .safetensors")


def other_kind(head: bytes) -> str | None:
    """What a file with these first bytes is that is certainly no checkpoint, and what to do; None: it may be one."""
    for starts, what, advice in _OTHERS:
        if head.startswith(starts):
            return f"{what}; {advice}"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page; the download failed: download the file itself"
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return f"a tar archive; {_UNPACK}"
    return None


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        raise CheckpointError(f"not a readable checkpoint: truncated or damaged, its end is missing; {AGAIN}") from None
    inside = sum(name.endswith("/data.pkl") for name in names)
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            "not a checkpoint but a TorchScript program, which is not run here; give what it was made from"
        )
    if inside != 1:
        found = [name for name in names if name.endswith((".pth", ".pt", ".safetensors", ".bin"))]
        advice = f"unpack it and give {found[0]}" if found else "give the .pth or .pt"
        raise CheckpointError(f"not a checkpoint but a zip archive; {advice}")


def _check_magic(file: BinaryIO) -> None:
    file.seek(0)
    try:
        first = next(argument for code, argument, _ in pickletools.genops(file) if code.name not in ("PROTO", "FRAME"))
    except Exception:  # whatever a damaged pickle makes of it
        first = None
    if first != LEGACY_MAGIC:
        raise CheckpointError("not a readable checkpoint: a pickle, but not one that PyTorch saved; use torch.save")


def _check_header(file: BinaryIO, size: int) -> None:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 + length:
        raise CheckpointError(f"not a readable checkpoint: its .safetensors header is truncated or damaged; {AGAIN}")
    try:
        entries = {name: entry for name, entry in json.loads(file.read(length)).items() if name != "__metadata__"}
        types = {name: entry["dtype"] for name, entry in entries.items()}
        end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        odd = next((f"{name} is of type {kind}" for name, kind in types.items() if kind not in SAFETENSORS_TYPES), None)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise CheckpointError(f"not a readable checkpoint: its .safetensors header is damaged; {AGAIN}") from None
    if size < end:
        raise CheckpointError(f"not a readable checkpoint: truncated, {size} of {end} bytes are there; {AGAIN}")
    if odd is not None:
        raise CheckpointError(f"tensor {odd}, which is not supported; float32, float16 or bfloat16 are")
