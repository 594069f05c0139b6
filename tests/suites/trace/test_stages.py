"""What a profile makes of times, work, peaks and recorded kernels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from suites.trace import stages
from suites.trace.stages import Row, advice, busy_s, chrome_trace, common, kernels, kind_of, merged, rows, together

# of a model with two layers and a result; on the other side the first layer is one stage, named by its end
FINE = [("a.0.conv", 0.0, 3.0), ("a.0.relu", 3.0, 1.0), ("a.0", 4.0, 0.25), ("a.1.conv", 4.25, 2.0), ("a.1", 6.25, 0.5)]
FINE += [("out", 6.75, 1.0), ("all", 7.75, 0.125)]
FUSED = [("a.0.relu", 0.0, 2.0), ("a.0", 2.0, 0.25), ("a.1.conv", 2.25, 5.0), ("a.1", 7.25, 0.0), ("out", 7.25, 1.0)]
PEAKS = {"matmul_flops_per_s": 100.0, "copy_bytes_per_s": 10.0}


def test_stages_that_one_side_computes_together_are_one():
    until = common([[path for path, *_ in walk] for walk in (FINE, FUSED)])
    assert until == ["a.0.relu", "a.1.conv", "out"]
    assert merged(FINE, until) == [4.0, 2.25, 1.625]
    assert merged(FUSED, until) == [2.0, 5.25, 1.0]


def test_nothing_of_a_walk_is_lost():
    for walk in (FINE, FUSED):
        assert sum(merged(walk, ["a.0.relu", "out"])) == sum(seconds for *_, seconds in walk)


def made(*work: tuple[int | None, int | None], seconds: float = 2.0) -> dict:
    found = [
        {"path": f"layers.{i}.conv", "flops": flops, "bytes": moved, "seconds": {"mlx_cpu": [9.0, seconds, 1.0]}}
        for i, (flops, moved) in enumerate(work)
    ]
    other = {"matmul_flops_per_s": 50.0, "copy_bytes_per_s": 20.0}
    return {
        "peaks": {"mlx_cpu": PEAKS, "torch_cpu": other, "torch_cuda": {**PEAKS, "copy_bytes_per_s": 1e6}},
        "stages": found,
    }


def test_the_roof_is_the_best_of_the_same_kind_of_device():
    compute, memory, unknown = rows(made((100, 2), (1, 30), (None, None)), "mlx_cpu")
    assert (compute.seconds, compute.fastest_s) == (2.0, 1.0)
    assert (compute.roof_s, compute.share, compute.rate(compute.flops)) == (1.0, 0.5, 50.0)
    assert (memory.roof_s, memory.excess_s) == (1.5, 0.5)
    assert (unknown.roof_s, unknown.share, unknown.rate(unknown.bytes), unknown.excess_s) == (None, None, None, 2.0)


def test_sums_leave_out_what_is_not_counted():
    whole = together(rows(made((100, 2), (None, None)), "mlx_cpu"), "whole")
    assert (whole.path, whole.seconds, whole.flops, whole.bytes, whole.roof_s) == ("whole", 4.0, 100, 2, 1.0)
    assert together(rows(made((None, None)), "mlx_cpu")).flops is None


# ---------------------------------------------------------------------- what to work on
def row(path: str, seconds: float, roof_s: float | None) -> Row:
    return Row(path, "mlx_cpu", seconds, seconds, 1, 1, roof_s)


def test_the_slowest_stage_may_be_right():
    """What counts is the time above the roofline."""
    found = advice([row("big", 5.0, 4.9), row("bad", 1.0, 0.1)])
    assert found == "mlx_cpu: work next on `bad`: 1 s, 17 % of all stages; the roofline explains 100 ms of it."


def test_many_small_stages_of_a_kind_go_before_one():
    layers = [row(f"layers.{i}.act", 0.1 + 0.01 * i, 0.01) for i in range(8)]
    found = advice([row("one", 0.6, 0.1), *layers])
    assert "`layers.*.act`, 8 stages, the worst of them `layers.7.act`: 1.08 s, 64 % of all" in found


def test_one_among_its_kind_is_named_alone():
    found = advice([row("fc.0", 0.5, 0.1), row("fc.1", 0.2, 0.1)])
    assert "work next on `fc.0`: 500 ms" in found
    assert kind_of("dec.resblocks.11.convs2.1:sum") == "dec.resblocks.*.convs2.*:sum"


def test_what_is_not_counted_is_said():
    assert advice([row("numpy", 0.5, None)]).endswith("100 % of all stages; its work is not counted.")


# ---------------------------------------------------------------------- kernels
EVENTS = [["gemm", 10.0, 5.0], ["copy", 12.0, 6.0], ["gemm", 30.0, 10.0], ["copy", 31.0, 2.0]]


def test_kernels_by_name_the_longest_first():
    assert [(one.name, one.calls, round(1e6 * one.seconds)) for one in kernels(EVENTS)] == [
        ("gemm", 2, 15),
        ("copy", 2, 8),
    ]


def test_overlapping_kernels_keep_the_device_busy_once():
    assert busy_s(EVENTS) == pytest.approx(18e-6)
    assert busy_s([]) == 0


def test_recorded_kernels_of_a_call():
    """Two convolutions and a GRU in PyTorch 2.11 on an H200, with the copies to and from the device."""
    events = json.loads((Path(__file__).parents[2] / "fixtures" / "kernels.json").read_text())
    found = kernels(events)
    assert found[0].name.startswith("void RNN_blockPersist_fp_GRU")
    assert {one.name.split()[0] for one in found} >= {"Memcpy", "void"}
    assert sum(one.calls for one in found) == len(events)
    assert busy_s(events) == pytest.approx(sum(one.seconds for one in found)) == pytest.approx(84e-6, rel=0.01)


def test_a_trace_has_stages_and_kernels_in_microseconds():
    found = chrome_trace({"a": {"walk": FUSED, "kernels": None}, "b": {"walk": FUSED, "kernels": EVENTS}})[
        "traceEvents"
    ]
    spans = [one for one in found if one["ph"] == "X"]
    assert [one["name"] for one in spans if one["pid"] == 1] == ["a.0.relu", "a.1.conv", "out"]
    assert (spans[1]["ts"], spans[1]["dur"]) == (2.25e6, 5e6)
    assert [one["ts"] for one in spans if one["pid"] == 2 and one["tid"] == 2] == [0.0, 2.0, 20.0, 21.0]
    assert {one["args"]["name"] for one in found if one["ph"] == "M"} >= {"a", "b", "kernels of the whole call"}


def test_seconds_in_their_unit():
    assert [stages.in_units(one) for one in (0.00123, 0.9994, 0.9999, 12.3)] == ["1.23 ms", "999 ms", "1 s", "12.3 s"]
