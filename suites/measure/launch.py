"""The parent's side of a worker process: start it, send requests with a timeout, and notice its death."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base.backends import BACKENDS, worker_environment
from ..base.paths import ROOT

SERVER = "suites.child.server"
# The worker of a port may run in another interpreter. It finds this package, and nothing else that is installed beside
# it: the package is named by its folder, not by a search path. Arguments: that folder, the port, those of the server.
IN_ANY_PYTHON = f"""
import importlib.util, os, sys
folder, port = sys.argv.pop(1), sys.argv.pop(1)
where = os.path.join(folder, "__init__.py")
spec = importlib.util.spec_from_file_location("suites", where, submodule_search_locations=[folder])
sys.modules["suites"] = importlib.util.module_from_spec(spec)
importlib.import_module("{SERVER}").main(port)
"""


class WorkerError(RuntimeError):
    """The request failed in the worker, which is still running. ``kind``: the name of the exception there."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(
            f"{kind}: {message}" if kind not in ("CheckpointError", "NonFiniteError", "ValueError") else message
        )
        self.kind = kind


class WorkerLost(RuntimeError):
    """The worker died, or was killed because it did not answer in time."""


class Worker:
    """One child process for one backend. Waiting for it costs no CPU time.
    What it prints is appended to ``log``. ``environment``: variables on top of ``worker_environment``.
    ``raised``: at the highest priority that the system grants."""

    def __init__(
        self,
        backend: str,
        precision: str,
        threads: int,
        log: Path,
        environment: Mapping[str, str] | None = None,
        raised: bool = False,
    ) -> None:
        self.backend, self.threads = backend, threads
        child_in, self._requests = os.pipe()
        self._answers, child_out = os.pipe()
        self._pipes = [self._requests, self._answers]
        self._buffer = b""
        port = BACKENDS[backend].port if backend in BACKENDS else None
        command = [sys.executable, "-m", SERVER]
        if port is not None:
            command = [port.python or sys.executable, "-c", IN_ANY_PYTHON, str(ROOT / "suites"), json.dumps(port)]
        command += ["--backend", backend, "--precision", precision]
        command += ["--requests", str(child_in), "--answers", str(child_out), *(["--raised"] if raised else [])]
        self.started = time.monotonic()
        self._log, self._log_start = log, log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                pass_fds=(child_in, child_out),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=worker_environment(precision, threads) | dict(environment or {}),
                cwd=None if port is not None else ROOT,  # a port is found from where the user is
                start_new_session=True,
            )
        os.close(child_in)
        os.close(child_out)

    def ask(self, do: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises ``WorkerError``: the request failed in the worker. Raises ``WorkerLost``: the worker died, or did not
        answer in time and was killed."""
        self.send(do, **arguments)
        return self.answer(do, timeout_s)

    def send(self, do: str, **arguments: Any) -> None:
        """Send one request, whose answer must be taken before another one's. Raises ``WorkerLost``: it died."""
        line = json.dumps({"do": do, **arguments}) + "\n"
        try:
            if not self._pipes:
                raise OSError("closed")
            os.write(self._requests, line.encode())
        except OSError:
            raise WorkerLost(self._exit_reason()) from None

    def answer(self, do: str, timeout_s: float) -> dict[str, Any]:
        """Wait for the answer to a request that was sent. Raises as ``ask`` does."""
        answer = json.loads(self._read_line(timeout_s, do))
        if not answer.pop("ok"):
            raise WorkerError(answer["kind"], answer["message"])
        return answer

    def _read_line(self, timeout_s: float, do: str) -> bytes:
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], timeout_s)
            if not ready:
                self.kill()
                raise WorkerLost(f"{self.backend}: no answer to {do!r} within {timeout_s:g} s (timeout_s); ended")
            data = os.read(self._answers, 1 << 16)
            if not data:
                raise WorkerLost(self._exit_reason())
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _exit_reason(self) -> str:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return f"{self.backend}: the worker closed its pipe"
        if code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"{self.backend}: the worker was killed by {signal.Signals(-code).name}{hint}"
        return f"{self.backend}: the worker ended with exit code {code}{self._last_words()}"

    def _last_words(self) -> str:
        """The error that a traceback in the log ends with, such as a package that is missing."""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode(errors="replace").splitlines()
        told = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
        return f": {told[-1]}" if told else ""

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        while self._pipes:
            os.close(self._pipes.pop())

    def close(self) -> None:
        """End the worker: it exits when its pipe closes, and is killed if it does not."""
        self._close_pipes()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
