"""The synthesizer: both sides agree within float32's rounding, for every kind of voice and input."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_models import SIDES, VOICES, facts, inputs, module, synthesizer, voice_state

from reference_torch import Synthesizer
from reference_torch.vocoder import HiFiGAN
from rvc_common import CheckpointError
from rvc_common.config import CONFIG_NAMES, SynthesizerConfig
from rvc_mlx.keys import state_shapes
from suites.inputs import recipe
from suites.inputs.weights import MANIFESTS

# another float32 implementation may err by this many times what the reference itself does
FACTOR = 8.0


def rounding(exact: np.ndarray, reference: np.ndarray) -> float:
    """The reference's error; at least one unit in the last place of the loudest value."""
    return max(float(np.abs(reference - exact).max()), float(np.finfo(np.float32).eps * np.abs(exact).max()))


@functools.cache
def reference_and_truth(name: str) -> tuple[np.ndarray, np.ndarray]:
    models = synthesizer("reference_torch", name), synthesizer("reference_torch", name, dtype="float64")
    want, truth = (model.infer(**inputs(model, frames=16, batch=3), noise=5) for model in models)
    return want, truth


@pytest.mark.parametrize("name", VOICES)
@pytest.mark.parametrize("side", ["rvc_mlx", "plain"])
def test_every_voice_with_batch_speakers_and_padding(side, name):
    (want, truth), ours = reference_and_truth(name), synthesizer(side, name)
    got = ours.infer(**inputs(ours, frames=16, batch=3), noise=5)
    assert got.shape == want.shape == (3, 16 * ours.hop_samples)
    assert np.abs(got - truth).max() <= FACTOR * rounding(truth, want)


@settings(max_examples=8, deadline=None)
@given(frames=st.integers(1, 60), batch=st.integers(1, 3), seed=st.integers(0, 1000))
def test_any_length_and_batch(frames, batch, seed):
    name = VOICES[seed % len(VOICES)]
    reference, ours = synthesizer("reference_torch", name), synthesizer("rvc_mlx", name)
    arguments = inputs(reference, frames, batch, seed)
    want, got = (model.infer(**arguments, noise=seed) for model in (reference, ours))
    assert got.shape == want.shape == (batch, frames * reference.hop_samples)
    assert np.abs(got - want).max() <= 2e-5


ODD_RATES = [
    ("applio", True, (5, 3, 2)),
    ("applio", True, (3, 3, 3)),
    ("applio", False, (5, 3, 2)),
    ("webui", True, (5, 3, 2)),
    ("webui", True, (3, 7, 4)),
    ("webui", False, (3, 3, 3)),
]


@pytest.mark.parametrize(("profile", "f0", "rates"), ODD_RATES)
def test_odd_rates(profile, f0, rates):
    """Odd rates are padded by other rules in each project, and Applio's hold only with pitch."""
    config = dict(zip(CONFIG_NAMES, facts("synth_v2_40k_f0")[0], strict=True))
    even_only = profile == "applio" and f0  # this rule fits kernels of twice the rate, the other one odd kernels
    kernels = [2 * r if even_only or r % 2 == 0 else 2 * r + 1 for r in rates]
    config |= {"upsample_rates": list(rates), "upsample_kernel_sizes": kernels, "sr": 16000}
    donor = {k: v for k, v in voice_state("synth_v2_40k_f0").items() if k in ("emb_g.weight", "enc_p.emb_phone.weight")}
    shapes = state_shapes(SynthesizerConfig.make(config, donor, "v2", f0, "HiFi-GAN"), profile)
    state = recipe.make_state_dict([{"key": k, "shape": s, "dtype": "float32"} for k, s in shapes.items()], 4)
    audio = []
    for side, options in SIDES.items():
        build = module(side, "synthesizer").Synthesizer.from_state_dict
        model = build(state, config, "v2", f0, "HiFi-GAN", profile=profile, **options)
        audio.append(model.infer(**inputs(model, 9), noise=1))
    assert all(a.shape == (1, 9 * int(np.prod(rates))) for a in audio)
    assert max(np.abs(a - audio[0]).max() for a in audio) < 1e-5


@pytest.mark.parametrize(
    ("profile", "f0", "rates", "kernels", "level"),
    [
        ("applio", True, (5, 3, 2), (10, 7, 4), 1),  # odd, and the kernel not twice the rate
        ("applio", True, (4, 3, 1), (8, 6, 2), 2),
        ("applio", True, (4, 2), (8, 5), 1),  # even, and the kernel odd
        ("applio", False, (4, 2), (3, 4), 0),
        ("webui", True, (5, 2), (10, 4), 0),
        ("webui", True, (5, 3), (11, 7), 0),  # the source would come out one frame short
        ("webui", True, (2, 1), (4, 3), 0),
        ("webui", False, (4, 2), (8, 1), 1),
    ],
)
@pytest.mark.parametrize("side", SIDES)
def test_rates_that_neither_project_runs_are_refused(side, profile, f0, rates, kernels, level):
    """At load, by the level's number."""
    config = dict(zip(CONFIG_NAMES, facts("synth_v2_40k_f0")[0], strict=True))
    config |= {"upsample_rates": list(rates), "upsample_kernel_sizes": list(kernels), "sr": 16000}
    build = module(side, "synthesizer").Synthesizer.from_state_dict
    told = rf"level {level} with rate {rates[level]} and kernel {kernels[level]}: .* under profile {profile} needs"
    with pytest.raises(CheckpointError, match=told):
        build(voice_state("synth_v2_40k_f0"), config, "v2", f0, "HiFi-GAN", profile=profile, **SIDES[side])


STOCK = SynthesizerConfig.make(facts("synth_v2_40k_f0")[0], voice_state("synth_v2_40k_f0"), "v2", True, "HiFi-GAN")


@settings(max_examples=200, deadline=None)
@given(
    profile=st.sampled_from(["applio", "webui"]),
    f0=st.booleans(),
    levels=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 15)), min_size=1, max_size=4),
)
@example(profile="applio", f0=True, levels=[(7, 14), (4, 8), (3, 6)])
@example(profile="webui", f0=True, levels=[(5, 11), (7, 15), (2, 4)])
def test_exactly_the_rates_that_run_are_accepted(profile, f0, levels):
    """Each level's convolutions run, and with pitch the two that are added have the same length."""
    rates, kernels = zip(*levels, strict=True)
    small = {"upsample_initial_channel": 16, "resblock_kernel_sizes": (3,), "resblock_dilation_sizes": ((1,),)}
    given = small | {"has_f0": f0, "upsample_rates": rates, "upsample_kernel_sizes": kernels}
    config = dataclasses.replace(STOCK, **given)
    decoder, x, runs = HiFiGAN(config, profile), torch.zeros(1, 16, 9), True
    source = torch.zeros(1, 1, 9 * config.hop_samples)
    try:
        for i, up in enumerate(decoder.ups):
            x = up(x)
            runs = runs and (not f0 or decoder.noise_convs[i](source).shape == x.shape)
    except RuntimeError:  # PyTorch takes no negative padding, and no output padding at a rate of 1
        runs = False
    try:
        config.check_upsampling(profile)
    except CheckpointError:
        assert not runs
    else:
        assert runs


@pytest.mark.parametrize("rate", [0.4, 0.99, 1.0])
def test_rate_drops_leading_frames(rate):
    frames, results = 50, []
    for side in SIDES:
        model = synthesizer(side, "synth_v2_40k_f0")
        results.append(model.infer(**inputs(model, frames), noise=2, rate=rate))
    kept = frames - int(frames * (1.0 - float(np.float32(rate))))
    assert all(r.shape == (1, kept * 400) for r in results)
    assert max(np.abs(r - results[0]).max() for r in results) < 1e-5


OF_EACH_VOCODER = ["synth_v2_40k_f0", "synth_v2_32k_f0_mrf", "synth_v2_48k_nof0", "synth_v2_24k_f0_refinegan"]


@functools.cache
def whole_and_tiled(name: str, profile: str) -> list[Any]:
    wishes = (["gemm_conv", "polyphase"], ["gemm_conv", "polyphase", "tile"])
    return [synthesizer("rvc_mlx", name, profile=profile, optimize=wish) for wish in wishes]


@pytest.mark.parametrize("name", OF_EACH_VOCODER)
@settings(max_examples=5, deadline=None)
@given(
    profile=st.sampled_from(["applio", "webui"]),
    frames=st.integers(1, 50),
    coarse=st.integers(8, 60),
    fine=st.integers(4, 30),
    gpu=st.booleans(),
)
@example(profile="webui", frames=60, coarse=24, fine=7, gpu=False)
@example(profile="webui", frames=60, coarse=24, fine=7, gpu=True)
def test_tiles_of_any_size_change_nothing_but_rounding(name, profile, frames, coarse, fine, gpu):
    """The decoder in stretches, each with as much around it as its convolutions see; RefineGAN is never cut."""
    whole, tiled = whole_and_tiled(name, profile)
    arguments = inputs(whole, frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module("rvc_mlx", "synthesizer"), "TILE_FRAMES", coarse)
        patch.setattr(module("rvc_mlx", "synthesizer"), "FINE_FRAMES", fine)
        patch.setattr(module("rvc_mlx", "synthesizer"), "GPU_TILE_FRAMES", coarse)
        patch.setattr(tiled, "on_gpu", gpu)
        got = tiled.infer(**arguments, noise=3)
    assert np.abs(whole.infer(**arguments, noise=3) - got).max() < 2e-6


@given(frames=st.integers(1, 5000), longest=st.integers(16, 600), halo=st.integers(0, 30))
def test_tiles_for_a_gpu_have_one_shape(frames, longest, halo):
    code = module("rvc_mlx", "synthesizer")
    tiles = code.equal_tiles(frames, longest)
    assert [0, *(stop for _, stop in tiles)] == [*(start for start, _ in tiles), frames]
    windows = [code.around(*tile, halo, 0, frames, tiles[0][1]) for tile in tiles]
    assert len({last - first for first, last in windows}) == 1
    for (start, stop), (first, last) in zip(tiles, windows, strict=True):
        assert 0 <= first <= max(0, start - halo)
        assert min(frames, stop + halo) <= last <= frames


def test_a_smaller_halo_would_be_seen(monkeypatch):
    model = synthesizer("rvc_mlx", "synth_v2_40k_f0")
    arguments = inputs(model, frames=90)
    want = model.infer(**arguments, noise=3)
    monkeypatch.setattr(module("rvc_mlx", "synthesizer"), "TILE_FRAMES", 40)
    monkeypatch.setattr(module("rvc_mlx", "synthesizer"), "FINE_FRAMES", 7)
    assert np.abs(model.infer(**arguments, noise=3) - want).max() < 2e-6
    for halo in ("coarse_halo", "fine_halo"):
        with monkeypatch.context() as patch:
            patch.setattr(model.decoder, halo, getattr(model.decoder, halo) // 4)
            assert np.abs(model.infer(**arguments, noise=3) - want).max() > 1e-5, halo


@pytest.mark.parametrize("side", SIDES)
def test_the_same_seed_gives_the_same_audio_and_another_does_not(side):
    model = synthesizer(side, "synth_v2_40k_f0")
    arguments = inputs(model, frames=20)
    first, again, other = (model.infer(**arguments, noise=seed) for seed in (7, 7, 8))
    assert (first == again).all()
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize("side", SIDES)
def test_the_parts_in_a_row_are_the_whole(side):
    model = synthesizer(side, "synth_v2_40k_f0")
    a = inputs(model, frames=24)
    noise = np.random.default_rng(0).standard_normal((1, model.config.inter_channels, 24)).astype(np.float32)

    def draw(index, kind, shape):
        return noise if shape == noise.shape else np.full(shape, 0.25, np.float32)

    mean, log_deviation = model.encode(a["phone"], a["lengths"], a["pitch"])
    z_p = mean + np.exp(log_deviation) * noise * np.float32(0.66666)
    z = model.flow(z_p, np.ones((1, 1, 24), np.float32), a["speaker"])
    audio = model.decode(z, a["f0"], a["speaker"], draw)
    assert np.abs(audio - model.infer(**a, noise=draw)).max() < 1e-5
    assert model.source(a["f0"], draw).shape == (1, 24 * 400, 1)


@pytest.mark.parametrize("side", SIDES)
def test_attention_alone_is_the_encoders_first(side):
    model = synthesizer(side, "synth_v2_40k_f0")
    a = inputs(model, frames=18, batch=2)
    seen: dict[str, np.ndarray] = {}
    model.encode(a["phone"], a["lengths"], a["pitch"], watch=seen.__setitem__)
    path = "enc_p.encoder.attn_layers.0"
    alone: dict[str, np.ndarray] = {}
    model.attention(seen[f"{path}:input"], a["lengths"], watch=alone.__setitem__)
    assert len(alone) == 9
    for name, value in alone.items():
        joined = f"{path}{name}" if name.startswith(":") else f"{path}.{name}"
        assert np.abs(value - seen[joined]).max() == 0


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pitch": None}, "needs pitch codes"),
        ({"pitch": np.full((1, 5), 256)}, "must lie in 0 to 255"),
        ({"pitch": np.ones((1, 4), int)}, "whole numbers"),
        ({"pitch": np.ones((1, 5), np.float32)}, "whole numbers"),
        ({"f0": None}, "needs f0"),
        ({"f0": np.full((1, 5), np.nan, np.float32)}, "finite"),
        ({"f0": np.full((1, 5), -1, np.float32)}, "finite"),
        ({"f0": np.ones((1, 6), np.float32)}, "needs f0"),
        ({"speaker": np.array([4])}, "speakers 0 to 3"),
        ({"speaker": np.array([-1])}, "speakers 0 to 3"),
        ({"phone": np.zeros((1, 5, 7), np.float32)}, "phone must be"),
        ({"speaker": np.array([2**80], dtype=object)}, "speakers 0 to 3"),
        ({"lengths": np.array([6])}, "lengths must lie in 1 to 5"),
        ({"lengths": np.array([0])}, "lengths must lie in 1 to 5"),
        ({"rate": 0.0}, "above 0 and at most 1"),
        ({"rate": 1.5}, "above 0 and at most 1"),
        ({"noise": -1}, "seed from 0"),
        ({"noise": lambda index, kind, shape: np.zeros(3)}, "shape"),
        ({"noise": lambda index, kind, shape: np.full(shape, np.nan)}, "NaN"),
    ],
)
def test_bad_input_is_refused(side, change, message):
    model = synthesizer(side, "synth_v2_40k_f0")
    with pytest.raises(ValueError, match=message):
        model.infer(**{"noise": 1} | inputs(model, 5) | change)


def test_a_voice_without_pitch_takes_none():
    for side in SIDES:
        model = synthesizer(side, "synth_v2_48k_nof0")
        with pytest.raises(ValueError, match="no pitch"):
            model.source(np.ones((1, 5), np.float32), 0)
        with pytest.raises(ValueError, match="takes no pitch"):
            model.encode(np.zeros((1, 5, 128), np.float32), np.array([5]), np.ones((1, 5), int))


STRICT = ["synth_v2_40k_f0", "synth_v2_32k_f0_mrf", "synth_v2_24k_f0_refinegan", "synth_v2_48k_nof0"]


@pytest.mark.parametrize("side", ["reference_torch", "rvc_mlx"])
@pytest.mark.parametrize("name", STRICT)
def test_every_key_is_needed_and_no_other(side, name, monkeypatch):
    code, state, options = module(side, "synthesizer"), voice_state(name), SIDES[side]
    build = code.Synthesizer.from_state_dict
    if side == "reference_torch":  # keys are checked before its network is filled, so that one serves all
        monkeypatch.setattr(code, "Network", functools.cache(code.Network))
    for key in list(state)[:: max(1, len(state) // 8)]:
        rest = {k: v for k, v in state.items() if k != key}
        for wrong in (rest, rest | {f"{key}x": state[key]}, rest | {key: state[key][..., None]}):
            if key == "emb_g.weight" and wrong is not rest:
                continue
            with pytest.raises(CheckpointError) as caught:
                build(wrong, *facts(name), **options)
            assert key in str(caught.value)
    with pytest.raises(CheckpointError, match="extra"):
        build(state | {"extra.weight": np.zeros(1, np.float32)}, *facts(name), **options)


@pytest.mark.parametrize("side", ["reference_torch", "rvc_mlx"])
def test_the_posterior_encoder_is_allowed_whole(side):
    """Training files have it; conversion ignores it, but a half one is a damaged file."""
    name = "synth_v2_40k_f0"
    build = module(side, "synthesizer").Synthesizer.from_state_dict
    made = SynthesizerConfig.make(facts(name)[0], voice_state(name), *facts(name)[1:])
    posterior = {k: np.ones(shape, np.float32) for k, shape in made.posterior_shapes().items()}
    build(voice_state(name) | posterior, *facts(name), **SIDES[side])
    posterior.pop("enc_q.enc.in_layers.3.bias")
    with pytest.raises(CheckpointError, match=r"enc_q\.enc\.in_layers\.3\.bias"):
        build(voice_state(name) | posterior, *facts(name), **SIDES[side])


def test_the_posterior_encoders_keys_are_upstreams():
    about = recipe.load_manifest(MANIFESTS / "synth_v2_40k_f0.json")
    upstream = {t["key"]: tuple(t["shape"]) for t in about["tensors"] if not t["in_voice_checkpoint"]}
    config = SynthesizerConfig.make(about["config_list"], {}, "v2", True, "HiFi-GAN")
    assert config.posterior_shapes() == upstream


ODD_VOICES = ["odd_v2_30k_f0_applio", "odd_v2_30k_f0_webui", "odd_v2_44k_f0_applio", "odd_v2_44k_nof0"]


@pytest.mark.parametrize("name", [*VOICES, *ODD_VOICES])
def test_full_size_keys_are_upstreams(name):
    about = recipe.load_manifest(MANIFESTS / f"{name}.json")
    upstream = {t["key"]: tuple(t["shape"]) for t in about["tensors"] if t["in_voice_checkpoint"]}
    made = SynthesizerConfig.make(about["config_list"], {}, about["version"], bool(about["f0"]), about["vocoder"])
    assert state_shapes(made, about.get("upstream", "applio")) == upstream


@pytest.mark.parametrize(
    ("change", "message"),
    [({"resblock": "2"}, "resblock"), ({"upsample_rates": [10, 10]}, "."), ({"sr": "fast"}, ".")],
)
def test_an_impossible_configuration_is_refused(change, message):
    config = dict(zip(CONFIG_NAMES, facts("synth_v2_40k_f0")[0], strict=True)) | change
    with pytest.raises(CheckpointError, match=message):
        Synthesizer.from_state_dict(voice_state("synth_v2_40k_f0"), config)


@pytest.mark.parametrize("side", ["reference_torch", "rvc_mlx"])
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dec.conv_pre.weight", np.nan, "NaN or infinite"),
        ("enc_p.proj.bias", np.inf, "NaN or infinite"),
        ("dec.ups.0.weight_v", 0.0, "length zero"),
        ("dec.cond.weight", 1, "of type int64"),
    ],
)
def test_values_that_no_network_can_use_are_refused(side, key, value, message):
    state = voice_state("synth_v2_40k_f0")
    broken = state | {key: np.full(state[key].shape, value)}
    with pytest.raises(CheckpointError, match=message) as caught:
        module(side, "synthesizer").Synthesizer.from_state_dict(broken, *facts("synth_v2_40k_f0"), **SIDES[side])
    assert key in str(caught.value)


@pytest.mark.parametrize("side", ["reference_torch", "rvc_mlx"])
@pytest.mark.parametrize(
    "name", ["hidden_channels", "filter_channels", "inter_channels", "upsample_initial_channel", "gin_channels"]
)
def test_a_size_that_contradicts_the_weights_is_told_before_a_network_is_made(side, name):
    config = dict(zip(CONFIG_NAMES, facts("synth_v2_40k_f0")[0], strict=True)) | {name: 10**9}
    with pytest.raises(CheckpointError, match=f"config: {name} is 1000000000, "):
        module(side, "synthesizer").Synthesizer.from_state_dict(voice_state("synth_v2_40k_f0"), config, **SIDES[side])


@pytest.mark.parametrize("side", ["reference_torch", "rvc_mlx"])
@pytest.mark.parametrize("key", ["emb_g.weight", "enc_p.emb_phone.weight"])
def test_a_number_in_the_place_of_a_matrix(side, key):
    state = voice_state("synth_v2_40k_f0") | {key: np.float32(1).reshape(())}
    with pytest.raises(CheckpointError):
        module(side, "synthesizer").Synthesizer.from_state_dict(state, *facts("synth_v2_40k_f0"), **SIDES[side])


@pytest.mark.parametrize("side", ["reference_torch", "rvc_mlx"])
def test_a_version_that_contradicts_the_weights_is_refused(side):
    state = voice_state("synth_v2_40k_f0") | {"enc_p.emb_phone.weight": np.ones((48, 768), np.float32)}
    config, _, f0, vocoder = facts("synth_v2_40k_f0")
    with pytest.raises(CheckpointError, match="version v1, but"):
        module(side, "synthesizer").Synthesizer.from_state_dict(state, config, "v1", f0, vocoder, **SIDES[side])
