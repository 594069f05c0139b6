"""Bounds the GPU memory that a call takes.

MLX queues work far ahead of a GPU and keeps every array of it, and it keeps freed buffers for arrays of nearly their
size. Both fill a device. Its memory limit bounds both: where more is in use, ``eval`` waits for work to finish, and a
new buffer first takes the place of kept ones. It is one number of the process, so it is set while calls run and is
the user's own again between them. Measured on CUDA (suite ``memory``); never run on Metal.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .runtime import mx

# what a call may take above what is in use when it begins
CALL_BYTES = 2**32


class Limit:
    """The memory limit while ``running`` calls run, on any thread."""

    def __init__(self) -> None:
        self.lock, self.running, self.usual = threading.Lock(), 0, 0

    def enter(self) -> None:
        with self.lock:
            if self.running == 0:
                wanted = mx.get_active_memory() + CALL_BYTES
                self.usual = mx.set_memory_limit(wanted)
                if self.usual < wanted:
                    mx.set_memory_limit(self.usual)
            self.running += 1

    def leave(self) -> None:
        with self.lock:
            self.running -= 1
            if self.running == 0:
                mx.set_memory_limit(self.usual)


_limit = Limit()


@contextmanager
def bounded(device: mx.Device) -> Iterator[None]:
    """Runs the body on ``device``; its arrays must be computed at its end."""
    if device == mx.Device(mx.cpu):  # which computes an array when the one before it is done
        with mx.stream(device):
            yield
        return
    _limit.enter()
    try:
        with mx.stream(device):
            yield
    finally:
        _limit.leave()
