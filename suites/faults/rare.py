"""Faults that only some inputs show: a length, an item of a batch, an input of a shape seen before, an extreme value."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .base import Fault, Inject, Patches, around, constant, instead

ENCODER = r"enc_p\.encoder\."
ATTENTION = ENCODER + r"attn_layers\.0"
FIRST = r"feature_extractor\.conv_layers\.0"
CALLS = r"\(whole call( in small pieces)?\)"


def where(place: str, when: Callable[..., Any], change: Callable[[Patches, Any], Any]) -> Inject:
    """Another result of a function on some arguments."""

    @around(place)
    def result(p: Patches, original: Any, *given: Any) -> Any:
        found = original(*given)
        return change(p, found) if when(*given) else found

    return result


def argument(place: str, change: Callable[..., Any], number: int = 0) -> Inject:
    """Another argument of a function; of a method, which counts from ``self``."""

    @around(place)
    def called(p: Patches, original: Any, *given: Any) -> Any:
        return original(*given[:number], change(p, given[number]), *given[number + 1 :])

    return called


def kept(place: str, key: Callable[..., Any]) -> Inject:
    """The first result for each key is given ever after."""

    def inject(p: Patches) -> None:
        results: dict[Any, Any] = {}

        def called(original: Any, *given: Any) -> Any:
            name = key(*given)
            if name not in results:
                results[name] = original(*given)
            return results[name]

        p.wrap(place, called)

    return inject


def _third(source: int) -> Callable[[Patches, Any], Any]:
    return lambda p, y: p.mx.concatenate([y[:2], y[source : source + 1], y[3:]])


def _late(axis: int) -> Callable[[Patches, Any], Any]:
    return lambda p, y: p.mx.roll(y, -1, axis=axis)


def _of_third(x: np.ndarray) -> np.ndarray:
    """The third item is given what belongs to the first."""
    found = np.array(x)
    found[2:] = found[:1]
    return found


def _end_zero(p: Patches, y: Any) -> Any:
    return p.mx.concatenate([y[:-1], y[-1:] * 0])


def _other_bin(low: int, high: int, number: int) -> Inject:
    """One bin counts for less where the maximum is near an end."""

    def change(p: Patches, salience: Any) -> Any:
        peak, bins = p.mx.argmax(salience, axis=1)[:, None], p.mx.arange(salience.shape[1])[None]
        return p.mx.where((peak >= low) & (peak < high) & (bins == number), salience * 0.9, salience)

    return argument("rmvpe.RMVPE._cents", change, 1)


@around("rmvpe.RMVPE._split")
def _second_chunk(p: Patches, original: Any, *given: Any) -> Any:
    first, *rest = original(*given)
    return [first, *(block + 0.01 for block in rest)]


@around("rmvpe.RMVPE._cents")
def _at_threshold(p: Patches, original: Any, self: Any, salience: Any, threshold: float) -> Any:
    return original(self, salience, float(np.nextafter(np.float32(threshold), np.float32(0))))


@around("synthesizer._mask")
def _third_mask(p: Patches, original: Any, *given: Any) -> Any:
    found = original(*given)
    found[2:] = 1
    return found


@around("source.with_noise")
def _all_unvoiced(p: Patches, original: Any, sines: Any, voiced: Any, noise: Any) -> Any:
    found = original(sines, voiced, noise)
    return found if voiced.any().item() else found * 0.5


@around("steps.limit_peak")
def _clipped(p: Patches, original: Any, audio: Any, peak: float) -> Any:
    return np.clip(audio, -peak, peak) if peak == p.module("steps").OUTPUT_PEAK else original(audio, peak)


@around("steps.segment_bounds")
def _third_segment(p: Patches, original: Any, *given: Any) -> Any:
    found = original(*given)
    return [*found[:2], *((start, stop - 160, last - 1) for start, stop, last in found[2:])]


def _kept_index(p: Patches) -> None:
    pipeline, load = importlib.import_module("rvc_mlx.pipeline").Pipeline, p.module("retrieval").load_bank
    banks: dict[Any, Any] = {}

    def loaded(index: Any, device: Any = None) -> Any:
        return banks.setdefault(getattr(index, "shape", len(banks)), load(index, device))

    pipeline.load_bank = staticmethod(loaded)
    p.undone(lambda: setattr(pipeline, "load_bank", staticmethod(load)))


def _voiced_from(p: Patches, self: Any, carry: dict[str, Any]) -> None:
    voiced = p.mx.array((carry["f0"] > 40).astype(np.float32))[..., None]
    carry["voiced"] = p.mx.repeat(voiced, self.hop, axis=1)


_even = lambda axis: lambda x, *_: x.shape[axis] % 2 == 0  # noqa: E731
_odd = lambda axis: lambda x, *_: x.shape[axis] % 2 == 1  # noqa: E731
_three = lambda x, *_: len(x) > 2  # noqa: E731
_shape = lambda x, *_: x.shape  # noqa: E731
_hubert, _rmvpe, _voice, _pipeline = (partial(Fault, name) for name in ("hubert", "rmvpe", "synthesizer", "pipeline"))


FAULTS = (
    _hubert("even-mean", "the last frame left out of a mean over an even number",
            argument("hubert._mean_over_time", lambda p, x: x if x.shape[1] % 2 else x[:, :-1]), FIRST + r"\.layer_norm"),
    _hubert("even-position", "position convolution one frame early at even lengths",
            where("layers._grouped", _even(1), _late(1)), r"encoder\.pos_conv_embed"),
    _hubert("third-position", "position convolution of the third item is the first's",
            where("layers._grouped", _three, _third(0)), r"encoder\.pos_conv_embed"),
    _hubert("third-convolution", "first convolution of the third item is the second's",
            where("layers._strided", _three, _third(1)), FIRST + r"\.conv"),
    _hubert("short-position", "no position in fewer than four frames",
            where("layers._grouped", lambda x, *_: x.shape[1] < 4, lambda p, y: y * 0), r"encoder\.pos_conv_embed"),
    _hubert("clipped-input", "audio limited to 1",
            argument("hubert.Hubert._entered", lambda p, x: np.clip(x, -1, 1), 1), FIRST + r"\.conv"),
    _hubert("kept-position", "position kept from the last input of this shape", kept("layers._grouped", _shape),
            r"encoder\.pos_conv_embed"),
    _hubert("kept-mean", "first norm kept from the last input of this shape", kept("hubert.norm_over_time", _shape),
            FIRST + r"\.layer_norm"),
    _rmvpe("whole-blocks", "frames that need no padding are shifted", where("rmvpe.RMVPE._pad_frames",
           lambda self, mel: mel.shape[1] % 32 == 0, _late(1)), "padded_log_mel"),
    _rmvpe("odd-samples", "the last of an odd number of samples is zero", argument("audio.LogMel.__call__",
           lambda p, x: _end_zero(p, x) if x.size % 2 else x, 1), "mel"),
    _rmvpe("tile-reach", "tiles of the U-Net with too little around them, at their own length",
           constant("rmvpe.RMVPEConfig.halo_frames", property(lambda self: 64)), CALLS),
    _rmvpe("second-chunk", "blocks after the first are off", _second_chunk, r"block\.1\.unet\.encoder\.bn"),
    _rmvpe("lowest-bins", "window wrong at the lowest bins", _other_bin(0, 4, 0), "cents"),
    _rmvpe("highest-bins", "window wrong at the highest bins", _other_bin(356, 360, 359), "cents"),
    _rmvpe("at-threshold", "voiced at the threshold itself", _at_threshold, "cents"),
    _rmvpe("third-mel", "the third of a batch of mels is the first", where("rmvpe.RMVPE._unet",
           lambda self, x: len(x) > 2, _third(0)), r"\(salience\)"),
    _rmvpe("kept-cents", "decoded as the last salience of this shape", kept("rmvpe.RMVPE._cents",
           lambda self, salience, threshold: salience.shape), "cents"),
    _rmvpe("kept-mel", "mel kept from the last audio of this length", kept("audio.LogMel.__call__",
           lambda self, x: x.size), "mel"),
    _voice("odd-offsets", "relative scores shifted at odd lengths",
           where("text_encoder.offsets_to_keys", _odd(2), _late(3)), ATTENTION + ":relative_scores"),
    _voice("odd-polyphase", "upsampling without its last output at odd lengths",
           where("layers._polyphase", _odd(0), _end_zero), r"dec\.ups\.0"),
    _voice("short-offsets", "relative values halved in ten frames and fewer",
           where("text_encoder.keys_to_offsets", lambda x: x.shape[2] <= 10, lambda p, y: y * 0.5), ATTENTION + ":relative_output"),
    _voice("third-mask", "the third item is not masked", _third_mask, r"enc_p\.emb_phone"),
    _voice("third-speaker", "the third item has the first one's speaker",
           argument("synthesizer.Synthesizer._embedded", lambda p, x: _of_third(x), 1), "emb_g"),
    _voice("third-pitch", "the third item's source has the first one's pitch",
           argument("source.sine", lambda p, x: _of_third(x)), r"dec\.m_source\.l_sin_gen"),
    _voice("kept-mask", "mask kept from the last input of this shape",
           kept("synthesizer.Synthesizer._mask_array", lambda self, x: x.shape), r"enc_p\.emb_phone"),
    _voice("kept-speaker", "speakers kept from the last batch of this size",
           kept("synthesizer.Synthesizer._embedded", lambda self, x: len(x)), "emb_g"),
    _voice("kept-sines", "sines kept from the last pitch of this shape", kept("source.sine", _shape), r"dec\.m_source\.l_sin_gen"),
    _voice("voiced-from-40", "voiced from 40 Hz on only", instead("source.HarmonicSource._voiced")(_voiced_from),
           r"dec\.m_source\.l_sin_gen:voiced"),
    _voice("sine-to-1000", "sines of 1000 Hz at most", argument("source.sine", lambda p, x: np.minimum(x, 1000)),
           r"dec\.m_source\.l_sin_gen"),
    _voice("highest-code", "the highest pitch code is read as the one below", argument("synthesizer.Synthesizer._phone",
           lambda p, x: None if x is None else np.minimum(x, 254), 3), r"enc_p\.emb_phone"),
    _voice("all-unvoiced", "noise halved where nothing is voiced", _all_unvoiced, r"dec\.m_source\.l_sin_gen"),
    _pipeline("output-peak", "output limited to 1.0 instead of 0.99", constant("steps.OUTPUT_PEAK", 1.0), "audio"),
    _pipeline("output-clipped", "output clipped instead of scaled", _clipped, "audio"),
    _pipeline("loudness-floor", "least loudness of 0.001 instead of 0.000001", constant("steps.RMS_FLOOR", 1e-3), "audio"),
    _pipeline("no-loudness-floor", "no least loudness", constant("steps.RMS_FLOOR", 1e-12), "audio"),
    _pipeline("protected-to-40", "frames below 40 Hz are protected", argument("steps.protect_unvoiced",
              lambda p, f0: np.where(f0 < 40, 0, f0), 2), r"segment\.0\.phone"),
    _pipeline("code-255", "the highest pitch code is never used", argument("steps.coarse_pitch",
              lambda p, f0: np.minimum(f0, 1090)), "pitch"),
    _pipeline("proposal", "at most five semitones proposed", constant("steps.LARGEST_PROPOSAL", 5), "pitchf"),
    _pipeline("one-list", "only the nearest list is searched", argument("retrieval.Bank._allowed",
              lambda p, probed: probed[:, :1], 1), r"segment\.0\.retrieved"),
    _pipeline("kept-index", "index kept from the last one of this shape", _kept_index, r"segment\.0\.retrieved"),
    _pipeline("even-codes", "pitch codes one frame late at even lengths", where("steps.coarse_pitch",
              lambda f0: f0.size % 2 == 0, lambda p, y: np.roll(y, 1)), "pitch"),
    _pipeline("third-segment", "the third segment ends too early", _third_segment, r"segment\.2\.features\..*conv_layers\.0\.conv"),
    _pipeline("autotune-high", "notes above 1000 Hz are taken for lower ones", argument("steps.autotune",
              lambda p, f0: np.minimum(f0, 1000)), "pitchf"),
)  # fmt: skip
