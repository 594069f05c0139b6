"""Verdicts: what nothing changed passes, and what is worse is called by its name."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gated import (
    OURS,
    POLICY,
    edited,
    judged,
    kinds,
    made_sheet,
    more_memory,
    of_noise,
    records_of,
    without_record,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import make_run

from suites.gate.baseline import baseline_of
from suites.gate.judge import FAILED, MEANING, PASSED, UNJUDGED, confirmed, judge


def test_nothing_changed(baseline, tmp_path):
    outcome = judged(baseline, tmp_path, seed=2)
    assert outcome.exit_code == PASSED
    assert kinds(outcome) <= {"passed", "too noisy"}
    assert sum(v.metric == "time" for v in outcome.verdicts) == 8


@pytest.mark.parametrize(("factor", "kind"), [(1.25, "slower"), (0.8, "faster"), (0.2, "implausible")])
def test_a_change_of_one_component(baseline, tmp_path, factor, kind):
    outcome = judged(baseline, tmp_path, seed=2, slow={("network", OURS): factor})
    found = {v.key for v in outcome.verdicts if v.kind == kind}
    assert found == {("synthetic-1s", "network", OURS), ("synthetic-2s", "network", OURS)}
    assert outcome.exit_code == MEANING[kind]


def test_a_machine_that_is_slower_throughout_is_no_regression(baseline, tmp_path):
    everything = {(c, b): 1.3 for c in ("mel", "network", "decode", "f0") for b in ("torch_cpu", OURS)}
    assert judged(baseline, tmp_path, seed=2, slow=everything).exit_code == PASSED


def test_both_sides_far_slower_on_the_same_machine_is_told(baseline, tmp_path):
    everything = {(c, b): 3.0 for c in ("mel", "network", "decode", "f0") for b in ("torch_cpu", OURS)}
    outcome = judged(baseline, tmp_path, seed=2, slow=everything)
    assert {v.metric for v in outcome.verdicts if v.kind == "slower"} == {"seconds"}
    assert outcome.exit_code == FAILED


def test_a_noisy_machine_is_told_and_the_size_that_it_would_see(baseline, tmp_path):
    outcome = judged(baseline, tmp_path, seed=2, noise=0.1)
    noisy = [v for v in outcome.verdicts if v.kind == "too noisy"]
    assert noisy
    assert all(v.detectable > POLICY["time"]["detect"] for v in noisy)
    assert outcome.exit_code == PASSED
    strict = POLICY | {"time": POLICY["time"] | {"noisy": "fail"}}
    assert judge(baseline, baseline_of([tmp_path / "run"]), strict).exit_code == FAILED


def test_small_but_certain_is_not_called(baseline, tmp_path):
    steady = baseline_of([make_run(tmp_path / "a", seed=3, noise=1e-4, rounds=40)])
    slower = make_run(tmp_path / "b", seed=4, noise=1e-4, rounds=40, slow={("f0", OURS): 1.02})
    outcome = judge(steady, baseline_of([slower]), POLICY)
    one = next(v for v in outcome.verdicts if v.key[1] == "f0" and v.metric == "time")
    assert one.p < 1e-4
    assert one.kind == "passed"


def test_another_processor_widens_what_is_called(baseline, tmp_path):
    outcome = judged(baseline, tmp_path, seed=2, slow={("f0", OURS): 1.15}, environment={"cpu": "Other CPU"})
    assert outcome.exit_code == PASSED
    assert "another processor" in outcome.notes[0]
    assert not any(v.metric == "seconds" for v in outcome.verdicts)
    slower = judged(baseline, tmp_path / "b", seed=2, slow={("f0", OURS): 1.5}, environment={"cpu": "Other CPU"})
    assert slower.exit_code == FAILED


def test_another_processor_of_the_same_name(baseline, tmp_path):
    """``baseline`` does not say which one it was made on."""
    found = {"vendor": "AuthenticAMD", "family": 26, "model": 2, "stepping": 1, "flags": ["avx2", "avx512f"]}
    new = {"environment": {"processor": found}}
    assert judged(baseline, tmp_path / "a", seed=2, **new).notes == []
    before = baseline_of([make_run(tmp_path / "b", seed=1, **new)])
    other = {"environment": {"processor": {**found, "family": 25, "flags": ["avx2"]}}}
    notes = judged(before, tmp_path / "c", seed=2, **other).notes
    assert "another processor" in notes[0]
    assert "processor.family: 26 there, 25 here; processor.flags: avx512f there, none here" in notes[1]


def test_too_few_launches_are_told(baseline, tmp_path):
    outcome = judged(baseline, tmp_path, seed=2, launches=2)
    assert "too few" in kinds(outcome)
    assert outcome.exit_code == UNJUDGED


def test_an_empty_baseline_passes_nothing(baseline):
    assert judge(baseline._replace(entries={}), baseline, POLICY).exit_code == UNJUDGED


def test_a_new_case_is_told(baseline, tmp_path):
    fewer = baseline._replace(entries={k: e for k, e in baseline.entries.items() if k[0] == "synthetic-1s"})
    outcome = judge(fewer, baseline, POLICY)
    assert outcome.exit_code == PASSED
    assert sum(v.kind == "new" for v in outcome.verdicts) == 8


# ---------------------------------------------------------------------- how often it is wrong, on made noise
def test_false_alarms_stay_below_what_was_promised(baseline):
    rng, red = np.random.default_rng(5), 0
    for _ in range(400):
        one, other = (made_sheet(baseline, of_noise(rng, np.zeros(20), 12, 0.02)) for _ in range(2))
        red += judge(one, other, POLICY).exit_code != PASSED
    # 1 % of 400 is 4; P(Binomial(400, 0.01) > 10) is 0.2 %
    assert red <= 10


def test_slowdowns_are_caught(baseline):
    rng, caught = np.random.default_rng(6), 0
    for _ in range(100):
        sizes = np.zeros(20)
        before = made_sheet(baseline, of_noise(rng, sizes, 12, 0.015))
        sizes[7] = math.log(1.10)
        outcome = judge(before, made_sheet(baseline, of_noise(rng, sizes, 12, 0.015)), POLICY)
        caught += {v.key[1] for v in outcome.red} == {"c7"}
    assert caught >= 95


@settings(max_examples=60, deadline=None)
@given(sd=st.floats(1e-4, 0.2), launches=st.integers(5, 20), seed=st.integers(0, 10**6))
def test_what_it_could_have_seen_is_a_size(baseline, sd, launches, seed):
    rng = np.random.default_rng(seed)
    one, other = (made_sheet(baseline, of_noise(rng, np.zeros(5), launches, sd)) for _ in range(2))
    assert all(v.detectable > 0 for v in judge(one, other, POLICY).verdicts if v.metric == "time")


# ---------------------------------------------------------------------- what cannot be judged
def test_a_busy_machine_calls_only_what_is_large(baseline, tmp_path):
    def busy(lines):
        for line in records_of(lines):
            line["others_share"] = 0.2
        return lines

    outcome = judged(baseline, tmp_path, seed=2, slow={("network", OURS): 1.15}, change=busy)
    assert outcome.exit_code == PASSED
    assert "other work took 20 % of the machine during this run" in outcome.notes[0]
    slow = judged(baseline, tmp_path / "b", seed=2, slow={("network", OURS): 1.5}, change=busy)
    assert slow.exit_code == FAILED


def test_a_machine_that_is_far_too_busy_is_not_judged(baseline, tmp_path):
    def busy(lines):
        for line in records_of(lines):
            line["others_share"] = 0.6
        return lines

    outcome = judged(baseline, tmp_path, seed=2, slow={("network", OURS): 3.0}, change=busy)
    assert outcome.exit_code == UNJUDGED
    assert {v.kind for v in outcome.verdicts if v.metric in ("time", "typical", "seconds")} == {"busy"}


def test_other_numbers_of_calls_are_not_compared(baseline, tmp_path):
    outcome = judged(baseline, tmp_path, seed=2, change=edited(calls=4))
    red = [v for v in outcome.red if v.kind == "not comparable"]
    assert [v.key[1] for v in red] == ["network"]
    assert "1 calls a sample there, 4 here" in red[0].text


# ---------------------------------------------------------------------- a second run
def second_opinion(baseline, tmp_path, factor, **options):
    first = judged(baseline, tmp_path / "a", seed=2, slow={("network", OURS): 1.3})
    second = judged(baseline, tmp_path / "b", seed=3, slow={("network", OURS): factor}, **options)
    return confirmed(first, second, POLICY)


def test_a_slowdown_that_both_runs_show(baseline, tmp_path):
    outcome = second_opinion(baseline, tmp_path, 1.3)
    assert outcome.exit_code == FAILED
    assert all("confirmed by a second run" in v.text for v in outcome.red)


def test_a_slowdown_that_one_run_shows(baseline, tmp_path):
    outcome = second_opinion(baseline, tmp_path, 1.0)
    assert outcome.exit_code == PASSED
    doubted = [v for v in outcome.verdicts if v.kind == "not confirmed"]
    assert {v.key[1] for v in doubted} == {"network"}
    assert all("a second run shows" in v.text for v in doubted)


def test_a_second_run_that_fails_otherwise_counts(baseline, tmp_path):
    outcome = second_opinion(baseline, tmp_path, 1.0, change=more_memory)
    assert {v.kind for v in outcome.red} == {"bigger"}
    broken = second_opinion(baseline, tmp_path / "x", 1.0, change=without_record)
    assert broken.exit_code == UNJUDGED


def test_a_new_slowdown_of_the_second_run_needs_a_second_run_of_its_own(baseline, tmp_path):
    first = judged(baseline, tmp_path / "a", seed=2)
    second = judged(baseline, tmp_path / "b", seed=3, slow={("f0", OURS): 1.3})
    assert confirmed(first, second, POLICY).exit_code == PASSED


def test_a_machine_on_which_nothing_can_be_seen_is_no_pass(baseline, tmp_path):
    outcome = judged(baseline, tmp_path, seed=2, slow={("network", OURS): 3.0}, noise=1.5)
    assert "blind" in kinds(outcome)
    assert outcome.exit_code == UNJUDGED
