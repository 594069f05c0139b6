"""The child process: loads one backend, answers requests, and blocks in between.

Requests and answers are JSON lines on two pipes of their own, so that whatever a framework
prints goes to the log and not into the protocol.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterable
from typing import TextIO

from ..base import plugins
from ..base.ports import Port
from .priority import raise_priority
from .served import REQUESTS, ServedModel


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
