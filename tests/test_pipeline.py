"""The whole conversion: both sides agree, knobs mean the same, odd recordings are handled."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import filtfilt
from small_models import SIDES, VOICES, hubert, module, pipeline, rmvpe, snr_db, synthesizer

from rvc_common import steps
from suites.child.adapters import load_adapter

PAIR = ("reference_torch", "rvc_mlx")
BOTH = pytest.mark.parametrize("side", PAIR)
RNG = np.random.default_rng(0)
BANK = RNG.standard_normal((50, 128)).astype(np.float32)
KNOBS = {"index": BANK, "index_rate": 0.75, "protect": 0.2, "rms_mix": 0.25, "transpose": 3, "speaker": 2}
NARROW = {"x_pad": 0.1}  # seconds of mirrored audio on either side, which a conversion throws away
SHORT = NARROW | {"x_query": 0.4, "x_center": 1.0, "x_max": 1.5}
BRIEF = NARROW | {"x_query": 0.1, "x_center": 0.25, "x_max": 0.4}


@pytest.fixture(scope="module")
def sides():
    return [pipeline(side) for side in PAIR]


@pytest.mark.parametrize(("windows", "knobs"), [(None, {}), (BRIEF, KNOBS)], ids=["whole", "cut, with knobs"])
def test_sides_agree_when_f0_is_handed_over(voice, knobs, windows):
    """In the waveform itself, and to the sample in length."""
    (reference, ours), seen = [pipeline(side, windows=windows) for side in PAIR], {}
    voice = voice[: 8000 if windows is None else 16000]
    f0 = reference.rmvpe.f0(voice)
    want, rate = reference.convert(voice, 16000, f0=f0, noise=4, watch=lambda n, v: seen.update({n: v}), **knobs)
    got, _ = ours.convert(voice, 16000, f0=f0, noise=4, **knobs)
    assert rate == 40000
    assert len(seen["cuts"]) == (1 if windows is None else 4)
    assert snr_db(got, want) >= 80
    assert got.dtype == np.float32
    assert np.abs(got).max() <= 0.99


@pytest.mark.parametrize("name", VOICES)
def test_every_voice_with_its_own_f0(sides, voice, name):
    results = []
    for side, parts in zip(PAIR, sides, strict=True):
        model = module(side, "pipeline").Pipeline(parts.hubert, parts.rmvpe, synthesizer(side, name), windows=SHORT)
        results.append(model.convert(voice[:8000], 16000))
    (want, rate), (got, other) = results
    assert rate == other
    assert snr_db(got, want) >= 50
    assert np.corrcoef(got, want)[0, 1] >= 0.99999


def test_the_webuis_rules(voice):
    results = [pipeline(side, profile="webui", windows=NARROW).convert(voice[:8000], 16000) for side in PAIR]
    assert all(audio.dtype == np.int16 for audio, _ in results)
    assert snr_db(results[1][0], results[0][0]) > 45
    assert np.abs(results[0][0]).max() <= 0.99 * 32768


@pytest.mark.parametrize("name", ["synth_v2_40k_f0", "synth_v2_48k_nof0", "synth_v2_24k_f0_refinegan"])
def test_small_pieces_change_nothing_but_rounding(name, voice):
    """Before the conversion to 16 bits; after it, a value may be one step further off."""
    model, found, knobs = pipeline("rvc_mlx", name, "webui", windows=SHORT), [], KNOBS | {"rms_mix": 1.0}
    for pieces in (contextlib.nullcontext, load_adapter("mlx", "cpu").small_pieces):
        steps: dict[str, np.ndarray] = {}
        with pieces():
            model.convert(voice[:16000], 16000, watch=lambda n, v, steps=steps: steps.update({n: v}), **knobs)
        found.append(steps)
    whole, cut = found
    assert (cut["segment.0.features"] != whole["segment.0.features"]).any()
    assert snr_db(cut["joined"], whole["joined"]) > 90
    error = np.abs(cut["joined"] - whole["joined"]).max()  # moves the peak too, which all values are divided by
    assert np.abs(cut["audio"].astype(int) - whole["audio"]).max() <= 1 + 2 * 32768 * error


@BOTH
def test_the_same_seed_twice_and_another(side, voice):
    model = pipeline(side, windows=NARROW)
    first, again, other = (model.convert(voice[:8000], 16000, noise=seed)[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize("sr", [8000, 44100, 192000])
def test_any_rate(voice, sr):
    given = soxr.resample(voice[:8000], 16000, sr, quality="VHQ")
    (want, _), (got, _) = (pipeline(side, windows=NARROW).convert(given, sr) for side in PAIR)
    assert abs(want.size - 0.5 * 40000) <= 3 * 800
    assert snr_db(got, want) > 50


@BOTH
@pytest.mark.parametrize(
    ("audio", "options", "message"),
    [
        (np.zeros(160, np.float32), {}, "10 ms is too short"),
        (np.zeros(10, np.float32), {}, "too short"),
        (np.zeros(0, np.float32), {}, "too short"),
        (np.full(16000, np.nan, np.float32), {}, "16000 NaN"),
        (np.zeros((2, 16000), np.float32), {}, "mono"),
        (np.zeros(16000, np.int16), {}, "mono floats"),
        (np.zeros(16000, np.float32), {"sr": 12}, "makes no sense"),
        (np.zeros(16000, np.float32), {"protect": 0.7}, "protect"),
        (np.zeros(16000, np.float32), {"index_rate": 2}, "index_rate"),
        (np.zeros(16000, np.float32), {"rms_mix": -1}, "rms_mix"),
        (np.zeros(16000, np.float32), {"f0": np.zeros(7)}, "101, padded 301"),
        (np.zeros(16000, np.float32), {"f0": np.full(100, np.inf)}, "finite"),
        (np.zeros(16000, np.float32), {"index": BANK[:, :5], "index_rate": 1}, "holds vectors of 5"),
        (np.zeros(16000, np.float32), {"index": "missing.npy", "index_rate": 1}, "no such file"),
        (np.zeros(16000, np.float32), {"speaker": 9}, "speakers 0 to 3"),
        (np.zeros(16000, np.float32), {"transpose": 49}, "-48 to 48 semitones"),
        (np.zeros(16000, np.float32), {"transpose": float("nan")}, "-48 to 48 semitones"),
        (np.zeros(16000, np.float32), {"propose_hz": 0}, "1 to 8000 Hz"),
        (np.zeros(16000, np.float32), {"autotune": 1, "transpose": 1}, "one or the other"),
    ],
)
def test_what_cannot_be_used_is_refused(sides, side, audio, options, message):
    with pytest.raises(ValueError, match=message):
        sides[PAIR.index(side)].convert(audio, **{"sr": 16000} | options)


@BOTH
def test_short_and_silent_recordings(side):
    model = pipeline(side, windows=NARROW)
    assert model.convert(np.zeros(16000, np.float32), 16000)[0].size == 39200
    assert 0 < model.convert(np.full(800, 0.1, np.float32), 16000)[0].size <= 2000


@BOTH
def test_f0_of_the_recording_or_of_the_padded_one(side, voice):
    model, given, seen = pipeline(side, windows=NARROW), voice[:8000], {}
    want, _ = model.convert(given, 16000, watch=lambda n, v: seen.update({n: v}))
    assert (model.convert(given, 16000, f0=seen["f0"])[0] == want).all()
    own: dict[str, np.ndarray] = {}
    model.convert(given, 16000, f0=seen["f0"][10:61], watch=lambda n, v: own.update({n: v}))
    assert own["f0"].size == seen["f0"].size - 1
    assert (own["f0"][10:60] == seen["f0"][10:60]).all()


@BOTH
def test_a_voice_with_pitch_needs_some(side):
    model = module(side, "pipeline").Pipeline(hubert(side), None, synthesizer(side, "synth_v2_40k_f0"))
    with pytest.raises(ValueError, match="needs pitch"):
        model.convert(np.zeros(16000, np.float32), 16000)
    voice = synthesizer(side, "synth_v2_48k_nof0")
    silent = module(side, "pipeline").Pipeline(hubert(side), None, voice, windows=NARROW)
    assert silent.convert(np.zeros(16000, np.float32), 16000)[1] == 48000


@BOTH
def test_models_that_do_not_fit_are_told_before_the_work(side):
    build, parts = module(side, "pipeline").Pipeline, (hubert(side), rmvpe(side))
    voice = synthesizer(side, "synth_v2_40k_f0")
    voice.version = "v1"
    with pytest.raises(ValueError, match="makes 64 values a frame, this v1 voice takes 128"):
        build(*parts, voice)
    voice.version, other = "v2", synthesizer(side, "synth_v2_40k_f0", profile="webui")
    for models, name in (((*parts, other), "voice"), ((parts[0], rmvpe(side, profile="webui"), voice), "RMVPE")):
        with pytest.raises(ValueError, match=f"this {name} is for profile 'webui', the pipeline for 'applio'"):
            build(*models)
    voice.sample_rate = 48000
    with pytest.raises(ValueError, match="400 samples per 10 ms, which is not 48000 Hz"):
        build(*parts, voice)


@BOTH
def test_a_conversion_that_overflows_is_an_error(side, voice, monkeypatch):
    model = pipeline(side)
    monkeypatch.setattr(type(model.synthesizer), "infer", lambda *_, **__: np.full((1, 200000), np.nan, np.float32))
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.convert(voice[:16000], 16000)


@BOTH
def test_windows_are_checked(side):
    for windows, message in (({"x_paf": 1}, "unknown windows"), ({"x_query": 50}, "below x_center")):
        with pytest.raises(ValueError, match=message):
            pipeline(side, windows=windows)
    with pytest.raises(ValueError, match="profile"):
        pipeline(side).__class__(hubert(side), rmvpe(side), synthesizer(side, VOICES[0]), profile="other")


# ---------------------------------------------------------------------- steps
@settings(max_examples=20, deadline=None)
@given(samples=st.integers(19, 3000), seed=st.integers(0, 99))
def test_the_blockwise_filter_is_scipys(samples, seed):
    audio = np.random.default_rng(seed).standard_normal(samples)
    kept, steps.FILTER_BLOCK = steps.FILTER_BLOCK, 700
    try:
        assert (steps.high_pass(audio) == filtfilt(*steps.high_pass_coefficients(), audio)).all()
    finally:
        steps.FILTER_BLOCK = kept


@given(seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_pitch_codes(seed):
    f0 = np.random.default_rng(seed).uniform(0, 2000, 50)
    codes = steps.coarse_pitch(f0)
    assert (codes >= 1).all()
    assert (codes <= 255).all()
    order = np.argsort(f0)
    assert (np.diff(codes[order]) >= 0).all()
    assert steps.coarse_pitch(np.zeros(3)).tolist() == [1, 1, 1]


def test_cuts_lie_in_the_quiet():
    """And the two projects' rules for quiet differ."""
    audio = np.random.default_rng(1).standard_normal(7 * 16000) * 0.1
    audio[33000:33600] = 0
    windows = steps.Windows(1, 1, 2, 3)
    cuts = {profile: steps.find_cuts(audio, windows, profile) for profile in ("applio", "webui")}
    assert cuts["webui"][0] == (33000 + 80) // 160 * 160  # the first window of silence, rounded down
    assert cuts["applio"] != cuts["webui"]
    assert all(cut % 160 == 0 for cut in cuts["applio"] + cuts["webui"])
    assert steps.find_cuts(audio[: 3 * 16000 - 160], windows, "applio") == []


def test_gaps_are_filled_as_the_webui_does():
    assert steps.fill_unvoiced(np.array([0, 100, 0, 0, 130, 0.0])).tolist() == [100, 100, 110, 120, 130, 130]
    assert steps.fill_unvoiced(np.zeros(3)).tolist() == [0, 0, 0]


# ---------------------------------------------------------------------- walks
@BOTH
def test_noise_counts_over_segments(side, voice):
    asked: list[tuple[int, str]] = []

    def draw(index, kind, shape):
        asked.append((index, kind))
        return np.full(shape, 0.5, np.float32)

    pipeline(side, windows=BRIEF).convert(voice[:12000], 16000, noise=draw)
    assert [index for index, _ in asked] == list(range(9))
    assert [kind for _, kind in asked] == ["normal", "uniform", "normal"] * 3


HOST = {"filtered", "cuts", "padded", "pitchf", "pitch", "phone", "trimmed", "joined", "audio"}


@BOTH
@pytest.mark.parametrize("f0", [None, np.full(101, 200.0)], ids=["own f0", "given f0"])
def test_the_host_steps_are_marked_as_shared(side, f0, voice):
    """The segment's audio, its features and what is retrieved are the implementation's own."""
    events = list(pipeline(side, windows=NARROW).walk(voice[:16000], 16000, f0=f0, index=BANK, index_rate=0.5))
    shared = {event.whole_path for event in events if event.shared}
    own = {event.whole_path for event in events if not event.shared}
    assert {path.removeprefix("segment.0.") for path in shared} == HOST | ({"f0"} if f0 is not None else set())
    assert {"segment.0.features", "segment.0.retrieved", "segment.0.audio"} <= own


def test_plain_path_converts_alike(voice):
    want, got = (pipeline(side, windows=NARROW).convert(voice[:8000], 16000)[0] for side in ("rvc_mlx", "plain"))
    assert snr_db(got, want) > 50
    assert list(SIDES) == ["reference_torch", "rvc_mlx", "plain"]
