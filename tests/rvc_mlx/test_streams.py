"""Halves of the work on two CPU streams: the same results, in order, with half of the BLAS's threads meanwhile."""

import numpy as np
import pytest
from small_models import hubert

from rvc_mlx import hubert as code
from rvc_mlx import optimize, streams
from rvc_mlx.runtime import mx


@pytest.fixture
def threads(monkeypatch):
    """The number of a made BLAS's threads, and what it was set to."""
    seen = {"now": 6, "set": []}

    def change(count: int) -> None:
        seen["now"] = count
        seen["set"].append(count)

    monkeypatch.setattr(streams, "_threads", lambda: (change, seen["now"]))
    return seen


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_results_come_in_order_and_the_threads_come_back(count, threads):
    made = []

    def work(number: int) -> dict[str, mx.array]:
        made.append(threads["now"])
        return {"x": mx.full((3,), number) * 2}

    found = streams.in_turns([lambda i=i: work(i) for i in range(count)])
    assert [one["x"].tolist() for one in found] == [[2 * i] * 3 for i in range(count)]
    assert made == [3] * count
    assert threads["now"] == 6


def test_threads_are_halved_once(threads):
    with streams.half_the_threads(), streams.half_the_threads():
        assert threads["now"] == 3
    assert threads["set"] == [3, 6]


def test_a_fault_is_the_callers_and_the_threads_come_back(threads):
    def fail() -> mx.array:
        raise ValueError("no sound")

    with pytest.raises(ValueError, match="no sound"):
        streams.in_turns([lambda: mx.ones(2), fail, lambda: mx.ones(2)])
    assert threads["now"] == 6
    assert streams.in_turns([lambda: mx.ones(2)])[0].tolist() == [1, 1]


@pytest.mark.parametrize(("found", "there"), [(None, False), ((print, 1), False), ((print, 2), True)])
def test_one_thread_cannot_be_halved(found, there, monkeypatch):
    monkeypatch.setattr(streams, "_threads", lambda: found)
    assert streams.are_available() is there


def test_the_blas_of_this_process_tells_its_threads():
    change, count = streams._threads()
    change(max(1, count))
    assert count >= 1


def test_their_threads_never_end():
    """MLX aborts a process in which a thread ends that has used a CPU stream."""
    streams.in_turns([lambda: mx.ones(2)])
    assert all(worker.thread.daemon and worker.thread.is_alive() for worker in streams._workers())


@pytest.mark.parametrize("samples", [400, 720, 9000, 9320])
def test_hubert_in_halves_computes_the_same(samples, threads, monkeypatch):
    """Of one frame, two, an even and an odd number. Values are up to 3, and a product of one row rounds differently."""
    monkeypatch.setattr(code, "SHORTEST_FRAMES", 2)
    audio = (0.1 * np.random.default_rng(0).standard_normal((2, samples))).astype(np.float32)
    rest = [name for name in optimize.OPTIMIZATIONS if name != "two_streams"]
    halved = hubert("rvc_mlx", optimize=[*rest, "two_streams"])
    assert "two_streams" in halved.optimize
    assert np.abs(halved.features(audio) - hubert("rvc_mlx", optimize=rest).features(audio)).max() < 1e-5
