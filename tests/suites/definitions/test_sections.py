"""A suite declares which sections of a report it fills; a declaration that lacks something is refused."""

from __future__ import annotations

import pytest

from suites.definitions import CONFIGURED, SUITES, with_section
from suites.definitions.base import DECLARED, SECTIONS, Suite

WHOLE = {"name": "new", "sections": ("time", "parity"), "about_time": "b", "about_parity": "d", "details": ()}


@pytest.fixture(autouse=True)
def _forgotten():
    """The suites of this module stay in it."""
    before = dict(DECLARED)
    yield
    DECLARED.clear()
    DECLARED.update(before)


def suite(**attributes: object) -> Suite:
    return type("New", (Suite,), attributes)()


def test_a_whole_declaration_is_taken():
    assert suite(**WHOLE).name == "new"
    assert suite(name="other", sections=()).sections == ()


@pytest.mark.parametrize("missing", ["about_time", "about_parity", "details"])
def test_what_a_section_needs_is_asked_for(missing):
    with pytest.raises(ValueError, match=rf"'new': section '\w+' needs {missing}"):
        suite(**{name: value for name, value in WHOLE.items() if name != missing})


def test_an_unknown_section_is_refused():
    with pytest.raises(ValueError, match="section 'tiem'"):
        suite(**WHOLE | {"sections": ("tiem",)})
    with pytest.raises(KeyError):
        with_section("tiem")


def test_every_section_has_a_suite_and_every_suite_a_section():
    """But for the suite of the self-test."""
    found = {name: with_section(name) for name in SECTIONS}
    assert all(found.values())
    assert {name for names in found.values() for name in names} == set(CONFIGURED) == set(SUITES) - {"known"}


def test_a_new_suite_needs_no_change_of_reports(monkeypatch):
    monkeypatch.setitem(SUITES, "new", suite(**WHOLE))
    assert with_section("time")[-1] == "new"
