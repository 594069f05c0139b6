"""From rows to a sentence: which stage is named, what is only inherited, and that nothing passes empty."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import hubert, inputs, pipeline, rmvpe, synthesizer

from suites.definitions import SUITES, TRACED
from suites.inputs.voice import synthesize
from suites.trace.findings import (
    CLEAR,
    CONFIGURED,
    OFF,
    PLAIN,
    SAME_CODE,
    find,
    first_fault,
    group_of,
    validation,
    with_inheritance,
)
from suites.trace.walk import BLANK, FAULT, INHERITED, OK, PIECES, WHOLE

MODELS = TRACED
VOICES = ("synth_v1_40k_f0", "synth_v2_32k_f0_mrf", "synth_v2_24k_f0_refinegan", "synth_v2_48k_nof0")
LIMIT = {"rmse": 1e-6, "max_abs": 1e-5}
CLEARLY, HARDLY = 2 * CLEAR, 0.5 * CLEAR


def figures(times: float) -> dict[str, Any]:
    """Those of an error of ``times`` its limit."""
    return {name: times * bound for name, bound in LIMIT.items()} | {"relative": 1e-6, "snr_db": 120.0, "corr": 1.0}


def row(path: str, times: float = 0.5, own: float | None = None, **more: Any) -> dict[str, Any]:
    """A value that adds ``times`` its limit; on own values the error is ``own`` times the limit."""
    fields = {"probe": "clip", "variant": CONFIGURED, "entry": "x", "rms": 1.0, "peak": 2.0, "limit": dict(LIMIT)}
    fields |= {"floor": {name: bound / OFF for name, bound in LIMIT.items()}}
    fields |= {"added": figures(times), "chained": figures(times if own is None else own)}
    fields |= {"status": FAULT if times > 1 else OK, "where": {"sentence": "a gain of 2"} if times > 1 else None}
    return {**BLANK, "path": path, **fields, **more}


def failed(path: str, reason: str = "this stage is missing", **more: Any) -> dict[str, Any]:
    """As the trace makes it where there is nothing to compare."""
    fields = {"probe": "clip", "variant": CONFIGURED, "entry": ""} | more
    return {**BLANK, "path": path, "added": {"reason": reason}, "status": FAULT, **fields}


def found(*rows: dict[str, Any]) -> Any:
    finding = find(rows)
    assert finding is not None
    return finding


# ---------------------------------------------------------------------- which one is named
def test_rounding_names_nothing():
    assert find([row("a"), row("b", 0.99), row("c", variant=PLAIN)]) is None
    assert find([]) is None


def test_the_first_clear_fault_is_named():
    finding = found(row("a"), row("b", CLEARLY), row("c", 10 * CLEARLY))
    assert (finding.path, finding.probe, finding.variant) == ("b", "clip", CONFIGURED)
    assert finding.where == "a gain of 2"
    assert finding.pinned is None
    assert finding.sentence.startswith("First stage at fault: `b`: a gain of 2 (error 6e-05, limit 1e-05)")
    assert "on probe 'clip'" in finding.sentence


def test_a_clear_fault_comes_before_an_earlier_unclear_one():
    assert found(row("a", HARDLY), row("b", CLEARLY)).path == "b"
    assert found(row("a", HARDLY), row("b", CLEARLY, probe="short")).path == "b"


def test_a_stage_of_a_later_probe_is_named_before_a_whole_call():
    """The call is not wrong by itself then, and the stage is the inner one."""
    calls = row(WHOLE, CLEARLY), row(PIECES, CLEARLY)
    assert found(row("a"), *calls, row("a", CLEARLY, probe="same shape")).path == "a"
    assert found(row("a"), *calls, row("a", HARDLY, probe="same shape")).path == WHOLE


def test_an_unclear_fault_is_named_where_no_clearer_one_is():
    assert found(row("a"), row("b", HARDLY), row("c", HARDLY)).path == "b"


def test_what_cannot_be_compared_is_clear():
    finding = found(row("a", HARDLY), failed("b"))
    assert (finding.path, finding.where) == ("b", "this stage is missing")
    assert "First stage at fault: `b`: this stage is missing on probe 'clip'." in finding.sentence


def test_any_difference_of_whole_numbers_is_clear():
    exact = row("codes", entry="codes", exact=True, limit=dict.fromkeys(LIMIT, 0.0), status=FAULT)
    assert found(row("a", HARDLY), exact).path == "codes"


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([0.5, HARDLY, CLEARLY]))))
def test_a_walk_ends_at_the_first_clear_fault(stages):
    rows = [row(path, times) for path, times in stages]
    walked = iter(rows)
    named = first_fault(walked)
    clear = [i for i, (_, times) in enumerate(stages) if times == CLEARLY]
    faults = [i for i, (_, times) in enumerate(stages) if times > 1]
    assert named is (rows[(clear or faults)[0]] if faults else None)
    assert list(walked) == (rows[clear[0] + 1 :] if clear else [])


def test_a_result_that_is_not_affected_is_said_only_where_the_calls_are_right():
    stages = row("mel", CLEARLY), row("cnn"), row("f0")
    right, wrong = (row(path, times, 0.5) for path, times in ((WHOLE, 0.5), (PIECES, 0.5))), row(WHOLE, 8e7, 0.5)
    assert "The result of this walk is not affected." in found(*stages, *right).sentence
    sentence = found(*stages, wrong).sentence
    assert "not affected" not in sentence
    assert "The whole call differs from its stages by up to 800." in sentence
    assert "adds errors of their own" not in sentence
    alone = found(row("f0"), wrong, row(PIECES, 0.5)).sentence
    assert alone.startswith("Every stage is right by itself; the call as users make it is not")
    assert "not affected" not in alone


@pytest.mark.parametrize("inner", ["unet.encoder.layers.1.conv.0.conv.3", "unet.encoder.layers.1", "cnn"])
def test_the_plain_variants_inner_stage_is_named(inner):
    outer = "cnn" if inner == "cnn" else "unet.encoder.layers.1"
    finding = found(row(outer, CLEARLY), row(inner, CLEARLY, variant=PLAIN))
    assert (finding.path, finding.variant) == (inner, PLAIN)
    assert "Only with every optimisation off" not in finding.sentence


def test_a_value_inside_a_module_is_inside_it():
    layer = "enc_p.encoder.attn_layers.0"
    assert found(row(layer, CLEARLY), row(f"{layer}:scores", CLEARLY, variant=PLAIN)).path == f"{layer}:scores"


@pytest.mark.parametrize("elsewhere", ["unet.encoder.layers.11.conv.0", "unet.encoder", "cnn"])
def test_a_plain_fault_elsewhere_leaves_the_configured_one(elsewhere):
    """``layers.11`` is not inside ``layers.1``."""
    finding = found(row("unet.encoder.layers.1", CLEARLY), row(elsewhere, CLEARLY, variant=PLAIN))
    assert (finding.path, finding.variant, finding.pinned) == ("unet.encoder.layers.1", CONFIGURED, None)


def test_a_clear_plain_fault_comes_before_an_unclear_configured_one():
    """An error up to three times its limit is named only where no clearer one exists (docs/parity.md)."""
    assert found(row("mel", HARDLY), row("cnn", CLEARLY, variant=PLAIN)).path == "cnn"


def test_only_the_plain_variant_is_wrong():
    finding = found(row("a"), row("a.0", CLEARLY, variant=PLAIN), row("a", variant=PLAIN))
    assert (finding.path, finding.variant, finding.pinned) == ("a.0", PLAIN, None)
    assert "It was seen only with every optimisation off." in finding.sentence


# ---------------------------------------------------------------------- optimisations
def test_the_optimisation_without_which_all_is_right_is_pinned():
    finding = found(
        row("a", CLEARLY),
        row("a", variant=PLAIN),
        row("a", CLEARLY, variant="without fold_norm"),
        row("a", variant="without gemm_conv"),
    )
    assert (finding.path, finding.variant, finding.pinned) == ("a", CONFIGURED, "gemm_conv")
    assert finding.sentence.count("It belongs to the optimisation `gemm_conv`") == 1


def test_nothing_is_pinned_where_every_variant_is_wrong():
    assert found(row("a", CLEARLY), row("a", variant=PLAIN), row("a", CLEARLY, variant="without tile")).pinned is None


def test_a_fault_of_the_plain_path_belongs_to_no_optimisation():
    finding = found(row("a", CLEARLY), row("b", CLEARLY, variant=PLAIN), row("a", variant="without tile"))
    assert finding.pinned is None


# ---------------------------------------------------------------------- what comes after
def test_inherited_errors_and_later_faults_are_counted():
    rows = [row("a"), row("b", CLEARLY), row("c", own=50), row("d", own=50), row("e", HARDLY), row("f", own=0.9)]
    sentence = found(*rows).sentence
    assert "2 later values are right in themselves and only inherit the error." in sentence
    assert "1 later stage adds errors of their own: `e`." in sentence


def test_only_the_first_later_faults_are_listed():
    sentence = found(*(row(path, CLEARLY) for path in "abcde")).sentence
    assert "4 later stages add errors of their own: `b`, `c`, `d` ..." in sentence


def test_what_other_probes_and_variants_inherit_is_not_counted():
    sentence = found(row("a", CLEARLY), row("b", own=50, probe="short"), row("b", own=50, variant="without x")).sentence
    assert "inherit" not in sentence


def test_a_side_value_is_named_with_its_stage():
    assert "`b` (residual): " in found(row("b", CLEARLY, entry="residual")).sentence
    assert "`f0`: " in found(row("f0", CLEARLY, entry="f0")).sentence


def test_the_call_that_differs_from_its_own_stages():
    sentence = found(row("a"), row(WHOLE, CLEARLY, entry="audio", where=None)).sentence
    assert sentence.startswith("Every stage is right by itself; the call as users make it is not")
    assert "First stage" not in sentence
    assert "  " not in sentence


def test_a_call_that_raises_says_so():
    whole = row(WHOLE, entry="audio", status=FAULT, added={"reason": "the call raises ValueError: no"})
    sentence = found(row("a"), whole).sentence
    assert "the call as users make it is not: the call raises ValueError: no on probe" in sentence


def test_inheritance_begins_after_a_fault_and_stays_in_its_walk():
    rows = [
        row("a", own=50),
        row("b", CLEARLY),
        row("c", own=50),
        row("d", own=0.5),
        row("e", chained={"reason": "on its own values it goes to the end"}),
        row("f", CLEARLY),
        row("c", own=50, probe="short"),
        row("c", own=50, variant=PLAIN),
    ]
    statuses = [marked["status"] for marked in with_inheritance(rows)]
    assert statuses == [OK, FAULT, INHERITED, OK, INHERITED, FAULT, OK, OK]
    assert rows[2]["status"] == OK  # the rows themselves stay as they are


@given(st.lists(st.tuples(st.sampled_from([0.5, HARDLY, CLEARLY]), st.sampled_from([0.5, 50]), st.booleans())))
def test_inheritance_adds_nothing_and_hides_no_fault(stages):
    rows = [row("a", times, own, probe="clip" if clip else "short") for times, own, clip in stages]
    marked = with_inheritance(rows)
    assert [m | {"status": r["status"]} for m, r in zip(marked, rows, strict=True)] == rows
    assert all((m["status"] == FAULT) == (r["status"] == FAULT) for m, r in zip(marked, rows, strict=True))
    assert with_inheritance(marked) == marked


# ---------------------------------------------------------------------- parts of a model
GROUPS = {
    "unet.encoder.layers.3.conv.0": "unet.encoder.layers.3",
    "unet.encoder.layers.3": "unet.encoder.layers.3",
    "unet.encoder.bn": "unet.encoder",
    "cnn": "cnn",
    "fc.0": "fc.0",
    "block.2.unet.decoder.layers.4.conv1.0": "block.2.unet.decoder.layers.4",
    "block.2.sigmoid": "block.2.sigmoid",
    "feature_extractor.conv_layers.0.gelu": "feature_extractor.conv_layers.0",
    "encoder.pos_conv_embed:sum": "encoder.pos_conv_embed",
    "encoder.layers.11.attention:attended": "encoder.layers.11",
    "enc_p:embedded": "enc_p",
    "enc_p.encoder.attn_layers.0:scores": "enc_p.encoder.attn_layers.0",
    "flow.flows.4.enc.in_layers.1": "flow.flows.4",
    "dec.m_source.l_sin_gen:voiced": "dec.m_source.l_sin_gen",
    "segment.1.audio.dec.resblocks.2.convs1.0": "segment.1.audio.dec.resblocks.2",
    "segment.0.features.encoder.layers.7.layer_norm": "segment.0.features.encoder.layers.7",
    "segment.0.phone": "segment.0.phone",
    "f0": "f0",
    "joined": "joined",
    WHOLE: WHOLE,
}


@pytest.mark.parametrize(("path", "group"), GROUPS.items())
def test_the_part_that_a_stage_belongs_to(path, group):
    assert group_of(path) == group


@pytest.fixture(scope="module")
def paths():
    """Per model every stage's path, of voices of every kind."""
    audio = synthesize(0.4, 3).audio
    walks = {
        "rmvpe": [rmvpe("reference_torch").walk(audio)],
        "hubert": [hubert("reference_torch").walk(audio)],
        "pipeline": [pipeline("reference_torch", windows={"x_pad": 0.3}).walk(audio, 16000)],
        "synthesizer": [],
    }
    for name in VOICES:
        model = synthesizer("reference_torch", name)
        walks["synthesizer"].append(model.walk(**inputs(model, 4), noise=0))
    return {
        model: list(dict.fromkeys(event.whole_path for events in found for event in events))
        for model, found in walks.items()
    }


@pytest.mark.parametrize("model", MODELS)
def test_a_part_is_where_its_stages_begin(paths, model):
    for path in paths[model]:
        part = group_of(path)
        assert path == part or re.match(r"[.:]", path.removeprefix(part))
    assert len({group_of(path) for path in paths[model]}) < len(paths[model]) / 4


# ---------------------------------------------------------------------- the validation table
@pytest.mark.parametrize("model", MODELS)
def test_every_line_of_the_table_picks_a_real_stage(paths, model):
    for item in SUITES[model].validated:
        assert any(re.match(item.pattern, path) for path in paths[model]), item.title


@pytest.mark.parametrize("model", MODELS)
def test_the_table_of_a_clean_trace_is_all_right(paths, model):
    table = validation(model, [row(path) for path in paths[model]])
    assert table
    assert {item["status"] for item in table} == {OK}
    assert all(item["values"] > 0 for item in table)
    assert all(item["chained"]["max_abs"] == figures(0.5)["max_abs"] for item in table)


@pytest.mark.parametrize("model", MODELS)
def test_an_empty_selection_never_passes(model):
    for rows in ([], [row("no such path")], [row(path, variant="without tile") for path in ("f0", "features")]):
        table = validation(model, rows)
        assert table
        assert {(item["status"], item["values"]) for item in table} == {("not walked", 0)}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_line_passes_only_with_stages_and_without_faults(paths, data):
    model = data.draw(st.sampled_from(MODELS))
    chosen = data.draw(st.lists(st.sampled_from(paths[model]), max_size=12))
    rows = [row(path, data.draw(st.sampled_from([0.5, HARDLY, CLEARLY]))) for path in chosen]
    lines = {item.title: item.pattern for item in SUITES[model].validated}
    for line in validation(model, rows):
        picked = [r for r in rows if re.match(lines[line["title"]], r["path"])]
        assert line["values"] == len(picked)
        assert (line["status"] == OK) == (bool(picked) and all(r["status"] == OK for r in picked))


@pytest.mark.parametrize("model", MODELS)
def test_every_fault_inside_a_line_fails_it(paths, model):
    for item in SUITES[model].validated:
        path = next(path for path in paths[model] if re.match(item.pattern, path))
        for fault in (row(path, HARDLY), failed(path)):
            table = {line["title"]: line["status"] for line in validation(model, [row(path), fault])}
            assert table[item.title] == FAULT


def test_the_table_shows_the_worst_and_what_is_handed_on():
    rows = [row("feature_extractor.a", 0.2, own=3), row("feature_extractor.b", 0.6, own=4), row("features", own=9)]
    (line,) = (item for item in validation("hubert", rows) if item["title"] == "HuBERT feature extractor")
    assert line["added"]["max_abs"] == 0.6 * LIMIT["max_abs"]
    assert line["added"]["share"] == pytest.approx(0.6)
    assert line["chained"]["max_abs"] == 4 * LIMIT["max_abs"]


# ---------------------------------------------------------------------- code that both sides share
def test_shared_stages_are_the_same_code_and_never_ok():
    rows = [row("filtered", shared=True), row("f0"), row("pitch", shared=True)]
    assert [r["status"] for r in with_inheritance(rows)] == [SAME_CODE, OK, SAME_CODE]
    lines = {line["title"]: line["status"] for line in validation("pipeline", rows)}
    assert lines["High-pass, cuts and padding"] == SAME_CODE
    assert lines["Pitch and its codes"] == OK  # F0 is each side's own


def test_a_fault_in_a_shared_stage_is_a_fault():
    rows = [row("filtered", CLEARLY, shared=True), row("cuts", shared=True), row("padded", own=1000, shared=True)]
    assert [r["status"] for r in with_inheritance(rows)] == [FAULT, SAME_CODE, INHERITED]
    assert found(*rows).path == "filtered"
    assert validation("pipeline", rows)[0]["status"] == FAULT


def test_records_from_before_the_mark_still_read():
    old = row("filtered")
    assert "shared" not in old
    assert with_inheritance([old])[0]["status"] == OK
    assert validation("pipeline", [old])[0]["status"] == OK
