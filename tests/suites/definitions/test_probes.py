"""The inputs of traces: they fit every option that a run takes, and are what their comments say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from msgspec import inspect
from small_models import hubert, pipeline, rmvpe, synthesizer

import reference_torch
import rvc_mlx
from rvc_common.checks import PROFILES
from rvc_common.pipeline import RANGES
from rvc_common.rmvpe import N_BINS
from rvc_common.steps import HOP_SAMPLES, SAMPLE_RATE, Windows, find_cuts, segment_bounds
from rvc_mlx.rmvpe import TILE_FRAMES
from suites.base.errors import UserError
from suites.child.adapters.mlx import PIECES
from suites.definitions import SUITES, TRACED, stand_ins
from suites.definitions.base import LONGEST_SEGMENT_S
from suites.definitions.config import SuiteConfig
from suites.definitions.pipeline import Models
from suites.definitions.probes import Levelled
from suites.definitions.stack import Loaded
from suites.inputs.recordings import make_audio
from suites.inputs.weights import voice_names
from suites.measure.config import compose_config
from suites.trace.run import TraceRun

# of every voice here; and of options whose type does not tell what may be given
KNOWN = {"voice": [name for name in voice_names() if "v2" in name], "speaker": [0, 3]}
# no option of a call
OTHER = set(SuiteConfig.__struct_fields__)


def values(suite: str) -> Iterator[tuple[str, Any]]:
    """Every option of a suite with its smallest and largest value, or all of a few."""
    for field in inspect.type_info(SUITES[suite].options).fields:
        kind = field.type
        if field.name in OTHER or field.name not in compose_config(suite, []).plain()["suite"]:
            continue
        if field.name in KNOWN:
            yield from ((field.name, value) for value in KNOWN[field.name])
        elif isinstance(kind, inspect.LiteralType):
            yield from ((field.name, value) for value in kind.values)
        else:
            assert isinstance(kind, inspect.FloatType), f"{field.name}: say what may be given"
            yield from ((field.name, value) for value in (kind.ge, kind.le))


OPTIONS = [(suite, f"suite.{name}={value}") for suite in TRACED for name, value in values(suite)]
OPTIONS += [(suite, word) for suite in TRACED for word in ("profile=webui", "seed=5", "durations=[0.16]")]


def model_of(suite: str, settings: Mapping[str, Any]) -> Any:
    profile = settings["profile"]
    if suite == "hubert":
        return hubert("rvc_mlx")
    if suite == "rmvpe":
        return rmvpe("rvc_mlx", profile=profile)
    if suite == "synthesizer":
        return synthesizer("rvc_mlx", settings["voice"], profile=profile)
    made = pipeline("rvc_mlx", settings["voice"], profile)
    return Models(rvc_mlx, Loaded(made.hubert, made.rmvpe, made.synthesizer), settings)


@pytest.mark.parametrize(("suite", "word"), OPTIONS)
def test_every_option_of_a_run_fits_every_probe(suite, word):
    """Walks begin: what excludes or exceeds something is refused there."""
    config = compose_config(suite, ["measure=smoke", word])
    settings, definition = config.settings(None), SUITES[suite]
    model = model_of(suite, settings)
    seconds = 0.16 if "durations" in word else 0.5
    probes = definition.probes(make_audio("synthetic", seconds, None, 0, 30), settings, definition.facts(model))
    for probe in probes:
        if "stand_ins" in probe.settings:  # every option is turned there
            break
        if "mel" not in probe.inputs and probe.pieces:  # a whole call, and not a long one
            assert next(iter(definition.walk(model, probe.inputs, settings | probe.settings))).carry


@pytest.mark.parametrize(
    ("suite", "option", "message"),
    [
        ("synthesizer", {"speaker": 4}, "suite.speaker=4: this voice has speakers 0 to 3"),
        ("pipeline", {"speaker": 4}, "suite.speaker=4: this voice has speakers 0 to 3"),
        ("pipeline", {"index": "/nowhere.npy"}, "index /nowhere.npy: no such file"),
        ("pipeline", {"index": "WIDE"}, "holds vectors of 9 values, this voice takes 8"),
    ],
)
def test_an_option_that_no_probe_could_take_is_refused(tmp_path, suite, option, message):
    np.save(tmp_path / "wide.npy", np.ones((3, 9), np.float32))
    option = {name: str(tmp_path / "wide.npy") if value == "WIDE" else value for name, value in option.items()}
    settings = compose_config(suite, ["measure=smoke"]).settings(None)
    facts = {"speakers": 4, "phone_channels": 8}
    SUITES[suite].check(settings, facts)
    with pytest.raises(UserError, match=message):
        SUITES[suite].check(settings | option, facts)


def probes_of(suite: str, seconds: float = 1.5) -> dict[str, Any]:
    facts = {"speakers": 4, "phone_channels": 8, "hidden_channels": 8, "inter_channels": 8, "has_f0": True}
    facts |= {"conv_channels": 8, "projected": True, "layers": 12}
    settings = compose_config(suite, ["measure=smoke"]).settings(None)
    found = SUITES[suite].probes(make_audio("synthetic", seconds, None, 0, 30), settings, facts)
    return {probe.name: probe for probe in found}


def test_hubert_has_even_and_odd_lengths_everywhere_three_items_and_one_frame():
    found = probes_of("hubert", 3.0)
    lengths = {name: probe.inputs["audio"].shape[-1] for name, probe in found.items() if probe.walked}
    parities: dict[int, set[int]] = {}
    for count in lengths.values():
        for layer, (kernel, stride) in enumerate(zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True)):
            count = (count - kernel) // stride + 1
            parities.setdefault(layer, set()).add(count % 2)
    assert all(found == {0, 1} for found in parities.values())
    batch, other = (found[name].inputs["audio"] for name in ("batch", "same shape"))
    assert batch.shape == other.shape == (3, 8475)
    assert not np.isclose(batch, other).all(axis=1).any()
    assert SUITES["hubert"].frames(lengths["one frame"]) == 1
    assert SUITES["hubert"].frames(lengths["clip"]) >= 128  # from there on attention goes in blocks


def test_a_short_clip_is_long_enough_for_a_floor():
    """Repeated as a batch, and not silent."""
    clip = probes_of("hubert", 0.2)["clip"].inputs["audio"]
    assert clip.shape == (2, 3200)
    assert (clip[0] == clip[1]).all()
    for seconds in (0.16, 0.3, 0.5):
        audio = TraceRun(compose_config("synthesizer", ["measure=smoke"]))._audio(seconds)
        assert audio.samples.size == int(seconds * SAMPLE_RATE)
        assert audio.f0_hz.size == 1 + audio.samples.size // HOP_SAMPLES
        assert np.abs(audio.samples).max() > 0.1
        assert audio.f0_hz.max() > 50
        assert audio.source.endswith(f"last {seconds:g} s")


def test_calls_have_other_lengths_levels_types_and_sizes_of_batches():
    def calls(suite: str, name: str) -> list[np.ndarray]:
        found = probes_of(suite).values()
        return [probe.inputs[name] for probe in found if not probe.walked and name in probe.inputs]

    for suite, edge, hop, block in (("hubert", 400, 320, 4), ("rmvpe", -160, 160, 16)):
        audio = calls(suite, "audio")
        frames = {(one.shape[-1] - edge) // hop + (suite == "hubert") for one in audio}
        assert len({count % block for count in frames}) >= 4
        assert len({one.shape[-1] % 160 for one in audio}) > 5
        assert max(np.abs(one).max() for one in audio) >= 1 > 1e-3 >= min(np.abs(one).max() for one in audio)
        assert {one.dtype for one in audio} == {np.dtype(f"float{bits}") for bits in (16, 32, 64)}
    phones = calls("synthesizer", "phone")
    assert {1, 9, 10, 11, 20, 21, 22} <= {one.shape[1] for one in phones}
    assert {len(one) for one in phones} == {1, 2, 4, 5}
    assert {len(one) for one in calls("rmvpe", "mel") if one.ndim == 3} == {1, 2, 4}
    assert {one.dtype for name in ("lengths", "speaker") for one in calls("synthesizer", name)} == {
        np.dtype(name) for name in ("int64", "int32", "uint8")
    }


def test_hubert_walks_the_first_layers_alone():
    extracted = np.random.default_rng(0).standard_normal((30, 32), dtype=np.float32)
    walked = [
        SUITES["hubert"].walk(hubert(side), {"extracted": extracted}, {}) for side in ("rvc_mlx", "reference_torch")
    ]
    paths, theirs = ([event.path for event in one] for one in walked)
    assert paths[-1] == theirs[-1] == "encoder"
    assert {path.split(".")[2] for path in paths if path.startswith("encoder.layers.")} == {"0"}


def test_rmvpe_has_whole_blocks_tiles_and_the_ends_of_all_ranges():
    found = probes_of("rmvpe")
    blocks, same = (found[name].inputs["audio"] for name in ("blocks", "same length"))
    frames = 1 + blocks.size // HOP_SAMPLES
    assert (blocks.size, blocks.size % 2, frames % 32, frames // 32) == (same.size, 1, 0, 3)
    salience = found["salience"].inputs["salience"]
    assert {0, N_BINS - 1} <= set(salience.argmax(axis=1).tolist())
    assert ((salience == salience.max(axis=1, keepdims=True)).sum(axis=1) == 2).any()
    assert (salience.max(axis=1) == np.float32(0.03)).any()
    small, halo = PIECES["rvc_mlx.rmvpe.TILE_FRAMES"], rmvpe("rvc_mlx").config.halo_frames
    assert small < TILE_FRAMES
    assert found["long"].inputs["mel"].shape[2] > small + halo
    assert len(found["batch"].inputs["mel"]) == 3


def test_the_synthesizer_has_even_and_odd_lengths_three_masks_and_all_pitches():
    found = probes_of("synthesizer", 1.0)
    batch, same, few = (found[name].inputs for name in ("batch", "same shape", "few frames"))
    assert batch["phone"].shape == same["phone"].shape == (3, 26, 8)
    assert found["clip"].inputs["phone"].shape[1] == found["clip"].inputs["lengths"][0] == 99
    assert not (batch["lengths"] == same["lengths"]).any()
    assert (batch["speaker"] != same["speaker"]).any()
    assert len(set(batch["speaker"].tolist())) == 3
    rate = found["batch"].settings["rate"]
    assert int(26 * (1 - float(np.float32(rate)))) == 8  # and not 9
    assert found["same shape"].settings == {"rate": rate, "seed": 1}
    voiced = batch["f0"][batch["f0"] > 0]
    assert voiced.min() < 31 < 1100 < voiced.max()
    assert {1, 255} <= set(batch["pitch"].ravel().tolist())
    assert few["phone"].shape[1] < 10
    assert not few["f0"].any()


def test_the_pipeline_has_three_segments_a_limited_and_a_faint_result():
    found = probes_of("pipeline")
    windows, rate = Windows(**found["knobs"].settings["windows"]), found["knobs"].settings["sample_rate"]
    audio = np.resize(found["knobs"].inputs["audio"], int(found["knobs"].inputs["audio"].size * SAMPLE_RATE / rate))
    assert len(find_cuts(audio, windows, "applio")) == 2
    loud, faint = found["loud"], found["faint"]
    assert loud.inputs["audio"].shape == faint.inputs["audio"].shape
    assert np.sqrt(np.mean(np.square(loud.inputs["audio"]))) > 0.6
    assert np.abs(faint.inputs["audio"]).max() == pytest.approx(1e-5)
    f0 = loud.inputs["own_f0"]
    assert (f0.min(), f0.max()) == (0, 3000)
    assert (f0.size - faint.inputs["own_f0"].size) == 1
    ends = found["ends"].settings
    assert (faint.settings["protect"], ends["index_rate"], ends["autotune"]) == (0.49, 1.0, 1.0)
    assert found["knobs"].settings["propose_hz"] == RANGES["propose_hz"].low
    audio = found["ends"].inputs["audio"]
    assert -audio.min() > 1 > audio.max()  # limited by its negative peak alone


def test_a_result_just_below_the_peak_limiter():
    class Voice:
        sample_rate = 100

        def infer(self) -> np.ndarray:
            return np.array([[9.0] * 10 + [0.25, -0.5] + [9.0] * 10], np.float32)

    audio = Levelled(Voice(), None, 0.1).infer()
    assert audio[0, 10:-10].tolist() == pytest.approx([0.49, -0.98])
    assert Levelled(Voice(), 2.0, 0.1).infer()[0, 10] == 0.5


@pytest.fixture(scope="module")
def conversions():
    settings = compose_config("pipeline", ["measure=smoke"]).settings(None)
    audio = make_audio("synthetic", 1.5, None, 0, 30)
    probes = list(stand_ins.conversions(audio, 4, 0))
    sides = {}
    for side, package in (("rvc_mlx", rvc_mlx), ("reference_torch", reference_torch)):
        made = pipeline(side)
        sides[side] = Models(package, Loaded(made.hubert, made.rmvpe, made.synthesizer), settings)
    return settings, probes, sides


def test_both_sides_convert_alike_with_stand_ins(conversions):
    settings, probes, sides = conversions
    suite = SUITES["pipeline"]
    for probe in probes[:20]:
        given, own = dict(probe.inputs), settings | probe.settings
        if own["index_rate"]:
            given["vectors"] = suite.own_features(sides["reference_torch"], given, own)
        ours, theirs = (suite.call(model, given, own).astype(np.float64) for model in sides.values())
        assert ours.shape == theirs.shape
        assert np.abs(theirs).max() > 0 or not np.abs(given["audio"]).max()
        assert np.abs(ours - theirs).max() <= max(1e-5 * np.abs(theirs).max(), theirs.max() > 1), probe.name
        *_, last = suite.walk(sides["rvc_mlx"], given, own)
        assert np.array_equal(last.carry["audio"], ours)


def test_stand_ins_have_every_knob_between_and_at_its_ends(conversions):
    found = [probe.settings for probe in conversions[1][: stand_ins.COUNT]]
    for name, allowed in RANGES.items():
        values = {one[name] for one in found} - {None}
        assert {min(values), max(values)} == {allowed.low, allowed.high}, name
        assert len(values) > 3 or name == "autotune", name
        for profile in PROFILES:
            assert len({one[name] for one in found if one["profile"] == profile}) > 2, name
    assert any(len(probe.inputs["audio"]) % 2 for probe in conversions[1])


def test_the_longest_stand_in_has_a_segment_as_long_as_any_can_be(conversions):
    settings, probes, sides = conversions
    probe = next(probe for probe in probes if probe.name.endswith("90 s"))
    events = SUITES["pipeline"].walk(sides["rvc_mlx"], probe.inputs, settings | probe.settings | {"index_rate": 0})
    cuts = next(event.carry["cuts"] for event in events if event.path == "cuts")
    assert 49 * SAMPLE_RATE < np.diff(cuts).max() < 50 * SAMPLE_RATE


def test_the_longest_segment():
    """Cuts as far apart as the search for them allows; a voice never gets more at once."""
    windows = Windows()
    _, query, center, _ = windows.samples()
    size = 2 * center + query + 160
    quiet = np.ones(size)
    for at in (center - query, 2 * center + query - 160):  # the earliest and the latest place
        quiet[at : at + 320] = 0
    cuts = find_cuts(quiet, windows, "webui")
    bounds = segment_bounds(size + 2 * windows.samples()[0], cuts, windows)
    longest = max(stop - start for start, stop, _ in bounds) / SAMPLE_RATE
    assert 51 < longest <= LONGEST_SEGMENT_S + 0.01
