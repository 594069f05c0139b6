"""What MLX keeps of freed memory, on a made allocator: it keeps a buffer for every size that it has seen."""

from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvc_mlx import buffers
from rvc_mlx.buffers import SHARE, SLACK_BYTES, Buffers, on_device

MIB = 2**20


class Owner:
    pass


class Allocator:
    """Stands in for ``mx``. ``run`` is a call that needs one buffer of each size."""

    def __init__(self) -> None:
        self.kept: dict[int, int] = {}
        self.cleared = 0

    def get_cache_memory(self) -> int:
        return sum(self.kept.values())

    def clear_cache(self) -> None:
        self.kept, self.cleared = {}, self.cleared + 1

    def stream(self, device: object) -> nullcontext[None]:
        return nullcontext()

    def run(self, *sizes: int) -> None:
        self.kept |= {size: size for size in sizes}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    allocator = Allocator()
    monkeypatch.setattr(buffers, "mx", allocator)
    monkeypatch.setattr(buffers, "_buffers", Buffers())
    return allocator


def call(made: Allocator, owner: Owner, name: str, *sizes: int) -> None:
    with on_device(None, owner, name):
        made.run(*sizes)


def test_calls_of_equal_sizes_keep_their_buffers(made: Allocator) -> None:
    first, second = Owner(), Owner()
    for _ in range(50):
        call(made, first, "f0", 300 * MIB, 20 * MIB)
        call(made, second, "features", 100 * MIB)
        call(made, second, "infer", 250 * MIB)
    assert made.cleared == 0


def test_many_lengths_do_not_fill_the_device(made: Allocator) -> None:
    owner = Owner()
    call(made, owner, "infer", 400 * MIB)
    for length in range(100, 300):
        call(made, owner, "infer", length * MIB)
        assert made.get_cache_memory() <= SHARE * 400 * MIB + SLACK_BYTES
    assert made.cleared > 10


def test_a_longer_input_is_learned(made: Allocator) -> None:
    owner = Owner()
    for _ in range(10):
        call(made, owner, "infer", 100 * MIB)
    for _ in range(10):
        call(made, owner, "infer", 900 * MIB)
    assert made.cleared == 1
    assert made.get_cache_memory() == 900 * MIB


def test_an_owner_that_is_gone_needs_nothing(made: Allocator) -> None:
    gone, here = Owner(), Owner()
    call(made, gone, "infer", 900 * MIB)
    del gone
    call(made, here, "infer", 50 * MIB)
    call(made, here, "infer", 50 * MIB)
    assert made.cleared == 1


def test_outputs_that_are_freed_later_are_counted(made: Allocator) -> None:
    owner = Owner()
    with on_device(None, owner, "work") as outlive:
        made.run(10 * MIB)
        outlive.append(200 * MIB)
    made.run(200 * MIB)  # freed between two calls
    call(made, owner, "work", 10 * MIB)
    assert made.cleared == 0


def test_a_call_that_fails_leaves_no_note(made: Allocator) -> None:

    def fail() -> None:
        made.run(5 * MIB)
        raise ValueError("no sound")

    with pytest.raises(ValueError, match="no sound"), on_device(None, Owner(), "infer"):
        fail()
    assert not buffers._buffers.needs


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 500)), max_size=80))
def test_never_more_than_all_calls_have_needed(calls: list[tuple[str, int]]) -> None:
    allocator, owner = Allocator(), Owner()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffers, "mx", allocator)
        patch.setattr(buffers, "_buffers", Buffers())
        largest: dict[str, int] = {}
        for name, size in calls:
            call(allocator, owner, name, size * MIB)
            largest[name] = max(largest.get(name, 0), size * MIB)
            assert allocator.get_cache_memory() <= SHARE * sum(largest.values()) + SLACK_BYTES
