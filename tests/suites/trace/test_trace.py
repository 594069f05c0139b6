"""The trace on small models made here: what it must find, and what must never pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvc_common.stages import Carry, Stage, group, leaf, walk
from suites.base.lines import Stage as Row
from suites.child.walks import ReferenceWalk, TracedWalk
from suites.definitions.base import Probe
from suites.measure.launch import WorkerError
from suites.metrics.audio import compare_audio
from suites.metrics.floors import Tolerances
from suites.metrics.parity import figures
from suites.trace.findings import first_fault, lost_at
from suites.trace.walk import CALL, FAULT, OK, REFERENCE_WRONG, WHOLE, Pair, ProbeTrace

IDENTITY = {"suite": "none", "backend": "mlx_cpu", "reference": "torch_cpu", "precision": "fp32", "profile": "applio"}
Change = Callable[[tuple[Stage, ...]], tuple[Stage, ...]]
INPUT = np.random.default_rng(3).standard_normal((1, 6, 40)).astype(np.float32)


def residual(carry: Carry) -> None:
    carry["kept"] = carry["x"]


def add(carry: Carry) -> None:
    carry["x"] = carry["x"] + carry.pop("kept")


def count(carry: Carry) -> None:
    carry["codes"] = np.arange(5)


STAGES = (
    leaf("a", lambda x: x * x.dtype.type(1.1)),
    group("b", (Stage("0", residual, product="kept"), leaf("1", np.tanh), Stage("2", add))),
    Stage("codes", count, product="codes"),
    leaf("c", lambda x: x + x.dtype.type(0.3)),
)


class Local(Pair):
    """Both sides in this process; they speak as workers do."""

    def __init__(self, other: tuple[Stage, ...], reference: tuple[Stage, ...] = STAGES, call: Any = None) -> None:
        super().__init__("reference", "other", 1.0, IDENTITY, sample_rate=16000)  # type: ignore[arg-type]
        self.stages = {"reference": reference, "other": other}
        self.walks: dict[str, Any] = {}
        self.call = call

    def begin(self, side: str, dtype: Any = np.float32) -> Any:
        return walk(self.stages[side], {"x": INPUT.astype(dtype)})

    def ask(self, worker: Any, do: str, **arguments: Any) -> dict[str, Any]:
        try:
            return getattr(self, do)(worker, **arguments) or {}
        except Exception as error:
            raise WorkerError(type(error).__name__, str(error)) from None

    def prepare(self, worker: str, inputs: Any) -> None:
        pass

    def trace_open(self, worker: str, reference: bool, **_: Any) -> None:
        if reference:
            exact = [self.begin(worker, np.float64) for _ in range(2)]
            self.walks[worker] = ReferenceWalk(self.begin(worker), *exact)
        else:
            self.walks[worker] = TracedWalk(self.begin(worker), self.begin(worker), 16000)

    def trace_next(self, worker: str, **arguments: Any) -> dict[str, Any]:
        if worker == "other":
            return self.walks[worker].advance()
        return self.walks[worker].advance(arguments["until"], arguments["leaf"], Path(arguments["folder"]))

    def trace_entry(self, worker: str, name: str, folder: str) -> dict[str, Any]:
        return {"entry": self.walks[worker].entry(name, Path(folder))}

    def trace_judge(self, worker: str, entries: Any, limits: Any) -> dict[str, Any]:
        return self.walks[worker].judge(entries, limits)

    def trace_again(self, worker: str, until: str, entry: str, **_: Any) -> dict[str, Any]:
        return {"again": TracedWalk(self.begin(worker), self.begin(worker)).again(until, entry)}

    def trace_call(self, worker: str, pieces: bool, keep: str = "", against: str = "", **_: Any) -> dict[str, Any]:
        if pieces:
            return {"added": None}
        *_, last = self.begin(worker)
        result = last.carry["x"] if self.call is None or keep else self.call(last.carry["x"])
        if keep:
            np.save(keep, result)
            return {}
        if against:
            return {"added": figures(result, np.load(against))}
        return {"added": self.walks[worker].whole(result)}


def rows_of(
    other: tuple[Stage, ...], reference: tuple[Stage, ...] = STAGES, call: Any = None, **options: bool
) -> list[Row]:
    pair = Local(other, reference, call)
    return list(ProbeTrace(pair, Probe("p", {"x": INPUT}, **options), "v", Tolerances("none", {})).rows())


@pytest.mark.parametrize(
    ("chained", "right", "times", "status"),
    [(0.0, True, 0.9, OK), (0.0, True, 1.5, FAULT), (1.0, True, 1.5, OK), (1.0, True, 2.5, FAULT),
     (1.0, False, 1.5, FAULT), (3.0, True, 5.5, OK), (1e9, True, 7.5, OK), (1e9, True, 9.0, FAULT)],
)  # fmt: skip
def test_a_call_may_be_as_far_from_its_stages_as_twice_what_both_sides_are_apart(chained, right, times, status):
    """All in shares of the limit that rounding gives; and never farther than eight times that."""
    tolerances = Tolerances("none", {})
    last = rows_of(STAGES)[-2]
    entry = {"exact": False, "rms": last.rms, "peak": last.peak, "unit": 2.0**-24, "floor_added": last.floor_chained}
    limit = tolerances.limits(WHOLE, last.entry, entry)
    last.chained = {metric: chained * bound for metric, bound in limit.items()}

    class Fixed(Local):
        def ask(self, worker, do, **_):
            assert do == "trace_call"
            return {"added": {metric: times * bound for metric, bound in limit.items()}}

    one = ProbeTrace(Fixed(STAGES), Probe("p", {"x": INPUT}), "v", tolerances)
    one.right = right
    assert [row.status for row in one._whole(last, WHOLE)] == [status]


def after(path: str, function: Callable[[Any], Any], entry: str = "x") -> tuple[Stage, ...]:
    """The stages with one changed: ``function`` of what it makes."""

    def changed(stage: Stage, rest: list[str]) -> Stage:
        if stage.name != rest[0]:
            return stage
        if len(rest) > 1:
            return group(stage.name, tuple(changed(part, rest[1:]) for part in stage.parts))

        def apply(carry: Carry) -> None:
            stage.apply(carry)
            carry[entry] = function(carry[entry])

        return stage._replace(apply=apply)

    return tuple(changed(stage, path.split(".")) for stage in STAGES)


def fault_of(rows: list[Row]) -> Row:
    found = first_fault(map(msgspec.to_builtins, rows))
    assert found is not None
    return next(row for row in rows if msgspec.to_builtins(row) == found)


# ---------------------------------------------------------------------- right pairs
def test_equal_sides_are_clean():
    rows = rows_of(STAGES)
    assert {row.path for row in rows} == {"a", "b.0", "b.1", "b.2", "codes", "c", WHOLE}
    assert all(row.status == OK for row in rows)
    assert all(row.added["max_abs"] == 0 for row in rows)


def test_a_call_that_agrees_is_not_walked():
    rows = rows_of(STAGES, walked=False)
    assert [(row.path, row.status, row.added["max_abs"]) for row in rows] == [(CALL, OK, 0)]
    assert rows[0].shape == list(INPUT.shape)
    nearly = rows_of(after("c", lambda x: x * np.float32(1 + 5e-6)), walked=False)
    assert [row.path for row in nearly] == [CALL]


def test_a_call_that_differs_is_walked_and_the_stages_decide():
    fault = fault_of(rows_of(after("b.1", lambda x: x * np.float32(1.01)), walked=False))
    assert fault.path == "b.1"
    # of a call that is wrong beside its stages, as of any other; and of one that raises
    assert fault_of(rows_of(STAGES, call=lambda x: x * 1.1, walked=False)).path == WHOLE

    def refuse(x: Any) -> Any:
        raise ValueError("no")

    assert "raises no" in fault_of(rows_of(STAGES, call=refuse, walked=False)).added["reason"]


def test_a_step_of_16_bit_audio_is_rounding():
    codes = (Stage("x", lambda carry: carry.update(x=np.arange(2000, dtype=np.int16))),)
    moved = (Stage("x", lambda carry: carry.update(x=np.arange(2000, dtype=np.int16) + (np.arange(2000) == 7))),)
    assert [row.path for row in rows_of(moved, codes, walked=False)] == [CALL]
    down = (Stage("x", lambda carry: carry.update(x=np.arange(2000, dtype=np.int16) - 1)),)
    assert fault_of(rows_of(down, codes, walked=False)).path == "x"


def test_rounding_is_no_fault():
    """Another order of the same operations in float32."""
    other = (leaf("a", lambda x: (x * np.float32(11)) / np.float32(10)), *STAGES[1:])
    rows = rows_of(other)
    assert any(row.added["max_abs"] > 0 for row in rows)
    assert first_fault(map(msgspec.to_builtins, rows)) is None


def test_merged_stages_are_one():
    """A side that computes a whole group at once is compared where the group ends."""
    whole = leaf("b", lambda x: x + np.tanh(x))
    rows = rows_of((STAGES[0], whole, *STAGES[2:]))
    assert [row.path for row in rows] == ["a", "b", "codes", "c", WHOLE]
    assert first_fault(map(msgspec.to_builtins, rows)) is None


# ---------------------------------------------------------------------- faults
@pytest.mark.parametrize("path", ["a", "b.1", "b.2", "c"])
def test_the_first_wrong_stage_is_named_and_the_rest_inherits(path):
    rows = rows_of(after(path, lambda x: x * np.float32(1.01)))
    assert [row.path for row in rows if row.status == FAULT] == [path]
    found = fault_of(rows)
    assert found.where is not None
    assert found.where["kind"] == "gain"
    behind = rows[rows.index(found) + 1 :]
    floats = [row for row in behind if not row.exact and row.path != WHOLE]
    assert all(row.chained["max_abs"] > 100 * row.limit["max_abs"] for row in floats if row.entry == "x")
    assert all(row.added["max_abs"] <= row.limit["max_abs"] for row in floats)


def test_a_side_value_is_judged_too():
    found = fault_of(rows_of(after("b.0", lambda x: x + np.float32(1e-3), "kept")))
    assert (found.path, found.entry) == ("b.0", "kept")


def test_a_value_that_the_reference_leaves_alone_is_judged_too():
    """The wrong stage changes an entry that the right one does not touch."""

    def apply(carry: Carry) -> None:
        carry["x"] = np.tanh(carry["x"])
        carry["kept"] = carry["kept"] * np.float32(2)

    other = (STAGES[0], group("b", (STAGES[1].parts[0], Stage("1", apply), STAGES[1].parts[2])), *STAGES[2:])
    found = fault_of(rows_of(other))
    assert (found.path, found.entry) == ("b.1", "kept")


def holes(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(x: np.ndarray) -> np.ndarray:
        y = x.copy()
        y[0, 2, 7] = value
        return y

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails_on_either_side(value):
    bad = after("b.1", holes(value))
    ours = fault_of(rows_of(bad))
    assert (ours.path, ours.where and ours.where["kind"]) == ("b.1", "not finite")
    for other in (STAGES, bad):  # a reference that is not finite is wrong, and ends the walk
        rows = rows_of(other, reference=bad)
        assert [(row.path, row.status) for row in rows if row.status != OK] == [("b.1", REFERENCE_WRONG)]
        assert "NaN or infinite" in rows[-1].added["reason"]
        assert lost_at(map(msgspec.to_builtins, rows)) == "b.1"


@pytest.mark.parametrize("change", [lambda x: x[..., :-1], lambda x: x.transpose(0, 2, 1), lambda x: x[0]])
def test_another_shape_fails(change):
    found = fault_of(rows_of(after("b.1", change)[:2], reference=STAGES[:2]))
    assert found.path == "b.1"
    assert "shapes differ" in found.added["reason"]


def test_a_missing_stage_fails():
    assert fault_of(rows_of((STAGES[0], *STAGES[2:]))).path == "b.0"
    short = (STAGES[0], group("b", STAGES[1].parts[:2]), *STAGES[2:])
    found = fault_of(rows_of(short))
    assert (found.path, found.added["reason"]) == ("b.2", "this stage is missing")
    assert fault_of(rows_of(STAGES[:-1])).path == "c"


def test_a_stage_that_only_one_side_has_fails():
    found = fault_of(rows_of((*STAGES[:2], leaf("more", lambda x: x), *STAGES[2:])))
    assert (found.path, found.added["reason"]) == ("more", "the reference has no such stage")


def test_a_missing_value_fails():
    other = (*STAGES[:2], Stage("codes", lambda carry: None, product="x"), *STAGES[3:])
    found = fault_of(rows_of(other))
    assert (found.path, found.entry) == ("codes", "codes")


def test_comparing_nothing_fails():
    empty = after("a", lambda x: x[..., :0])[:1]
    assert "empty" in fault_of(rows_of(empty, reference=empty)).added["reason"]


def test_a_trace_of_nothing_is_no_pass():
    assert rows_of((), reference=()) == []  # and a report of no rows is refused: test_trace of reports


def test_whole_numbers_must_be_equal():
    other = (*STAGES[:2], Stage("codes", lambda c: c.update(codes=np.arange(5) + (np.arange(5) == 3)), product="codes"))
    found = fault_of(rows_of(other, reference=STAGES[:3]))
    assert found.path == "codes"
    assert found.limit == {"rmse": 0.0, "max_abs": 0.0}


def test_a_stage_that_raises_is_named():
    def broken(x: np.ndarray) -> np.ndarray:
        raise ValueError("no such axis")

    other = (STAGES[0], group("b", (STAGES[1].parts[0], leaf("1", broken))), *STAGES[2:])
    found = fault_of(rows_of(other))
    assert found.path == "b.1"
    assert "no such axis" in found.added["reason"]


def test_a_reference_that_raises_is_no_pass():
    def broken(x: np.ndarray) -> np.ndarray:
        raise ValueError("not here")

    found = fault_of(rows_of(STAGES, reference=(STAGES[0], leaf("b", broken))))
    assert "the reference itself raises" in found.added["reason"]


def test_own_values_that_lead_another_way_end_the_chain_only():
    """A stage that only fails on the wrong values of the one before it."""

    def picky(carry: Carry) -> None:
        if np.abs(carry["x"] - carry["kept"]).max() > 50:
            raise ValueError("far too loud")
        add(carry)

    stages = after("b.1", lambda x: x * np.float32(100))
    other = (STAGES[0], group("b", (*stages[1].parts[:2], Stage("2", picky))), *STAGES[2:])
    rows = rows_of(other)
    assert fault_of(rows).path == "b.1"
    last = next(row for row in rows if row.path == "c")
    assert "far too loud" in last.chained["reason"]
    assert last.status == OK


class Tagged(np.ndarray):
    """Carries something that no comparison sees, and that is gone where the reference's value takes its place."""

    tag = np.float32(0)


def tagged(x: np.ndarray) -> np.ndarray:
    found = x.view(Tagged)
    found.tag = np.float32(0.5)
    return found


def test_what_passes_beside_the_values_is_told_from_what_is_kept_between_calls():
    reads = leaf("c", lambda x: np.asarray(x + x.dtype.type(0.3) + getattr(x, "tag", np.float32(0))))
    stages = (STAGES[0], leaf("b", lambda x: x), reads)
    reference = (*stages[:2], STAGES[-1])
    passed = (stages[0]._replace(apply=after("a", tagged)[0].apply), *stages[1:])
    found = fault_of(rows_of(passed, reference))
    assert (found.path, found.where["kind"]) == ("c", "hidden")
    assert "passes to it from a stage before, beside the values" in found.where["sentence"]

    calls = iter(range(100))
    kept = leaf("c", lambda x: x + x.dtype.type(0.3 if next(calls) % 2 == 0 else 0.31))
    found = fault_of(rows_of((*stages[:2], kept), reference))
    assert (found.path, found.where["kind"], found.where["facts"]["kept"]) == ("c", "hidden", True)
    assert "called again on the same values it gives others (by 0.01)" in found.where["sentence"]
    assert "passes to it" not in found.where["sentence"]


def without_the_end(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x[..., :-3], x[..., -3:] * 0], axis=-1)


def test_the_call_beside_its_own_stages():
    found = fault_of(rows_of(STAGES, call=without_the_end))
    assert found.path == WHOLE


def to_int16(x: np.ndarray) -> np.ndarray:
    return np.clip(x * 4096, -32768, 32767).astype(np.int16)


SIGNAL = np.random.default_rng(4).standard_normal((1, 20000)).astype(np.float32)


def in_16_bits(call: Callable[[np.ndarray], np.ndarray], offset: float = 0.0) -> Row:
    """The row of a call whose stages round as values of the size of ``offset`` do, and then convert to 16 bits."""

    def rounded(x: np.ndarray) -> np.ndarray:
        by = x.dtype.type(offset)
        return (SIGNAL.astype(x.dtype) + by) - by

    stages = (leaf("rounded", rounded), leaf("int16", to_int16))
    return next(row for row in rows_of(stages, reference=stages, call=call) if row.path == WHOLE)


def rounded_otherwise(offset: float, seed: int = 0) -> np.ndarray:
    """16-bit values of a call whose own rounding error is up to twice that of its stages."""
    error = np.random.default_rng(seed).uniform(-1, 1, SIGNAL.shape) * np.spacing(np.float32(offset))
    return to_int16(SIGNAL.astype(np.float64) + error)


@settings(max_examples=25, deadline=None)
@given(exponent=st.floats(0, 5), seed=st.integers(0, 10**6))
def test_rounding_before_16_bits_is_no_fault(exponent, seed):
    row = in_16_bits(lambda x: rounded_otherwise(10**exponent, seed), 10**exponent)
    assert row.status == OK, (row.added, row.limit)


def test_16_bits_differ_where_their_input_is_rounded():
    row = in_16_bits(lambda x: rounded_otherwise(2000.0), 2000.0)
    assert row.added["max_abs"] == 1
    assert 0 < row.added["rmse"] < row.limit["rmse"] < 3


def test_the_level_of_16_bit_values_does_not_overflow():
    level = np.sqrt(np.mean(np.square(to_int16(SIGNAL), dtype=np.float64)))
    assert in_16_bits(lambda x: x).rms == pytest.approx(level)


def one_step_off(count: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: x + (np.arange(x.size) < count).astype(np.int16)


@pytest.mark.parametrize("offset", [0.0, 2000.0])
@pytest.mark.parametrize("change", [without_the_end, lambda x: np.roll(x, 1, axis=-1), lambda x: x // 2])
def test_a_call_that_ends_in_16_bits_can_be_at_fault(change, offset):
    assert in_16_bits(change, offset).status == FAULT


def test_where_no_value_of_the_reference_moves_a_few_steps_are_rounding():
    assert in_16_bits(one_step_off(8)).status == OK
    assert in_16_bits(one_step_off(10)).status == FAULT


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), half_db=st.sampled_from([0.5, -0.5]), frame=st.sampled_from([160, 400, 480, -160]))
def test_half_a_decibel_and_a_frame_are_always_caught(seed, half_db, frame):
    """Correlation sees neither; the limits do, and the figures for people name them."""
    from suites.inputs.voice import synthesize

    audio = synthesize(0.6, seed % 50).audio[None]
    for change in (lambda x: x * np.float32(10 ** (half_db / 20)), lambda x: np.roll(x, frame, axis=-1)):
        right = (leaf("tanh", lambda x: audio.astype(x.dtype)),)
        wrong = (leaf("tanh", lambda x, change=change: change(audio).astype(x.dtype)),)
        assert fault_of(rows_of(wrong, reference=right)).path == "tanh"
    louder = compare_audio(audio[0] * np.float32(10 ** (half_db / 20)), audio[0], 16000)
    assert louder["level_db"] == pytest.approx(half_db, abs=0.01)
    assert louder["corr"] > 0.999999
