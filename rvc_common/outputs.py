"""Files and folders that a user names to be written: checked before the work, and written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from argparse import ArgumentTypeError
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from .decoders import shown

# of one name, on every common file system
LONGEST_NAME_BYTES = 255
# less is a full disk: libraries that write by themselves do not say why they failed
LEAST_FREE_BYTES = 1 << 16


class OutputError(OSError):
    """An output that cannot be written; ``strerror`` says why, the message names it as well."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(0, reason, str(path))

    def __str__(self) -> str:
        return f"output {shown(self.filename)}: {self.strerror}"


def named_path(text: str) -> Path:
    """A path as a user names it; for argparse. ``~`` is the home folder: shells do not expand ``--out=~/x``."""
    if not text:
        raise ArgumentTypeError("the name is empty")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no user of that name: a file may have it
        return Path(text)


def check_output(
    path: Path, endings: Collection[str] = (), inputs: Iterable[Path] = (), makes_folder: bool = False
) -> None:
    """Check that a file can be written, before the work whose result it will be.

    Args:
        endings: one of them is needed, in lower case.
        inputs: what must not be overwritten: files, and folders with the files in them.
        makes_folder: the folder is made where it is missing.

    Raises ``OutputError``: the reason. A device or a pipe is refused like a folder: the file takes the place of what
    is there."""
    if endings and path.suffix.lower() not in endings:
        raise OutputError(path, "write " + " or ".join(endings))
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise OutputError(path, f"is a {'folder' if stat.S_ISDIR(mode) else 'pipe or device'}, not a file")
    for given in inputs:
        same = next((one for one in (given, *_inside(given)) if _same(path, one)), None)
        if same is not None:
            raise OutputError(path, f"is the same file as {shown(same)}")
    real = Path(os.path.realpath(path))  # a link's target is written
    _check_place(path, real.parent, makes_folder)
    if mode is not None and not os.access(real, os.W_OK):
        raise OutputError(path, "exists, and may not be overwritten (Permission denied)")


def check_folder(path: Path) -> None:
    """Check that a folder can be filled, or made where it is missing.

    Raises ``OutputError``: the reason."""
    mode = _mode(path)
    if mode is not None and not stat.S_ISDIR(mode):
        raise OutputError(path, "is a file, not a folder")
    _check_place(path, Path(os.path.realpath(path)), True)


@contextlib.contextmanager
def whole(path: Path, *failures: type[Exception]) -> Iterator[Path]:
    """Where to write a file that is there whole or not at all, whenever the process ends; until then an earlier one
    stays. ``failures``: what libraries raise where they cannot write.

    Raises ``OutputError``: it cannot be written."""
    caught: tuple[type[Exception], ...] = (OSError, *failures)
    real = Path(os.path.realpath(path))  # a link stays one
    part = _part(real.parent)
    try:
        yield part
        part.replace(real)
    except OutputError:
        raise
    except caught as error:
        raise OutputError(path, _reason(error, real.parent)) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _part(folder: Path) -> Path:
    """A temporary file: nobody's own, and not longer than any name may be."""
    return folder / f".{secrets.token_hex(8)}.part"


def _reason(error: Exception, folder: Path) -> str:
    if getattr(error, "strerror", None):
        return str(error.strerror)  # type: ignore[attr-defined]
    with contextlib.suppress(OSError):
        if shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
            return "No space left on device"
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _mode(path: Path) -> int | None:
    """What is there; None where nothing is."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # a name that is too long, links in a circle, a folder that is closed
        raise OutputError(path, _reason(error, path.parent)) from None


def _inside(path: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(path.iterdir())
    return []


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there yet
        return os.path.realpath(path) == os.path.realpath(other)


def _check_place(path: Path, folder: Path, may_be_made: bool) -> None:
    """Try to write in a folder: only that tells read-only disks, closed folders and full ones apart."""
    if may_be_made:
        if any(len(os.fsencode(name)) > LONGEST_NAME_BYTES for name in folder.parts):
            raise OutputError(path, "File name too long")
        folder = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise OutputError(path, f"the folder {shown(folder)} {what}")
    part = _part(folder)
    try:
        part.open("xb").close()
        part.unlink()
    except OSError as error:
        raise OutputError(path, f"the folder {shown(folder)} cannot be written ({error.strerror})") from None
