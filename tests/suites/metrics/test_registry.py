"""Metrics are declared once, figures by the suites; an unknown name is an error with the nearest right one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.base.errors import UserError
from suites.definitions import SUITES
from suites.definitions.base import Suite
from suites.measure.config import compose_config
from suites.metrics.limits import Limits
from suites.metrics.registry import (
    CORR,
    HIGHER,
    LOWER,
    METRICS,
    MISMATCHES,
    RMSE,
    SHARE_RIGHT,
    SNR_DB,
    UNDECLARED,
    Figure,
    Metric,
    UnknownFigure,
    declare,
    metric_of,
    recorded_metric,
)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@given(values=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_better_value_is_never_a_larger_error(metric, values):
    low, high = sorted(values)
    errors = metric.to_error(low), metric.to_error(high)
    assert errors == tuple(sorted(errors, reverse=metric.better == HIGHER))
    assert metric.from_error(errors[0]) == pytest.approx(low, abs=1e-9)


def test_a_direction_is_one_of_three():
    assert {metric.better for metric in METRICS.values()} <= {LOWER, HIGHER, None}
    assert [m.name for m in METRICS.values() if m.better == HIGHER] == ["snr_db", "corr", "cosine", "share_right"]


def test_texts():
    assert (CORR.text(1 - 2e-9), CORR.text(0.5), SNR_DB.text(81.234)) == ("1 - 2e-09", "0.5", "81.2")


@pytest.mark.parametrize(("wrong", "right"), [("own_snr_bd", "own_snr_db"), ("voicing_mismatch", "voicing_mismatches")])
def test_a_figure_that_nobody_declared_names_the_nearest_one(wrong, right):
    for ask in (metric_of, lambda name: Limits({name: 1.0}).check(name, 0.5)):
        with pytest.raises(UnknownFigure, match=f"did you mean '{right}'"):
            ask(wrong)


def test_an_undeclared_figure_of_an_old_record_is_read_without_a_direction():
    assert recorded_metric("gone_max_abs") is UNDECLARED
    assert (UNDECLARED.better, UNDECLARED.to_error(3.5), UNDECLARED.text(3.5)) == (None, 3.5, "3.5")


def test_a_name_means_one_metric_only():
    with pytest.raises(ValueError, match="voicing_mismatches is declared twice: mismatches and rmse"):
        declare([Figure("voicing_mismatches", RMSE)])
    assert metric_of("voicing_mismatches") is MISMATCHES


def test_a_metric_of_ones_own_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match="'snr_dbs' is no metric; did you mean 'snr_db'"):
        declare([Figure("made_up", Metric("snr_dbs", "dB"))])


def test_a_suite_with_a_conflicting_figure_cannot_be_imported():
    with pytest.raises(ValueError, match="own_snr_db is declared twice"):
        type("Wrong", (Suite,), {"judged": (Figure("own_snr_db", RMSE),)})
    with pytest.raises(ValueError, match="two suites have the name 'rmvpe'"):
        type("Second", (Suite,), {"name": "rmvpe"})
    assert SUITES["rmvpe"].name == "rmvpe"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("+suite.limits.fp32.mel_relativ=1", "suite.limits.fp32.mel_relativ: .* did you mean 'mel_relative'"),
        ("+suite.limits.fp23={}", "suite.limits.fp23=fp23; did you mean 'fp32'"),
    ],
)
def test_a_limit_of_an_unknown_figure_or_precision_is_refused(override, words):
    with pytest.raises(UserError, match=words):
        compose_config("rmvpe", [override])


def test_shares_of_right_answers_are_errors_of_wrong_ones():
    assert SHARE_RIGHT.to_error(0.98) == pytest.approx(0.02)
    assert math.isnan(SNR_DB.to_error(math.nan))
