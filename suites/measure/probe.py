"""What works on this machine: every framework is tried in a process of its own, those asked for at once."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping

from ..base.backends import BACKENDS, impossible
from ..base.files import scratch_folder
from ..base.paths import ROOT
from ..inputs.estimators import ESTIMATORS
from .launch import Worker, WorkerError, WorkerLost
from .session import Facts

# imports an estimator as a worker does
IMPORT = "import sys; from suites.inputs.estimators import ESTIMATORS; ESTIMATORS[sys.argv[1]].load()"


def backends(threads: int, timeout_s: float, names: Iterable[str] = BACKENDS) -> dict[str, Facts]:
    """What each backend's worker says of itself; ``reason``: why it does not work here, else None."""
    found: dict[str, Facts] = {name: {"reason": impossible(name)} for name in names}
    with scratch_folder() as folder, contextlib.ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(name, "fp32", threads, folder / f"{name}.log"))
            for name, facts in found.items()
            if facts["reason"] is None
        }
        for name, worker in workers.items():
            try:
                found[name] = {"reason": None} | worker.ask("hello", timeout_s, threads=threads)
            except (WorkerError, WorkerLost) as error:
                found[name] = {"reason": f"cannot be started: {error}"}
            worker.kill()  # what it is asked for no more it need not end in order
    return found


def ready(found: Mapping[str, Facts]) -> list[str]:
    return [name for name, facts in found.items() if facts["reason"] is None]


def estimators(timeout_s: float) -> dict[str, str | None]:
    """Of each external estimator why it cannot be used, else None."""
    found = {name: one.missing() for name, one in ESTIMATORS.items()}
    # one of each module: several estimators may come from it
    first = {ESTIMATORS[name].module: name for name in reversed(found) if found[name] is None}
    command = [sys.executable, "-c", IMPORT]
    tried = {
        module: subprocess.Popen(
            [*command, name], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        for module, name in first.items()
    }
    until = time.monotonic() + timeout_s
    for module, process in tried.items():
        reason = _outcome(module, process, max(0.1, until - time.monotonic()))
        found |= {name: reason for name, old in found.items() if old is None and ESTIMATORS[name].module == module}
    return found


def _outcome(module: str, process: subprocess.Popen[bytes], timeout_s: float) -> str | None:
    try:
        told = process.communicate(timeout=timeout_s)[1].decode(errors="replace").strip()
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"importing {module} takes longer than {timeout_s:.0f} s"
    return None if process.returncode == 0 else f"{module} cannot be imported: {(told or 'killed').splitlines()[-1]}"
