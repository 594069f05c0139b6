"""The memory limit while calls run, on a made MLX."""

import threading
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvc_mlx import buffers
from rvc_mlx.buffers import CALL_BYTES, bounded
from rvc_mlx.held import Held
from rvc_mlx.runtime import mx

GPU = "a GPU"  # no device of this machine's MLX need be one
USUAL = 95 * 2**30


class Made:
    """Stands in for ``mx``."""

    cpu = mx.cpu
    Device = mx.Device

    def __init__(self) -> None:
        self.limit, self.active = USUAL, 2**30

    def get_active_memory(self) -> int:
        return self.active

    def set_memory_limit(self, limit: int) -> int:
        self.limit, before = limit, self.limit
        return before

    def stream(self, device: object) -> nullcontext[None]:
        return nullcontext()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    stand_in = Made()
    monkeypatch.setattr(buffers, "mx", stand_in)
    monkeypatch.setattr(buffers, "_limit", Held(buffers._lower))
    return stand_in


def test_a_call_is_bounded_and_the_limit_is_the_users_again(made: Made) -> None:
    with bounded(GPU):
        assert made.limit == 2**30 + CALL_BYTES
        made.active += CALL_BYTES
        with bounded(GPU):  # a call inside takes no more
            assert made.limit == 2**30 + CALL_BYTES
        assert made.limit == 2**30 + CALL_BYTES
    assert made.limit == USUAL


def test_a_users_smaller_limit_stays(made: Made) -> None:
    made.limit = 2**30
    with bounded(GPU):
        assert made.limit == 2**30
    assert made.limit == 2**30


def test_a_call_that_fails_leaves_the_limit(made: Made) -> None:
    with pytest.raises(ValueError, match="no sound"), bounded(GPU):
        raise ValueError("no sound")
    assert made.limit == USUAL


def test_a_cpu_needs_no_limit(made: Made) -> None:
    with bounded(mx.Device(mx.cpu)):
        assert made.limit == USUAL


@given(st.lists(st.booleans(), max_size=12))
def test_calls_of_several_threads(starts: list[bool]) -> None:
    """In whatever order calls begin and end, the last one restores the limit."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in, running = Made(), []
        patch.setattr(buffers, "mx", stand_in)
        patch.setattr(buffers, "_limit", Held(buffers._lower))
        for start in starts:
            if start or not running:
                call = bounded(GPU)
                thread = threading.Thread(target=call.__enter__)
                thread.start()
                thread.join()
                running.append(call)
            else:
                running.pop(0).__exit__(None, None, None)
            assert stand_in.limit == (2**30 + CALL_BYTES if running else USUAL)
        for call in running:
            call.__exit__(None, None, None)
        assert stand_in.limit == USUAL
