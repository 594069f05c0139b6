"""Ctrl-C that a package has made another error of."""

import pytest

from rvc_common.interrupts import INTERRUPTED, is_interrupt
from suites.__main__ import main as suites_main
from suites.base.errors import UserError


def disguised(*_: object, **__: object) -> None:
    """What an interrupted import of a compiled module does."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error


def raised(make) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        make()
    return caught.value


def hidden() -> None:
    try:
        disguised()
    except ImportError:
        raise UserError("a package is missing") from None


def test_an_interrupt_is_known_through_what_was_made_of_it():
    assert is_interrupt(KeyboardInterrupt())
    assert is_interrupt(raised(disguised))
    assert is_interrupt(raised(hidden))


def test_other_errors_are_none():
    circle = ValueError("a")
    circle.__cause__ = RuntimeError("b")
    circle.__cause__.__cause__ = circle
    assert not is_interrupt(circle)
    assert not is_interrupt(None)
    assert not is_interrupt(raised(lambda: {}["a"]))


@pytest.mark.parametrize("argv", [["list"], ["list", "--json"]])
def test_the_suites_end_as_interrupted(argv, monkeypatch, capsys):
    monkeypatch.setattr("suites.commands.list.run", disguised)
    assert suites_main(argv) == INTERRUPTED
    out, err = capsys.readouterr()
    assert err == "interrupted\n"
    assert ("130" in out) == ("--json" in argv)
