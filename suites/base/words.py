"""Options of a command as words ``name=value``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .errors import UserError


def options(words: Iterable[str], defaults: Mapping[str, str]) -> dict[str, str]:
    """The values that the words give, else the defaults. Raises ``UserError``: a name that has no default."""
    found = dict(defaults)
    for name, _, value in (word.partition("=") for word in words):
        if name not in defaults:
            raise UserError(f"unknown option {name!r}; known: {', '.join(f'{n}=' for n in defaults)}")
        found[name] = value
    return found
