"""Bounds the GPU memory that a call takes.

MLX queues work far ahead of a GPU and keeps every array of it, and it keeps freed buffers for arrays of nearly their
size. Both fill a device. Its memory limit bounds both: where more is in use, ``eval`` waits for work to finish, and a
new buffer first takes the place of kept ones. It is one number of the process, so it is set while calls run and is
the user's own again between them. Tried on an H200; never run on Metal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .held import Held
from .runtime import mx

# what a call may take above what is in use when it begins
CALL_BYTES = 2**32


def _lower() -> Callable[[], object]:
    wanted = mx.get_active_memory() + CALL_BYTES
    usual = mx.set_memory_limit(wanted)
    if usual < wanted:
        mx.set_memory_limit(usual)
    return lambda: mx.set_memory_limit(usual)


_limit = Held(_lower)


@contextmanager
def bounded(device: mx.Device) -> Iterator[None]:
    """Runs the body on ``device``; its arrays must be computed at its end."""
    if device == mx.Device(mx.cpu):  # which computes an array when the one before it is done
        with mx.stream(device):
            yield
        return
    with _limit(), mx.stream(device):
        yield
