"""Files that appear whole or not at all, what is read from them, and temporary folders that are always removed."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rvc_common.outputs import whole

from .errors import UserError


def write_whole(path: Path, text: str) -> None:
    """Bytes of file names and messages that are no text become question marks, and prevent nothing.

    Raises ``OutputError``: it cannot be written."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", errors="replace")


def read_yaml(path: Path) -> Any:
    """A configuration's content. A text that was read before, as most are several times, is not parsed again: PyYAML
    takes 15 ms, and its faster parser in C crashes on deeply nested files."""
    return copy.deepcopy(_parsed(path.read_text()))


@lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def read_json(text: bytes) -> Any:
    """In a third of the time that ``json`` takes, which reads more: NaN, and half of a pair of surrogates.

    Raises ``ValueError`` or ``RecursionError``: it cannot be read."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


@contextlib.contextmanager
def scratch_folder(in_memory: bool = True) -> Iterator[Path]:
    """A folder for arrays on their way between processes, in memory where the system has such a place.

    Raises ``UserError``: no temporary folder can be written."""
    memory = Path("/dev/shm")
    place = memory if in_memory and os.access(memory, os.W_OK) else None
    try:
        folder = tempfile.TemporaryDirectory(prefix="rvc-parity-", dir=place)
    except OSError as error:
        raise UserError(f"no temporary folder can be written ({error.strerror or error}); set TMPDIR=FOLDER") from None
    with folder as name:
        yield Path(name)


@contextlib.contextmanager
def in_files(arrays: Mapping[str, np.ndarray]) -> Iterator[dict[str, str]]:
    """The paths of files that hold these arrays."""
    with scratch_folder() as folder:
        paths = {name: str(folder / f"input-{name}.npy") for name in arrays}
        for name, array in arrays.items():
            np.save(paths[name], array)
        yield paths
