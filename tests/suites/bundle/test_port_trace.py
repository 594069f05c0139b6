"""A port that an adapter connects is traced by its stages: on its own values, and again from the reference's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from command import suites

from suites.bundle.port import PortTrace

PAGE = (Path(__file__).parents[3] / "docs" / "ports.md").read_text()
MEL = re.search(r"^```python\n# file: my_mel.py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1]
ADAPTER = (
    MEL.replace('{"rmvpe": ["mel"]}', '{"rmvpe": ["mel", "f0"]}').replace(
        "def load(self, model, paths, options):",
        "def load(self, model, paths, options):\n        self.fault = options.get('fault')",
    )
    + """
    def stages(self, component, inputs):
        if self.fault == "raise":
            raise RuntimeError("no stages today")
        mel = self.call("mel", inputs)
        self.mel = mel + 0.5 if self.fault == "mel" else mel
        yield "their_mel", self.mel
        extra = -self.mel.shape[1] % 32
        padded = np.pad(self.mel, ((0, 0), (0, extra)), mode="constant" if self.fault == "padding" else "reflect")
        yield "padded_log_mel", padded

    def restart(self, name, array):
        if name == "their_mel":
            self.mel = array
"""
)


@pytest.fixture
def words(tmp_path, quick):
    (tmp_path / "my_port.py").write_text(ADAPTER)
    (tmp_path / "names").write_text("their_mel: mel\n")
    found = ["trace", "rmvpe", "measure=smoke", "durations=[0.5]", "backends=[torch_cpu,mine]"]
    found += [f"+backends.mine.adapter={tmp_path}/my_port.py:Adapter", f"+backends.mine.stages={tmp_path}/names"]
    return [*found, f"out={tmp_path / 'r'}"]


@pytest.fixture
def walked(bundle, monkeypatch):
    """The reference has walked already, and its values are in the bundle that the tests of this folder share."""
    monkeypatch.setattr(PortTrace, "execute", lambda self, folder: shutil.copytree(bundle, folder, dirs_exist_ok=True))


def test_a_right_port_has_no_stage_at_fault(words, tmp_path):
    done = suites(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No stage at fault" in done.stdout
    assert (tmp_path / "r" / "report.html").exists()


@pytest.mark.usefixtures("walked")
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [("mel", "First stage at fault: mel: "), ("padding", "First stage at fault: padded_log_mel: ")],
)
def test_a_fault_is_placed(words, fault, sentence):
    done = suites(*words, f"+backends.mine.fault={fault}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert sentence in done.stdout


@pytest.mark.usefixtures("walked")
def test_what_the_adapter_raises_is_told(words):
    done = suites(*words, "+backends.mine.fault=raise")
    assert done.returncode == 2
    assert "error: probe clip: the adapter raises RuntimeError: no stages today" in done.stderr
    assert "its adapter yields nothing that could be judged" in done.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["backends=[mlx_cpu,mine]"], "a port is traced beside one backend of PyTorch, such as torch_cpu"),
        (["+backends.mine.python=/nowhere"], "backends.mine.python=/nowhere: no such file"),
    ],
)
def test_what_cannot_be_traced_is_told_before_any_work(words, more, message):
    done = suites(*words, *more)
    assert done.returncode == 2
    assert message in done.stderr


def test_an_adapter_without_stages_is_told(words, tmp_path):
    (tmp_path / "my_port.py").write_text(MEL)
    done = suites(*words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: backend mine: its adapter yields no stages() of rmvpe; run judges it call by call"
    )


def test_the_figure_of_a_dump_does_not_call_accumulated_errors_local():
    from reports.figures.trace_plot import _top_title, _word
    from suites.trace.findings import CONFIGURED, DUMPED
    from suites.trace.walk import INHERITED

    assert _top_title({(DUMPED, "clip"): {}}).endswith("else accumulated")
    assert _top_title({(CONFIGURED, "clip"): {}}) == "local error: added by the part itself"
    assert _word(DUMPED, INHERITED) != _word(CONFIGURED, INHERITED)
