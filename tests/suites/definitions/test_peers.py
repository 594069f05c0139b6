"""Several implementations in one table: time, speed-up, memory and parity of each."""

from __future__ import annotations

import pytest
from command import suites

from suites.base.records import read_lines, records

ADAPTER = """
import numpy as np

class Adapter:
    def describe(self):
        return {"name": "silent", "version": 1, "components": {"rmvpe": ["network"]}}

    def load(self, model, paths, options):
        pass

    def call(self, component, inputs):
        return np.zeros((1, inputs["mel"].shape[-1], 360), np.float32)
"""


@pytest.mark.usefixtures("quick")
def test_memory_stands_beside_time_and_parity(tmp_path):
    (tmp_path / "silent.py").write_text(ADAPTER)
    words = ["measure=smoke", "durations=[0.2]", "measure.warmup_seconds=0", "measure.rounds={min: 1, max: 1}"]
    port = [f"+backends.mine.adapter={tmp_path}/silent.py:Adapter", "backends=[torch_cpu,mlx_cpu,mine]"]
    done = suites("run", "peers", *words, *port, f"out={tmp_path / 'r'}")
    assert done.returncode == 1  # zeros are no salience
    lines = [line for line in records(read_lines(tmp_path / "r" / "records.jsonl")) if "workload" in line]
    ours = {(name, side) for name in ("rmvpe", "hubert", "vocoder", "pipeline") for side in ("torch_cpu", "mlx_cpu")}
    assert {(line["component"], line["backend"]) for line in lines if line["cold"]} == ours | {("rmvpe", "mine")}
    for line in lines:
        for found in line["cold"]:
            assert found["peak_rss_bytes"] > found["base_rss_bytes"] > 0
            assert found["first_call_s"] > 0
    text = (tmp_path / "r" / "report.md").read_text()
    header = next(row for row in text.splitlines() if row.startswith("| case | component | backend |"))
    assert [cell.strip() for cell in header.split("|")[4:7]] == ["time ms", "speed-up", "memory MiB"]
    row = next(row for row in text.splitlines() if "| rmvpe | mine (silent 1) |" in row)
    assert int(row.split("|")[6]) > 100
