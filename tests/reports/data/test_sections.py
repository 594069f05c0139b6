"""What a document shows of a suite is declared by the suite; a declaration that lacks something is refused."""

from __future__ import annotations

import pytest

from reports.data.sections import SECTIONS, check, suites_with
from suites.definitions import SUITES
from suites.definitions.base import Suite
from suites.definitions.everything import SUITES_IN_ORDER


def suite(**attributes: object) -> dict[str, Suite]:
    return {"new": type("New", (Suite,), attributes)()}


WHOLE = {"shows": ("time", "parity"), "title": "a", "about_time": "b", "parity_title": "c", "about_parity": "d"}
WHOLE |= {"details": ()}


def test_a_whole_declaration_is_taken():
    check(suite(**WHOLE))
    check(suite(shows=()))


@pytest.mark.parametrize("missing", [name for name in WHOLE if name != "shows"])
def test_what_a_section_needs_is_asked_for(missing):
    with pytest.raises(TypeError, match=rf"'new': shows .* `{missing}`"):
        check(suite(**{name: value for name, value in WHOLE.items() if name != missing}))


def test_a_suite_without_sections_of_its_own_is_refused():
    """An inherited list would put a suite into a document without anybody's decision."""
    with pytest.raises(TypeError, match="'heir': its class declares no sections"):
        check({"heir": type("Heir", (type(SUITES["rmvpe"]),), {})()})


def test_an_unknown_section_is_refused():
    with pytest.raises(TypeError, match="unknown section 'tiem'"):
        check(suite(**WHOLE | {"shows": ("tiem",)}))
    with pytest.raises(KeyError):
        suites_with("tiem")


def test_every_section_has_a_suite_and_every_suite_a_section():
    """But for the suite of the self-test."""
    found = {name: suites_with(name) for name in SECTIONS}
    assert all(found.values())
    assert {name for names in found.values() for name in names} == set(SUITES_IN_ORDER) == set(SUITES) - {"known"}


def test_a_new_suite_needs_no_change_of_reports(monkeypatch):
    monkeypatch.setitem(SUITES, "new", suite(**WHOLE)["new"])
    assert suites_with("time")[-1] == "new"
