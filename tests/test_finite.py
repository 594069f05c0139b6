"""Models that compute NaN or infinity say so, and where it begins: on both sides, in every call, in every program."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import small_models as made
from quick_runs import narrow_padding
from safetensors.numpy import load_file, save_file

from rvc_common.checkpoint import read_metadata
from rvc_common.finite import NonFiniteError, is_finite, is_silent
from rvc_common.noise import Draws
from suites.base.records import read_lines, records
from suites.commands.run import finish
from suites.inputs.weights import find_weights
from suites.measure.config import compose_config
from suites.measure.runner import open_run

BOTH = pytest.mark.parametrize("side", ["reference_torch", "rvc_mlx"])


@pytest.fixture(autouse=True)
def _narrow():
    with narrow_padding():
        yield


VOICE = "synth_v2_40k_f0"
BROKEN = {
    "rmvpe": "unet.encoder.layers.1.conv.0.conv.0.weight",
    "hubert": "encoder.layers.0.feed_forward.output_dense.weight",
    "synthesizer": "enc_p.encoder.ffn_layers.0.conv_2.weight",
}
# the stage that a message names; merged stages have the outer one's name
STAGES = {name: key.removesuffix(".weight") for name, key in BROKEN.items()} | {"rmvpe": "unet.encoder.layers.1.conv.0"}
CLASSES = {"rmvpe": "RMVPE", "hubert": "Hubert", "synthesizer": "Synthesizer"}


def huge(state: made.Arrays, key: str, value: float = 1e38) -> made.Arrays:
    """Finite weights, whose products are not."""
    return state | {key: np.full_like(state[key], value)}


def broken(side: str, name: str, key: str = "", value: float = 1e38, **options):
    states = {"rmvpe": made.rmvpe_state, "hubert": made.hubert_state, "synthesizer": lambda: made.voice_state(VOICE)}
    state = huge(states[name](), key or BROKEN[name], value)
    facts = made.facts(VOICE) if name == "synthesizer" else ()
    return getattr(made.module(side, name), CLASSES[name]).from_state_dict(state, *facts, **made.SIDES[side] | options)


def calls(name: str, model, voice: np.ndarray):
    if name == "rmvpe":
        return [lambda: model.f0(voice), lambda: model.salience(model.mel(voice))]
    if name == "hubert":
        return [lambda: model.features(voice), lambda: model.encode(model.extract(voice))]
    given = made.inputs(model, 20)
    encoded = {name: given[name] for name in ("phone", "lengths", "pitch")}
    return [lambda: model.infer(noise=1, **given), lambda: model.encode(**encoded)]


@BOTH
@pytest.mark.parametrize("name", BROKEN)
def test_every_call_names_the_model_and_the_first_stage(side, name, voice):
    model = broken(side, name)
    for call in calls(name, model, voice[:4000]):
        with pytest.raises(NonFiniteError, match=f"^{model.title}: computes NaN .* first in stage {STAGES[name]}"):
            call()


@pytest.mark.parametrize("side", ["reference_torch", "rvc_mlx", "plain"])
def test_float16_overflows(side, voice):
    message = r"first in stage unet.encoder.layers.1.conv.0.*; float16 ends at 65504: try float32$"
    with pytest.raises(NonFiniteError, match=message):
        broken(side, "rmvpe", value=1e6, dtype="float16").f0(voice[:4000])


@BOTH
@pytest.mark.parametrize("at", [0, 100, 359])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_bin_is_enough(side, at, value):
    salience = np.random.default_rng(0).uniform(0, 0.02, (5, 360)).astype(np.float32)
    salience[2, at] = value
    model = made.rmvpe(side)
    for model.on_gpu in (False, True):  # where a GPU's maximum may pass over NaN, a sum is taken
        with pytest.raises(ValueError, match="salience has NaN or infinite values"):
            model.decode(salience)
    salience[2, at] = 0.5
    assert np.flatnonzero(model.decode(salience)).tolist() == [2]


@BOTH
def test_an_input_is_not_the_models_fault(side):
    model = made.synthesizer(side, VOICE)
    given = made.inputs(model, 20)
    given["phone"][0, 3, 4] = np.nan
    with pytest.raises(ValueError, match=r"^voice: the input has NaN or infinite values$"):
        model.infer(noise=1, **given)


@BOTH
def test_a_conversion_and_the_noise_of_its_second_segment(side, voice):
    parts = made.hubert(side), made.rmvpe(side), broken(side, "synthesizer")
    pipeline = made.module(side, "pipeline").Pipeline(*parts, windows={"x_pad": 0.1})
    with pytest.raises(NonFiniteError, match=f"^voice: computes .*{STAGES['synthesizer']}"):
        pipeline.convert(voice[:16000], 16000)
    draws = Draws(3)
    given = made.inputs(parts[2], 20)
    drawn = []
    draws.draw = lambda index, kind, shape, draw=draws.draw: drawn.append(index) or draw(index, kind, shape)
    draws("normal", (2,))
    with pytest.raises(NonFiniteError):
        parts[2].infer(noise=draws, **given)
    assert drawn[1:] == [*range(1, len(drawn) - drawn[1:].count(1) + 1), *drawn[len(set(drawn)) :]]
    assert drawn.count(0) == 1, "the watched call begins with the same noise, not with the conversion's"


@BOTH
def test_what_stays_on_the_device_is_checked_where_it_is_copied(side, voice):
    model = broken(side, "hubert")
    call = model.resident(voice[:4000])
    with pytest.raises(NonFiniteError, match="HuBERT: computes NaN or infinite values, in features"):
        call.host(call())


@BOTH
def test_silence_from_sound_is_a_warning(side, voice, monkeypatch):
    pipeline = made.pipeline(side)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline.convert(voice[:8000], 16000)
        monkeypatch.setattr(pipeline.synthesizer, "infer", lambda *given: np.zeros((1, 40000 * 3), np.float32))
        pipeline.convert(np.zeros(8000, np.float32), 16000)
    with pytest.warns(UserWarning, match="the converted audio is silent, and the recording is not"):
        pipeline.convert(voice[:8000], 16000)


def test_what_is_finite_and_what_is_silent():
    for value in (np.nan, np.inf, -np.inf):
        assert not is_finite(np.array([1.0, value, 2.0], np.float32))
    assert is_finite(np.zeros(0))
    assert is_finite(np.array([3e38, 3e38, -3e38], np.float32))
    assert is_silent(np.array([1e-9, -1e-9], np.float32))
    assert not is_silent(np.array([0, -1], np.int16))


# ---------------------------------------------------------------------- programs
@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("huge"), {}
    for name, kind, of in (("rmvpe", "rmvpe", None), ("synthesizer", "voice", VOICE)):
        path = find_weights(kind, None, 3, "tiny", of, folder).path
        found[kind] = folder / f"{kind} huge.safetensors"
        save_file(huge(load_file(path), BROKEN[name]), found[kind], metadata=read_metadata(path))
        found[f"good {kind}"] = path
    found["hubert"] = find_weights("hubert", None, 3, "tiny", None, folder).path
    return found


@BOTH
@pytest.mark.parametrize("kind", ["rmvpe", "voice"])
def test_convert_names_the_file(side, kind, files, voice, tmp_path, capsys):
    import soundfile

    soundfile.write(tmp_path / "in.wav", voice[:8000], 16000)
    words = ["convert", str(tmp_path / "in.wav"), str(tmp_path / "out.wav"), "--hubert", str(files["hubert"]), "-q"]
    for other in ("rmvpe", "voice"):
        words += [f"--{other}", str(files[other if other == kind else f"good {other}"])]
    assert made.module(side, "__main__").main([*words, "--device", "cpu"]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    stage = STAGES["rmvpe" if kind == "rmvpe" else "synthesizer"]
    assert f"{files[kind]}: computes NaN or infinite values, first in stage {stage}" in told
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.usefixtures("quick")
def test_the_records_of_a_run_fail_with_the_line(files, tmp_path, capsys):
    small = ["measure=smoke", "threads=1", "durations=[0.3]", "measure.first_calls=0", "measure.warmup_seconds=0"]
    small += ["suite.speech_clip=false", f"weights.rmvpe='{files['rmvpe']}'", f"out={tmp_path / 'run'}"]
    assert finish(open_run(compose_config("rmvpe", small))).exit_code == 2
    lines = [line for line in records(read_lines(tmp_path / "run" / "records.jsonl")) if line["status"] != "skipped"]
    assert {line["status"] for line in lines} == {"error"}
    for line in lines:
        assert line["reason"].startswith(f"RMVPE {files['rmvpe']}: computes NaN or infinite values, first in stage ")
