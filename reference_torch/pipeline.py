"""The whole conversion: a recording in, the same words in another voice out.

Behaviour as in IAHispano/Applio, revision b9c0ccb (``profile="applio"``), or in the WebUI,
revision 4338f12 (``"webui"``). The networks and the retrieval run in this package's framework,
everything between them on the host in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from . import steps
from .hubert import Hubert, last_stage
from .noise import Draw, Draws
from .retrieval import Bank, load_bank
from .rmvpe import RMVPE
from .steps import HOP_SAMPLES, SAMPLE_RATE, Windows
from .synthesizer import Synthesizer

LARGEST_TRANSPOSITION = 48

Watcher = Callable[[str, np.ndarray], None]


class Pipeline:
    """Converts recordings with one set of models; ``windows``: see ``steps.Windows``, in seconds."""

    def __init__(
        self,
        hubert: Hubert,
        rmvpe: RMVPE | None,
        synthesizer: Synthesizer,
        profile: str = "applio",
        windows: Mapping[str, float] | None = None,
    ) -> None:
        if profile not in ("applio", "webui"):
            raise ValueError(f"unknown profile {profile!r}: applio or webui")
        self.hubert, self.rmvpe, self.synthesizer, self.profile = hubert, rmvpe, synthesizer, profile
        unknown = set(windows or {}) - set(Windows._fields)
        if unknown:
            raise ValueError(f"unknown windows {sorted(unknown)}: {', '.join(Windows._fields)}")
        self.windows = Windows(**windows or {})
        self._check_models()
        if not (0 < self.windows.x_query < self.windows.x_center and self.windows.x_pad > 0):
            raise ValueError(f"{self.windows}: x_pad must be above 0, and x_query below x_center")

    def _check_models(self) -> None:
        """What cannot work together is told before any of the work."""
        voice = self.synthesizer
        _, project = last_stage(self.hubert.config, voice.version, self.profile)
        width = self.hubert.config.projected if project else self.hubert.config.channels
        if width != voice.phone_channels:
            raise ValueError(
                f"this HuBERT makes {width} values a frame, this {voice.version} voice takes {voice.phone_channels}"
            )
        if voice.sample_rate * HOP_SAMPLES != voice.hop_samples * SAMPLE_RATE:
            raise ValueError(
                f"this voice makes {voice.hop_samples} samples per 10 ms, which is not {voice.sample_rate} Hz"
            )

    def convert(
        self,
        audio: np.ndarray,
        sr: int,
        transpose: float = 0,
        index: np.ndarray | Bank | str | Path | None = None,
        index_rate: float = 0.0,
        protect: float = 0.5,
        rms_mix: float = 1.0,
        speaker: int = 0,
        f0: np.ndarray | None = None,
        noise: int | Draw = 0,
        *,
        autotune: float = 0.0,
        propose_hz: float | None = None,
        watch: Watcher | None = None,
    ) -> tuple[np.ndarray, int]:
        """``[n]`` mono at any rate to the converted audio and its rate; float32 (``webui``: int16).

        Args:
            audio: in [-1, 1]; louder input is scaled down to a peak of 0.95.
            sr: its sample rate in Hz.
            transpose: semitones.
            index: vectors of the voice ``[V, D]``, a loaded ``Bank``, or a ``.index`` or ``.npy`` file.
            index_rate: share of retrieved features, 0 to 1; 0, or no index, turns retrieval off.
            protect: 0 to 0.5, how much of the retrieved features unvoiced frames take; 0.5 turns it off.
            rms_mix: 1 keeps the voice's own loudness, 0 takes the recording's.
            speaker: which of the voice's speakers.
            f0: Hz every 10 ms of the recording, or of the padded one, instead of RMVPE's; 0 is unvoiced.
            noise: a seed, or a callable ``draw(index, kind, shape)``.
            autotune: 0 to 1, how far pitch is pulled to the nearest note, in place of any transposition.
            propose_hz: shift the median pitch to about this, on top of ``transpose``.
            watch: called as ``watch(name, array)`` after every step: ``filtered``, ``cuts``, ``padded``,
                ``f0`` (before any change), ``pitchf``, ``pitch``; per segment ``segment.i.features``,
                ``.phone``, ``.audio``; ``joined``, ``audio``.

        Raises:
            ValueError: audio, rate or a knob that cannot be used.
        """
        _check(audio, sr, index_rate, protect, rms_mix, autotune)
        _check_pitch(transpose, propose_hz, autotune)
        told = watch or (lambda name, array: None)
        bank = load_bank(index, self.hubert.device) if index is not None and index_rate > 0 else None
        draws = Draws(noise)
        samples = _resampled(audio, sr)
        filtered = steps.high_pass(steps.limit_peak(samples, steps.INPUT_PEAK))
        told("filtered", filtered)
        cuts = steps.find_cuts(filtered, self.windows, self.profile)
        told("cuts", np.array(cuts, dtype=np.int64))
        padded = np.pad(filtered, self.windows.samples()[0], mode="reflect")
        told("padded", padded)
        pitch, pitchf = self._pitch(padded, filtered.size, f0, transpose, autotune, propose_hz, told)
        parts = []
        for i, (start, stop, last) in enumerate(steps.segment_bounds(padded.size, cuts, self.windows)):
            frames = slice(start // HOP_SAMPLES, last)
            codes, hz = (None, None) if pitchf is None or pitch is None else (pitch[frames], pitchf[frames])

            def tell(name: str, array: np.ndarray, i: int = i) -> None:
                told(f"segment.{i}.{name}", array)

            parts.append(self._segment(padded[start:stop], codes, hz, speaker, bank, index_rate, protect, draws, tell))
        joined = np.concatenate(parts)
        del parts
        if joined.size == 0:
            raise ValueError(f"audio of {1000 * audio.size / sr:.0f} ms is too short: nothing is left after conversion")
        if not np.isfinite(joined).all():
            raise ValueError("the conversion gave NaN or infinite values; in half precision, try float32")
        told("joined", joined)
        result = self._finish(filtered, joined, rms_mix)
        told("audio", result)
        return result, self.synthesizer.sample_rate

    def _pitch(
        self,
        padded: np.ndarray,
        samples: int,
        given: np.ndarray | None,
        transpose: float,
        strength: float,
        propose_hz: float | None,
        told: Watcher,
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Codes and Hz per frame of the padded clip; None for voices without pitch."""
        if not self.synthesizer.has_f0:
            return None, None
        if given is not None:
            f0 = _fitted(given, samples, padded.size)
        elif self.rmvpe is not None:
            f0 = self.rmvpe.f0(padded.astype(np.float32))
        else:
            raise ValueError("this voice needs pitch: give the pipeline an RMVPE, or convert() an f0")
        told("f0", f0)
        if self.profile == "webui":
            f0 = steps.fill_unvoiced(f0)
        if strength > 0:
            f0 = steps.autotune(f0, strength)
        else:
            f0 = steps.shift(f0, transpose + (0 if propose_hz is None else steps.proposed_shift(f0, propose_hz)))
        told("pitchf", f0)
        pitch = steps.coarse_pitch(f0)
        told("pitch", pitch)
        return pitch, f0.astype(np.float32)

    def _segment(
        self,
        audio: np.ndarray,
        pitch: np.ndarray | None,
        f0: np.ndarray | None,
        speaker: int,
        bank: Bank | None,
        index_rate: float,
        protect: float,
        draws: Draws,
        told: Watcher,
    ) -> np.ndarray:
        """One stretch of the padded clip, converted, without its padding."""
        voice = self.synthesizer
        original = self.hubert.features(audio.astype(np.float32), voice.version, self.profile)
        told("features", original)
        features = original
        if bank is not None:
            features = bank.retrieve(original) * np.float32(index_rate) + np.float32(1 - index_rate) * original
        phone = steps.double(features)
        frames = min(audio.size // HOP_SAMPLES, len(phone))
        if f0 is not None and pitch is not None:
            pitch, f0 = pitch[:frames], f0[:frames]
            phone = steps.protect_unvoiced(phone, steps.double(original), f0, protect)
        told("phone", phone)
        batch = (None if pitch is None else pitch[None], None if f0 is None else f0[None])
        result = voice.infer(phone[None], np.array([frames]), *batch, np.array([speaker]), draws)[0]
        told("audio", result)
        pad = int(self.windows.x_pad * voice.sample_rate)
        return result[pad:-pad]

    def _finish(self, filtered: np.ndarray, joined: np.ndarray, rms_mix: float) -> np.ndarray:
        if rms_mix != 1:
            rate = self.synthesizer.sample_rate
            joined = steps.mix_loudness(filtered, joined, rate, rms_mix)
        if self.profile == "webui":
            return steps.to_int16(joined)
        return steps.limit_peak(joined, steps.OUTPUT_PEAK).astype(np.float32, copy=False)


def _check(audio: np.ndarray, sr: int, index_rate: float, protect: float, rms_mix: float, autotune: float) -> None:
    if audio.ndim != 1 or audio.dtype.kind != "f":
        raise ValueError(f"audio must be mono floats, shape [n], not {audio.dtype} {list(audio.shape)}")
    if not 1000 <= sr <= 768000:
        raise ValueError(f"a sample rate of {sr} Hz makes no sense")
    if not np.isfinite(audio).all():
        raise ValueError(f"audio has {np.count_nonzero(~np.isfinite(audio))} NaN or infinite samples")
    if audio.size * SAMPLE_RATE // sr <= steps.FILTER_EDGE:
        raise ValueError(f"audio of {audio.size} samples at {sr} Hz is too short to convert")
    shares = {"index_rate": index_rate, "rms_mix": rms_mix, "autotune": autotune}
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name}={value}: 0 to 1 is expected")
    if not 0 <= protect <= 0.5:
        raise ValueError(f"protect={protect}: 0 to 0.5 is expected")


def _check_pitch(transpose: float, propose_hz: float | None, autotune: float) -> None:
    if not abs(transpose) <= LARGEST_TRANSPOSITION:
        raise ValueError(
            f"transpose={transpose}: -{LARGEST_TRANSPOSITION} to {LARGEST_TRANSPOSITION} semitones are expected"
        )
    if propose_hz is not None and not 0 < propose_hz < SAMPLE_RATE:
        raise ValueError(f"propose_hz={propose_hz}: a frequency in Hz is expected")
    if autotune > 0 and (transpose or propose_hz is not None):
        raise ValueError("autotune takes the place of transpose and propose_hz, as in Applio: give one or the other")


def _resampled(audio: np.ndarray, sr: int) -> np.ndarray:
    if sr == SAMPLE_RATE:
        return audio
    import soxr

    return soxr.resample(audio, sr, SAMPLE_RATE, quality="VHQ")


def _fitted(f0: np.ndarray, samples: int, padded: int) -> np.ndarray:
    """F0 of the padded clip; of the recording alone, it is mirrored at both ends as the audio is."""
    f0 = np.asarray(f0, np.float64)
    if f0.ndim != 1 or not np.isfinite(f0).all() or (f0 < 0).any():
        raise ValueError("f0 must be [F] in Hz, finite, 0 where unvoiced")
    whole, own = padded // HOP_SAMPLES, samples // HOP_SAMPLES
    if f0.size in (whole, whole + 1):
        return f0
    if f0.size not in (own, own + 1):
        raise ValueError(f"f0 has {f0.size} frames; the recording has {own + 1}, padded {whole + 1}")
    before = (padded - samples) // 2 // HOP_SAMPLES
    return np.pad(f0, (before, whole - before - f0.size), mode="reflect")
