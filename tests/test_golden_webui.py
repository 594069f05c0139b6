"""Both sides against vectors of the WebUI's own code, and of odd upsampling rates in either project.

Upstream: RVC-Project's WebUI, revision 4338f12, and IAHispano/Applio, b9c0ccb. The limits are those of
``test_golden``: five times a field's ``float64_gap`` (at least 5e-7), ten times a pipeline's ``jitter_gap``
(at least 1e-6 for features, the padded audio and summaries). Host steps, lengths and pitch codes are exact.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import small_models
from test_golden import (
    BY_THE_VOICE,
    FACTOR,
    IDS,
    JITTER_FACTOR,
    SIDES,
    Arrays,
    Side,
    filter_limit,
    judge,
    recorded,
    shown,
)

from rvc_common import steps
from suites.inputs import recipe
from suites.inputs.weights import MANIFESTS

SMALLEST, SMALLEST_JITTERED = 5e-7, 1e-6
# not on the plain path: test_golden has each kind of network on it, and tests of small models hold it beside PyTorch
# for every stock voice and for odd rates (test_synthesizer), and for the WebUI's layer of HuBERT (test_hubert)
BOTH = IDS[:2]
SYNTHS = ("v2_40k", "v2_48k", "v1_40k", "v1_48k_five_stage", "v2_48k_nof0")
GENERATORS = ("webui_generator_30k_odd", "webui_generator_44k_nof0_odd")
GENERATORS += ("applio_generator_30k_odd", "applio_generator_44k_odd")
# Two seconds of a voice at full size take long. rvc_mlx converts the recording with every knob; PyTorch takes all
# three up to the voice. What follows is the same code for both (rvc_common.pipeline), and each side's voices have
# vectors of their own: webui_synth_*, and webui_nsf_source_40k with its unvoiced frames.
PIPELINES = {"v2_40k": IDS[:1], "v1_40k_index_mix": IDS[:2], "v2_40k_unvoiced": IDS[:1]}

OF_SIDE = {name: Side(p, o, o.get("optimize") == "none") for name, (p, o) in zip(IDS, SIDES, strict=True)}
# the first parameter to vary, so that a network's weights are made once for all three
EACH_SIDE = pytest.mark.parametrize("side", OF_SIDE.values(), ids=OF_SIDE)


def on_sides(sides: dict[str, list[str]]) -> pytest.MarkDecorator:
    """Each vector on the sides that are named for it."""
    found = [pytest.param(OF_SIDE[side], name, id=f"{name}-{side}") for name, own in sides.items() for side in own]
    return pytest.mark.parametrize(("side", "name"), found)


@functools.lru_cache(maxsize=3)
def weights(manifest: str, seed: int) -> tuple[dict[str, Any], Arrays]:
    about = recipe.load_manifest(MANIFESTS / f"{manifest}.json")
    kept = [entry for entry in about["tensors"] if entry.get("in_voice_checkpoint", True)]
    return about, recipe.make_state_dict(kept, seed)


@functools.cache
def fingerprint(manifest: str, seed: int) -> str:
    found: str = recipe.fingerprint(weights(manifest, seed)[1])
    return found


@functools.lru_cache(maxsize=8)
def built(side: Side, manifest: str, seed: int, profile: str) -> Any:
    about, state = weights(manifest, seed)
    if manifest == "rmvpe":
        return side.module("rmvpe").RMVPE.from_state_dict(state, profile=profile, **side.options)
    if manifest == "hubert_contentvec":
        return side.module("hubert").Hubert.from_state_dict(state, **side.options)
    facts = (about["config_list"], about["version"], bool(about["f0"]), about["vocoder"])
    return side.module("synthesizer").Synthesizer.from_state_dict(state, *facts, profile=profile, **side.options)


@pytest.fixture(scope="module", autouse=True)
def _freed() -> Iterator[None]:
    """Gigabytes, which the tests after these would have to do without."""
    yield
    weights.cache_clear()
    built.cache_clear()


def model(side: Side, meta: dict[str, Any]) -> Any:
    options = meta["options"]
    return built(side, options["manifest"], options["weights_seed"], options["profile"])


def limit_of(meta: dict[str, Any], field: str) -> float:
    """Of a field, or of the whole array that a stored head, tail or summary belongs to."""
    group, _, path = field.partition(".")
    key = f"{group.split('_')[0]}.{path}"
    if "jitter_gap" not in meta:
        return max(FACTOR * meta["float64_gap"][key], SMALLEST)
    limit = JITTER_FACTOR * meta["jitter_gap"][key]
    loose = group == "mid_stats" or key.endswith((".phone", ".features", ".padded_audio"))
    return max(limit, SMALLEST_JITTERED) if loose else limit


def check(found: Arrays, arrays: Arrays, meta: dict[str, Any]) -> None:
    """Every ``out.*`` and ``mid*`` field of the file, none left out."""
    fields = [field for field in arrays if field.startswith(("out.", "mid"))]
    assert fields
    for field in fields:
        group, _, path = field.partition(".")
        got, want = np.asarray(found[path]), arrays[field]
        if group == "mid_head":
            got = got[..., : want.shape[-1]]
        elif group == "mid_tail":
            got = got[..., -want.shape[-1] :]
        elif group == "mid_stats":
            assert got.size == np.prod(meta["truncated_shapes"][path]), field
            wide = got.astype(np.float64)
            got = np.array([wide.mean(), wide.std(), np.abs(wide).max()])
        judge(meta["name"], field, got if got.shape == want.shape else got[None], want, limit_of(meta, field))


class Strict:
    """The recorded draws; each must be asked for with upstream's kind and shape. ``asked``: their numbers."""

    def __init__(self, arrays: Arrays, meta: dict[str, Any]) -> None:
        self.draw, self.expected = recorded(arrays, meta), meta["draws"]
        self.asked: list[int] = []

    def __call__(self, index: int, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        self.asked.append(index)
        assert self.expected[index] == {"index": index, "kind": kind, "shape": list(shape)}
        return self.draw(index, kind, shape)


# ---------------------------------------------------------------------- networks
@EACH_SIDE
@pytest.mark.parametrize("name", ["webui_rmvpe_audio_101", "webui_rmvpe_audio_11"])
def test_audio_to_f0(side, golden, name):
    """Zeros in the log-mel up to a multiple of 32; eleven frames are too few for Applio."""
    arrays, meta = golden(name)
    rmvpe, want = model(side, meta), arrays["out.f0"]
    mel, f0 = rmvpe.mel(arrays["in.audio"]), rmvpe.f0(arrays["in.audio"])
    found = {"log_mel": mel[None], "salience": rmvpe.salience(mel)[None], "f0": f0}
    found |= shown({}, lambda watch: rmvpe.trace(mel[None], watch), "padded_log_mel")
    assert np.array_equal(f0 > 0, want > 0)
    assert np.abs(1200 * np.log2(f0[want > 0] / want[want > 0])).max(initial=0) <= 0.01
    check(found, arrays, meta)


@pytest.mark.parametrize("side", [OF_SIDE[name] for name in BOTH], ids=BOTH)
def test_hubert(side, golden):
    """v1: the ninth layer's output, projected; v2: the last layer's."""
    arrays, meta = golden("webui_hubert_1s")
    hubert = model(side, meta)
    features = {f"features_{v}": hubert.features(arrays["in.audio"], v, "webui") for v in ("v1", "v2")}
    check(features, arrays, meta)


@on_sides({f"webui_pipeline_{name}": sides for name, sides in PIPELINES.items()})
def test_pipeline(side, golden, name):
    """Before the voices, while the weights of RMVPE and HuBERT are at hand."""
    arrays, meta = golden(name)
    options, given_f0 = meta["options"], arrays.get("in.f0")
    hubert = built(side, "hubert_contentvec", options["hubert_seed"], "webui")
    rmvpe = built(side, "rmvpe", options["rmvpe_seed"], "webui") if given_f0 is None else None
    windows = options["window_config"]
    pipeline = side.module("pipeline").Pipeline(hubert, rmvpe, model(side, meta), profile="webui", windows=windows)
    draw, volume = Strict(arrays, meta), options["volume_envelope"]

    def convert(watch: Callable[[str, np.ndarray], None]) -> Arrays:
        audio, _ = pipeline.convert(
            arrays["in.audio"],
            16000,
            transpose=options["pitch_shift"],
            index=arrays.get("in.index_vectors"),
            index_rate=options["index_rate"],
            protect=options["protect"],
            rms_mix=volume,
            speaker=options["sid"],
            f0=given_f0,
            noise=draw,
            watch=lambda path, array: watch(path, np.array(array)),
        )
        return {"audio": audio}

    if side.whole:
        found = shown({}, convert, "segment.0.phone")
        arrays = {field: array for field, array in arrays.items() if field.partition(".")[2] not in BY_THE_VOICE}
    else:
        found = {}
        found |= convert(found.__setitem__)
        assert found["audio"].dtype == np.int16
        assert draw.asked == [0, 1, 2]
        rate = pipeline.synthesizer.sample_rate
        found["mixed"] = steps.mix_loudness(found["filtered"], found["joined"], rate, volume)
    found |= {
        "padded_audio": found["padded"],
        "segment_samples": np.array([found["padded"].size]),
        "segment.0.length": np.array([found["segment.0.phone"].shape[-2]]),
    }
    check(found, arrays, meta)


@on_sides(dict.fromkeys(GENERATORS, BOTH))
def test_odd_rates(side, golden, name):
    """The two projects pad odd rates by rules that exclude each other; without pitch, audio comes out longer."""
    arrays, meta = golden(name)
    ((key, published),) = meta["weights_fingerprint"].items()
    manifest, _, seed = key.partition(":")
    assert fingerprint(manifest, int(seed)) == published
    found: Arrays = {}
    draw = Strict(arrays, meta)
    inputs = (arrays["in.z"], arrays.get("in.f0"), arrays["in.sid"], draw)
    watched = model(side, meta).decode(*inputs, watch=found.__setitem__)
    found["audio"] = (watched if side.whole else model(side, meta).decode(*inputs))[:, None]
    assert draw.asked == (1 if side.whole else 2) * list(range(len(meta["draws"])))
    check(found, arrays, meta)


@EACH_SIDE
def test_source(side, golden):
    """Right before the voice that it is a part of."""
    arrays, meta = golden("webui_nsf_source_40k")
    found: Arrays = {}
    draw = Strict(arrays, meta)
    found["source"] = model(side, meta).source(arrays["in.f0"], draw, watch=found.__setitem__)
    assert draw.asked == [0, 1]
    check(found, arrays, meta)


@on_sides({f"webui_synth_{name}": BOTH for name in SYNTHS})
def test_synthesizer(side, golden, name):
    arrays, meta = golden(name)
    inputs = [arrays.get(f"in.{key}") for key in ("phone", "lengths", "pitch", "f0", "sid")]
    found: Arrays = {}
    draw, voice = Strict(arrays, meta), model(side, meta)
    if side.whole:
        audio = voice.infer(*inputs, draw, watch=found.__setitem__)
    else:
        # the call without a watcher is the one that users make: it may run in other pieces
        found = shown(arrays, lambda watch: voice.infer(*inputs, draw, watch=watch), "z")
        audio = voice.infer(*inputs, draw)
    assert draw.asked == (1 if side.whole else 2) * list(range(len(meta["draws"])))
    check(found | {"flow": found["z"], "audio": audio[:, None]}, arrays, meta)


# ---------------------------------------------------------------------- host steps
def test_f0_of_unvoiced_frames(golden):
    """Interpolated linearly in Hz, held at the ends, then transposed and coded: exact."""
    arrays, meta = golden("webui_f0_post")
    pad = 0.05
    windows = {"x_pad": pad, "x_query": 6, "x_center": 38, "x_max": 41}
    pipeline = small_models.pipeline("reference_torch", profile="webui", windows=windows)
    checked = 0
    for key, f0 in ((key.removeprefix("in.f0."), f0) for key, f0 in arrays.items() if key.startswith("in.f0.")):
        for shift in meta["options"]["shifts"]:
            audio = np.zeros(f0.size * 160 - int(2 * 16000 * pad), np.float32)
            events = pipeline.walk(audio, 16000, f0=f0, transpose=shift)
            carry = next(event.carry for event in events if event.path == "pitch")
            tag = f"{key}.shift_{'up' if shift > 0 else 'down' if shift < 0 else ''}{abs(shift)}"
            assert np.array_equal(carry["pitch"], arrays[f"out.coarse.{tag}"]), tag
            np.testing.assert_allclose(carry["pitchf"], arrays[f"out.f0.{tag}"], rtol=1e-12, atol=0)
            checked += 2
    assert checked == sum(field.startswith("out.") for field in arrays)


@pytest.mark.parametrize("name", PIPELINES)
def test_sixteen_bits(golden, name):
    """What is stored of the last floats, with the largest of all, gives the ends of the audio to a step."""
    arrays, _ = golden(f"webui_pipeline_{name}")
    last = "mixed" if "mid_head.mixed" in arrays else "joined"
    largest = np.float32(arrays[f"mid_stats.{last}"][2])
    for group, part in (("mid_head", slice(48)), ("mid_tail", slice(-48, None))):
        found = steps.to_int16(np.append(arrays[f"{group}.{last}"], largest))[:-1]
        assert found.dtype == arrays["out.audio"].dtype
        assert np.abs(found.astype(int) - arrays["out.audio"][part]).max() <= 1


def test_cuts_and_loudness(golden):
    arrays, meta = golden("webui_steps_40k")
    options = meta["options"]
    windows, rate = steps.Windows(**options["window_config"]), options["sr"]
    filtered = steps.high_pass(arrays["in.long_audio"])
    padded = np.pad(filtered, windows.samples()[0], mode="reflect")
    bounds = steps.segment_bounds(padded.size, steps.find_cuts(filtered, windows, "webui"), windows)
    samples = np.array([min(stop, padded.size) - start for start, stop, _ in bounds])
    found = {
        "segment_samples": samples,
        "segment_frames": np.array([last - start // 160 for start, _, last in bounds]),
        "segment_first_pitch": np.array([start // 160 for start, _, _ in bounds]),
        "joined_samples": (samples * rate // 16000 - 2 * rate).sum(),
    }
    for name, value in found.items():
        assert np.array_equal(value, arrays[f"out.{name}"]), name
    first = np.array([padded[start] for start, _, _ in bounds])
    limit = filter_limit(steps, arrays["in.long_audio"])
    judge(meta["name"], "out.segment_first_sample", first, arrays["out.segment_first_sample"], limit)
    source = steps.high_pass(arrays["in.audio"])
    for share in options["rates"]:
        field = f"out.rms_mixed.rate_{int(100 * share)}"
        mixed = steps.mix_loudness(source, arrays["in.converted"], rate, share)
        judge(meta["name"], field, mixed, arrays[field], limit_of(meta, field))


@EACH_SIDE
@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_index_file(side, golden, tmp_path, kind):
    """A stock file searches its nearest list alone; ``exhaustive`` gives what an index without lists does."""
    arrays, meta = golden("webui_retrieval")
    path = tmp_path / "voice.index"
    path.write_bytes(arrays["in.ivf_index_file"].tobytes())
    features = arrays["in.features"][0]
    retrieved = side.module("retrieval").load_bank(path).retrieve(features, exhaustive=kind == "flat")
    for rate in meta["options"]["rates"]:
        field = f"out.phone.{kind}.rate_{int(100 * rate)}"
        blended = retrieved * np.float32(rate) + np.float32(1 - rate) * features
        judge(meta["name"], field, blended[None], arrays[field], limit_of(meta, field))
