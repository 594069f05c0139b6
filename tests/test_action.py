"""action.yml: what its steps do, run as GitHub would; and the workflows of docs/ci.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step.get("id", step["name"]): step for step in ACTION["runs"]["steps"]}
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/ci.md").read_text(), re.MULTILINE | re.DOTALL)


def measured(tmp_path: Path, **given: str) -> tuple[subprocess.CompletedProcess[str], Path, str]:
    """The step as bash runs it; the report's folder, and the step summary."""
    files = {name: tmp_path / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    own = {"COMMAND": "run", "BASELINE": "", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment = os.environ | own | {name: str(path) for name, path in files.items()} | given
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS["measure"]["run"]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=200)
    folder = Path(re.search("folder=(.*)", files["GITHUB_OUTPUT"].read_text())[1])
    summary = files["GITHUB_STEP_SUMMARY"]
    return done, folder, summary.read_text() if summary.exists() else ""


def test_a_run_is_kept_and_summed_up(tmp_path):
    words = "rmvpe\nmeasure=smoke\ndurations=[0.5]\n\nbackends=[mlx_cpu]\nsuite.speech_clip=false\n"
    words += "measure.first_calls=0\nmeasure.warmup_seconds=0\n"
    done, folder, summary = measured(tmp_path, ARGUMENTS=words)
    assert done.returncode == 0, done.stderr
    assert (folder / "report.html").exists()
    assert "**Passed**" in summary


def test_an_error_is_the_exit_code(tmp_path):
    done, folder, summary = measured(tmp_path, ARGUMENTS="rmvpe\nno_such_word=1\n")
    assert done.returncode == 2
    assert "error: unknown override 'no_such_word'" in done.stderr
    assert summary == ""
    assert not folder.exists()


def test_every_input_is_declared_and_reaches_a_step_through_the_environment():
    """A value in the text of a script would be run as part of it."""
    used = set(re.findall(r"inputs\.(\w+)", (ROOT / "action.yml").read_text()))
    assert used == set(ACTION["inputs"])
    for step in STEPS.values():
        assert "${{" not in step.get("run", "")


@pytest.mark.parametrize("block", BLOCKS)
def test_the_workflows_are_yaml_and_give_the_action_what_it_takes(block):
    found = yaml.safe_load(block)
    steps = found if isinstance(found, list) else found.get("jobs", {}).get("parity", {}).get("steps", [])
    for step in steps:
        if step.get("uses", "").startswith("OWNER/"):
            assert set(step["with"]) <= set(ACTION["inputs"])


def test_the_first_workflow_has_fifteen_lines_of_its_own():
    lines = [line for line in BLOCKS[0].splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 18
