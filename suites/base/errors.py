"""Errors that a user can act on: one line, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something outside the code is wrong; the message says what, where and what to do."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` or the choices themselves, for the end of an error message."""
    choices = list(known)
    alike = [choice for choice in choices if choice.lower() == word.lower()]
    close = alike or difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(choices)}"
