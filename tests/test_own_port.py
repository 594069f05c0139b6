"""A port of somebody else's, from docs/ports.md and on the command line: measured, judged, and alone in its faults."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from command import suites
from quick_runs import Inside

from suites.base.records import read_lines, records
from suites.measure import session
from suites.measure.launch import Worker

PAGE = (Path(__file__).parents[1] / "docs" / "ports.md").read_text()
ADAPTER = re.search(r"^```python\n# file: my_mel.py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
QUICK = ["measure=smoke", "durations=[0.5]", "suite.speech_clip=false", "threads=1"]
QUICK += ["measure.launches={min: 1, max: 1}", "measure.rounds={min: 2, max: 2}", "measure.warmup_seconds=0"]
QUICK += ["measure.first_calls=0"]
OURS = """
import numpy as np

import reference_torch


class Adapter:
    def describe(self):
        return {"components": {"synthesizer": ["source", "infer"]}}

    def load(self, model, paths, options):
        self.fault = options.get("fault")
        self.model = reference_torch.Synthesizer.from_checkpoint(paths["voice"], profile=options["profile"])

    def call(self, component, inputs):
        def draw(index, kind, shape):
            return inputs["noise"][index]

        if component == "source":
            return self.model.source(inputs["f0"], draw)
        if self.fault:
            raise RuntimeError(self.fault)
        names = ("phone", "lengths", "pitch", "f0", "speaker")
        return self.model.infer(*(inputs[name] for name in names), draw)
"""


def closed(folder: Path, backend: str) -> dict[str, dict]:
    lines = records(read_lines(folder / "records.jsonl"))
    return {line["component"]: line for line in lines if line["backend"] == backend}


def test_the_page_makes_a_backend_in_forty_lines(quick, tmp_path, monkeypatch):
    """With a process of its own, in an interpreter that is named."""
    real = {"mine": Worker}
    monkeypatch.setattr(session, "Worker", lambda name, *given: real.get(name, Inside)(name, *given))
    assert ADAPTER is not None
    text = ADAPTER[1]
    assert len(text.splitlines()) <= 40
    (tmp_path / "my_mel.py").write_text(text)
    port = [f"+backends.mine.adapter={tmp_path}/my_mel.py:Adapter", f"+backends.mine.python={sys.executable}"]
    done = suites("run", "rmvpe", *QUICK, "backends=[torch_cpu,mine]", *port, f"out={tmp_path / 'r'}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = closed(tmp_path / "r", "mine")
    assert found["mel"]["status"] == "passed"
    assert found["mel"]["parity"]["max_abs"] > 0
    assert {name: one["status"] for name, one in found.items() if name != "mel"} == dict.fromkeys(
        ("network", "decode", "f0"), "skipped"
    )
    assert "my-mel 0.1" in (tmp_path / "r" / "report.md").read_text()


def test_noise_and_faults(quick, tmp_path):
    """Handed the same noise a port is equal to the reference; what it raises costs its own cases."""
    (tmp_path / "ours.py").write_text(OURS)
    port = [f"+backends.{name}.adapter={tmp_path}/ours.py:Adapter" for name in ("mine", "broken")]
    words = ["backends=[torch_cpu,mine,broken]", *port, "+backends.broken.fault=out of luck", f"out={tmp_path / 'r'}"]
    done = suites("run", "synthesizer", *(word for word in QUICK if "speech" not in word), *words)
    assert done.returncode == 2, done.stdout + done.stderr
    found = closed(tmp_path / "r", "mine")
    assert {name: found[name]["status"] for name in ("source", "infer")} == {"source": "passed", "infer": "passed"}
    assert found["infer"]["parity"]["max_abs"] < 1e-5
    assert closed(tmp_path / "r", "broken")["infer"]["reason"] == "RuntimeError: out of luck"
    assert all(line["status"] == "passed" for line in closed(tmp_path / "r", "torch_cpu").values())


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ("not_there:Adapter", "backend mine: cannot be started: ModuleNotFoundError: No module named 'not_there'"),
        ("numpy:Adapter", "backend mine: cannot be started: AdapterError: numpy has no class Adapter"),
    ],
)
def test_an_adapter_that_cannot_be_had_is_told_before_any_work(quick, tmp_path, adapter, message):
    words = [f"+backends.mine.adapter={adapter}", "backends=[torch_cpu,mine]", f"out={tmp_path / 'r'}"]
    done = suites("run", "rmvpe", *QUICK, *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: {message}"
    assert not np.any([*tmp_path.glob("r/records*")])
