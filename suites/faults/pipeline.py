"""Faults around the networks: filter, cuts, pitch, retrieval, loudness, joining."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .base import Fault, Patches, after_stage, around, constant, instead
from .hubert import tanh_gelu
from .weights import randomised


@around("steps.limit_peak")
def _always_normalised(p: Patches, original: Any, audio: Any, peak: float) -> Any:
    return audio * (peak / np.abs(audio).max()) if peak == p.module("steps").OUTPUT_PEAK else original(audio, peak)


@instead("retrieval.inverse_square")
def _plain_inverse(p: Patches, distance: Any) -> Any:
    found = p.mx.square(1.0 / distance)
    return found / found.sum(axis=1, keepdims=True)


@around("retrieval.inverse_square")
def _inverse(p: Patches, original: Any, distance: Any) -> Any:
    found = p.mx.sqrt(original(distance))
    return found / found.sum(axis=1, keepdims=True)


@instead("pipeline.Pipeline._own_f0")
def _other_pitch(p: Patches, self: Any) -> Any:
    """By counting zero crossings."""

    def estimate(c: dict[str, Any]) -> None:
        frames = c["padded"].size // 160 + 1
        crossings = np.abs(np.diff(np.signbit(np.append(c["padded"], np.zeros(480))).astype(int)))
        counts = np.convolve(crossings, np.ones(320), "same")[: frames * 160 : 160]
        c["f0"] = np.where(counts > 2, counts * 25.0, 0.0)[:frames]

    return p.module("stages").Stage("f0", estimate, product="f0")


@after_stage("pipeline.Pipeline._segment", "trimmed")
def _trim_one_frame(p: Patches, carry: dict[str, Any]) -> None:
    carry["trimmed"] = np.concatenate([carry["trimmed"][160:], np.zeros(160, np.float32)])


@instead("steps.resample")
def _linear_resampling(p: Patches, audio: Any, sr: int) -> Any:
    if sr == 16000:
        return audio
    count = round(audio.size * 16000 / sr)
    return np.interp(np.arange(count) * sr / 16000, np.arange(audio.size), audio).astype(np.float32)


@after_stage("pipeline.Pipeline._segment", "retrieved")
def _retrieved_share(p: Patches, carry: dict[str, Any]) -> None:
    carry["retrieved"] = carry["retrieved"] + (carry["features"] - carry["retrieved"]) * np.float32(0.5)


_inverted_protection = around("steps.protect_unvoiced")(
    lambda p, original, retrieved, kept, f0, protect: original(retrieved, kept, np.where(f0 < 1, 100.0, 0.0), protect)
)
_unvoiced_zero = around("steps.coarse_pitch")(lambda p, original, f0: np.where(f0 > 0, original(f0), 0))
_swapped_mix = around("steps.mix_loudness")(lambda p, original, a, b, sr, rate: original(a, b, sr, 1 - rate))
_short_edges = around("steps.Windows.samples")(lambda p, original, self: (original(self)[0] // 10, *original(self)[1:]))
_fault = partial(Fault, "pipeline")


FAULTS = (
    _fault("edge-padding", "edge padding of a tenth of the setting", _short_edges, "padded", known=True),
    _fault("no-splitting", "long audio is not split", constant("steps.find_cuts", lambda *a: []), "cuts", known=True),
    _fault("not-doubled", "features not upsampled twice", constant("steps.double", lambda features: features),
           r"segment\.0\.phone", known=True),
    _fault("unvoiced-zero", "unvoiced coded 0 instead of 1", _unvoiced_zero, "pitch", known=True),
    _fault("always-normalised", "output always peak-normalised", _always_normalised, "audio", known=True),
    _fault("no-high-pass", "no high-pass",
           constant("steps.high_pass", lambda audio: np.asarray(audio, np.float64)), "filtered", known=True),
    _fault("score-of-zero", "1/score at a score of 0: NaN", _plain_inverse, r"segment\.0\.retrieved", known=True),
    _fault("pitch-replaced", "another pitch method, silently", _other_pitch, "f0", known=True),
    _fault("model-ignored", "the HuBERT passed in is not used", randomised("hubert", "feature_extractor."),
           r"segment\.0\.features\.feature_extractor\.conv_layers\.0\.conv", known=True),
    _fault("inverse-distance", "retrieval weights by 1/d", _inverse, r"segment\.0\.retrieved"),
    _fault("retrieved-share", "another share of retrieved features", _retrieved_share, r"segment\.0\.retrieved"),
    _fault("transpose-sign", "transposition with the other sign",
           around("steps.shift")(lambda p, original, f0, n: original(f0, -n)), "pitchf"),
    _fault("pitch-codes", "one pitch code too few", constant("steps.PITCH_CODES", 255), "pitch"),
    _fault("protect-inverted", "voiced instead of unvoiced frames protected", _inverted_protection, r"segment\.0\.phone"),
    _fault("loudness-inverted", "loudness mix the wrong way around", _swapped_mix, "audio"),
    _fault("trim", "a segment cut one frame late", _trim_one_frame, r"segment\.0\.trimmed"),
    _fault("linear-resampling", "input resampled linearly", _linear_resampling, "filtered"),
    _fault("input-peak", "input limited to 1.0 instead of 0.95", constant("steps.INPUT_PEAK", 1.0), "filtered"),
    _fault("content-gelu", "HuBERT's GELU by tanh, seen through the pipeline", tanh_gelu,
           r"segment\.0\.features\.feature_extractor\.conv_layers\.0\.gelu"),
    _fault("voice-slope", "the vocoder's last slope, seen through the pipeline",
           constant("vocoder.LAST_SLOPE", 0.1), r"segment\.0\.audio\.dec:last_relu"),
)  # fmt: skip
