"""The records of a run: JSON lines, appended as they are measured, never edited.

Two kinds of line share ``records.jsonl``: a ``sample`` is written the moment that it is taken,
and a ``record`` closes one component of one case on one backend and repeats its samples. A run
that was broken off keeps its samples, and its continuation goes on from them.
"""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypedDict

from .errors import UserError

RECORDS = "records.jsonl"
SCHEMA = 2  # 2: process launches, calls per sample
# what samples of schema 1 do not say
OLD_SAMPLE = {"launch": 0, "calls": 1, "rest_s": 0.0, "others": 0.0}
SCHEMA_FILE = Path(__file__).parent / "data" / "record.schema.json"
STATUSES = ("passed", "failed", "error", "skipped", "not_comparable")

Line = dict[str, Any]


class Key(TypedDict):
    case: str
    component: str
    backend: str


def key_of(line: Line) -> tuple[str, str, str]:
    return line["case"], line["component"], line["backend"]


def records_file(folder: Path) -> Path:
    """Where a run folder keeps its records: ``records.jsonl``, or ``records.jsonl.xz`` where only that is there."""
    plain, packed = folder / RECORDS, folder / f"{RECORDS}.xz"
    return packed if packed.is_file() and not plain.exists() else plain


class RecordFile:
    """Appends lines; each is on disk, whole, when ``append`` returns.

    Raises:
        UserError: the records are compressed.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix == ".xz":
            raise UserError(f"{path}: compressed records take no more lines; unpack them first: xz -d {path}")
        self.path = path
        if path.exists():
            _drop_partial_line(path)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, line: Line) -> None:
        data = (json.dumps(_plain(line), allow_nan=False) + "\n").encode()
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


def write_whole(path: Path, text: str) -> None:
    """A file that is there whole or not at all, whenever the process ends."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """JSON has no NaN: it is kept as text, so that it is never read as a number."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


def number(value: float | str) -> float:
    """A figure as it was before ``append`` kept an infinity or NaN as text."""
    return float(value)


def _drop_partial_line(path: Path) -> None:
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def read_lines(path: Path) -> Iterator[Line]:
    """All whole lines, of a ``.xz`` file as well; a last line that was cut off by a kill is left out.

    Raises:
        UserError: no such file, a damaged file or line, or a schema newer than this program.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; is this a run folder?")
    try:
        content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    except lzma.LZMAError:
        raise UserError(f"{path}: damaged, it cannot be decompressed") from None
    whole = content.split(b"\n")[:-1]  # what follows the last line's end was cut off by a kill
    for number, text in enumerate(whole, 1):
        try:
            line = json.loads(text)
            schema = int(line["schema"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{path}:{number}: not a record") from None
        if schema > SCHEMA:
            raise UserError(f"{path}:{number}: schema {schema} is newer than this program's {SCHEMA}; update it")
        yield line


def records(lines: Iterable[Line]) -> list[Line]:
    """The closing records, one per key; where a run was resumed, the last one counts.

    That a backend could not be started is void where it was measured after all.
    """
    found = {key_of(line): line for line in lines if line["kind"] == "record"}
    measured = {backend for case, _, backend in found if case != "all"}
    void = {("all", "all", backend) for backend in measured}
    return [line for key, line in found.items() if key not in void]


def samples(lines: Iterable[Line]) -> dict[tuple[str, str, str], dict[int, Line]]:
    """Per key the sample of each round."""
    found: dict[tuple[str, str, str], dict[int, Line]] = {}
    for line in lines:
        if line["kind"] == "sample":
            found.setdefault(key_of(line), {})[line["round"]] = {**OLD_SAMPLE, **line}
    return found
