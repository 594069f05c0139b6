"""No broken run ever passes."""

from __future__ import annotations

import pytest
from gated import (
    OURS,
    POLICY,
    edited,
    judged,
    kinds,
    more_memory,
    nan_parity,
    no_parity,
    one,
    without_record,
)
from made_runs import ENVIRONMENT, make_run

from suites.base.errors import UserError
from suites.gate.baseline import baseline_of
from suites.gate.judge import PASSED, UNJUDGED, judge


def renamed(lines):
    for line in lines:
        if line["component"] == "network":
            line["case"] += "-new"
    return lines


def without_samples(lines):
    """The raw samples of a component are gone: its record cannot be checked."""
    return [x for x in lines if not (x["kind"] == "sample" and x["component"] == "network")]


def samples_cut(lines):
    line = one(lines)
    line["samples_s"] = line["samples_s"][:5]
    return lines


def nan_sample(lines):
    one(lines)["samples_s"][3] = "nan"
    one(lines, kind="sample")["seconds"] = "nan"
    return lines


def zero_sample(lines):
    one(lines)["samples_s"][0] = 0.0
    one(lines, kind="sample")["seconds"] = 0.0
    return lines


def otherwise_timed(backend, times):
    """Every time of one component, in samples and record alike; ``times(seconds, round)``."""

    def change(lines):
        for line in lines:
            if line["component"] != "network" or line["backend"] != backend:
                continue
            if line["kind"] == "sample":
                line["seconds"] = times(line["seconds"], line["round"])
            else:
                line["samples_s"] = [times(s, i) for i, s in enumerate(line["samples_s"])]
        return lines

    return change


load_in_the_timer = otherwise_timed(OURS, lambda s, _: s + 0.05)
returns_before_it_computed = otherwise_timed(OURS, lambda s, _: 0.01 * s)
slow_reference = otherwise_timed("torch_cpu", lambda s, _: s + 0.1)
# the fastest tenth is what it was
most_calls_slow = otherwise_timed(OURS, lambda s, i: s * (10 if i % 10 else 1))


def made_up_samples(lines):
    line = one(lines)
    line["samples_s"] = [0.9 * s for s in line["samples_s"]]
    return lines


def far_worse_parity(lines):
    one(lines)["parity"]["limits"]["salience_max_abs"]["value"] = 9e-6
    return lines


def no_memory(lines):
    one(lines, "f0")["cold"] = []
    return lines


def no_reference(lines):
    return [x for x in lines if not (x["component"] == "network" and x["backend"] == "torch_cpu")]


def checked(**fields):
    """One judged figure with other fields."""

    def change(lines):
        one(lines)["parity"]["limits"]["salience_max_abs"].update(fields)
        return lines

    return change


def an_unknown_figure_fails(lines):
    check = {"value": 9e9, "limit": 1e-5, "base": 1e-5, "floor": None, "passed": False, "of": "x"}
    one(lines)["parity"]["limits"]["other_max_abs"] = check
    return lines


def cold_figures(**fields):
    def change(lines):
        for cold in one(lines, "f0")["cold"]:
            cold.update(fields)
        return lines

    return change


def other_launches_than_the_reference(lines):
    for line in lines:
        if line["component"] == "network" and line["backend"] == "torch_cpu":
            if line["kind"] == "sample":
                line["launch"] = min(line["launch"], 2)
            else:
                line["launches"] = [min(n, 2) for n in line["launches"]]
    return lines


def from_another_run(lines):
    one(lines)["run"] = "other-run"
    return lines


def sample_twice(lines):
    again = one(lines, kind="sample")
    return [again | {"seconds": 5.0}, *lines]


def closed_twice(lines):
    return [*lines, one(lines) | {"status": "passed"}]


def another_workload(lines):
    one(lines)["workload"]["samples"] = 160
    return lines


MUTATIONS = {
    "a figure that did not pass, of a record that did": (checked(passed=False), {"invalid"}),
    "a limit below the value": (checked(limit=1e-9, base=1e-9), {"invalid"}),
    "a floor without end": (checked(floor="inf", value=1e6, limit=1e9), {"less accurate", "failed"}),
    "a negative error": (checked(value=-5), {"invalid"}),
    "a figure that is text": (checked(value="abc"), {"invalid"}),
    "a figure that only this run has fails": (an_unknown_figure_fails, {"invalid"}),
    "most calls slow": (most_calls_slow, {"slower"}),
    "memory below its start": (cold_figures(peak_rss_call_bytes=1), {"invalid"}),
    "memory that is no number": (cold_figures(peak_rss_call_bytes="nan"), {"invalid"}),
    "other launches than the reference": (other_launches_than_the_reference, {"invalid"}),
    "a record of another run": (from_another_run, {"invalid"}),
    "a sample twice": (sample_twice, {"invalid"}),
    "closed twice": (closed_twice, {"invalid"}),
    "another workload": (another_workload, {"not comparable"}),
    "other threads in a record": (edited(threads=64), {"invalid"}),
    "another BLAS in a record": (edited(blas="bundled"), {"invalid"}),
    "launches out of order": (edited(launches=["a"] * 80), {"invalid"}),
    "samples that are text": (edited(samples_s="fast"), {"invalid"}),
    "case renamed": (renamed, {"unfinished"}),
    "record removed": (without_record, {"unfinished"}),
    "record's samples removed": (without_samples, {"invalid"}),
    "samples cut": (samples_cut, {"invalid"}),
    "samples made up": (made_up_samples, {"invalid"}),
    "NaN among the samples": (nan_sample, {"invalid"}),
    "a sample of no time": (zero_sample, {"invalid"}),
    "NaN in parity": (nan_parity, {"failed"}),
    "parity not measured": (no_parity, {"missing"}),
    "parity far worse, limits still met": (far_worse_parity, {"less accurate"}),
    "failed": (edited(status="failed", reason="salience_max_abs 1 (limit 1e-5)"), {"failed"}),
    "crashed": (edited(status="error", reason="killed"), {"error"}),
    "not comparable": (edited(status="not_comparable", reason="shapes"), {"error"}),
    "skipped": (edited(status="skipped", reason="no such device"), {"invalid", "missing"}),
    "an unknown status": (edited(status="fine"), {"invalid"}),
    "wrong device label": (edited(device="cuda"), {"invalid"}),
    "another precision in one record": (edited(precision="tf32"), {"invalid"}),
    "another profile in one record": (edited(profile="webui"), {"invalid"}),
    "another suite's record": (edited(suite="hubert"), {"invalid"}),
    "load inside the timer": (load_in_the_timer, {"slower"}),
    "output not evaluated": (returns_before_it_computed, {"implausible"}),
    "the reference loads inside the timer": (slow_reference, {"slower", "implausible"}),
    "no reference beside it": (no_reference, {"unfinished", "missing"}),
    "more memory": (more_memory, {"bigger"}),
    "memory not measured": (no_memory, {"missing"}),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_no_mutation_passes(baseline, tmp_path, name):
    change, expected = MUTATIONS[name]
    outcome = judged(baseline, tmp_path, seed=2, change=change)
    assert outcome.exit_code != PASSED
    assert {v.kind for v in outcome.red} & expected


ELSEWHERE = {
    "another BLAS": (
        {"backends": ENVIRONMENT["backends"] | {OURS: {"blas": "reference BLAS bundled with MLX"}}},
        "blas",
    ),
    "other threads": ({"threads": 1}, "threads"),
    "another kind of machine": ({"machine": "arm64"}, "machine"),
    "another system": ({"os": "Darwin 24"}, "system"),
    "other weights": ({"weights": {"rmvpe": {"label": "x", "sha256": "cd" * 32}}}, "weights"),
    "another audio": ({"audio_sha256": "ef"}, "audio"),
    "another GPU": (
        {"backends": ENVIRONMENT["backends"] | {OURS: {"blas": "libmkl_rt.so.2", "gpu_name": "H200"}}},
        "gpu",
    ),
    "a backend is missing": ({"backends": {"torch_cpu": ENVIRONMENT["backends"]["torch_cpu"]}}, OURS),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_another_setting_is_not_comparable(baseline, tmp_path, name):
    environment, word = ELSEWHERE[name]
    outcome = judged(baseline, tmp_path, seed=2, environment=environment)
    assert outcome.exit_code == UNJUDGED
    assert kinds(outcome) == {"not comparable"}
    assert any(word in v.text for v in outcome.verdicts)


def test_another_policy_of_precision_is_not_comparable(baseline, tmp_path):
    assert kinds(judged(baseline, tmp_path, precision="tf32")) == {"not comparable"}


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_never_passes(baseline, tmp_path, share):
    path = make_run(tmp_path / "run", seed=2) / "records.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    outcome = judge(baseline, baseline_of([tmp_path / "run"]), POLICY)
    assert "unfinished" in kinds(outcome)
    assert outcome.exit_code == UNJUDGED


def of_another_case(status):
    """A case that the baseline does not have."""

    def change(lines):
        more = [dict(x, case="synthetic-9s") for x in lines if x["case"] == "synthetic-1s" and x["component"] == "mel"]
        for line in more:
            if line["kind"] == "record" and line["backend"] == OURS:
                line["status"] = status
        return lines + more

    return change


@pytest.mark.parametrize("status", ["failed", "error"])
def test_a_new_case_that_did_not_pass_does_not_pass(baseline, tmp_path, status):
    assert judged(baseline, tmp_path, seed=2, change=of_another_case(status)).exit_code != PASSED


def test_a_backend_that_could_not_start_does_not_pass(baseline, tmp_path):
    def change(lines):
        broken = {k: one(lines)[k] for k in ("schema", "kind", "run", "suite", "precision", "profile")}
        whole = {"case": "all", "component": "all", "backend": "mlx_gpu", "device": "gpu"}
        return [*lines, broken | whole | {"status": "error", "reason": "cannot be started"}]

    outcome = judged(baseline, tmp_path, seed=2, change=change)
    assert outcome.exit_code == UNJUDGED
    assert any("cannot be started" in v.text for v in outcome.red)


DAMAGED = {
    "config.yaml": ["", "suite: rmvpe", "a: [", "\x00", "suite: {name: rmvpe}\nmeasure: null\n"],
    "plan.json": ["[]", "{}", '{"keys": [["a", "b"]], "backends": []}', "{"],
    "environment.json": ["{}", "[]", '{"backends": {"tpu": {}}}', "[" * 100_000],
    "records.jsonl": [
        '{"schema": 2}\n',
        '{"schema": 2, "kind": "record"}\n',
        "[]\n",
        '{"schema": null, "kind": "x"}\n',
    ],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, found in DAMAGED.items() for text in found])
def test_a_damaged_run_is_one_line_or_red(baseline, tmp_path, name, text):
    folder = make_run(tmp_path / "run")
    (folder / name).write_text(text)
    try:
        outcome = judge(baseline, baseline_of([folder]), POLICY)
    except UserError:
        return
    assert outcome.exit_code != PASSED


def test_a_fault_of_one_of_several_runs_is_not_lost(baseline, tmp_path):
    good = make_run(tmp_path / "a", seed=2)
    bad = make_run(tmp_path / "b", seed=3, change=nan_parity)
    assert judge(baseline, baseline_of([good, bad]), POLICY).exit_code != PASSED
    none = make_run(tmp_path / "c", seed=3, change=no_parity)
    assert judge(baseline, baseline_of([good, none]), POLICY).exit_code != PASSED
