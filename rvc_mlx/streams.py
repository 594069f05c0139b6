"""Two CPU streams, each with half of the BLAS's threads.

On a CPU MLX computes products on all threads of the BLAS and everything else on one. Work that falls into two
independent halves is done on a stream each: then what lies between the products runs on two threads as well, and a
thread that loses its processor holds up one half alone. Each half is queued by a thread of its own: ``eval`` never
queues more than a few operations ahead, so one thread would keep one stream busy.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from .held import Held
from .runtime import mx

T = TypeVar("T")

# setter and getter of the number of threads, which are the C functions
FUNCTIONS = (("MKL_Set_Num_Threads", "MKL_Get_Max_Threads"), ("openblas_set_num_threads", "openblas_get_num_threads"))


def _threads() -> tuple[Callable[[int], object], int] | None:
    """What sets the threads of the BLAS in this process, and how many there are; None where it cannot be told."""
    process = ctypes.CDLL(None)
    for setter, getter in FUNCTIONS:
        if hasattr(process, setter):
            return getattr(process, setter), int(getattr(process, getter)())
    return None


def are_available() -> bool:
    found = _threads()
    return found is not None and found[1] > 1


def _halve() -> Callable[[], object]:
    found = _threads()
    if found is None:
        return lambda: None
    change, count = found
    change(max(1, count // 2))
    return functools.partial(change, count)


half_the_threads = Held(_halve)


class _Worker:
    """A thread that never ends: MLX 0.32 aborts the process when one ends that has used a CPU stream."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self.thread = threading.Thread(target=self._loop, name="stream", daemon=True)
        self.thread.start()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self.queue.put((future, work))
        return future

    def _loop(self) -> None:
        while True:
            future, work = self.queue.get()
            try:
                future.set_result(work())
            except BaseException as error:  # the caller's to handle
                future.set_exception(error)
            del future, work


@functools.cache
def _workers() -> tuple[_Worker, _Worker]:
    return _Worker(), _Worker()


def in_turns(works: Sequence[Callable[[], T]]) -> list[T]:
    """What each of ``works`` makes of computed arrays, in turns on two threads; a stream belongs to its thread.

    ``T``: an array, or a tree of arrays."""

    def half(own: Sequence[Callable[[], T]]) -> list[T]:
        done = []
        for work in own:
            with mx.stream(mx.cpu):
                done.append(work())
                mx.eval(done[-1])
        return done

    shares = (works[::2], works[1::2])
    with half_the_threads():
        begun = [one.submit(functools.partial(half, own)) for one, own in zip(_workers(), shares, strict=True)]
        wait(begun)
    first, second = (future.result() for future in begun)
    return [(first, second)[number % 2][number // 2] for number in range(len(works))]
