"""A run's result for programs, from records alone."""

from __future__ import annotations

import made_runs
import pytest

from reports.data.result import result


def failing(lines):
    """One figure is beyond its limit."""
    for line in lines:
        if line["kind"] == "record" and (line["component"], line["backend"]) == ("network", "mlx_cpu"):
            line["parity"]["limits"]["salience_max_abs"] |= {"value": 3e-5, "passed": False}
            line |= {"status": "failed", "reason": "salience_max_abs 3e-05 (limit 1e-05)"}
    return lines


def test_what_a_script_needs(tmp_path):
    found = result(made_runs.make_run(tmp_path / "run", change=failing))
    assert (found["suite"], found["verdict"]) == ("rmvpe", "failed")
    assert found["counts"] == {"passed": 14, "measured": 16}
    rows = {(one["case"], one["component"], one["backend"]): one for one in found["components"]}
    assert len(rows) == 16
    whole = rows["synthetic-2s", "f0", "mlx_cpu"]
    assert whole["speedup"]["low"] <= whole["speedup"]["value"] <= whole["speedup"]["high"]
    assert whole["speedup"]["value"] == pytest.approx(1 / 1.5, rel=0.05)
    assert whole["speedup"]["reference"] == "torch_cpu"
    assert rows["synthetic-2s", "f0", "torch_cpu"]["speedup"] is None
    assert rows["synthetic-2s", "mel", "mlx_cpu"]["worst_parity"] is None
    figure = {"figure": "salience_max_abs", "value": 3e-5, "limit": 1e-5, "passed": False}
    assert rows["synthetic-1s", "network", "mlx_cpu"]["worst_parity"] == figure
    assert [one["component"] for one in found["failures"]] == ["network", "network"]
    assert found["failures"][0]["reason"] == "salience_max_abs 3e-05 (limit 1e-05)"


def test_what_is_missing(tmp_path):
    found = result(made_runs.make_run(tmp_path / "run", change=lambda lines: lines[:-1]))
    assert found["verdict"] == "incomplete"
    assert found["missing"] == [{"case": "synthetic-2s", "component": "f0", "backend": "mlx_cpu"}]
