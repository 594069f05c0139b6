"""Both sides against vectors that the upstream code computed; ``pytest -s`` prints the table.

A field passes within five times its ``float64_gap``, the upstream's own float32 rounding error; a
pipeline's within ten times its ``jitter_gap``, what 1e-7 of noise on its input changes. Host steps
have neither: they are exact, or right to a few units in the last place.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rvc_common import steps
from suites.inputs import recipe
from suites.inputs.weights import MANIFESTS

GOLDEN = Path(__file__).parent / "golden"
SIDES = [("reference_torch", {}), ("rvc_mlx", {"device": "cpu"}), ("rvc_mlx", {"device": "cpu", "optimize": "none"})]
IDS = ["reference_torch", "rvc_mlx", "rvc_mlx-plain"]
FACTOR, JITTER_FACTOR, ULPS = 5.0, 10.0, 5.0
# MLX's own dilated convolutions on a CPU take half a minute for half a second; the parts of these are covered on the
# plain path by generator_48k, flow_v2_b2, text_encoder_v2_b2 and nsf_source_mrf_32k, and small voices of every kind are
# held beside PyTorch there by test_synthesizer.test_every_voice_with_batch_speakers_and_padding
SLOW_WHEN_PLAIN = ("40k", "40k_rate", "48k", "48k_nof0", "32k_mrf")

Arrays = dict[str, np.ndarray]


class Side:
    """One package with options; builds models from the published weights, each once."""

    def __init__(self, package: str, options: dict[str, Any], plain: bool) -> None:
        self.package, self.options, self.plain = package, options, plain
        self.whole = plain or package == "reference_torch"  # one piece, watched or not
        self.built: dict[tuple[str, int], Any] = {}

    def module(self, name: str) -> Any:
        return importlib.import_module(f"{self.package}.{name}")

    def model(self, manifest: str, seed: int) -> Any:
        if (manifest, seed) not in self.built:
            self.built[manifest, seed] = self._made(manifest, seed)
        return self.built[manifest, seed]

    def _made(self, manifest: str, seed: int) -> Any:
        about, state = weights(manifest, seed)
        if manifest == "rmvpe":
            return self.module("rmvpe").RMVPE.from_state_dict(state, **self.options)
        if manifest.startswith("hubert"):
            return self.module("hubert").Hubert.from_state_dict(state, **self.options)
        facts = (about["config_list"], about["version"], bool(about["f0"]), about["vocoder"])
        return self.module("synthesizer").Synthesizer.from_state_dict(state, *facts, **self.options)


@functools.cache
def weights(manifest: str, seed: int) -> tuple[dict[str, Any], Arrays]:
    about = recipe.load_manifest(MANIFESTS / f"{manifest}.json")
    tensors = [entry for entry in about["tensors"] if entry.get("in_voice_checkpoint", True)]
    return about, recipe.make_state_dict(tensors, seed)


@pytest.fixture(scope="module", autouse=True)
def _freed() -> Iterator[None]:
    """Gigabytes, which the tests after these would have to do without."""
    yield
    weights.cache_clear()


@pytest.fixture(scope="module", params=SIDES, ids=IDS)
def side(request: pytest.FixtureRequest) -> Side:
    package, options = request.param
    return Side(package, options, options.get("optimize") == "none")


def judge(name: str, field: str, got: np.ndarray, want: np.ndarray, limit: float) -> None:
    assert got.shape == want.shape, field
    error = float(np.abs(np.asarray(got, np.float64) - want).max())
    print(f"{name:24} {field:58} error {error:8.2e}  limit {limit:8.2e}  used {error / limit if limit else 0:5.2f}")
    assert error <= limit, field


def stored_part(group: str, got: np.ndarray, entries: int) -> np.ndarray:
    """Of a whole array what a field of this group holds: ``entries`` at one end of the last axis, the mean, standard
    deviation and largest magnitude ``[3]``, or all of it."""
    if group == "mid_head":
        return got[..., :entries]
    if group == "mid_tail":
        return got[..., -entries:]
    if group == "mid_stats":
        wide = got.astype(np.float64)
        return np.array([wide.mean(), wide.std(), np.abs(wide).max()])
    return got


def check(name: str, found: Arrays, arrays: Arrays, meta: dict[str, Any]) -> None:
    """Every ``out.*`` and ``mid*`` field of the file, none left out."""
    for field in (field for field in arrays if field.startswith(("out.", "mid"))):
        group, _, path = field.partition(".")
        if group == "mid_stats":
            assert list(found[path].shape) == meta["truncated_shapes"][path], field
        got = stored_part(group, found[path], arrays[field].shape[-1] if arrays[field].ndim else 0)
        gap, factor = ("jitter_gap", JITTER_FACTOR) if "jitter_gap" in meta else ("float64_gap", FACTOR)
        judge(name, field, got, arrays[field], factor * float(meta[gap][f"{group.split('_')[0]}.{path}"]))


class _EnoughError(Exception):
    """Ends a watched call."""


def shown(arrays: Arrays, call: Callable[[Callable[[str, np.ndarray], None]], object], *more: str) -> Arrays:
    """What ``call(watch)`` shows of the vector's fields, and ``more``: stages after the last of them need not run."""
    paths = {field.partition(".")[2] for field in arrays if field.startswith(("out.", "mid"))} - {"audio"} | {*more}
    found: Arrays = {}

    def watch(path: str, value: np.ndarray) -> None:
        found[path] = value
        if paths <= found.keys():
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        call(watch)
    return found


def recorded(arrays: Arrays, meta: dict[str, Any]) -> Callable[[int, str, tuple[int, ...]], np.ndarray]:
    """The randomness that upstream consumed: stored, or made anew from its seed."""

    def draw(index: int, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        stored = arrays.get(f"draw.{index}")
        return recipe.make_draw(meta["draw_seed"], index, kind, shape) if stored is None else stored

    return draw


@pytest.mark.parametrize("name", sorted(path.name.split(".")[0] for path in GOLDEN.glob("*.npz*")))
def test_nothing_of_a_vector_is_missing(golden, name):
    """Every intermediate is whole or has all three of its parts; every draw is stored, or listed and made anew."""
    arrays, meta = golden(name)
    gaps = meta.get("jitter_gap", meta.get("float64_gap", {}))
    for path in (field.removeprefix("mid.") for field in gaps if field.startswith("mid.")):
        whole = f"mid.{path}" in arrays
        assert [f"{group}.{path}" in arrays for group in ("mid_head", "mid_tail", "mid_stats")] == [not whole] * 3
    stored = [draw["index"] for draw in meta["draws"] if f"draw.{draw['index']}" in arrays]
    assert sorted(stored + meta["draws_not_stored"]) == [draw["index"] for draw in meta["draws"]]
    assert any(field.startswith("out.") for field in arrays)


@pytest.mark.parametrize("name", ["rmvpe_e2e_70", "hubert_2s", "synth_v2_40k", "synth_v2_24k_refinegan"])
def test_weights_are_the_published_ones(golden, name):
    _, meta = golden(name)
    for key, fingerprint in meta["weights_fingerprint"].items():
        manifest, _, seed = key.partition(":")
        assert recipe.fingerprint(weights(manifest, int(seed))[1]) == fingerprint


# ---------------------------------------------------------------------- RMVPE
def rmvpe(side: Side) -> Any:
    return side.model("rmvpe", 25)


@pytest.mark.parametrize("name", ["rmvpe_mel_104", "rmvpe_mel_short_513"])
def test_mel(side, golden, name):
    arrays, meta = golden(name)
    found = {"log_mel": rmvpe(side).mel(arrays["in.audio"][0])[None], "mel_basis": side.module("audio").mel_basis()}
    check(name, found, arrays, meta)


@pytest.mark.parametrize("name", ["rmvpe_e2e_17", "rmvpe_e2e_70", "rmvpe_e2e_97_chunk64"])
def test_salience(side, golden, name):
    """Padded, unpadded and chunked inputs; 24 stages of one of them."""
    arrays, meta = golden(name)
    chunk, mel = meta["options"].get("chunk_size", 32000), arrays["in.log_mel"]
    found: Arrays = {}
    if any(field.startswith("mid") for field in arrays):
        rmvpe(side).trace(mel, found.__setitem__, chunk)
    watched = side.whole and "sigmoid" in found
    found["salience"] = found["sigmoid"][:, : mel.shape[2]] if watched else rmvpe(side).salience(mel, chunk)
    check(name, found, arrays, meta)


def test_decoding(side, golden):
    """Exact ties and exact threshold hits are among the 48 frames."""
    arrays, meta = golden("rmvpe_decode")
    threshold, salience = meta["options"]["threshold"], arrays["in.salience"]
    f0 = rmvpe(side).decode(salience, threshold)
    check("rmvpe_decode", {"cents": rmvpe(side).cents(salience, threshold), "f0": f0}, arrays, meta)
    assert f0.dtype == np.float64


def test_audio_to_f0(side, golden):
    arrays, meta = golden("rmvpe_audio_1s")
    model, want = rmvpe(side), arrays["out.f0"]
    f0 = model.f0(arrays["in.audio"])
    found = {
        "log_mel": model.mel(arrays["in.audio"])[None],
        "salience": model.salience(arrays["mid.log_mel"]),
        "f0": f0,
    }
    check("rmvpe_audio_1s", found, arrays, meta)
    assert ((f0 > 0) == (want > 0)).all()
    cents = np.abs(1200 * np.log2(f0[want > 0] / want[want > 0]))
    assert cents.max() <= 0.01


# ---------------------------------------------------------------------- HuBERT and synthesizer
def test_hubert(side, golden):
    arrays, meta = golden("hubert_2s")
    model = side.model("hubert_contentvec", meta["options"]["weights_seed"])
    found: Arrays = {}
    found["final_proj"] = model.features(arrays["in.audio"], version="v1", watch=found.__setitem__)
    found["last_hidden_state"] = found["encoder"] if side.whole else model.features(arrays["in.audio"])
    check("hubert_2s", found, arrays, meta)


def voice(side: Side, meta: dict[str, Any]) -> Any:
    return side.model(meta["options"]["manifest"], meta["options"]["weights_seed"])


@pytest.mark.parametrize("name", ["text_encoder_v2_7frames", "text_encoder_v2_b2"])
def test_text_encoder(side, golden, name):
    """Attention step by step; a batch with padding; fewer frames than the attention's window."""
    arrays, meta = golden(name)
    found: Arrays = {}
    inputs = (arrays["in.phone"], arrays["in.lengths"], arrays["in.pitch"])
    found["m_p"], found["logs_p"] = voice(side, meta).encode(*inputs, watch=found.__setitem__)
    check(name, found, arrays, meta)


def test_flow(side, golden):
    arrays, meta = golden("flow_v2_b2")
    found: Arrays = {}
    inputs = (arrays["in.z_p"], arrays["in.x_mask"], arrays["in.sid"])
    found["z"] = voice(side, meta).flow(*inputs, watch=found.__setitem__)
    check("flow_v2_b2", found, arrays, meta)


@pytest.mark.parametrize("name", ["nsf_source_40k", "nsf_source_mrf_32k"])
def test_source(side, golden, name):
    arrays, meta = golden(name)
    found: Arrays = {}
    found["source"] = voice(side, meta).source(arrays["in.f0"], recorded(arrays, meta), watch=found.__setitem__)
    check(name, found, arrays, meta)


def test_generator(side, golden):
    arrays, meta = golden("generator_48k")
    found: Arrays = {}
    inputs = (arrays["in.z"], arrays["in.f0"], arrays["in.sid"], recorded(arrays, meta))
    watched = voice(side, meta).decode(*inputs, watch=found.__setitem__)
    found["audio"] = (watched if side.whole else voice(side, meta).decode(*inputs))[:, None]
    check("generator_48k", found, arrays, meta)


SYNTHS = ["24k_refinegan", "32k_mrf", "40k", "40k_rate", "48k", "48k_nof0"]


@pytest.mark.parametrize("name", [f"synth_v2_{name}" for name in SYNTHS])
def test_synthesizer(side, golden, name):
    if side.plain and name.removeprefix("synth_v2_") in SLOW_WHEN_PLAIN:
        pytest.skip("its parts are covered by shorter vectors")
    arrays, meta = golden(name)
    given = [arrays.get(f"in.{key}") for key in ("phone", "lengths", "pitch", "f0", "sid")]
    rate = float(arrays["in.rate"]) if "in.rate" in arrays else None
    given += [recorded(arrays, meta), rate]
    found: Arrays = {}
    if side.whole:
        audio = voice(side, meta).infer(*given, watch=found.__setitem__)
    else:
        # the call without a watcher is the one that users make: it may run in other pieces
        found = shown(arrays, lambda watch: voice(side, meta).infer(*given, watch=watch))
        audio = voice(side, meta).infer(*given)
    found["audio"] = audio[:, None]
    check(name, found, arrays, meta)


# ---------------------------------------------------------------------- pipeline
# fields of a conversion that begin with the voice
BY_THE_VOICE = {"segment.0.audio", "joined", "mixed", "audio"}


def exact_enough(name: str, field: str, got: np.ndarray, want: np.ndarray) -> None:
    """Whole numbers equal; floats to a few units in the last place of the largest value."""
    limit = 0.0 if want.dtype.kind == "i" else ULPS * float(np.finfo(want.dtype).eps * np.abs(want).max())
    assert got.dtype.kind == want.dtype.kind
    judge(name, field, got, want, limit)


def filter_limit(steps: Any, audio: np.ndarray) -> float:
    """The filter's own rounding: its five poles lie so close to one that upstream's direct form magnifies the
    last digit a hundred million times, and processors with fused multiply-add round that digit otherwise.
    The same filter in second-order sections, which are well conditioned, shows how much that is."""
    from scipy.signal import butter, sosfiltfilt

    sections = butter(5, 48, "high", fs=16000, output="sos")
    exact = sosfiltfilt(sections, audio.astype(np.float64), padtype="odd", padlen=18)
    return FACTOR * float(np.abs(steps.high_pass(audio) - exact).max())


def pitch_steps(steps: Any, f0: np.ndarray) -> Arrays:
    proposed = 2 + steps.proposed_shift(f0, 155.0)
    contours = {
        "shift0": f0,
        "shift_up7": steps.shift(f0, 7),
        "shift_down12": steps.shift(f0, -12),
        "autotune_80": steps.autotune(f0, 0.8),
        "proposed_155": steps.shift(f0, proposed),
    }
    coarse = {f"coarse.{name}": steps.coarse_pitch(contour) for name, contour in contours.items()}
    return coarse | {f"f0.{name}": contour for name, contour in contours.items()}


def segment_steps(steps: Any, audio: np.ndarray) -> Arrays:
    """How a clip of seven seconds is cut with small windows; pitch code i is 1 + i % 255, voice at 40 kHz."""
    windows = steps.Windows(1, 1, 2, 3)
    filtered = steps.high_pass(audio)
    padded = np.pad(filtered, steps.SAMPLE_RATE, mode="reflect")
    cuts = steps.find_cuts(filtered, windows, "applio")
    bounds = [(a, min(b, padded.size), c) for a, b, c in steps.segment_bounds(padded.size, cuts, windows)]
    samples = np.array([b - a for a, b, _ in bounds])
    return {
        "segment_samples": samples,
        "segment_frames": np.array([c - a // 160 for a, _, c in bounds]),
        "segment_first_pitch": np.array([1 + a // 160 % 255 for a, _, _ in bounds]),
        "segment_first_sample": np.array([padded[a] for a, _, _ in bounds]),
        "joined_samples": np.array((samples // 160 * 400 - 2 * 40000).sum()),
    }


def feature_steps(side: Side, arrays: Arrays) -> Arrays:
    features, f0 = arrays["in.features"][0], arrays["in.segment_pitchf"][0]
    bank = side.module("retrieval").Bank(arrays["in.index_vectors"])
    found: Arrays = {}
    for rate in (0, 75):
        share = np.float32(rate / 100)
        blended = features if rate == 0 else bank.retrieve(features) * share + (1 - share) * features
        phone, original = steps.double(blended), steps.double(features)
        frames = min(arrays["in.segment_audio"].size // 160, len(phone))
        for protect in (33, 50):
            kept = steps.protect_unvoiced(phone, original, f0[:frames], protect / 100)
            found[f"phone.protect_{protect}.index_{rate}"] = kept[None]
        found |= {"phone_length": np.array([frames]), "phone_pitch": arrays["in.segment_pitch"][:, :frames]}
        found["phone_pitchf"] = arrays["in.segment_pitchf"][:, :frames]
    return found


def test_pipeline_steps(side, golden):
    arrays, _ = golden("pipeline_steps")
    b, a = steps.high_pass_coefficients()
    found: Arrays = {"filtered": steps.high_pass(arrays["in.audio"]), "filter_b": b, "filter_a": a}
    found |= pitch_steps(steps, arrays["in.f0"]) | segment_steps(steps, arrays["in.long_audio"])
    found |= feature_steps(side, arrays)
    for rate in (0, 25):
        mixed = steps.mix_loudness(arrays["in.audio"], arrays["in.converted"], 40000, rate / 100)
        found[f"rms_mixed.rate_{rate}"] = mixed
    for field, given in (("filtered", "audio"), ("segment_first_sample", "long_audio")):
        limit = filter_limit(steps, arrays[f"in.{given}"])
        judge("pipeline_steps", f"out.{field}", found.pop(field), arrays.pop(f"out.{field}"), limit)
    for field in (field for field in arrays if field.startswith("out.")):
        exact_enough("pipeline_steps", field, found[field.removeprefix("out.")], arrays[field])


def test_pipeline(side, golden):
    """What follows the voice's input is the same code on both sides (rvc_common.pipeline), and PyTorch's voices have
    vectors of their own: its second of speech ends there."""
    name = "pipeline_v2_32k"
    if side.plain:
        pytest.skip("its parts are covered by shorter vectors")
    arrays, meta = golden(name)
    options = meta["options"]
    hubert = side.model("hubert_contentvec", options["hubert_seed"])
    pipeline = side.module("pipeline").Pipeline(hubert, rmvpe(side), voice(side, meta))
    given = arrays["in.audio"], 16000
    noise = recorded(arrays, meta)
    if side.whole:
        found = shown({}, lambda watch: pipeline.convert(*given, noise=noise, watch=watch), "segment.0.phone")
        arrays = {field: array for field, array in arrays.items() if field.partition(".")[2] not in BY_THE_VOICE}
    else:
        found = {}
        audio, rate = pipeline.convert(*given, noise=noise, watch=found.__setitem__)
        assert (rate, audio.dtype) == (32000, np.float32)
        found["audio"] = audio
    phone = found["segment.0.phone"][None]
    lengths = {"segment.0.length": np.array([phone.shape[1]]), "segment_samples": [found["padded"].size]}
    found |= {"padded_audio": found["padded"], "segment.0.phone": phone}
    found |= {key: np.array(value) for key, value in lengths.items()}
    check(name, found, arrays, meta)
