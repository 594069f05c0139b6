"""Bounds what MLX keeps of freed GPU memory.

MLX keeps every freed buffer and reuses it only for arrays of nearly its size (``BufferCache``
in its source), so inputs of many lengths fill a device: a synthesizer on CUDA left 30 GiB after 50
lengths of at most 1.6 s (suite ``memory``, without this). Here a call remembers what it added when
it first ran on emptied buffers, and they are emptied again when more is kept than all calls together
have needed. Calls of equal sizes should not pay for that; on an H200 the synthesizer's and the
pipeline's buffers were found empty after a few such calls all the same (suite ``memory``), which is
not explained. Measured on CUDA; never run on Metal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from .runtime import mx

SHARE = 1.05  # of the need of all calls may be kept,
SLACK_BYTES = 16 * 2**20  # and this much more


class Buffers:
    """``needs``: bytes that each call of each owner has added to emptied buffers; ``ran``: calls since then."""

    def __init__(self) -> None:
        self.needs: WeakKeyDictionary[object, dict[str, int]] = WeakKeyDictionary()
        self.ran: WeakKeyDictionary[object, set[str]] = WeakKeyDictionary()

    def settle(self, owner: object, call: str, before: int, after: int, outlive: int) -> None:
        """Record a call that found ``before`` kept bytes, left ``after``, and ``outlive`` to be freed."""
        ran = self.ran.setdefault(owner, set())
        if call not in ran:
            ran.add(call)
            needs = self.needs.setdefault(owner, {})
            needs[call] = max(needs.get(call, 0), after - before + outlive)
        if after > SHARE * sum(sum(calls.values()) for calls in self.needs.values()) + SLACK_BYTES:
            mx.clear_cache()
            self.ran.clear()


_buffers = Buffers()


@contextmanager
def on_device(device: mx.Device, owner: object, call: str) -> Iterator[list[int]]:
    """Runs the body on ``device``; its arrays must be computed at its end. ``call`` names the work of ``owner``.

    Arrays that outlive the body are freed later: their bytes go into the list that is yielded.
    """
    outlive: list[int] = []
    before = mx.get_cache_memory()
    with mx.stream(device):
        yield outlive
    _buffers.settle(owner, call, before, mx.get_cache_memory(), sum(outlive))
