"""The child process: loads one backend, answers requests, and blocks in between.

Requests and answers are JSON lines on two pipes of their own, so that whatever a framework
prints goes to the log and not into the protocol.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import json
import os
import platform
import signal
import struct
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from ..base import plugins
from ..base.ports import Port
from .served import REQUESTS, ServedModel

HIGHEST_PRIORITY = -20
# the shortest that Linux takes
SLICE_NS = 100_000
# numbers of the call sched_setattr, for which C libraries have no function before 2025
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}


def serve(model: ServedModel, requests: Iterable[str], answers: TextIO) -> None:
    for line in requests:
        request = json.loads(line)
        try:
            if request["do"] not in REQUESTS:
                raise ValueError(f"unknown request {request['do']!r}")
            answer = {"ok": True, **getattr(model, request["do"])(request)}
        except Exception as error:  # the parent decides what an error means; it gets all of it
            traceback.print_exc()
            answer = {"ok": False, "kind": type(error).__name__, "message": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _model(backend: str, precision: str, port: str | None) -> ServedModel:
    if port is None:
        return ServedModel(backend, precision)
    from .port import ServedPort

    return ServedPort(backend, precision, Port(*json.loads(port)))


def _die_with_parent() -> None:
    """On Linux the kernel ends this process with its parent; elsewhere the closed pipe does."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def raise_priority() -> None:
    """Where the system lets it, ahead of everything else: a busy core then costs a call little.

    Linux weighs sessions against one another before their processes (autogroups), and this process leads a session.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, HIGHEST_PRIORITY)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(HIGHEST_PRIORITY))


def shorten_slice() -> None:
    """A thread that wakes takes its core back at once.

    From version 6.12 on Linux lets it do so from a thread with a longer slice. From one with an equal slice it waits
    for the end of that, 1.4 to 3 ms, at each of a network's many short sleeps. Threads that start later inherit this.
    A scheduling policy that the user has chosen stays.
    """
    number = SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    flags, priority, deadline, period = 0, 0, 0, 0
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    # struct sched_attr; a system that does not know of slices ignores this one
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, flags, nice, priority, SLICE_NS, deadline, period)
    ctypes.CDLL(None).syscall(number, 0, attributes, 0)


def main(port: str | None = None) -> None:
    """``port``: as JSON, of a backend that a user's adapter makes (``base.ports.Port``)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--requests", type=int, required=True, help="file descriptor to read")
    parser.add_argument("--answers", type=int, required=True, help="file descriptor to write")
    parser.add_argument("--raised", action="store_true", help="at the highest priority that the system grants")
    args = parser.parse_args()
    _die_with_parent()
    if args.raised:
        raise_priority()
        shorten_slice()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if port is None and plugins.names():  # else a worker that loads no model does without the suites
        importlib.import_module("suites.definitions")
    with os.fdopen(args.requests) as requests, os.fdopen(args.answers, "w") as answers:
        serve(_model(args.backend, args.precision, port), requests, answers)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # tearing PyTorch down takes most of a second


if __name__ == "__main__":
    main()
