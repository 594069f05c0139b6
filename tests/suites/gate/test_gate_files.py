"""Baselines as files, and the commands that judge runs."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
import yaml
from gated import (
    OURS,
    POLICY,
    edited,
    judged,
    one,
)
from made_runs import make_run

from reports.render import gate as texts
from suites.__main__ import main
from suites.base.errors import UserError
from suites.gate.baseline import baseline_of
from suites.gate.judge import PASSED, judge, read_policy
from suites.gate.stored import read_baseline, write_baseline


def in_chaos(text):
    def change(lines):
        one(lines).update({"reason": text, "status": "failed"})
        return lines

    return change


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
    code = main(["gate", str(bad), "--baseline", base, "--junit", str(junit), "--json-file", str(told), "--github"])
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


def test_annotations_are_one_line_each(baseline, tmp_path):
    outcome = judged(baseline, tmp_path, change=edited(status="failed", reason="a\nb, 5 %"))
    lines = texts.workflow_commands(outcome)
    assert lines
    assert all("\n" not in line for line in lines)
    assert "%0A" in "".join(lines)
