"""One process at a time works in a folder: a lock file in it names the process.

The system's lock on that file decides, and it ends with the process. What the file says is for people, for other
computers, and for file systems without locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import psutil

from .errors import UserError

LOCK = "run.lock"


class Lock:
    """Held from here to ``release``, or to the end of the process.

    Raises ``UserError``: another process is at work in the folder. Raises ``OSError``: it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._path = folder, folder / LOCK
        while True:
            self._file = self._path.open("a+")
            if why := self._held():
                raise UserError(f"{folder}: {why}")
            with contextlib.suppress(FileNotFoundError):  # its last holder has removed it since
                if os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                    break
        self._file.truncate(0)
        own = {"host": platform.node(), "pid": os.getpid(), "started": psutil.Process().create_time()}
        self._file.write(json.dumps(own) + "\n")
        self._file.flush()

    def _held(self) -> str | None:
        """Who works here; None where nobody does: a process that has ended leaves its file, but no lock."""
        self._file.seek(0)
        try:
            holder = json.loads(self._file.read())
            host, pid, started = str(holder["host"]), int(holder["pid"]), float(holder["started"])
        except (ValueError, KeyError, TypeError):  # new, or cut off by a full disk
            host, pid, started = platform.node(), 0, 0.0
        who = f"process {pid} on {host}" if pid else "another process"
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"{who} is at work in it; wait for it, or end it"
        except OSError:  # a file system without locks
            if host == platform.node() and _runs(pid, started):
                return f"{who} is at work in it; wait for it, or end it"
        if host != platform.node():
            return f"{who} was at work in it, and may still be; if that process has ended: rm {self._path}"
        return None

    @property
    def is_alone(self) -> bool:
        """Whether the folder holds nothing else."""
        return all(path.name == LOCK for path in self.folder.iterdir())

    def release(self) -> None:
        if not self._file.closed:
            self._path.unlink(missing_ok=True)
            self._file.close()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Released where this fails, else held on."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _runs(pid: int, started: float) -> bool:
    """Whether this very process runs: a number is given again, a start is not."""
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1
    except (psutil.Error, ValueError):
        return False
