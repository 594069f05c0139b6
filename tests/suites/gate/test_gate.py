"""Gates: what nothing changed passes, what is worse is called by its name, and no broken run ever passes."""

from __future__ import annotations

import json
import math
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import ENVIRONMENT, make_run

from reports.render import gate as texts
from suites.__main__ import main
from suites.base.errors import UserError
from suites.gate.baseline import Sheet, baseline_of, read_baseline, write_baseline
from suites.gate.judge import FAILED, MEANING, PASSED, UNJUDGED, confirmed, judge, read_policy

POLICY = read_policy("default")
OURS = "mlx_cpu"


@pytest.fixture(scope="module")
def baseline(tmp_path_factory) -> Sheet:
    return baseline_of([make_run(tmp_path_factory.mktemp("base") / "run", seed=1)])


def judged(baseline: Sheet, folder, **options):
    return judge(baseline, baseline_of([make_run(folder / "run", **options)]), POLICY)


def kinds(outcome) -> set[str]:
    return {v.kind for v in outcome.verdicts}


# ---------------------------------------------------------------------- verdicts
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


# ---------------------------------------------------------------------- what must never pass
def records_of(lines):
    return [line for line in lines if line["kind"] == "record"]


def one(lines, component="network", backend=OURS, kind="record"):
    return next(x for x in lines if (x["kind"], x["component"], x["backend"]) == (kind, component, backend))


def edited(**fields):
    """One record with other fields."""

    def change(lines):
        one(lines).update(fields)
        return lines

    return change


def renamed(lines):
    for line in lines:
        if line["component"] == "network":
            line["case"] += "-new"
    return lines


def without_record(lines):
    gone = one(lines)
    return [line for line in lines if line is not gone]


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


def nan_parity(lines):
    one(lines)["parity"]["limits"]["salience_max_abs"]["value"] = "nan"
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


def no_parity(lines):
    one(lines)["parity"] = None
    return lines


def more_memory(lines):
    for cold in one(lines, "f0")["cold"]:
        cold["peak_rss_call_bytes"] += 2**28
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


def in_chaos(text):
    def change(lines):
        one(lines).update({"reason": text, "status": "failed"})
        return lines

    return change


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
def of_noise(rng: np.random.Generator, sizes: np.ndarray, launches: int, sd: float) -> list[list[float]]:
    """Per component the launches' slowness; one launch in twenty is disturbed by something else."""
    noise = sd * rng.standard_normal((len(sizes), launches))
    noise += 0.3 * rng.standard_normal((len(sizes), launches)) * (rng.random((len(sizes), launches)) < 0.05)
    return (sizes[:, None] + noise).tolist()


def made_sheet(baseline: Sheet, slowness: list[list[float]]) -> Sheet:
    entry = next(e for e in baseline.entries.values() if e.slowness is not None)
    entries = {
        ("case", f"c{i}", OURS): entry._replace(slowness=logs, seconds=[0.01] * len(logs), memory={}, parity={})
        for i, logs in enumerate(slowness)
    }
    return baseline._replace(entries=entries)


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


# ---------------------------------------------------------------------- files
def test_a_baseline_is_what_was_written(baseline, tmp_path):
    write_baseline(baseline, tmp_path / "b.json")
    stored = read_baseline(tmp_path / "b.json")
    assert stored.entries.keys() == baseline.entries.keys()
    assert judge(stored, baseline, POLICY).exit_code == PASSED
    before = (tmp_path / "b.json").read_bytes()
    write_baseline(stored._replace(name="x"), tmp_path / "b.json")
    assert (tmp_path / "b.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "baseline"}', '{"kind": "record", "schema": 1}'])
def test_a_damaged_baseline(tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(UserError, match="not a baseline, or damaged"):
        read_baseline(tmp_path / "b.json")


def test_a_newer_baseline(baseline, tmp_path):
    write_baseline(baseline, tmp_path / "b.json")
    stored = json.loads((tmp_path / "b.json").read_text())
    (tmp_path / "b.json").write_text(json.dumps(stored | {"schema": 99}))
    with pytest.raises(UserError, match="newer than this program"):
        read_baseline(tmp_path / "b.json")


def test_no_baseline_of_a_failed_run(tmp_path):
    folder = make_run(tmp_path / "run", change=edited(status="failed", reason="off"))
    with pytest.raises(UserError, match="no baseline is made of a run that did not pass"):
        write_baseline(baseline_of([folder]), tmp_path / "b.json")


def test_several_runs_are_one(tmp_path):
    folders = [make_run(tmp_path / str(i), seed=i) for i in range(2)]
    joined = baseline_of(folders)
    key = ("synthetic-1s", "f0", OURS)
    assert len(joined.entries[key].slowness) == 16
    other = make_run(tmp_path / "other", environment={"threads": 1})
    with pytest.raises(UserError, match="cannot be put together: threads"):
        baseline_of([*folders, other])


# ---------------------------------------------------------------------- the command
def test_no_baseline_that_judges_nothing(tmp_path, capsys):
    few = make_run(tmp_path / "few", launches=2)
    assert main(["gate", str(few), "--baseline", str(tmp_path / "b.json"), "--update"]) == 2
    assert "error: no baseline: too few" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


def test_a_repeated_run_is_in_a_folder_of_its_own(tmp_path, monkeypatch):
    """What ``--confirm`` runs: the suite with the overrides that the run was given, beside it."""
    from suites.commands import gate

    folder, begun = make_run(tmp_path / "run"), []

    class Begun:
        def __init__(self, config):
            self.folder = begun.append(config) or config.out

        def execute(self):
            return None

    stored = yaml.safe_load((folder / "config.yaml").read_text()) | {"overrides": ["measure=smoke", f"out={folder}"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(stored))
    (tmp_path / "run-again").mkdir()
    monkeypatch.setattr(gate, "open_run", Begun)
    assert gate.repeated(folder) == str(tmp_path / "run-again-2")
    assert begun[0].measure.name == "smoke"
    with pytest.raises(UserError, match="only a run can be repeated"):
        gate.repeated(tmp_path / "bench.json")


def test_gate_command(tmp_path, capsys):
    good, bad = make_run(tmp_path / "good", 1), make_run(tmp_path / "bad", 2, {("f0", OURS): 1.4})
    base = str(tmp_path / "base.json")
    assert main(["gate", str(good), "--baseline", base]) == 2
    assert "to make it: python -m suites gate RUN" in capsys.readouterr().err
    assert main(["gate", str(good), "--baseline", base, "--update"]) == 0
    assert "would show slowdowns of" in capsys.readouterr().out
    assert main(["gate", str(make_run(tmp_path / "again", 3)), "--baseline", base]) == 0
    junit, told = tmp_path / "out" / "j.xml", tmp_path / "out" / "g.json"
    code = main(["gate", str(bad), "--baseline", base, "--junit", str(junit), "--json", str(told), "--github"])
    out = capsys.readouterr().out
    assert code == 1
    assert "::error title=slower%3A" in out or "::error title=slower" in out
    root = ElementTree.parse(junit).getroot()
    assert int(root.attrib["failures"]) == len(root.findall(".//failure")) == 2
    found = json.loads(told.read_text())
    assert found["exit_code"] == 1
    assert sum(g["kind"] == "slower" for g in found["gates"]) == 2


def test_the_step_summary_is_appended_to(tmp_path, monkeypatch, capsys):
    runner = make_run(tmp_path / "run", 1)
    main(["gate", str(runner), "--baseline", str(tmp_path / "b.json"), "--update"])
    (tmp_path / "summary.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert main(["gate", str(runner), "--baseline", str(tmp_path / "b.json")]) == 0
    text = (tmp_path / "summary.md").read_text()
    assert text.startswith("before\n## Gate of rmvpe: passed")


def test_compare_command(tmp_path, capsys):
    one, other = make_run(tmp_path / "a", 1), make_run(tmp_path / "b", 2, {("f0", OURS): 1.4})
    assert main(["compare", str(one), str(other)]) == 0
    assert "slower" in capsys.readouterr().out
    strange = make_run(tmp_path / "c", environment={"threads": 1})
    assert main(["compare", str(one), str(strange)]) == 2


@pytest.mark.parametrize("words", [["/nowhere"], ["/tmp"]])
def test_what_is_no_run(tmp_path, capsys, words):
    assert main(["gate", *words, "--baseline", str(tmp_path / "b.json")]) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_an_unknown_policy(tmp_path, capsys):
    runner = make_run(tmp_path / "run")
    assert main(["gate", str(runner), "--baseline", "b.json", "--policy", "defalt"]) == 2
    assert "did you mean 'default'" in capsys.readouterr().err


def test_a_policy_that_lacks_something(tmp_path, monkeypatch):
    from suites.gate import judge as judge_module

    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / "default.yaml").write_text(yaml.safe_dump(dict(POLICY)))
    mine = {k: v for k, v in POLICY.items() if k != "memory"}
    (tmp_path / "gate" / "mine.yaml").write_text(yaml.safe_dump(mine))
    monkeypatch.setattr(judge_module, "CONF", tmp_path)
    with pytest.raises(UserError, match="memory is missing"):
        read_policy("mine")


@pytest.mark.parametrize("text", ["a\nb", "::stop-commands::x\n::add-mask::y", "\x1b[2J", "\ud800", "<b>|</b>"])
def test_no_text_of_a_run_is_interpreted(baseline, tmp_path, text):
    outcome = judged(baseline, tmp_path, change=in_chaos(text))
    told = texts.terminal(outcome)
    assert not any(line.startswith("::") for line in told.splitlines())
    assert "\x1b" not in told
    told.encode()
    ElementTree.fromstring(texts.junit(outcome, "x").split("?>", 1)[1])
    table = [line for line in texts.markdown(outcome, "x").splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(texts.shown(outcome, False))
    json.loads(texts.as_json(outcome, "a", "b"))


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "fast", None, -1.0])
def test_a_baseline_of_no_numbers(baseline, tmp_path, value):
    write_baseline(baseline, tmp_path / "b.json")
    stored = json.loads((tmp_path / "b.json").read_text())
    stored["entries"][0]["seconds"][0] = value
    (tmp_path / "b.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="not a baseline, or damaged"):
        read_baseline(tmp_path / "b.json")


def test_a_run_is_not_given_twice(tmp_path):
    folder = make_run(tmp_path / "run")
    with pytest.raises(UserError, match="given twice"):
        baseline_of([folder, folder])


def test_a_fault_of_one_of_several_runs_is_not_lost(baseline, tmp_path):
    good = make_run(tmp_path / "a", seed=2)
    bad = make_run(tmp_path / "b", seed=3, change=nan_parity)
    assert judge(baseline, baseline_of([good, bad]), POLICY).exit_code != PASSED
    none = make_run(tmp_path / "c", seed=3, change=no_parity)
    assert judge(baseline, baseline_of([good, none]), POLICY).exit_code != PASSED


def test_annotations_are_one_line_each(baseline, tmp_path):
    outcome = judged(baseline, tmp_path, change=edited(status="failed", reason="a\nb, 5 %"))
    lines = texts.workflow_commands(outcome)
    assert lines
    assert all("\n" not in line for line in lines)
    assert "%0A" in "".join(lines)
