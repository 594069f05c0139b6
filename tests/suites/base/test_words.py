"""Options as words: one line for each that does not fit, with the nearest that does."""

from __future__ import annotations

import pytest

from suites.base.errors import UserError
from suites.base.words import options, whole_number

DEFAULTS = {"precision": "fp32", "quick": "false"}


def test_the_last_word_counts():
    assert options(["quick=true", "quick=false", "precision=a=b"], DEFAULTS) == {"precision": "a=b", "quick": "false"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("quick", "'quick' is not an option; write name=value"),
        ("", "'' is not an option"),
        ("precison=fp32", "unknown option 'precison'; did you mean 'precision'"),
        ("=1", "unknown option ''; known: precision, quick"),
        ("quick=TRUE", "quick=TRUE; did you mean 'true'"),
        ("quick=yes", "quick=yes; known: true, false"),
    ],
)
def test_mistakes_are_explained(word, message):
    with pytest.raises(UserError, match=message):
        options([word], DEFAULTS)


@pytest.mark.parametrize("value", ["", "-1", "1.5", "²", "x", "0"])
def test_whole_numbers(value):
    assert whole_number("count", "12", 1) == 12
    with pytest.raises(UserError, match=f"count={value}: a whole number from 1 is expected"):
        whole_number("count", value, 1)
