"""The self-tests of gates, on made sheets: they count what they should."""

from __future__ import annotations

import pytest
from made_runs import make_run

from suites.base.errors import UserError
from suites.gate.baseline import baseline_of
from suites.gate.judge import judge, read_policy
from suites.selftest import alarms

POLICY = read_policy("default")


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    slow = {(c, "mlx_cpu"): 1.1 for c in ("mel", "network", "decode", "f0")}
    made = [make_run(folder / str(i), seed=i, noise=0.01) for i in range(3)]
    return [baseline_of([path]) for path in (*made, make_run(folder / "slow", 9, slow, noise=0.01))]


def test_clean_comparisons_are_counted(sheets):
    pairs = [judge(sheets[0], sheets[1], POLICY), judge(sheets[1], sheets[2], POLICY)]
    text, good = alarms.aa_summary(pairs, pairs, ["suite"])
    assert good
    assert "each run against the one before it: red: 0 of 2" in text
    assert f"{len(pairs[0].verdicts)} gates a comparison, 8 of them on times" in text


def test_a_red_comparison_is_counted_and_named(sheets):
    pairs = [judge(sheets[0], sheets[3], POLICY)]
    text, good = alarms.aa_summary(pairs, pairs, ["suite"])
    assert not good
    assert "red: 1 of 1" in text
    assert "- red: slower, synthetic-1s f0 mlx_cpu time" in text


def test_one_component_at_a_time_is_slow(sheets):
    found = list(alarms.injected(sheets[0], sheets[1], sheets[3], POLICY))
    assert len(found) == 8
    assert all(v.metric == "time" for v in found)
    text, good = alarms.power_summary([alarms.Trial(s, v) for s in alarms.POWER_SIZES for v in found], ["suite"])
    assert good == all(v.kind == "slower" for v in found)
    assert "| 10.0 % |" in text


@pytest.mark.parametrize("words", [["count=0"], ["count=x"]])
def test_bad_options(words):
    with pytest.raises(UserError, match="count="):
        alarms.options(words, 5)


def test_own_options_and_those_of_the_runs():
    o = alarms.options(["count=3", "suite=rmvpe", "durations=[1]"], 5)
    assert (o.times, o.suite, o.overrides) == (3, "rmvpe", ["durations=[1]"])
