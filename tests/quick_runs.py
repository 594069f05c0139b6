"""Runs without processes and without figures, for tests of what a run records, tells and returns.

Most of a whole run on tiny models is spent on importing PyTorch in every worker and on drawing. Workers as processes
are tested in tests/suites/measure/test_launch.py, test_runner.py and test_kills.py, figures in tests/reports/figures.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from reports.documents import build, profile_report, trace_report
from reports.figures.plots import PLOTS
from rvc_common.model import Model
from rvc_common.steps import Windows
from suites.base import statistics
from suites.base.backends import BACKENDS
from suites.bundle import port
from suites.child.port import ServedPort
from suites.child.served import ServedModel
from suites.child.server import serve
from suites.commands import convert
from suites.measure import probe, session, timed
from suites.measure.launch import WorkerError, WorkerLost
from suites.trace import run as trace_run


@functools.lru_cache(maxsize=12)
def _loaded(kind: type[Model], path: str, state: tuple[int, ...], options: str) -> list[Model]:
    """Where a model that was loaded is kept; empty at first."""
    return []


def _load_once(kind: type[Model], path: str | Path, **options: Any) -> Model:
    """In place of ``from_checkpoint``: a file is read once, as long as it stays as it is. Half of a tiny run is
    spent on loading."""
    if not Path(path).is_file():
        return LOAD(kind, path, **options)
    about = Path(path).stat()
    kept = _loaded(kind, str(path), (about.st_ino, about.st_size, about.st_mtime_ns), repr(sorted(options.items())))
    if not kept:
        kept.append(LOAD(kind, path, **options))
    return copy.copy(kept[0])  # whoever changes its attributes has one of his own


LOAD = Model.from_checkpoint.__func__  # type: ignore[attr-defined]


@contextlib.contextmanager
def loaded_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "from_checkpoint", classmethod(_load_once))
        yield


class Inside:
    """In place of ``Worker``: the same requests and answers as JSON lines, served in this process."""

    def __init__(
        self,
        backend: str,
        precision: str,
        threads: int,
        log: Path,
        environment: Mapping[str, str] | None = None,
        raised: bool = False,
    ) -> None:
        assert not environment, "a process of its own is needed"
        self.backend, self.threads, self.pid, self.started = backend, threads, os.getpid(), time.monotonic()
        port = BACKENDS[backend].port
        self._log, self._alive = log, True
        self._sent: dict[str, Any] | None = None
        self._model = ServedModel(backend, precision) if port is None else ServedPort(backend, precision, port)

    def ask(self, do: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        self.send(do, **arguments)
        return self.answer(do, timeout_s)

    def send(self, do: str, **arguments: Any) -> None:
        assert self._sent is None, "an answer was not taken"
        self._sent = {"do": do, **arguments}

    def answer(self, do: str, timeout_s: float) -> dict[str, Any]:
        request, self._sent = self._sent, None
        assert request is not None
        assert request["do"] == do
        if not self._alive:
            raise WorkerLost(f"{self.backend}: the worker was killed by SIGKILL (out of memory?)")
        if do == "inject":
            _loaded.cache_clear()
        answers = io.StringIO()
        with (
            self._log.open("a") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("default")
            serve(self._model, [json.dumps(request)], answers)
        answer = json.loads(answers.getvalue())
        if not answer.pop("ok"):
            raise WorkerError(answer["kind"], answer["message"])
        return answer

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        if self._alive and self._model._patches is not None:
            self.ask("inject", 1, name=None)  # a fault would stay in this process
        self._alive = False
        self._model = None

    close = kill


@contextlib.contextmanager
def busy_machine() -> Iterator[None]:
    """A worker that had to wait for a processor after a call is not taken for one that goes on computing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "LARGEST_REST_S", math.inf)
        yield


@contextlib.contextmanager
def narrow_padding() -> Iterator[None]:
    """Conversions mirror a tenth of a second at either end: a whole one, which they throw away again, is most of the
    work on a short clip. tests/test_golden_webui.py has upstream's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Windows.__new__, "__defaults__", tuple(Windows(x_pad=0.1)))
        yield


@contextlib.contextmanager
def workers_inside() -> Iterator[None]:
    threads, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    with busy_machine(), loaded_once(), narrow_padding(), pytest.MonkeyPatch.context() as patch:
        for module in (session, trace_run, port, convert, probe):
            patch.setattr(module, "Worker", Inside)
        patch.setattr(timed, "SETTLE_S", 0.0)  # of other processes' threads
        patch.setattr(timed, "MOST_TURNS", 1)  # the other tests always disturb these
        yield
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = tf32


@contextlib.contextmanager
def figures(*names: str) -> Iterator[None]:
    """Only these are drawn; ``answer`` is the one that a report begins with."""
    with pytest.MonkeyPatch.context() as patch:
        if "answer" not in names:
            patch.setattr(build, "answer", lambda book: None)
        patch.setattr(build, "PLOTS", [plot for plot in PLOTS if plot.name in names])
        patch.setattr(build, "heat", lambda walked: None)
        for module in (trace_report, profile_report):
            patch.setattr(module, "drawn", lambda *_: None)
        yield
