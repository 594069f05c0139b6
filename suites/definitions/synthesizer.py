"""The voice synthesizer: text encoder, one attention layer, flow, source, decoder, and the whole call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from rvc_common.noise import seeded
from rvc_common.stages import Event

from ..base.errors import UserError
from ..inputs.recordings import Audio
from ..metrics import parity
from ..metrics.limits import Check, Limits
from ..metrics.parity import Figures, NotComparable
from ..metrics.registry import CORR, DELAY, LEVEL_DB, MAX_ABS, SNR_DB, Figure, columns, figures, prefixed
from .base import (
    LONGEST_SEGMENT_S,
    Calls,
    Probe,
    Results,
    Settings,
    Suite,
    Validated,
    compared,
    floor_of,
    sound_figures,
)
from .config import VoiceOptions

HOP_SAMPLES = 160
# attention alone is shown on ten seconds at most: its cost grows with the square
ATTENTION_FRAMES = 1000
# decoding in float64 is slow: its rounding floor is measured on the first three seconds
FLOOR_FRAMES = 300
# of a batch: even before and after the leading ones are dropped, where the clip has an odd number
BATCH_FRAMES = 26
# of which so many are dropped: cut to 8, where rounding would make it 9
DROPPED_FRAMES = 8.8
# fewer than the relative attention sees to either side; of so many items that a floor is measured on enough values
FEW_FRAMES, FEW_ITEMS = 3, 6
# frames of calls that are compared alone: one, those about the reach of the relative attention, and remainders of tiles
OTHER_FRAMES = (1, 2, 5, 9, 10, 11, 12, 20, 21, 22, 32, 33, 47)
# with every optimisation off a second of audio takes a CPU minutes: no more than so many
PLAIN_FRAMES = 4
# what they have in turns: the share of the frames that is kept, seeds of any size, and levels of the features
OTHER_RATES, OTHER_SEEDS, OTHER_LEVELS = (None, 0.5, 1.0, 0.77, 0.02), (0, 2**16, 2**33, 2**64), (1.0, 20.0, 0.0, 0.01)
OTHER_BATCHES = {2: 7, 4: 10, 5: 13}
# the source of the longest segment, and attention over as much as memory bears
LONG_FRAMES, LONG_ATTENTION_FRAMES = int(100 * LONGEST_SEGMENT_S), 2600
# lowest and highest F0 of a batch: beyond the ends of the pitch codes and of RMVPE, all valid
F0_RANGE_HZ = (0.5, 4000.0)
LATENT_DEVIATION = 0.66666
PITCH_LOW_HZ, PITCH_HIGH_HZ = 50.0, 1100.0


# what the text encoder returns, and the values inside its first attention layer
ENCODED = ("m_p", "logs_p")
STEPS = ("conv_q", "conv_k", "conv_v", "relative_scores", "scores", "weights", "relative_output", "attended", "conv_o")
for _name in ENCODED:
    prefixed(_name)
figures(MAX_ABS, *(f"{name}_max_abs" for name in STEPS))


class Synthesizer(Suite):
    name = "synthesizer"
    title = "Synthesizer"
    subject = "the synthesizer"
    order = 3
    sections = ("time", "parity")
    options = VoiceOptions
    whole = "infer"
    checkpoints = ("voice",)
    parts = ("encode", "flow", "decode")
    takes_audio = False
    shared = (("z_p", "latent"), ("z", "flow"))
    extras = ("attention_steps",)
    longest_traced_s = LONGEST_SEGMENT_S
    pipeline_step = "audio"
    validated = (
        Validated("Text encoder", r"(enc_p\.|m_p$|logs_p$)"),
        Validated("Attention q/k/v", r"enc_p\..*\.conv_[qkv]$"),
        Validated("Attention scores", r"enc_p\..*:(relative_)?scores$"),
        Validated("Attention weights", r"enc_p\..*:weights$"),
        Validated("Attention output", r"enc_p\..*(:attended|:relative_output|conv_o)$"),
        Validated("Latent", r"z_p$"),
        Validated("Flow", r"flow\."),
        Validated("NSF source", r"dec\.m_source\."),
        Validated("Generator", r"(dec\.(?!m_source)|audio$)"),
    )
    about_time = "From content features, pitch and a noise seed in host memory to audio in host memory"
    about_parity = (
        "Every part is compared on the reference's own input, `infer` on each side's own values; both sides draw the "
        "same noise. The steps inside the attention layer are compared one by one."
    )
    judged = (
        *figures(MAX_ABS, *(f"{name}_max_abs" for name in ("encode", "attention", "flow", "source", "decode"))),
        *figures(SNR_DB, "decode_snr_db", "infer_snr_db"),
    )
    details = (
        Figure("m_p_max_abs", MAX_ABS, "mean max abs", "encode"),
        Figure("logs_p_max_abs", MAX_ABS, "log deviation max abs", "encode"),
        *columns("attention", MAX_ABS),
        *columns("flow", MAX_ABS),
        *columns("source", MAX_ABS),
        *columns("decode", MAX_ABS, SNR_DB),
        *columns("infer", MAX_ABS, SNR_DB, CORR, LEVEL_DB, DELAY),
    )

    takes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode": ("phone", "lengths", "pitch"),
        "flow": ("z_p", "mask", "speaker"),
        "source": ("f0", "noise"),
        "decode": ("z", "f0", "speaker", "noise"),
        "infer": ("phone", "lengths", "pitch", "f0", "speaker", "noise"),
    }

    def load(self, package: ModuleType, paths: Mapping[str, str], options: dict[str, Any], settings: Settings) -> Any:
        return package.Synthesizer.from_checkpoint(paths["voice"], profile=settings["profile"], **options)

    def facts(self, model: Any) -> dict[str, Any]:
        names = ("sample_rate", "version", "has_f0", "vocoder", "phone_channels", "inter_channels")
        own = {name: getattr(model.config, name) for name in names} | {"speakers": model.config.spk_embed_dim}
        return super().facts(model) | own | {"hidden_channels": model.config.hidden_channels}

    def calls(self, model: Any, given: Results, settings: Settings) -> Calls:
        seed = settings.get("noise", settings["seed"])
        phone = (given["phone"], given["lengths"], given["pitch"] if model.has_f0 else None)
        f0, speaker = given["f0"] if model.has_f0 else None, given["speaker"]

        def encode() -> dict[str, np.ndarray]:
            return dict(zip(ENCODED, model.encode(*phone), strict=True))

        def latent() -> np.ndarray:
            m_p, logs_p = model.encode(*phone)
            return (m_p + np.exp(logs_p) * given["latent_noise"] * LATENT_DEVIATION).astype(m_p.dtype)

        return {
            "encode": encode,
            "attention": lambda: model.attention(given["hidden"], given["hidden_lengths"]),
            "flow": lambda: model.flow(given["z_p"], given["mask"], speaker),
            "source": lambda: model.source(f0, seed),
            "decode": lambda: model.decode(given["z"], f0, speaker, seed),
            "infer": lambda: model.infer(*phone, f0, speaker, seed),
            "latent": latent,
            "attention_steps": lambda: _attention_steps(model, given),
        }

    def rounding(self, model: Any, exact: Any, given: Results, settings: Settings) -> Results:
        frames = min(FLOOR_FRAMES, given["phone"].shape[1])
        head = given | {name: given[name][:, :frames] for name in ("phone", "pitch", "f0")}
        head |= {"lengths": np.array([frames]), "z": given["z"][:, :, :frames]}
        found: dict[str, Any] = {}
        for kind, one in (("floor", model), ("exact", exact)):
            calls = self.calls(one, given, settings)
            parts = {"attention": calls["attention"](), "flow": calls["flow"]()}
            parts |= dict(calls["encode"]()) | _attention_steps(one, given)
            if model.has_f0:
                parts["source"] = calls["source"]()
            short = self.calls(one, head, settings)
            parts |= {"decode": short["decode"](), "infer": short["infer"]()}
            found |= {f"{kind}_{name}": array for name, array in parts.items()}
        return found

    def walk(self, model: Any, given: Results, settings: Settings) -> Iterator[Any]:
        if "phone" not in given:
            return _walk_part(model, given, settings)
        return model.walk(*_arguments(model, given, settings))

    def call(self, model: Any, given: Results, settings: Settings) -> np.ndarray:
        if "phone" not in given:
            return _part(model, given, settings)
        return model.infer(*_arguments(model, given, settings))

    def check(self, settings: Settings, facts: Mapping[str, Any]) -> None:
        if settings["speaker"] >= facts["speakers"]:
            raise UserError(
                f"suite.speaker={settings['speaker']}: this voice has speakers 0 to {facts['speakers'] - 1}"
            )

    def probes(self, audio: Audio, settings: Settings, facts: Mapping[str, Any]) -> tuple[Probe, ...]:
        """One clip of an odd number of frames; three short ones of several lengths and speakers, the leading frames
        dropped; others of the same shape, with other masks and noise; and a few unvoiced frames."""
        given = self.inputs(audio, settings, facts)
        names = ("phone", "pitch", "f0", "lengths", "speaker")
        frames = (given["phone"].shape[1] - 1) // 2 * 2 + 1
        one = {name: given[name][:, :frames] if given[name].ndim > 1 else given[name] for name in names}
        one["lengths"] = np.array([frames])
        rng = np.random.default_rng([settings["seed"], 6])

        def batch(lengths: list[int], speakers: list[int], voiced: float) -> Results:
            shape = len(lengths), max(lengths)
            low, high = map(math.log, F0_RANGE_HZ)
            f0 = np.exp(rng.uniform(low, high, shape)) * (rng.random(shape) < voiced)
            return {
                "phone": rng.standard_normal((*shape, facts["phone_channels"]), dtype=np.float32),
                "pitch": pitch_codes(f0),
                "f0": f0.astype(np.float32),
                "lengths": np.array(lengths),
                "speaker": np.array(speakers),
            }

        n, last = BATCH_FRAMES, facts["speakers"] - 1
        other, rate = min(1, last), {"rate": 1 - DROPPED_FRAMES / n}

        def calls() -> Iterator[Probe]:
            """Of which the results are compared: other lengths, batches, speakers, noise, levels and pitches."""
            for number, frames in enumerate(OTHER_FRAMES):
                inputs = batch([frames], [number % (last + 1)], (0.0, 0.5, 1.0)[number % 3])
                inputs["lengths"] -= frames // 3 * (number % 4 == 3)  # the rest is padding
                inputs["phone"] *= OTHER_LEVELS[number % len(OTHER_LEVELS)]
                changed: dict[str, Any] = {"rate": OTHER_RATES[number % len(OTHER_RATES)]}
                changed["seed"] = settings["seed"] + OTHER_SEEDS[number % len(OTHER_SEEDS)]
                yield Probe(f"{frames} frames", inputs, changed, plain=frames < PLAIN_FRAMES, walked=False)
            for count, frames in OTHER_BATCHES.items():
                inputs = batch(rng.integers(1, frames + 1, count).tolist(), [last] * count, 0.6)
                inputs["speaker"] = inputs["speaker"][:1] if count > 2 else inputs["speaker"]  # one for all
                changed = {"rate": OTHER_RATES[count % len(OTHER_RATES)], "drawn": count % 2 == 0}
                yield Probe(f"{count} items", _as_other_types(inputs, count), changed, plain=False, walked=False)
            lengths = np.array([5, 9, 1])
            inside = batch([5, 9, 1], [0, last, other], 0.6)

            def normal(*shape: int) -> np.ndarray:
                return rng.standard_normal(shape, dtype=np.float32)

            common = {name: inside[name] for name in ("f0", "speaker")}
            mask = (np.arange(9) < lengths[:, None])[:, None].astype(np.float32)
            hidden, inner = facts["hidden_channels"], facts["inter_channels"]
            yield Probe("attention", {"hidden": normal(3, hidden, 9), "lengths": lengths}, walked=False)
            yield Probe("flow", {"z_p": normal(3, inner, 9), "mask": mask, **common}, walked=False)
            yield Probe("decoder", {"z": normal(3, inner, 9), **common}, plain=False, walked=False)
            if facts["has_f0"]:
                f0 = np.repeat(batch([LONG_FRAMES // 50 + 1], [0], 0.7)["f0"], 50, axis=1)[:, :LONG_FRAMES]
                yield Probe("long source", {"f0": f0}, plain=False, walked=False, pieces=False)
            long = {"hidden": normal(1, hidden, LONG_ATTENTION_FRAMES), "lengths": np.array([LONG_ATTENTION_FRAMES])}
            yield Probe("long attention", long, plain=False, walked=False, pieces=False)

        return (
            Probe("clip", one),
            Probe("batch", batch([n, n * 2 // 3, 1], [last, 0, other], 0.7), rate),
            Probe(
                "same shape", batch([n // 3, n, n - 1], [other, last, 0], 0.7), rate | {"seed": settings["seed"] + 1}
            ),
            Probe("few frames", batch([FEW_FRAMES] * FEW_ITEMS, [last] * FEW_ITEMS, 0.0)),
            *calls(),
        )

    def components(self, configured: tuple[str, ...], facts: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(name for name in configured if name != "source" or facts["has_f0"])

    def frames(self, samples: int) -> int:
        return samples // HOP_SAMPLES

    def inputs(self, audio: Audio, settings: Settings, facts: Mapping[str, Any]) -> Results:
        """Seeded features and noise, and the F0 that the synthetic voice was made with."""
        assert audio.f0_hz is not None
        frames, channels = self.frames(audio.samples.size), facts["hidden_channels"]
        rng = np.random.default_rng([settings["seed"], 4])

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape, dtype=np.float32)

        f0 = audio.f0_hz[None, :frames]
        shown = min(frames, ATTENTION_FRAMES)
        return {
            "phone": normal(1, frames, facts["phone_channels"]),
            "lengths": np.array([frames]),
            "f0": f0.astype(np.float32),
            "pitch": pitch_codes(f0),
            "speaker": np.array([settings["speaker"]]),
            "mask": np.ones((1, 1, frames), np.float32),
            "latent_noise": normal(1, facts["inter_channels"], frames),
            "hidden": normal(1, channels, shown),
            "hidden_lengths": np.array([shown]),
        }

    def figures(self, name: str, results: Results, reference: Results, limits: Limits, settings: Settings) -> Figures:
        if name == "encode":
            return _encode_figures(results, reference, limits)
        if name == "attention":
            return _attention_figures(results, reference, limits)
        judged = {"flow": ("max_abs",), "source": ("max_abs",), "decode": ("max_abs", "snr_db"), "infer": ("snr_db",)}
        figures = compared(name, results, reference, limits, {n: f"{name}_{n}" for n in judged[name]})
        audio = name in ("decode", "infer")
        return figures | (sound_figures(name, results, reference, settings.get("sample_rate")) if audio else {})


def _as_other_types(inputs: Results, count: int) -> Results:
    """The same values in types that users may give as well."""
    floats, whole = (np.float64, np.float32)[count % 2], (np.int32, np.uint8)[count % 2]
    found = {"phone": np.asfortranarray(inputs["phone"].astype(np.float64)), "f0": inputs["f0"].astype(floats)}
    return inputs | found | {name: inputs[name].astype(whole) for name in ("pitch", "lengths", "speaker")}


def _part(model: Any, given: Results, settings: Settings, watch: Any = None) -> np.ndarray:
    """The part of the call that takes these inputs: a layer of attention, the flow, the decoder or the source."""
    if "hidden" in given:
        return model.attention(given["hidden"], given["lengths"], watch=watch)
    if "z_p" in given:
        return model.flow(given["z_p"], given["mask"], given["speaker"], watch=watch)
    if "z" in given:
        f0 = given["f0"] if model.has_f0 else None
        return model.decode(given["z"], f0, given["speaker"], drawing(settings), watch=watch)
    return model.source(given["f0"], drawing(settings), watch=watch)


def _walk_part(model: Any, given: Results, settings: Settings) -> Iterator[Any]:
    """Its stages as a watcher sees them; it cannot be fed with other values."""
    seen: list[tuple[str, np.ndarray]] = []
    _part(model, given, settings, lambda path, array: seen.append((path, array)))
    for path, array in seen:
        own = "enc_p.encoder.attn_layers.0" + ("" if path[0] == ":" else ".") if "hidden" in given else ""
        yield Event(own + path, {"x": array}, "x")


def drawing(settings: Settings) -> Any:
    """The seed; where a probe asks for it, what draws by it, as users may give."""
    if not settings.get("drawn"):
        return settings["seed"]
    draw = seeded(settings["seed"])
    return lambda index, kind, shape: draw(index, kind, shape)


def _arguments(model: Any, given: Results, settings: Settings) -> tuple[Any, ...]:
    pitch = (given["pitch"], given["f0"]) if model.has_f0 else (None, None)
    return given["phone"], given["lengths"], *pitch, given["speaker"], drawing(settings), settings.get("rate")


def pitch_codes(f0_hz: np.ndarray) -> np.ndarray:
    """Hz to the voice's coarse pitch, 1 to 255: 50 to 1100 Hz, linear in mel; 1 where unvoiced."""

    def to_mel(hz: Any) -> Any:
        return 1127.0 * np.log1p(hz / 700.0)

    low, high = to_mel(PITCH_LOW_HZ), to_mel(PITCH_HIGH_HZ)
    codes = np.rint((to_mel(f0_hz) - low) * 254.0 / (high - low) + 1.0)
    return np.where(f0_hz > 0, codes.clip(1, 255), 1).astype(np.int64)


def _attention_steps(model: Any, given: Results) -> dict[str, np.ndarray]:
    steps: dict[str, np.ndarray] = {}

    def watch(path: str, array: np.ndarray) -> None:
        steps[path.lstrip(":")] = array

    model.attention(given["hidden"], given["hidden_lengths"], watch=watch)
    return steps


def _encode_figures(results: Results, reference: Results, limits: Limits) -> Figures:
    figures: Figures = {}
    checks: dict[str, Check] = {}
    for name in ENCODED:
        one = parity.compare(results[f"encode.{name}"], reference[f"encode.{name}"])
        figures |= {f"{name}_{figure}": value for figure, value in one.items()}
        floor = floor_of(reference, name, "max_abs")
        checks |= limits.check(f"{name}_max_abs", one["max_abs"], floor, "encode_max_abs")
    return figures | {"limits": checks}


def _attention_figures(results: Results, reference: Results, limits: Limits) -> Figures:
    figures = compared("attention", results, reference, limits, {"max_abs": "attention_max_abs"})
    names = [key for key in reference if key.startswith("attention_steps.")]
    if sorted(names) != sorted(key for key in results if key.startswith("attention_steps.")):
        raise NotComparable("the attention layer's steps have other names than the reference's")
    for key in names:
        name = key.removeprefix("attention_steps.")
        value = parity.compare(results[key], reference[key])["max_abs"]
        figures[f"{name}_max_abs"] = value
        floor = floor_of(reference, name, "max_abs")
        figures["limits"] |= limits.check(f"{name}_max_abs", value, floor, "attention_max_abs")
    return figures
