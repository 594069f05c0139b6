"""The file of a run's records: JSON lines, appended as they are measured, never edited.

An interrupted run keeps its samples, and its continuation goes on from them.
"""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterable, Iterator
from math import isfinite
from pathlib import Path
from typing import TypeVar

import msgspec

from .errors import UserError
from .files import read_json
from .lines import SCHEMA, Key, Keyed, Line, Record, Sample, Unmeasured, changed, typed

RECORDS = "records.jsonl"

T = TypeVar("T")


# ---------------------------------------------------------------------- writing
def records_file(folder: Path) -> Path:
    """Where a run folder keeps its records: ``records.jsonl``, or ``records.jsonl.xz`` where only that is there."""
    plain, packed = folder / RECORDS, folder / f"{RECORDS}.xz"
    return packed if packed.is_file() and not plain.exists() else plain


class RecordFile:
    """Appends lines; each is on disk, whole, when ``write_line`` returns.

    Raises ``UserError``: the records are compressed."""

    def __init__(self, path: Path) -> None:
        if path.suffix == ".xz":
            raise UserError(f"{path}: compressed records take no more lines; unpack them first: xz -d {path}")
        self.path = path
        if path.exists():
            with path.open("r+b") as file:
                file.truncate(file.read().rfind(b"\n") + 1)  # without a last line that a kill cut off
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write_line(self, line: Keyed | Line) -> None:
        data = (json.dumps(stored(line), allow_nan=False) + "\n").encode()
        size = os.fstat(self._fd).st_size
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            os.ftruncate(self._fd, size)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        if written != len(data):  # the disk filled up within this line
            os.ftruncate(self._fd, size)
            raise OSError(28, "No space left on device", str(self.path))

    def close(self) -> None:
        os.close(self._fd)


def stored(line: Keyed | Line) -> Line:
    # JSON has no NaN and no infinity: they are written as text, so that they are never read as a number
    plain = msgspec.to_builtins(line, enc_hook=float)
    return dict(changed(plain, lambda one: str(one) if isinstance(one, float) and not isfinite(one) else one))


# ---------------------------------------------------------------------- reading
def read_lines(path: Path) -> Iterator[Line]:
    """All whole lines as they are stored, of a ``.xz`` file as well; a last line cut off by a kill is left out.

    Raises ``UserError``: no such file, a damaged file or line, or a schema newer than this program."""
    for _, line in _numbered(path):
        yield line


def read_records(path: Path) -> Iterator[Keyed]:
    """All whole lines as their types.

    Raises ``UserError``: as ``read_lines``; and a line that does not fit its type."""
    for place, line in _numbered(path):
        try:
            yield typed(line)
        except ValueError as error:
            raise UserError(f"{place}: not a record ({error})") from None


def _numbered(path: Path) -> Iterator[tuple[str, Line]]:
    """Each line with its place, ``FILE:NUMBER``."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; is this a run folder?")
    try:
        content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    except lzma.LZMAError:
        raise UserError(f"{path}: damaged, it cannot be decompressed") from None
    whole = content.split(b"\n")[:-1]  # what follows the last line's end was cut off by a kill
    for number, text in enumerate(whole, 1):
        place = f"{path}:{number}"
        try:
            line = read_json(text)
            schema = int(line["schema"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{place}: not a record") from None
        if schema > SCHEMA:
            raise UserError(f"{place}: schema {schema} is newer than this program's {SCHEMA}; update it")
        yield place, line


def key_of(line: Line) -> Key:
    return line["case"], line["component"], line["backend"]


def last_of_each(lines: Iterable[tuple[Key, T]]) -> dict[Key, T]:
    """The closing records, one per key; where a run was resumed, the last one counts.
    That a backend could not be started is void where it was measured after all."""
    found = dict(lines)
    void = {("all", "all", backend) for case, _, backend in found if case != "all"}
    return {key: line for key, line in found.items() if key not in void}


def results(lines: Iterable[Keyed]) -> list[Record | Unmeasured]:
    """The closing records that count, one per key."""
    return list(last_of_each((x.key, x) for x in lines if isinstance(x, Record | Unmeasured)).values())


def samples_of(lines: Iterable[Keyed]) -> dict[Key, dict[int, Sample]]:
    """The sample that counts of every round."""
    found: dict[Key, dict[int, Sample]] = {}
    for line in lines:
        if isinstance(line, Sample):
            keep_sample(found, line)
    return found


def keep_sample(found: dict[Key, dict[int, Sample]], line: Sample) -> None:
    """Of a round that was timed again, the sample that other work disturbed least counts; of equals the first."""
    rounds = found.setdefault(line.key, {})
    if line.round not in rounds or line.others < rounds[line.round].others:
        rounds[line.round] = line


def records(lines: Iterable[Line]) -> list[Line]:
    """``results`` of lines as they are stored."""
    return list(last_of_each((key_of(x), x) for x in lines if x["kind"] == "record").values())
