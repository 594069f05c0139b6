"""Settings of the whole process that hold while calls run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Held:
    """A setting of the whole process that holds while any thread needs it.

    ``change`` makes it and returns what undoes it."""

    def __init__(self, change: Callable[[], Callable[[], object]]) -> None:
        self.change, self.lock, self.holders = change, threading.Lock(), 0
        self.undo: Callable[[], object] = lambda: None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if self.holders == 0:
                self.undo = self.change()
            self.holders += 1
        try:
            yield
        finally:
            with self.lock:
                self.holders -= 1
                if self.holders == 0:
                    self.undo()
