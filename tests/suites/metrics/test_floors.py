"""Limits made from rounding, and how rows of the table are made and joined."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_walks import stored

from suites.metrics import floors
from suites.metrics.floors import (
    METRICS,
    Tolerances,
    component_limits,
    component_rows,
    measured,
    merged,
)
from suites.metrics.limits import SAFETY
from suites.metrics.registry import CORR, SNR_DB, metric_of
from suites.selftest import floor_table

UNIT = 2.0**-24
ratios = st.floats(0, 1e3)
sizes = st.floats(1e-30, 1e30)


# ---------------------------------------------------------------------- limits
def entry(found: dict[str, float] | None = None, **more: Any) -> dict[str, Any]:
    return {"exact": False, "unit": UNIT, "rms": 0.5, "peak": 2.0, "floor_added": found} | more


def limits_of(rows: dict[str, Any], path: str = "a", name: str = "x", **more: Any) -> dict[str, float]:
    return Tolerances("rmvpe", {"rmvpe": rows}).limits(path, name, entry(**more))


def test_a_limit_is_safety_times_excess_times_floor():
    found = limits_of({"a#x": {"rmse": 2.5, "max_abs": 4.0}}, found={"rmse": 1e-5, "max_abs": 1e-4})
    assert found == {"rmse": pytest.approx(SAFETY * 2.5e-5), "max_abs": pytest.approx(SAFETY * 4e-4)}


def test_whole_numbers_must_be_equal():
    rows = {"a#x": {"rmse": 40.0, "max_abs": 40.0}}
    assert limits_of(rows, found={"rmse": 9.0, "max_abs": 9.0}, exact=True) == {"rmse": 0.0, "max_abs": 0.0}


@given(kept=ratios, found=ratios, level=sizes)
def test_no_excess_is_below_one_and_no_floor_below_the_last_digit(kept, found, level):
    rows = {"a#x": dict.fromkeys(METRICS, kept)}
    bounds = limits_of(rows, found=dict.fromkeys(METRICS, found), rms=level, peak=level)
    for bound in bounds.values():
        assert bound >= SAFETY * max(found, UNIT * level)
        assert bound == pytest.approx(SAFETY * max(1.0, kept) * max(found, UNIT * level))


@pytest.mark.parametrize(("path", "name"), [("b", "x"), ("a", "residual"), ("a.b", "x")])
def test_a_stage_that_the_table_does_not_know_gets_one(path, name):
    tolerances = Tolerances("rmvpe", {"rmvpe": {"a#x": dict.fromkeys(METRICS, 9.0)}})
    assert [tolerances.excess(path, name, metric) for metric in METRICS] == [1.0, 1.0]
    assert [tolerances.excess("a", "x", metric) for metric in METRICS] == [9.0, 9.0]


@pytest.mark.parametrize("found", [None, *(dict.fromkeys(METRICS, v) for v in (math.nan, math.inf, -math.inf))])
def test_a_reference_without_a_floor_grants_the_last_digit_only(found):
    """Another shape, or a NaN, in float64: nothing excuses an error then."""
    bounds = limits_of({}, found=found)
    assert bounds == {"rmse": pytest.approx(SAFETY * UNIT * 0.5), "max_abs": pytest.approx(SAFETY * UNIT * 2.0)}


def test_a_silent_value_must_be_silent():
    assert limits_of({}, rms=0.0, peak=0.0) == {"rmse": 0.0, "max_abs": 0.0}


def test_the_pipeline_takes_the_models_excess():
    tables = {"rmvpe": {"cnn#x": {"rmse": 3.0}}, "pipeline": {"filtered#filtered": {"rmse": 2.0}}}
    tolerances = Tolerances("pipeline", tables)
    assert tolerances.excess("f0.cnn", "x", "rmse") == 3.0
    assert tolerances.excess("f0.block.1.cnn", "x", "rmse") == 3.0
    assert tolerances.excess("filtered", "filtered", "rmse") == 2.0
    assert tolerances.excess("cnn", "x", "rmse") == 1.0


def test_a_device_that_was_never_measured_takes_the_other_ones(table):
    def of(excess: float) -> dict[str, Any]:
        return {"rmvpe": {"a#x": {"rmse": excess}}}

    def found(precision: str, device: str) -> float:
        return Tolerances.of("rmvpe", precision, device).excess("a", "x", "rmse")

    both = {"cpu": of(2.0), "gpu": of(5.0)}
    table(stored(policies={"fp32": both, "tf32": {"gpu": of(7.0)}, "fp16": {"cpu": of(9.0)}}))
    assert [found("fp32", device) for device in ("cpu", "gpu")] == [2.0, 5.0]
    assert [found("tf32", device) for device in ("cpu", "gpu")] == [7.0, 7.0]
    assert [found("fp16", device) for device in ("cpu", "gpu")] == [9.0, 9.0]
    assert found("bf16", "cpu") == 1.0


def test_a_stage_that_was_never_measured_on_a_device_takes_the_other_ones(table):
    """Retrieval runs on the CPU whichever device a conversion has."""
    cpu = {"pipeline": {"retrieved#retrieved": {"max_abs": 3.2}}, "rmvpe": {"a#x": {"max_abs": 2.0}}}
    gpu = {"rmvpe": {"a#x": {"max_abs": 5.0}, "b#x": {"max_abs": 6.0}}}
    table(stored(policies={"fp32": {"cpu": cpu, "gpu": gpu}}))

    def found(model: str, path: str, name: str, device: str) -> float:
        return Tolerances.of(model, "fp32", device).excess(path, name, "max_abs")

    assert found("pipeline", "segment.0.retrieved", "retrieved", "gpu") == 3.2
    assert [found("rmvpe", "a", "x", device) for device in ("cpu", "gpu")] == [2.0, 5.0]
    assert found("rmvpe", "b", "x", "cpu") == 6.0


# ---------------------------------------------------------------------- making the table
def trace_row(path: str, error: float, floor: float, level: float, name: str = "x") -> dict[str, Any]:
    facts = {"rms": level, "peak": level, "floor": dict.fromkeys(METRICS, floor), "exact": False}
    return {"path": path, "entry": name, "added": dict.fromkeys(METRICS, error)} | facts


rows_of_traces = st.lists(
    st.builds(
        trace_row,
        st.sampled_from(["mel", "fc.0", "f0.fc.0", "f0.block.3.fc.0", "segment.1.features.x", "joined"]),
        st.one_of(st.just(0.0), sizes),
        st.one_of(st.just(0.0), sizes),
        st.one_of(st.just(0.0), sizes),
        st.sampled_from(["x", "residual"]),
    ),
    max_size=6,
)
tables_of_traces = rows_of_traces.map(functools.partial(measured, "pipeline"))


def test_the_largest_ratio_of_error_to_floor_is_kept():
    rows = [trace_row("fc.0", 2e-6, 1e-6, 0.1), trace_row("fc.0", 1e-6, 1e-7, 10.0), trace_row("fc.1", 0.0, 1e-6, 1.0)]
    found = measured("rmvpe", rows)["rmvpe"]
    assert found["fc.0#x"] == {
        "count": 2,
        "rmse": 10.0,
        "max_abs": 10.0,
        "floor_rmse_relative": 1e-5,
        "floor_max_abs_relative": 1e-5,
    }
    assert (found["fc.1#x"]["rmse"], found["fc.1#x"]["count"]) == (0.0, 1)


def test_layers_and_blocks_share_a_row():
    paths = (f"{block}unet.encoder.layers.{i}.pool" for block in ("", "block.1.") for i in (0, 4))
    rows = [trace_row(path, 1.0, 1.0, 1.0) for path in paths]
    assert measured("rmvpe", rows)["rmvpe"]["unet.encoder.layers.*.pool#x"]["count"] == 4


def test_whole_numbers_and_what_had_no_figures_are_left_out():
    whole = trace_row("pitch", 1.0, 0.0, 1.0) | {"exact": True}
    failed = trace_row("cnn", 1.0, 1.0, 1.0) | {"added": {"reason": "this stage is missing"}, "floor": {}}
    assert measured("rmvpe", [whole, failed]) == {}


def test_the_pipelines_rows_land_in_the_models_own_tables():
    inner = ("f0.fc.0", "f0.block.2.fc.0", "segment.3.features.encoder.layers.2.q", "segment.0.audio.z_p")
    paths = (*inner, "f0", "audio")
    found = measured("pipeline", [trace_row(path, 1.0, 1.0, 1.0) for path in paths])
    assert {model: set(rows) for model, rows in found.items()} == {
        "rmvpe": {"fc.0#x"},
        "hubert": {"encoder.layers.*.q#x"},
        "synthesizer": {"z_p#x"},
        "pipeline": {"f0#x", "audio#x"},
    }
    assert found["rmvpe"]["fc.0#x"]["count"] == 2


@given(rows_of_traces, rows_of_traces)
def test_two_traces_make_the_table_of_both(a, b):
    assert merged(measured("pipeline", a), measured("pipeline", b)) == measured("pipeline", a + b)


@given(tables_of_traces, tables_of_traces, tables_of_traces)
def test_tables_join_in_any_order(a, b, c):
    assert merged(a, b) == merged(b, a)
    assert merged(merged(a, b), c) == merged(a, merged(b, c))
    assert merged(a, {}) == merged({}, a) == a


@given(tables_of_traces, tables_of_traces)
def test_a_table_only_grows(a, b):
    before = json.dumps([a, b], sort_keys=True)
    both = merged(a, b)
    for table in (a, b):
        for model, rows in table.items():
            for key, row in rows.items():
                assert all(both[model][key][name] >= value for name, value in row.items())
    assert json.dumps([a, b], sort_keys=True) == before


@given(rows_of_traces)
def test_what_a_table_was_made_from_lies_within_its_limits(rows):
    """Up to the three digits that are kept."""
    tables = measured("pipeline", rows)
    for row in rows:
        for metric in METRICS:
            excess = Tolerances("pipeline", tables).excess(row["path"], row["entry"], metric)
            if row["floor"][metric] > 0:
                assert row["added"][metric] <= SAFETY * excess * row["floor"][metric]


# ---------------------------------------------------------------------- components of runs
FIGURES = ("mel_relative", "salience_max_abs", "infer_snr_db", "own_corr", "voicing_mismatches")


def derived_limits(**limits: Any) -> dict[str, Any]:
    return component_limits("rmvpe", "fp32", limits)


ERRORS = {
    "salience_max_abs": 2e-6,
    "own_snr_db": 1e-4,
    "own_corr": 1e-3,
    "voicing_mismatches": 2.0,
    "knobs_snr_db": 0.0,
}
ROWS = {name: {"error": error, "count": 9} for name, error in ERRORS.items()}


def test_machines_share_a_table_where_asked(table, monkeypatch):
    """With ``merge`` of every figure the larger, and both machines named; without, the new one alone."""
    row = {"rmse": 2.0, "max_abs": 3.0, "count": 4, "floor_rmse_relative": 1e-7}
    old, new = row | {"rmse": 7.0}, row | {"max_abs": 9.0}
    monkeypatch.setattr(floor_table, "measure", lambda *_: ({"rmvpe": {"a#x": dict(new)}}, "gpu"))
    monkeypatch.setattr(floor_table.environment, "cpu_name", lambda: "second")
    for merge, expected in (("true", new | {"rmse": 7.0, "count": 8}), ("false", new)):
        made = {"fp32/gpu": {"date": "1999-01-01", "cpu": "first"}}
        table(stored(made=made, policies={"fp32": {"gpu": {"rmvpe": {"a#x": dict(old)}}}}))
        floor_table.update(["what=stages", f"merge={merge}"])
        assert floors.stored()["policies"]["fp32"]["gpu"]["rmvpe"]["a#x"] == expected
        made = floors.stored()["made"]["fp32/gpu"]
        assert made["cpu"] == "second"
        assert made.get("also") == ("date 1999-01-01, cpu first" if merge == "true" else None)


def test_suites_that_were_not_measured_keep_their_rows(table, monkeypatch):
    row = {"rmse": 2.0, "max_abs": 3.0, "count": 4, "floor_rmse_relative": 1e-7}
    monkeypatch.setattr(floor_table, "measure", lambda *_: ({"rmvpe": {"b#x": dict(row)}}, "cpu"))
    for suites, kept in (("rmvpe", {"hubert", "rmvpe"}), ("", {"rmvpe"})):
        before = {"rmvpe": {"a#x": dict(row)}, "hubert": {"a#x": dict(row)}}
        table(stored(made={}, policies={"fp32": {"cpu": before}}))
        floor_table.update(["what=stages", f"suites={suites}"])
        found = floors.stored()["policies"]["fp32"]["cpu"]
        assert set(found) == kept
        assert set(found["rmvpe"]) == {"b#x"}


def test_derived_limits_are_safety_times_the_largest_error(table):
    table(stored(components={"fp32": {"rmvpe": ROWS}}))
    limits = derived_limits(**dict.fromkeys(ROWS, "derived"))
    assert limits["salience_max_abs"] == pytest.approx(SAFETY * 2e-6)
    assert limits["own_snr_db"] == pytest.approx(80 - 20 * math.log10(SAFETY))
    assert limits["own_corr"] == pytest.approx(1 - (SAFETY * 1e-3) ** 2 / 2, abs=1e-12)
    assert limits["voicing_mismatches"] == 2  # events are counted, not multiplied
    assert limits["knobs_snr_db"] == math.inf


def test_a_users_limit_stays_and_null_judges_nothing(table):
    table(stored(components={"fp32": {"rmvpe": ROWS}}))
    assert derived_limits(salience_max_abs=1e-9, own_corr=None, own_snr_db="derived") == {
        "salience_max_abs": 1e-9,
        "own_corr": None,
        "own_snr_db": pytest.approx(70.46, abs=0.01),
    }


def test_what_the_table_lacks_is_not_judged(table):
    other = ({"fp32": {"hubert": ROWS}}, {"fp16": {"rmvpe": ROWS}})
    for components in ({}, {"fp32": {}}, {"fp32": {"rmvpe": {}}}, *other):
        table(stored(components=components))
        found = derived_limits(own_corr="derived", salience_max_abs=2.0)
        assert found == {"own_corr": None, "salience_max_abs": 2.0}


@given(st.floats(1e-6, 0.05))
def test_snr_and_correlation_of_one_difference_are_the_same_error(size):
    """Of a difference that is unlike the signal; so their limits, which multiply it, are one limit."""
    rng = np.random.default_rng(0)
    signal, other = rng.standard_normal((2, 4096))
    other -= signal * (other @ signal) / (signal @ signal)
    value = signal + size * other * np.linalg.norm(signal) / np.linalg.norm(other)
    corr = value @ signal / np.linalg.norm(value) / np.linalg.norm(signal)
    assert CORR.to_error(corr) == pytest.approx(SNR_DB.to_error(-20 * math.log10(size)), rel=1e-2)


@given(name=st.sampled_from(FIGURES), data=st.data())
def test_a_figure_as_an_error_and_back(name, data):
    low, high = {"infer_snr_db": (-200, 300), "own_corr": (-1, 1)}.get(name, (0, 1e6))
    value = data.draw(st.floats(low, high))
    assert metric_of(name).to_error(value) >= 0
    assert metric_of(name).from_error(metric_of(name).to_error(value)) == pytest.approx(value, abs=1e-12)


@given(name=st.sampled_from(FIGURES), a=st.floats(-1, 1), b=st.floats(-1, 1))
def test_more_is_better_of_snr_and_correlation_only(name, a, b):
    low, high = sorted((a, b))
    metric = metric_of(name)
    errors = metric.to_error(low), metric.to_error(high)
    assert errors == tuple(sorted(errors, reverse=name.endswith(("snr_db", "corr"))))


def test_no_error_and_no_agreement_at_all():
    assert (SNR_DB.to_error(math.inf), SNR_DB.from_error(0.0)) == (0.0, math.inf)
    assert (SNR_DB.to_error(-math.inf), SNR_DB.from_error(math.inf)) == (math.inf, -math.inf)
    assert (CORR.to_error(1.0), CORR.from_error(0.0)) == (0.0, 1.0)
    assert [metric_of(name).is_count for name in FIGURES] == [False, False, False, False, True]


def test_rows_of_components_keep_the_largest_error_of_either_side():
    checks = [
        ("own_snr_db", {"value": 100.0, "floor": 120.0}),
        ("own_snr_db", {"value": "inf", "floor": "inf"}),
        ("salience_max_abs", {"value": 1e-6, "floor": 4e-6}),
        ("salience_max_abs", {"value": 2e-6, "floor": None}),
        ("voicing_mismatches", {"value": 1, "floor": 2}),
    ]
    assert component_rows(checks) == {
        "own_snr_db": {"error": 1e-5, "count": 2},
        "salience_max_abs": {"error": 4e-6, "count": 2},
        "voicing_mismatches": {"error": 2.0, "count": 1},
    }
