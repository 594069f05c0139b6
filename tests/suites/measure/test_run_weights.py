"""Which checkpoints a run loads: in fewer bits, and refusals."""

from __future__ import annotations

import json

from command import suites as run_suites
from quick_runs import figures, workers_inside

from rvc_common.checkpoint import read_metadata
from suites.base.records import read_lines, records
from suites.measure.config import compose_config
from suites.measure.run_weights import weights_of

TINY = "measure=smoke"


def test_fewer_bits_of_one_model(tmp_path):
    cache = f"paths.cache={tmp_path}"
    whole = weights_of(compose_config("ablation", [TINY, cache]))
    found = weights_of(compose_config("ablation", [TINY, cache, "quantize.hubert=6", "quantize.group=32"]))
    assert {name: found[name] == whole[name] for name in whole} == {"rmvpe": True, "hubert": False, "voice": True}
    assert found["hubert"].label == f"{whole['hubert'].label}, in 6 bits"
    about = json.loads(read_metadata(found["hubert"].path)["quantization"])
    assert (about["bits"], about["group"]) == (6, 32)
    assert found["hubert"].path.stat().st_size < 0.3 * whole["hubert"].path.stat().st_size


def test_the_included_network_is_the_pitch_model_too(tmp_path):
    found = weights_of(compose_config("rmvpe", [TINY, f"paths.cache={tmp_path}", "quantize.rmvpe=8"]))
    assert {name: one.label.endswith("in 8 bits") for name, one in found.items()} == {"rmvpe": True, "pitch": True}


def test_both_sides_are_equal_on_such_weights(tmp_path):
    words = [TINY, "durations=[0.3]", "suite.speech_clip=false", "measure.first_calls=0", "measure.warmup_seconds=0"]
    words += ["backends=[torch_cpu,mlx_cpu]", "threads=1", "quantize.hubert=4", f"out={tmp_path}/run"]
    with workers_inside(), figures():
        done = run_suites("run", "hubert", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    closed = [r for r in records(read_lines(tmp_path / "run" / "records.jsonl")) if "workload" in r]
    assert {r["status"] for r in closed} == {"passed"}
    assert all("in 4 bits" in r["workload"]["weights"] for r in closed)


def test_other_numbers_of_bits_are_refused():
    done = run_suites("plan", "hubert", "quantize.hubert=5")
    assert (done.returncode, done.stderr) == (2, "error: quantize.hubert=5: 4, 6, 8 or null is expected\n")
