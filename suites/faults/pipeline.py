"""Faults around the networks: filter, cuts, pitch, retrieval, loudness, joining."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Fault, Patches, State, randomised


def step(name: str, value: Any) -> Any:
    """A function of ``steps`` replaced."""
    return lambda p: p.constant(f"steps.{name}", value)


def _short_edges(p: Patches) -> None:
    """0.1 s of mirrored audio instead of the setting."""

    def around(original: Any, self: Any) -> Any:
        pad, *rest = original(self)
        return (pad // 10, *rest)

    p.wrap(p.module("steps").Windows, "samples", around)


def _always_normalised(p: Patches) -> None:
    def around(original: Any, audio: Any, peak: float) -> Any:
        return audio * (peak / np.abs(audio).max()) if peak == p.module("steps").OUTPUT_PEAK else original(audio, peak)

    p.wrap(p.module("steps"), "limit_peak", around)


def _unvoiced_zero(p: Patches) -> None:
    p.wrap(p.module("steps"), "coarse_pitch", lambda original, f0: np.where(f0 > 0, original(f0), 0))


def _plain_inverse(p: Patches) -> None:
    """1 / d^2 without care for zero."""

    def weights(distance: Any) -> Any:
        found = p.mx.square(1.0 / distance)
        return found / found.sum(axis=1, keepdims=True)

    p.set(p.module("retrieval"), "inverse_square", weights)


def _inverse(p: Patches) -> None:
    """1 / d instead of its square."""

    def around(original: Any, distance: Any) -> Any:
        found = p.mx.sqrt(original(distance))
        return found / found.sum(axis=1, keepdims=True)

    p.wrap(p.module("retrieval"), "inverse_square", around)


def _other_pitch(p: Patches) -> None:
    """Another pitch method in the place of RMVPE, silently: here by counting zero crossings."""
    stages = p.module("stages")

    def own(self: Any) -> Any:
        def estimate(c: dict[str, Any]) -> None:
            frames = c["padded"].size // 160 + 1
            crossings = np.abs(np.diff(np.signbit(np.append(c["padded"], np.zeros(480))).astype(int)))
            counts = np.convolve(crossings, np.ones(320), "same")[: frames * 160 : 160]
            c["f0"] = np.where(counts > 2, counts * 25.0, 0.0)[:frames]

        return stages.Stage("f0", estimate, product="f0")

    p.set(p.module("pipeline").Pipeline, "_own_f0", own)


def _other_hubert(state: State) -> None:
    """The model that was passed in is not the one that is used."""
    randomised(state, "feature_extractor.")


def _inverted_protection(p: Patches) -> None:
    p.wrap(
        p.module("steps"),
        "protect_unvoiced",
        lambda original, retrieved, kept, f0, protect: original(retrieved, kept, np.where(f0 < 1, 100.0, 0.0), protect),
    )


def _swapped_mix(p: Patches) -> None:
    p.wrap(p.module("steps"), "mix_loudness", lambda original, a, b, sr, rate: original(a, b, sr, 1 - rate))


def _trim_one_frame(p: Patches) -> None:
    def trim(carry: dict[str, Any]) -> None:
        carry["trimmed"] = np.concatenate([carry["trimmed"][160:], np.zeros(160, np.float32)])

    p.stage("pipeline.Pipeline", "_segment", "trimmed", trim)


def _linear_resampling(p: Patches) -> None:
    def resampled(audio: Any, sr: int) -> Any:
        if sr == 16000:
            return audio
        count = round(audio.size * 16000 / sr)
        return np.interp(np.arange(count) * sr / 16000, np.arange(audio.size), audio).astype(np.float32)

    p.set(p.module("steps"), "resample", resampled)


def _retrieved_share(p: Patches) -> None:
    """The blend the wrong way around."""

    def blend(carry: dict[str, Any]) -> None:
        carry["retrieved"] = carry["retrieved"] + (carry["features"] - carry["retrieved"]) * np.float32(0.5)

    p.stage("pipeline.Pipeline", "_segment", "retrieved", blend)


def _fault(name: str, summary: str, inject: Any, expect: str, **more: Any) -> Fault:
    return Fault(name, "pipeline", summary, inject, expect, **more)


FAULTS = (
    _fault("edge-padding", "edge padding of a tenth of the setting", _short_edges, "padded", known=True),
    _fault("no-splitting", "long audio is not split", step("find_cuts", lambda *a: []), "cuts", known=True),
    _fault("not-doubled", "features not upsampled twice", step("double", lambda features: features),
           r"segment\.0\.phone", known=True),
    _fault("unvoiced-zero", "unvoiced coded 0 instead of 1", _unvoiced_zero, "pitch", known=True),
    _fault("always-normalised", "output always peak-normalised", _always_normalised, "audio", known=True),
    _fault("no-high-pass", "no high-pass", step("high_pass", lambda audio: np.asarray(audio, np.float64)), "filtered", known=True),
    _fault("score-of-zero", "1/score at a score of 0: NaN", _plain_inverse, r"segment\.0\.retrieved", known=True),
    _fault("pitch-replaced", "another pitch method, silently", _other_pitch, "f0", known=True),
    _fault("model-ignored", "the HuBERT passed in is not used", lambda p: p.weights("hubert", _other_hubert),
           r"segment\.0\.features\.feature_extractor\.conv_layers\.0\.conv", known=True),
    _fault("inverse-distance", "retrieval weights by 1/d", _inverse, r"segment\.0\.retrieved"),
    _fault("retrieved-share", "another share of retrieved features", _retrieved_share, r"segment\.0\.retrieved"),
    _fault("transpose-sign", "transposition with the other sign",
           lambda p: p.wrap(p.module("steps"), "shift", lambda original, f0, n: original(f0, -n)), "pitchf"),
    _fault("pitch-codes", "one pitch code too few", lambda p: p.constant("steps.PITCH_CODES", 255), "pitch"),
    _fault("protect-inverted", "voiced instead of unvoiced frames protected", _inverted_protection, r"segment\.0\.phone"),
    _fault("loudness-inverted", "loudness mix the wrong way around", _swapped_mix, "audio"),
    _fault("trim", "a segment cut one frame late", _trim_one_frame, r"segment\.0\.trimmed"),
    _fault("linear-resampling", "input resampled linearly", _linear_resampling, "filtered"),
    _fault("input-peak", "input limited to 1.0 instead of 0.95", lambda p: p.constant("steps.INPUT_PEAK", 1.0), "filtered"),
    _fault("content-gelu", "HuBERT's GELU by tanh, seen through the pipeline",
           lambda p: p.set(p.module("hubert"), "fastest_gelu",
                           lambda methods: lambda x: 0.5 * x * (1 + p.mx.tanh(0.79788456 * (x + 0.044715 * x**3)))),
           r"segment\.0\.features\.feature_extractor\.conv_layers\.0\.gelu"),
    _fault("voice-slope", "the vocoder's last slope, seen through the pipeline",
           lambda p: p.constant("vocoder.LAST_SLOPE", 0.1), r"segment\.0\.audio\.dec:last_relu"),
)  # fmt: skip
