"""PyTorch itself can be wrong: a trace finds that by the reference's own float64, and does not blame the other side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
import small_models
import torch
from test_trace import Local

from rvc_common import stages
from suites.base.lines import Stage as Row
from suites.child.walks import ReferenceWalk, TracedWalk, operations
from suites.definitions.base import Probe
from suites.inputs.voice import synthesize
from suites.metrics.floors import REFERENCE_FACTOR, Tolerances
from suites.trace import findings
from suites.trace.walk import FAULT, OK, REFERENCE_WRONG, ProbeTrace

TRANSPOSED = "unet.decoder.layers.0.conv1.0"
# a convolution among the first stages, and its norm: where what comes behind does not matter, walks end there
EARLY, NEXT = (f"unet.encoder.layers.0.conv.0.conv.{i}" for i in (3, 4))
AUDIO = synthesize(0.2, 3).audio
# a model of its own, whose layers may be changed
changeable = small_models.rmvpe.__wrapped__


class Models(Local):
    """Real models in this process, walked to their end or through the stage ``last``."""

    def __init__(self, reference: Any, exact: Any, other: Any, last: str = "") -> None:
        super().__init__(())
        self.models, self.last = {"reference": reference, "exact": exact, "other": other}, last

    def begin(self, side: str, dtype: Any = np.float32) -> Iterator[Any]:
        for event in self.models["exact" if dtype == np.float64 else side].walk(AUDIO):
            yield event
            if event.whole_path == self.last:
                return

    def trace_open(self, worker: str, reference: bool, **_: Any) -> None:
        if reference:
            exact = [self.begin(worker, np.float64) for _ in range(2)]
            layers = operations([self.models["reference"]])
            self.walks[worker] = ReferenceWalk(self.begin(worker), *exact, operation=layers)
        else:
            self.walks[worker] = TracedWalk(self.begin(worker), self.begin(worker))

    def trace_call(self, worker: str, **_: Any) -> dict[str, Any]:
        return {"added": None}


def traced(reference: Any, other: Any = None, last: str = "") -> list[Row]:
    exact = small_models.rmvpe("reference_torch", dtype="float64")
    pair = Models(reference, exact, other or small_models.rmvpe("plain"), last)
    probe = Probe("clip", {"audio": AUDIO})
    rows = ProbeTrace(pair, probe, findings.CONFIGURED, Tolerances.of("rmvpe", "fp32", "cpu")).rows()
    return [row for row in rows if row.added is not None]


def wrong_at(path: str, change: Any, dtype: str = "float32") -> Any:
    """A model of PyTorch, one layer of which returns something else."""
    model = changeable("reference_torch", dtype=dtype)
    model.network.get_submodule(path).register_forward_hook(lambda module, given, made: change(made))
    return model


def loses_terms(made: torch.Tensor) -> torch.Tensor:
    made = made.clone()
    made[..., 1::7] *= 0.5
    return made


def by_status(rows: list[Row], status: str) -> list[str]:
    return list(dict.fromkeys(row.path for row in rows if row.status == status))


def test_a_right_reference_is_never_called_wrong():
    assert {row.status for row in traced(small_models.rmvpe("reference_torch"))} == {OK}


def test_a_wrong_reference_is_found_and_the_other_side_not_blamed():
    rows = traced(wrong_at(TRANSPOSED, loses_terms))
    assert by_status(rows, REFERENCE_WRONG) == [TRANSPOSED]
    assert by_status(rows, FAULT) == []
    records = [msgspec.to_builtins(row) for row in rows]
    assert findings.find(records) is None
    sentence = findings.reference_faults(records)
    row = next(row for row in rows if row.status == REFERENCE_WRONG)
    assert sentence is not None
    assert f"The reference is wrong here: `{TRANSPOSED}`, ConvTranspose2d(" in sentence
    assert f"with output {row.shape}" in sentence
    assert "times what rounding explains" in sentence
    table = {line["title"]: line["status"] for line in findings.validation("rmvpe", records)}
    assert table["Transposed convolution"] == REFERENCE_WRONG
    assert table["Mel spectrogram"] == OK


def test_a_wrong_reference_hides_no_fault_of_the_other_side():
    """The other side loses more than the reference: that is its own, and so is what it loses elsewhere."""
    other = wrong_at(EARLY, lambda made: made * 3)
    assert EARLY in by_status(traced(wrong_at(EARLY, loses_terms), other, EARLY), FAULT)
    other = wrong_at(NEXT, lambda made: made * 1.001)
    rows = traced(wrong_at(EARLY, loses_terms), other, NEXT)
    assert (by_status(rows, REFERENCE_WRONG), by_status(rows, FAULT)) == ([EARLY], [NEXT])


def test_a_reference_that_is_not_finite_is_wrong_where_it_begins():
    rows = traced(wrong_at(EARLY, lambda made: made * torch.nan))
    assert (rows[-1].path, rows[-1].status) == (EARLY, REFERENCE_WRONG)
    assert {row.status for row in rows[:-1]} == {OK}
    assert "is not finite, and its own float64 is" in str(rows[-1].where)


def entry(rmse: float, **more: Any) -> dict[str, Any]:
    found = {"exact": False, "rms": 1.0, "peak": 1.0, "unit": 2.0**-24}
    return found | {"floor_added": {"rmse": rmse, "max_abs": rmse}} | more


@pytest.mark.parametrize("level", [1e-3, 1.0, 1e3])
def test_what_is_beyond_rounding_is_relative_to_the_level(level):
    tables = {"hubert": {"a#x": {"floor_rmse_relative": 1e-6, "floor_max_abs_relative": 1e-6}}}
    tolerances = Tolerances("hubert", tables)
    limit = REFERENCE_FACTOR * 1e-6 * level
    ask = lambda path, rmse, **more: tolerances.reference_error(path, "x", entry(rmse, rms=level, **more))  # noqa: E731
    assert ask("a", 0.99 * limit) is None
    assert ask("a", 1.01 * limit) == pytest.approx(1.01 * REFERENCE_FACTOR)
    assert ask("not in the table", 1.01 * limit) is not None
    assert ask("a", math.inf) is None  # neither is finite
    assert ask("a", math.inf, only_exact_finite=True) == math.inf
    assert ask("a", 1e9, decides=True) is None
    assert ask("a", 1e9, exact=True) is None
    assert Tolerances("none", {}).reference_error("a", "x", entry(1.0)) is None


# ---------------------------------------------------------------------- PyTorch 2.13 on CPUs
@pytest.mark.parametrize("frames", [46, 50, 54])
def test_the_transposed_convolution_that_loses_terms_on_two_threads(frames):
    """512 to 256 channels, kernel 16, stride 9, padding 3, by oneDNN: wrong for some lengths, if this build has it.

    Whether it has is seen by PyTorch alone, float32 against float64; the trace must say the same.
    """
    threads = torch.get_num_threads()
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.ConvTranspose1d(512, 256, 16, 9, 3).requires_grad_(False)
    x = torch.randn(1, 512, frames, generator=generator)
    double = torch.nn.ConvTranspose1d(512, 256, 16, 9, 3, dtype=torch.float64).requires_grad_(False)
    double.load_state_dict(layer.state_dict())
    try:
        torch.set_num_threads(2)
        made, exact = layer(x).double(), double(x.double())
    finally:
        torch.set_num_threads(threads)
    is_wrong = float((made - exact).abs().max()) > 1e-3
    right = exact.float().numpy()

    def begin(value: Any) -> Iterator[Any]:
        return stages.walk((stages.leaf("dec.upsample_blocks.0", lambda _: value),), {"x": value})

    class Layer(Local):
        def trace_open(self, worker: str, reference: bool, **_: Any) -> None:
            if reference:
                walks = [begin(array.numpy()) for array in (made.float(), exact, exact)]
                self.walks[worker] = ReferenceWalk(*walks, operation=lambda path: repr(layer))
            else:
                self.walks[worker] = TracedWalk(begin(right), begin(right))

        def trace_call(self, worker: str, **_: Any) -> dict[str, Any]:
            return {"added": None}

    tolerances = Tolerances.of("synthesizer", "fp32", "cpu")
    rows = list(ProbeTrace(Layer(()), Probe("p", {"x": right}), findings.CONFIGURED, tolerances).rows())
    (row,) = [row for row in rows if row.path == "dec.upsample_blocks.0"]
    assert row.shape == [1, 256, 9 * (frames - 1) + 10]
    assert row.status == (REFERENCE_WRONG if is_wrong else OK)
    if is_wrong:
        assert "ConvTranspose1d(512, 256, kernel_size=(16,), stride=(9,), padding=(3,))" in str(row.where)
    else:
        assert row.added["max_abs"] < 1e-4


@pytest.mark.parametrize("exact", [1.0, torch.inf])
def test_a_reference_that_is_not_finite_ends_the_walk_wherever_else_it_is_right(exact):
    """Whatever its own float64 is: nothing can be compared, and the other side is not blamed for the same values."""
    reference, other = (wrong_at(EARLY, lambda made: made * torch.inf) for _ in range(2))
    pair = Models(reference, wrong_at(EARLY, lambda made: made * exact, "float64"), other)
    rows = list(ProbeTrace(pair, Probe("clip", {"audio": AUDIO}), findings.PLAIN, Tolerances("rmvpe", {})).rows())
    assert rows[-1].path == EARLY
    assert by_status(rows, FAULT) == []
    assert findings.lost_at([msgspec.to_builtins(row) for row in rows]) == EARLY
