"""Options of a command as words ``name=value``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .errors import UserError, nearest

FLAGS = ("true", "false")


def options(words: Iterable[str], defaults: Mapping[str, str]) -> dict[str, str]:
    """The values that the words give, else the defaults; what is true or false by default takes nothing else.

    Raises ``UserError``: no ``name=value``, a name that has no default, or a value that does not fit."""
    found = dict(defaults)
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word!r} is not an option; write name=value")
        if name not in defaults:
            raise UserError(f"unknown option {name!r}{nearest(name, defaults)}")
        if defaults[name] in FLAGS and value not in FLAGS:
            raise UserError(f"{word}{nearest(value, FLAGS)}")
        found[name] = value
    return found


def whole_number(name: str, value: str, least: int = 0) -> int:
    """Raises ``UserError``: it is no whole number, or smaller than ``least``."""
    if not value.isdecimal() or int(value) < least:
        raise UserError(f"{name}={value}: a whole number from {least} is expected")
    return int(value)
