"""Walks seen from outside: what they show, in whose axis order, and that a value put back changes nothing."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import small_models
from small_models import inputs

from suites.child.walks import Walker
from suites.inputs.voice import synthesize

PACKAGES = ("reference_torch", "rvc_mlx")
SIDES = ("reference_torch", "rvc_mlx", "plain")
AUDIO = synthesize(1.4, 3).audio  # long enough that RMVPE's packed images keep one border through a whole layer
SHORT, RATE = AUDIO[:6000], 16050
VECTORS = np.random.default_rng(0).standard_normal((50, 128)).astype(np.float32)
KNOBS = {"index": VECTORS, "index_rate": 0.75, "protect": 0.2, "rms_mix": 0.25, "transpose": 3, "speaker": 2}
BRIEF = AUDIO[:3600]  # cut once
WINDOWS = {"x_pad": 0.03, "x_query": 0.03, "x_center": 0.12, "x_max": 0.2}
# the other vocoders, and one without pitch
VOICES = ("synth_v2_32k_f0_mrf", "synth_v2_24k_f0_refinegan", "synth_v2_48k_nof0")


class Case(NamedTuple):
    """A model, its walk, the call that the walk is of, and the entry of the last carry that is its result.

    ``block``: frames per block of RMVPE in place of the 320 seconds there are.
    """

    build: Callable[[str], Any]
    walk: Callable[[Any], Iterator[Any]]
    call: Callable[[Any], np.ndarray]
    result: str
    block: int | None = None


def of_rmvpe(audio: np.ndarray, block: int | None = None) -> Case:
    return Case(small_models.rmvpe, lambda m: m.walk(audio), lambda m: m.f0(audio), "f0", block)


def of_hubert(audio: np.ndarray, version: str) -> Case:
    def call(model: Any) -> np.ndarray:
        features: np.ndarray = model.features(audio, version)
        return features if audio.ndim == 2 else features[None]

    return Case(small_models.hubert, lambda m: m.walk(audio, version), call, "features")


def of_voice(name: str, frames: int, batch: int, **options: Any) -> Case:
    def given(model: Any) -> dict[str, Any]:
        return inputs(model, frames, batch) | {"noise": 3} | options

    build = functools.partial(small_models.synthesizer, name=name)
    return Case(build, lambda m: m.walk(**given(m)), lambda m: m.infer(**given(m)), "audio")


def of_pipeline(profile: str, **knobs: Any) -> Case:
    def call(model: Any) -> np.ndarray:
        audio: np.ndarray = model.convert(BRIEF, RATE, **knobs)[0]
        return audio

    build = functools.partial(small_models.pipeline, profile=profile, windows=WINDOWS)
    return Case(build, lambda m: m.walk(BRIEF, RATE, **knobs), call, "audio")


CASES = {
    "rmvpe": of_rmvpe(AUDIO),
    "rmvpe, blocks": of_rmvpe(SHORT, block=32),
    "hubert": of_hubert(SHORT, "v2"),
    "hubert, a batch for v1": of_hubert(np.stack([SHORT, SHORT[::-1]]), "v1"),
    "voice, one": of_voice("synth_v2_40k_f0", 4, 1),
    "voice, cut": of_voice("synth_v1_40k_f0", 5, 2, rate=0.7),
    **{f"voice, {name}": of_voice(name, 3, 2) for name in VOICES},
    "pipeline": of_pipeline("webui", **KNOBS),
}


@pytest.fixture(params=CASES)
def case(request, monkeypatch):
    found = CASES[request.param]
    if found.block:
        for package in PACKAGES:
            monkeypatch.setattr(importlib.import_module(f"{package}.rmvpe"), "CHUNK_FRAMES", found.block)
    return found


@functools.cache
def model_of(side: str, case: Case) -> Any:
    return case.build(side)


def begin(side: str, case: Case) -> Iterator[Any]:
    return case.walk(model_of(side, case))


def end(events: Iterator[Any], case: Case) -> np.ndarray:
    """The result; nothing of what comes before is kept."""
    for event in events:
        last = event
    result: np.ndarray = last.carry[case.result]
    return result


def public(event: Any, name: str) -> np.ndarray | None:
    """As a trace sees an entry: ``suites.tracing.Walker.array``."""
    value = event.carry[name]
    if event.layout is not None and value is not None:
        found: np.ndarray | None = event.layout.public(event, name)
        return found
    return value if isinstance(value, np.ndarray) else None


@functools.cache
def shown(side: str, case: Case) -> list[tuple[str, str, dict[str, np.ndarray]]]:
    """Per event its path, the name of its product, and every array of its carry."""
    found = []
    for event in begin(side, case):
        arrays = {name: array for name in event.carry if (array := public(event, name)) is not None}
        found.append((event.whole_path, event.product, arrays))
    return found


def result_of(side: str, case: Case) -> np.ndarray:
    return shown(side, case)[-1][2][case.result]


def beside(side: str, case: Case) -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Per event the arrays of this side and of the reference."""
    theirs = {path: arrays for path, _, arrays in shown("reference_torch", case)}
    yield from ((path, arrays, theirs[path]) for path, _, arrays in shown(side, case))


# ---------------------------------------------------------------------- one side
@pytest.mark.parametrize("side", SIDES)
def test_a_walk_to_the_end_is_the_call(case, side):
    result = result_of(side, case)
    called = case.call(model_of(side, case))
    assert result.dtype == called.dtype
    assert np.array_equal(result, called)


@pytest.mark.parametrize("side", SIDES)
def test_every_value_put_back_as_it_looks_changes_nothing(case, side):
    def replaced() -> Iterator[Any]:
        for event in begin(side, case):
            for name in list(event.carry):
                array = public(event, name)
                if array is None:
                    continue
                if event.layout is None:
                    event.carry[name] = array.copy()
                else:
                    event.layout.private(event, name, array.copy())
            yield event

    assert np.array_equal(end(replaced(), case), result_of(side, case))


@pytest.mark.parametrize("case", ["rmvpe", "rmvpe, blocks", "hubert, a batch for v1", "voice, cut"], indirect=True)
@pytest.mark.parametrize("side", SIDES)
def test_what_is_put_in_comes_out(case, side):
    """Another value in the place of each that a stage has just made; then its own again."""
    walker, rng = Walker(begin(side, case)), np.random.default_rng(0)
    while walker.advance():
        for name in walker.changed:
            own = walker.array(name)
            if own is not None and own.dtype.kind == "f":
                for array in (rng.standard_normal(own.shape, dtype=np.float32).astype(own.dtype), own):
                    walker.replace(name, array)
                    found = walker.array(name)
                    assert found is not None
                    assert found.dtype == array.dtype
                    assert np.array_equal(found, array), (walker.event.whole_path, name)
        walker.settle()
    assert walker.changed


@pytest.mark.parametrize("side", SIDES)
def test_products_are_arrays_of_finite_numbers_under_paths_of_their_own(case, side):
    found = shown(side, case)
    assert len({path for path, _, _ in found}) == len(found)
    for path, product, arrays in found:
        assert product in arrays, path
        assert arrays[product].size, path
        assert np.isfinite(arrays[product]).all(), path


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("path", ["feature_extractor", "feature_projection", "encoder.layers.0.attention.out_proj"])
def test_the_next_stage_takes_what_was_put_in(side, path):
    case = CASES["hubert"]

    def reversed_there() -> Iterator[Any]:
        for event in begin(side, case):
            if event.whole_path == path:
                event.layout.private(event, "x", event.layout.public(event, "x")[:, ::-1])
            yield event

    assert np.abs(end(reversed_there(), case) - result_of(side, case)).max() > 1e-3


# ---------------------------------------------------------------------- both sides
def test_plain_stages_are_the_references_in_its_order(case):
    ours, theirs = ([(path, product) for path, product, _ in shown(s, case)] for s in ("plain", "reference_torch"))
    assert ours == theirs


def test_optimised_stages_are_some_of_the_references_in_its_order(case):
    theirs = iter([(path, product) for path, product, _ in shown("reference_torch", case)])
    assert all(stage in theirs for stage in ((path, product) for path, product, _ in shown("rvc_mlx", case)))


@pytest.mark.parametrize("side", ["rvc_mlx", "plain"])
def test_the_sides_show_the_same_shapes(case, side):
    """Of every entry that both have, whether or not this stage has changed it."""
    unequal = [
        (path, name, ours[name].shape, theirs[name].shape)
        for path, ours, theirs in beside(side, case)
        for name in ours.keys() & theirs.keys()
        if ours[name].shape != theirs[name].shape
    ]
    assert unequal == []


@pytest.mark.parametrize("side", ["rvc_mlx", "plain"])
def test_the_sides_show_the_same_values(case, side):
    """A square image the wrong way round has the right shape."""
    theirs = {path: arrays[product] for path, product, arrays in shown("reference_torch", case)}
    for path, product, arrays in shown(side, case):
        value, reference = arrays[product], theirs[path]
        assert value.dtype.kind == reference.dtype.kind, path
        error = np.sqrt(np.mean(np.square(value.astype(np.float64) - reference)))
        assert error <= 1e-2 * np.sqrt(np.mean(np.square(reference, dtype=np.float64))), path


@pytest.mark.parametrize("side", ["rvc_mlx", "plain"])
def test_every_value_that_the_reference_changes_is_there(case, side):
    """But a mask of ones, which is left out."""
    for path, ours, theirs in beside(side, case):
        assert theirs.keys() - ours.keys() <= {"mask"}, path
        assert all((theirs[name] == 1).all() for name in theirs.keys() - ours.keys()), path
