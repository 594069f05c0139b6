"""A walk by the clock, and the work of its stages against what can be worked out by hand."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rvc_common.stages import group, leaf, walk
from suites.child.adapters.torch import TorchAdapter
from suites.child.profiled import recorded, rows_of, walked, worked

FLOAT = 4
CPU = TorchAdapter("cpu")
LAYER = nn.Linear(6, 8, bias=False)


def slow(x):
    time.sleep(0.02)
    return x


STAGES = (group("a", (leaf("fc", LAYER), leaf(":kept", lambda x: x, keep="kept"))), leaf("act", torch.relu))
STAGES = (*STAGES, leaf("slow", slow))


def begin():
    return walk(STAGES, {"x": torch.ones(5, 6)})


def test_a_walk_times_every_stage_in_order():
    found = walked(CPU, begin, None, {})["stages"]
    assert [path for path, *_ in found] == ["a.fc", "a:kept", "a", "act", "slow"]
    assert found[-1][2] >= 0.02 > found[-2][2]
    ends = [start + seconds for _, start, seconds in found]
    assert [start for _, start, _ in found[1:]] == pytest.approx(ends[:-1])


@torch.no_grad()
def test_the_work_of_stages():
    """Weights, inputs and results once; what a group passes on inside itself, and views, not at all."""
    fc, act, nothing = worked(CPU, begin, None, {"until": ["a.fc", "act", "slow"]})["work"]
    assert fc == {"flops": 2 * 5 * 6 * 8, "bytes": FLOAT * (5 * 6 + 6 * 8 + 5 * 8)}
    assert act == {"flops": 5 * 8, "bytes": 2 * FLOAT * 5 * 8}
    assert nothing == {"flops": 0, "bytes": 0}
    assert worked(CPU, begin, None, {"until": ["act"]})["work"] == [
        {"flops": fc["flops"] + act["flops"], "bytes": FLOAT * (5 * 6 + 6 * 8 + 2 * 5 * 8)}  # the kept one is left too
    ]


def test_each_byte_once_however_often_it_is_read():
    x, y = torch.ones(100), torch.ones(1).expand(100)
    assert CPU.work(lambda: [x * x + x])["bytes"] == 2 * 100 * FLOAT
    assert CPU.work(lambda: [x + y])["bytes"] == (100 + 1 + 100) * FLOAT
    assert CPU.work(lambda: [x.add_(1)])["bytes"] == 2 * 100 * FLOAT
    assert CPU.work(lambda: [x[:50], x.view(10, 10)])["bytes"] == 0


def test_mlx_waits_for_every_value():
    mx = pytest.importorskip("mlx.core")
    from suites.child.adapters.mlx import MlxAdapter

    MlxAdapter("cpu").settle([None, "text", mx.ones(3) + 1, [mx.ones(2) * 2, mx.ones(1)]])


def event(name: str, device: str, start: float, end: float) -> SimpleNamespace:
    kind = getattr(torch.autograd.DeviceType, device)
    return SimpleNamespace(name=name, device_type=kind, time_range=SimpleNamespace(start=start, end=end))


def test_recorded_events_of_the_device_alone_in_order():
    events = [event("b", "CUDA", 20, 25), event("host", "CPU", 0, 50), event("a", "CUDA", 10, 12)]
    assert rows_of(events) == [("a", 10, 2), ("b", 20, 5)]


def test_without_cuda_no_kernels():
    assert recorded(CPU, begin, lambda: pytest.fail("it was called"), {}) == {"kernels": None}
