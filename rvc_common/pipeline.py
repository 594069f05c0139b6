"""The whole conversion: a recording in, the converted recording out.

Behaviour as in IAHispano/Applio, revision b9c0ccb (``profile="applio"``), or in the WebUI,
revision 4338f12 (``"webui"``). An implementation supplies the networks and the index search;
everything between them runs here, in NumPy on the host.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import steps
from .checkpoint import same_embedder
from .checks import PROFILES, check_choice
from .finite import is_finite, is_silent
from .index import Searched
from .model import Watcher
from .noise import Draw, Draws
from .stages import CONTOUR, PHONE, SIGNAL, Axes, Carry, Event, Stage, run, walk
from .steps import HOP_SAMPLES, SAMPLE_RATE, Windows


class Range(NamedTuple):
    """What a knob may be, both ends included."""

    low: float
    high: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{self.unit}"


RANGES = {
    "transpose": Range(-48, 48, " semitones"),
    "index_rate": Range(0, 1),
    "protect": Range(0, 0.5),
    "rms_mix": Range(0, 1),
    "autotune": Range(0, 1),
    "propose_hz": Range(1, 8000, " Hz"),
}


@dataclass(frozen=True)
class Knobs:
    """The options of ``Pipeline.convert``."""

    transpose: float = 0
    index: np.ndarray | Searched | str | Path | None = None
    index_rate: float = 0.0
    protect: float = 0.5
    rms_mix: float = 1.0
    speaker: int = 0
    f0: np.ndarray | None = None
    noise: int | Draw = 0
    autotune: float = 0.0
    propose_hz: float | None = None
    exhaustive: bool = False


class Pipeline:
    """Converts recordings with one set of models; ``windows``: see ``steps.Windows``, in seconds.

    ``rmvpe`` may be None for voices without pitch, or where every call is given an F0.
    """

    # an index to one that can be searched on the given device; each implementation has its own
    load_bank: Callable[[Any, Any], Searched]

    def __init__(
        self,
        hubert: Any,
        rmvpe: Any,
        synthesizer: Any,
        profile: str = "applio",
        windows: Mapping[str, float] | None = None,
    ) -> None:
        check_choice("profile", profile, PROFILES)
        self.hubert, self.rmvpe, self.synthesizer, self.profile = hubert, rmvpe, synthesizer, profile
        unknown = set(windows or {}) - set(Windows._fields)
        if unknown:
            raise ValueError(f"unknown windows {sorted(unknown)}: {', '.join(Windows._fields)}")
        self.windows = Windows(**windows or {})
        self._check_models()
        if not (0 < self.windows.x_query < self.windows.x_center and self.windows.x_pad > 0):
            raise ValueError(f"{self.windows}: x_pad must be above 0, and x_query below x_center")

    def _check_models(self) -> None:
        """Refuse models that do not fit together before any work is done."""
        voice = self.synthesizer
        for name, model in (("RMVPE", self.rmvpe), ("voice", voice)):
            if model is not None and model.profile != self.profile:
                raise ValueError(f"this {name} is for profile {model.profile!r}, the pipeline for {self.profile!r}")
        width = self.hubert.width(voice.version, self.profile)
        if width != voice.phone_channels:
            raise ValueError(
                f"this HuBERT makes {width} values a frame, this {voice.version} voice takes {voice.phone_channels}"
            )
        given, wanted = (getattr(model, "embedder", None) for model in (self.hubert, voice))
        if given and wanted and not same_embedder(given, wanted):
            raise ValueError(
                f"this voice was trained with the content model {wanted}, and {given} is given: give that one, or say "
                f"that it is the one with --embedder {wanted} (in suites weights.embedder={wanted})"
            )
        if voice.sample_rate * HOP_SAMPLES != voice.hop_samples * SAMPLE_RATE:
            raise ValueError(
                f"this voice makes {voice.hop_samples} samples per 10 ms, which is not {voice.sample_rate} Hz"
            )

    def load_index(self, index: np.ndarray | Searched | str | Path | None) -> Searched:
        """An index that ``convert`` takes, loaded once for several recordings.

        Raises ``ValueError``: it cannot be read, or its vectors are not as wide as this voice's features."""
        bank, width = self.load_bank(index, self.hubert.device), self.synthesizer.phone_channels
        if bank.width != width:
            name = f"index {index}" if isinstance(index, str | Path) else "the index"
            raise ValueError(f"{name} holds vectors of {bank.width} values, this voice takes {width}")
        return bank

    def convert(
        self,
        audio: np.ndarray,
        sr: int,
        transpose: float = 0,
        index: np.ndarray | Searched | str | Path | None = None,
        index_rate: float = 0.0,
        protect: float = 0.5,
        rms_mix: float = 1.0,
        speaker: int = 0,
        f0: np.ndarray | None = None,
        noise: int | Draw = 0,
        *,
        autotune: float = 0.0,
        propose_hz: float | None = None,
        exhaustive: bool = False,
        watch: Watcher | None = None,
    ) -> tuple[np.ndarray, int]:
        """``[n]`` mono at any rate to the converted audio and its rate; float32 (``webui``: int16).

        Args:
            audio: in [-1, 1]; louder input is scaled down to a peak of 0.95.
            sr: its sample rate in Hz.
            transpose: semitones.
            index: vectors of the voice ``[V, D]``, an index that is loaded already, or a ``.index`` or ``.npy`` file.
            index_rate: share of retrieved features, 0 to 1; 0, or no index, turns retrieval off.
            protect: 0 to 0.5, how much of the retrieved features unvoiced frames take; 0.5 turns it off.
            rms_mix: 1 keeps the voice's own loudness, 0 takes the recording's.
            speaker: which of the voice's speakers.
            f0: Hz every 10 ms of the recording, or of the padded one, instead of RMVPE's; 0 is unvoiced.
            noise: a seed, or a callable ``draw(index, kind, shape)``.
            autotune: 0 to 1, how far pitch is pulled to the nearest note, in place of any transposition.
            propose_hz: shift the median pitch to about this, on top of ``transpose``.
            exhaustive: search all vectors of an ``.index`` whose file restricts the search to the nearest lists.
            watch: called as ``watch(name, array)`` after every step: ``filtered``, ``cuts`` (0 first), ``padded``,
                ``f0`` (before any change), ``pitchf``, ``pitch``; per segment ``segment.i.features``,
                ``.retrieved``, ``.phone``, ``.audio``, ``.trimmed``; ``joined``, ``audio``.

        Warns where the result is silent and the recording is not.

        Raises ``ValueError``: audio, rate or a knob that cannot be used; ``NonFiniteError``: a model computes NaN."""
        given = (transpose, index, index_rate, protect, rms_mix, speaker, f0, noise)
        knobs = Knobs(*given, autotune=autotune, propose_hz=propose_hz, exhaustive=exhaustive)
        for stages, carry, prefix in self._passes(audio, sr, knobs):
            run(stages, carry, watch, prefix)
        if is_silent(carry["audio"]) and not is_silent(carry["filtered"]):
            warnings.warn("the converted audio is silent, and the recording is not", stacklevel=2)
        return carry["audio"], self.synthesizer.sample_rate

    def walk(self, audio: np.ndarray, sr: int, **knobs: Any) -> Iterator[Event]:
        """``convert`` stage by stage, the models' own stages included; see ``stages.walk``."""
        for stages, carry, prefix in self._passes(audio, sr, Knobs(**knobs)):
            yield from walk(stages, carry, prefix)

    def _passes(self, audio: np.ndarray, sr: int, knobs: Knobs) -> Iterator[tuple[tuple[Stage, ...], Carry, str]]:
        """Stages, the carry to run them on, and what their names begin with: before, per segment, and after."""
        carry = self._entered(audio, sr, knobs)
        yield self._front(carry), carry, ""
        for i, inner in enumerate(self._segments(carry)):
            yield self._segment(carry), inner, f"segment.{i}."
            carry["parts"].append(inner["trimmed"])
        yield self._finish(), carry, ""

    def _entered(self, audio: np.ndarray, sr: int, knobs: Knobs) -> Carry:
        """What a conversion begins with."""
        _check(audio, sr, knobs)
        retrieves = knobs.index is not None and knobs.index_rate > 0
        bank = self.load_index(knobs.index) if retrieves else None
        carry: Carry = {"samples": steps.resample(audio, sr), "knobs": knobs, "bank": bank}
        return carry | {"draws": Draws(knobs.noise), "parts": []}

    # ------------------------------------------------------------------ before the segments
    def _front(self, carry: Carry) -> tuple[Stage, ...]:
        def cut(c: Carry) -> np.ndarray:
            return np.array([0, *steps.find_cuts(c["filtered"], self.windows, self.profile)], dtype=np.int64)

        def pad(c: Carry) -> np.ndarray:
            padded = np.pad(c["filtered"], self.windows.samples()[0], mode="reflect")
            start, stop, _ = steps.segment_bounds(padded.size, c["cuts"][1:].tolist(), self.windows)[0]
            self._begin_noise(c, stop - start)  # the first segment's: beside the pitch
            return padded

        audio = (
            _host("filtered", lambda c: steps.high_pass(steps.limit_peak(c.pop("samples"), steps.INPUT_PEAK)), SIGNAL),
            _host("cuts", cut, CONTOUR),
            _host("padded", pad, SIGNAL),
        )
        return (*audio, *self._pitch(carry["knobs"])) if self.synthesizer.has_f0 else audio

    def _pitch(self, knobs: Knobs) -> tuple[Stage, ...]:
        """Codes and Hz per frame of the padded clip."""
        if knobs.f0 is None and self.rmvpe is None:
            raise ValueError("this voice needs pitch: give the pipeline an RMVPE, or convert() an f0")

        def change(c: Carry) -> np.ndarray:
            f0 = steps.fill_unvoiced(c["f0"]) if self.profile == "webui" else c["f0"]
            if knobs.autotune > 0:
                return steps.autotune(f0, knobs.autotune)
            proposed = 0 if knobs.propose_hz is None else steps.proposed_shift(f0, knobs.propose_hz)
            return steps.shift(f0, knobs.transpose + proposed)

        given = knobs.f0
        return (
            self._own_f0() if given is None else _host("f0", partial(_fitted, given), CONTOUR, decides=True),
            _host("pitchf", change, CONTOUR, decides=True),
            _host("pitch", lambda c: steps.coarse_pitch(c["pitchf"]), CONTOUR, decides=True),
        )

    def _own_f0(self) -> Stage:
        model = self.rmvpe

        def estimate(c: Carry) -> None:
            c["f0"] = model.f0(c["padded"].astype(np.float32))

        def inside(c: Carry) -> Iterator[Event]:
            c["f0"] = yield from _last(model.walk(c["padded"].astype(np.float32)), "f0")

        return Stage("f0", estimate, product="f0", inside=inside, axes=CONTOUR, decides=True)

    # ------------------------------------------------------------------ segments
    def _segments(self, carry: Carry) -> Iterator[Carry]:
        """Per stretch of the padded clip what its conversion begins with."""
        padded = carry["padded"]
        for start, stop, last in steps.segment_bounds(padded.size, carry["cuts"][1:].tolist(), self.windows):
            self._begin_noise(carry, stop - start)
            inner: Carry = {"samples": padded[start:stop].astype(np.float32), "draws": carry["draws"]}
            if self.synthesizer.has_f0:
                frames = slice(start // HOP_SAMPLES, last)
                inner |= {"pitch": carry["pitch"][frames], "f0": carry["pitchf"][frames].astype(np.float32)}
            yield inner

    def _begin_noise(self, carry: Carry, samples: int) -> None:
        """Drawing it takes as long as a network on a GPU, and only one processor."""
        carry["draws"].begin(self.synthesizer.noise_sizes(samples // HOP_SAMPLES))

    def _segment(self, carry: Carry) -> tuple[Stage, ...]:
        """One stretch of the padded clip, converted, without its padding."""
        hubert, voice, knobs, bank = self.hubert, self.synthesizer, carry["knobs"], carry["bank"]
        variant = (voice.version, self.profile)

        def extract(c: Carry) -> None:
            c["features"] = hubert.features(c["samples"], *variant)

        def walk_hubert(c: Carry) -> Iterator[Event]:
            features = yield from _last(hubert.walk(c["samples"], *variant), "features")
            c["features"] = features[0]

        def retrieve(c: Carry) -> None:
            share = knobs.index_rate
            found = bank.retrieve(c["features"], knobs.exhaustive)
            c["retrieved"] = found * np.float32(share) + np.float32(1 - share) * c["features"]

        def prepare(c: Carry) -> np.ndarray:
            phone = steps.double(c.pop("retrieved", c["features"]))
            frames = min(c["samples"].size // HOP_SAMPLES, len(phone))
            c["lengths"] = np.array([frames])
            if voice.has_f0:
                c |= {"pitch": c["pitch"][:frames], "f0": c["f0"][:frames]}
                phone = steps.protect_unvoiced(phone, steps.double(c["features"]), c["f0"], knobs.protect)
            return phone

        def arguments(c: Carry) -> tuple[Any, ...]:
            pitch, f0 = (c[name][None] if voice.has_f0 else None for name in ("pitch", "f0"))
            return c["phone"][None], c["lengths"], pitch, f0, np.array([knobs.speaker]), c["draws"]

        def synthesize(c: Carry) -> None:
            c["audio"] = voice.infer(*arguments(c))[0]

        def walk_voice(c: Carry) -> Iterator[Event]:
            audio = yield from _last(voice.walk(*arguments(c)), "audio")
            c["audio"] = audio[0]

        pad = int(self.windows.x_pad * voice.sample_rate)
        retrieval = (Stage("retrieved", retrieve, product="retrieved", axes=PHONE),) if bank is not None else ()
        return (
            Stage("features", extract, product="features", inside=walk_hubert, axes=PHONE),
            *retrieval,
            _host("phone", prepare, PHONE),
            Stage("audio", synthesize, product="audio", inside=walk_voice, axes=SIGNAL),
            _host("trimmed", lambda c: c["audio"][pad:-pad], SIGNAL),
        )

    # ------------------------------------------------------------------ after them
    def _finish(self) -> tuple[Stage, ...]:
        def join(c: Carry) -> np.ndarray:
            joined = np.concatenate(c.pop("parts"))
            if joined.size == 0:
                length_ms = 1000 * c["filtered"].size / SAMPLE_RATE
                raise ValueError(f"audio of {length_ms:.0f} ms is too short: nothing is left after conversion")
            if not is_finite(joined):  # of a call that is watched, or of models of one's own
                raise ValueError("the conversion gave NaN or infinite values; in half precision, try float32")
            return joined

        def finish(c: Carry) -> np.ndarray:
            joined, rms_mix = c.pop("joined"), c["knobs"].rms_mix
            if rms_mix != 1:
                joined = steps.mix_loudness(c["filtered"], joined, self.synthesizer.sample_rate, rms_mix)
            if self.profile == "webui":
                return steps.to_int16(joined)
            return steps.limit_peak(joined, steps.OUTPUT_PEAK).astype(np.float32, copy=False)

        return (_host("joined", join, SIGNAL), _host("audio", finish, SIGNAL))


def _host(name: str, make: Callable[[Carry], np.ndarray], axes: Axes, decides: bool = False) -> Stage:
    """A step that both implementations share; it makes the entry of its own name."""

    def apply(carry: Carry) -> None:
        carry[name] = make(carry)

    return Stage(name, apply, product=name, shared=True, axes=axes, decides=decides)


def _last(events: Iterator[Event], name: str) -> Generator[Event, None, np.ndarray]:
    """Passes a model's events on and returns what its last one holds under ``name``."""
    event = None
    for event in events:
        yield event
    assert event is not None
    return event.carry[name]


def _check(audio: np.ndarray, sr: int, knobs: Knobs) -> None:
    if audio.ndim != 1 or audio.dtype.kind != "f":
        raise ValueError(f"audio must be mono floats, shape [n], not {audio.dtype} {list(audio.shape)}")
    if not 1000 <= sr <= 768000:
        raise ValueError(f"a sample rate of {sr} Hz makes no sense")
    if not np.isfinite(audio).all():
        raise ValueError(f"audio has {np.count_nonzero(~np.isfinite(audio))} NaN or infinite samples")
    if audio.size * SAMPLE_RATE // sr <= steps.FILTER_EDGE:
        raise ValueError(f"audio of {audio.size} samples at {sr} Hz is too short to convert")
    check_knobs(knobs)


def check_knobs(knobs: Knobs) -> None:
    """Check what can be checked without a recording and a voice.

    Raises ``ValueError``: a value outside of its range, which the message states, or values that exclude each other."""
    for name, allowed in RANGES.items():
        value = getattr(knobs, name)
        if value is not None and not allowed.low <= value <= allowed.high:  # NaN neither
            raise ValueError(f"{name}={value}: expected {allowed}")
    if knobs.autotune > 0 and (knobs.transpose or knobs.propose_hz is not None):
        raise ValueError("autotune takes the place of transpose and propose_hz, as in Applio: give one or the other")


def _fitted(f0: np.ndarray, carry: Carry) -> np.ndarray:
    """F0 of the padded clip; that of the unpadded recording is mirrored at both ends like the audio."""
    f0 = np.asarray(f0, np.float64)
    if f0.ndim != 1 or not np.isfinite(f0).all() or (f0 < 0).any():
        raise ValueError("f0 must be [F] in Hz, finite, 0 where unvoiced")
    samples, padded = carry["filtered"].size, carry["padded"].size
    whole, own = padded // HOP_SAMPLES, samples // HOP_SAMPLES
    if f0.size in (whole, whole + 1):
        return f0
    if f0.size not in (own, own + 1):
        raise ValueError(f"f0 has {f0.size} frames; the recording has {own + 1}, padded {whole + 1}")
    before = (padded - samples) // 2 // HOP_SAMPLES
    return np.pad(f0, (before, whole - before - f0.size), mode="reflect")
