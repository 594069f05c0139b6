"""A stage's row in the table of floors, and the table that ships."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_walks import MODELS, Events, model_of, stored, walks

from suites.base.errors import UserError
from suites.child.walks import Walker
from suites.inputs.voice import synthesize
from suites.measure.config import compose_config
from suites.metrics import floors
from suites.metrics.floors import (
    LARGEST_EXCESS,
    METRICS,
    SCHEMA,
    component_limits,
    place,
    row_of,
)
from suites.trace.walk import WHOLE


class Seen(NamedTuple):
    """What a trace can compare at a stage: the entries that it changed, and all that are floats."""

    path: str
    changed: set[str]
    floats: set[str]


def seen(events: Events) -> list[Seen]:
    walker, floats, found = Walker(events), dict[str, bool](), list[Seen]()
    while walker.advance():
        for name in walker.changed:
            array = walker.array(name)
            floats[name] = array is not None and array.dtype.kind == "f"
        present = {name for name in walker.event.carry if floats[name]}
        found.append(Seen(walker.event.whole_path, set(walker.changed), present))
    return found


@functools.cache
def walked(side: str, model: str) -> list[list[Seen]]:
    return [seen(events) for events in walks(side, model)]


@pytest.fixture(scope="module")
def paths():
    """Per model every stage's path on the reference's side."""
    return {
        model: list(dict.fromkeys(one.path for walk in walked("reference_torch", model) for one in walk))
        for model in MODELS
    }


# ---------------------------------------------------------------------- the row of a stage
PLACES = {
    "mel": "mel",
    "unet.encoder.layers.3.conv.0.conv.3": "unet.encoder.layers.*.conv.*.conv.3",
    "unet.encoder.layers.3.conv.1": "unet.encoder.layers.*.conv.1",
    "unet.decoder.layers.0.conv1.0": "unet.decoder.layers.*.conv1.0",
    "unet.decoder.layers.0.conv1": "unet.decoder.layers.*.conv1",
    "fc.0": "fc.0",
    "fc.1": "fc.1",
    "block.2.fc.1": "fc.1",
    "encoder.layers.11.attention:attended": "encoder.layers.*.attention:attended",
    "enc_p:embedded": "enc_p:embedded",
    "enc_p.encoder.attn_layers.0:scores": "enc_p.encoder.attn_layers.*:scores",
    "dec.resblocks.2.convs1.0": "dec.resblocks.*.convs1.*",
    "f0.block.1.unet.encoder.bn": "f0.unet.encoder.bn",
    "segment.12.audio.dec.ups.1": "audio.dec.ups.*",
    "segment.0.trimmed": "trimmed",
    WHOLE: WHOLE,
}


@pytest.mark.parametrize(("path", "where"), PLACES.items())
def test_the_place_of_a_stage(path, where):
    assert place(path) == where


@pytest.mark.parametrize("model", MODELS)
def test_places_are_far_fewer_than_stages_and_few_kinds_share_one(paths, model):
    found = {place(path) for path in paths[model]}
    assert len(found) < len(paths[model]) / 2
    for path in paths[model]:  # nothing but numbers is left out
        words = [word for word in re.split(r"[.:]", path) if not word.isdigit()]
        kept = [word for word in re.split(r"[.:]", place(path)) if word != "*" and not word.isdigit()]
        assert kept == [word for word in words if word not in ("block", "segment")]


@settings(deadline=None)
@given(data=st.data())
def test_a_place_has_no_numbers_left_to_remove(paths, data):
    path = data.draw(st.sampled_from(paths[data.draw(st.sampled_from(MODELS))]))
    assert place(place(path)) == place(path)


@settings(deadline=None)
@given(data=st.data())
def test_the_number_of_a_layer_block_or_segment_does_not_matter(paths, data):
    model = data.draw(st.sampled_from(MODELS))
    path = data.draw(st.sampled_from(paths[model]))
    other = re.sub(r"(?<=\.)\d+(?=\.)", lambda _: str(data.draw(st.integers(0, 99))), path)
    assert place(other) == place(path)
    if model == "rmvpe":
        assert place(f"block.{data.draw(st.integers(0, 99))}.{path}") == place(path)


def test_a_convolution_its_norm_and_the_linear_layer_have_rows_of_their_own():
    for name in ("unet.encoder.layers.0.conv.0.conv", "unet.decoder.layers.0.conv1", "fc"):
        assert len({place(f"{name}.{i}") for i in range(3)}) == 3


def test_the_pipelines_stages_stand_in_the_models_own_tables(paths):
    heads = {"rmvpe": "f0.", "hubert": "segment.0.features.", "synthesizer": "segment.0.audio."}
    for model, head in heads.items():
        inner = [path.removeprefix(head) for path in paths["pipeline"] if path.startswith(head)]
        assert inner
        for path in inner:
            assert row_of("pipeline", head + path, "x") == row_of(model, path, "x")
            assert row_of(model, path, "x")[0] == model
    for path in ("filtered", "f0", "segment.1.features", "segment.0.audio", "audio", WHOLE):
        assert row_of("pipeline", path, "x")[0] == "pipeline"


# ---------------------------------------------------------------------- the table that ships
DAMAGED = {
    "missing": None,
    "empty": "",
    "cut off": '{"schema": 1, "made": {',
    "another version": stored(schema=SCHEMA + 1),
    "without a version": {"policies": {}},
    "a list": "[]",
    "null": "null",
    "binary": "\x00\x01",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_table_is_told(table, kind):
    table(DAMAGED[kind])
    with pytest.raises(UserError, match=re.escape("floors.json")):
        floors.stored()


def test_a_table_that_came_back_is_read(table):
    """An error is not remembered."""
    table(None)
    with pytest.raises(UserError):
        floors.stored()
    floors.TABLE.write_text(json.dumps(stored()))
    assert floors.stored() == stored()


@pytest.fixture(scope="module")
def shipped():
    return json.loads(floors.TABLE.read_text(), parse_constant=lambda name: pytest.fail(f"the table holds {name}"))


def stage_rows(shipped: Any) -> Iterator[tuple[str, dict[str, float]]]:
    for precision, devices in shipped["policies"].items():
        for device, tables in devices.items():
            for model, rows in tables.items():
                yield from ((f"{precision}/{device} {model} {key}", row) for key, row in rows.items())


def test_the_shipped_table_is_of_this_version_and_says_where_it_comes_from(shipped):
    assert set(shipped) == {"schema", "made", "policies", "components"}
    assert shipped["schema"] == SCHEMA
    policies = {f"{precision}/{device}" for precision, devices in shipped["policies"].items() for device in devices}
    assert "fp32/cpu" in policies
    assert set(shipped["made"]) == policies
    assert all({"date", "cpu", "torch", "mlx", "numpy"} <= set(made) for made in shipped["made"].values())


def test_the_shipped_rows_are_whole_and_finite(shipped):
    names = {"count", *METRICS, *(f"floor_{metric}_relative" for metric in METRICS)}
    rows = dict(stage_rows(shipped))
    assert rows
    for key, row in rows.items():
        assert set(row) == names, key
        assert row["count"] >= 1, key
        assert all(math.isfinite(number) and number >= 0 for number in row.values()), key


def test_no_shipped_stage_was_measured_with_a_fault(shipped):
    rows = dict(stage_rows(shipped))
    assert rows
    assert [key for key, row in rows.items() if max(row[metric] for metric in METRICS) > LARGEST_EXCESS] == []


def test_the_shipped_components_are_finite(shipped):
    suites = shipped["components"]["fp32"]
    assert set(suites) == {*MODELS, "components"}
    rows = [row for found in shipped["components"].values() for table in found.values() for row in table.values()]
    assert rows
    for row in rows:
        assert all(math.isfinite(number) for number in row.values())
        assert row["error"] >= 0
        assert row["count"] >= 1


@pytest.mark.parametrize("model", MODELS)
def test_every_derived_limit_in_fp32_has_a_figure(shipped, model):
    composed = compose_config(model, [])
    asked = composed.suite.limits["fp32"]
    limits = component_limits(model, "fp32", asked)
    assert shipped == floors.stored()
    assert [name for name, value in asked.items() if value == "derived" and limits[name] is None] == []


def judged(reference: list[Seen], other: list[Seen]) -> Iterator[tuple[str, str]]:
    """The floats that a trace of the two compares: what changed, on either side, and both have."""
    left = iter(reference)
    for ours in other:
        names = set(ours.changed)
        for theirs in left:
            names |= theirs.changed
            if theirs.path == ours.path:
                yield from ((ours.path, name) for name in names & theirs.floats & ours.floats)
                break


@pytest.mark.parametrize("side", ["rvc_mlx", "plain"])
@pytest.mark.parametrize("model", MODELS)
def test_the_shipped_table_knows_every_kind_of_stage(shipped, model, side):
    tables = shipped["policies"].get("fp32", {}).get("cpu", {})
    wanted = {
        row_of(model, path, name)
        for pair in zip(walked("reference_torch", model), walked(side, model), strict=True)
        for path, name in judged(*pair)
    }
    assert len(wanted) > 10
    assert {model for model, _ in wanted} == ({model} if model != "pipeline" else set(MODELS))
    assert sorted(f"{model} {key}" for model, key in wanted if key not in tables.get(model, {})) == []


@pytest.mark.parametrize("side", ["rvc_mlx", "plain"])
def test_the_shipped_table_knows_what_only_v1_voices_take(shipped, side):
    """Their features go through one more layer."""
    audio, tables = synthesize(0.6, 3).audio, shipped["policies"].get("fp32", {}).get("cpu", {})
    pair = (seen(model_of(one, "hubert").walk(audio, "v1")) for one in ("reference_torch", side))
    missing = {row_of("hubert", path, name)[1] for path, name in judged(*pair)} - set(tables.get("hubert", {}))
    assert sorted(missing) == []
