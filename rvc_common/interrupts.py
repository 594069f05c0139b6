"""Ctrl-C, also where a package made another error of it."""

from __future__ import annotations

INTERRUPTED = 130  # exit code, as shells give it


def is_interrupt(error: BaseException | None) -> bool:
    """Whether ``error`` is a ``KeyboardInterrupt`` or was raised because of one.

    A package that is interrupted while it loads its compiled parts raises an ``ImportError`` from it.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
