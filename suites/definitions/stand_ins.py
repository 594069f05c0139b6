"""Conversions whose networks are stand-ins: a trace then reaches the steps around them on recordings of any length and
with many settings, in milliseconds. Both sides run the same stand-ins, and their own steps and searches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rvc_common.checks import PROFILES
from rvc_common.stages import Event
from rvc_common.steps import HOP_SAMPLES, SAMPLE_RATE

from ..inputs.recordings import Audio
from .base import Probe
from .probes import GIVEN_HZ, fitted, loudest

WINDOW, STEP, PARTS = 400, 320, 8
UNVOICED_PEAK = 2e-3

# What the conversions have, each value as often as another of its row.
SECONDS = (0.7, 1.3, 0.11, 0.71, 2.0)
RATES = (*5 * (16000,), 48000, 8000, 44100, 24000, 96000, 11025, 192000, 32000, 22257)
PEAKS = (0.5, 1.5, 0.949, 0.951, 1e-4, 0.0, 0.9)
WINDOWS: tuple[dict[str, float], ...] = (
    {"x_pad": 0.2, "x_query": 0.07, "x_center": 0.4, "x_max": 0.5},
    {"x_pad": 0.1, "x_query": 0.2, "x_center": 0.33, "x_max": 0.41},
    {"x_pad": 0.31},
)
KINDS = (np.float32, np.float64), (np.float64, np.float32), (np.float32, np.int32)
# samples above the longest recording that is not cut: a frame less is the last that is not; and any number
EDGES = (-160, -159, -161, 0, 1, None, None)
# F0 of the padded recording or not, and how many frames more than whole ones; and none
F0_FRAMES = ((0, 0), (0, 1), (1, 0), (1, 1), None)
OWN_HZ = (*GIVEN_HZ[:4], 98.0, 123.5, 0.0, 147.0, 185.0, 262.0, *GIVEN_HZ[4:])
KNOBS: dict[str, tuple[Any, ...]] = {
    "stand_ins": (1.0, 6.0, 1.0, 1e-6),  # the level
    "profile": PROFILES,
    "transpose": (0.0, 0.5, -12.0, 48.0, -48.0, 7.25, 12.0),
    "propose_hz": (None, 60.0, 220.0, None, 330.0, 8000.0, 150.0, None, 466.0, 1.0, 277.0),
    "autotune": (0.0, 0.0, 0.0, 0.3, 0.0, 1.0, 0.0, 0.0),
    "index_rate": (0.0, 1.0, 0.04, 0.6, 0.97),
    "protect": (0.5, 0.0, 0.49, 0.2, 0.01, 0.4),
    "rms_mix": (1.0, 0.0, 0.5, 0.03, 0.98, 0.2),
    # vectors of the index: fewer than are looked for, just as many, and more
    "index_vectors": (3, 256, 8, 20, 9, 1),
    "lists": (True, False),
    "exhaustive": (True, False, False),
    "loaded_index": (True, False, False),
    "drawn": (True, False, False, False),
}
COUNT = 80
# of long recordings: seconds, and where they are quiet: the longest segment is nearly as long as any can be, as the
# WebUI's search for cuts finds these places
LONG_S: tuple[tuple[float, tuple[float, ...]], ...] = ((90.0, (32.1, 81.9)), (42.0, (33.0,)), (40.99, ()))


class Content:
    """In place of HuBERT: each frame's means over eighths of its window, mixed."""

    def __init__(self, hubert: Any, channels: int) -> None:
        self.hubert = hubert
        self.mixed = np.random.default_rng(9).standard_normal((PARTS, channels)).astype(np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.hubert, name)

    def features(self, samples: np.ndarray, version: str, profile: str) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::STEP]
        parts = np.abs(windows).reshape(len(windows), PARTS, -1).mean(axis=2)
        return np.tanh(5 * parts @ self.mixed).astype(np.float32)

    def walk(self, samples: np.ndarray, version: str, profile: str) -> Iterator[Event]:
        yield Event("features", {"features": self.features(samples, version, profile)[None]}, "features")


class Pitch:
    """In place of RMVPE: 40 to 740 Hz, by the changes of sign in a tenth of a second; unvoiced where it is quiet, and
    where their number is a multiple of three."""

    def __init__(self, profile: str) -> None:
        self.profile = profile

    def f0(self, audio: np.ndarray) -> np.ndarray:
        padded = np.pad(audio, 5 * HOP_SAMPLES)
        changes = np.concatenate([[0], np.cumsum(padded[1:] * padded[:-1] < 0)])
        at = HOP_SAMPLES * np.arange(1 + audio.size // HOP_SAMPLES)
        peaks = np.abs(padded[at[:, None] + np.arange(4 * HOP_SAMPLES, 6 * HOP_SAMPLES)]).max(axis=1)
        count = changes[at + 10 * HOP_SAMPLES - 1] - changes[at]
        return np.where((peaks > UNVOICED_PEAK) & (count % 3 > 0), 40.0 + 13 * count % 700, 0.0)

    def walk(self, audio: np.ndarray) -> Iterator[Event]:
        yield Event("f0", {"f0": self.f0(audio)}, "f0")


class Sound:
    """In place of the voice: a sine of the F0, as loud as features, pitch codes, speaker and noise say."""

    def __init__(self, voice: Any, profile: str, level: float) -> None:
        self.voice, self.profile, self.level = voice, profile, level

    def __getattr__(self, name: str) -> Any:
        return getattr(self.voice, name)

    def infer(
        self, phone: np.ndarray, lengths: np.ndarray, pitch: Any, f0: Any, speaker: np.ndarray, draws: Any
    ) -> Any:
        frames, hop = phone.shape[1], self.voice.hop_samples
        noise: list[np.ndarray] = [draws(kind, (size,)) for kind, size in self.voice.noise_sizes(frames)]
        mixed = phone[0] @ np.random.default_rng(10).standard_normal(phone.shape[2:], dtype=np.float32)
        loud = 0.3 + 0.1 * np.tanh(mixed) + 0.03 * speaker[0] + 0.01 * noise[0].reshape(-1, frames).mean(axis=0)
        if f0 is None:
            pitch, f0 = np.zeros((2, 1, frames))
        loud += 1e-3 * pitch[0]
        phase = np.cumsum(np.repeat(f0[0].astype(np.float64), hop)) / self.voice.sample_rate
        audio = np.repeat(loud, hop) * np.sin(2 * np.pi * phase) + 0.01 * noise[-1][: frames * hop].mean()
        audio[: noise[-1].size] += 0.01 * noise[-1][: audio.size]
        return (self.level * audio[None, : int(lengths[0]) * hop]).astype(np.float32)

    def walk(self, *arguments: Any) -> Iterator[Event]:
        yield Event("audio", {"audio": self.infer(*arguments)}, "audio")


def in_place_of(hubert: Any, voice: Any, profile: str, level: float) -> tuple[Content, Pitch, Sound]:
    return Content(hubert, voice.phone_channels), Pitch(profile), Sound(voice, profile, level)


def conversions(audio: Audio, speakers: int, seed: int) -> Iterator[Probe]:
    """Short recordings with every knob turned, of both profiles; and long ones, which are cut."""
    rng = np.random.default_rng(11)

    def column(*values: Any) -> list[Any]:
        """Every value as often as any other, in an order of its own."""
        return [values[k] for k in rng.permutation(np.resize(np.arange(len(values)), COUNT))]

    turned = {name: column(*values) for name, values in KNOBS.items()} | {"speaker": column(*range(speakers))}
    shape = zip(*(column(*values) for values in (RATES, SECONDS, PEAKS, WINDOWS, KINDS, EDGES, F0_FRAMES)), strict=True)
    for i, (rate, seconds, peak, windows, (kind, kind_f0), edge, f0_frames) in enumerate(shape):
        settings = {name: values[i] for name, values in turned.items()}
        if settings["autotune"]:
            settings |= {"transpose": 0, "propose_hz": None}
        if settings["profile"] == "webui":  # all but silent audio would be nothing in 16 bits
            settings["stand_ins"] = max(settings["stand_ins"], 1e-3)
        settings |= {"windows": windows, "sample_rate": rate, "seed": seed + i}
        count = int(seconds * rate) + 37 * i % 160
        if rate == SAMPLE_RATE and edge is not None:
            count = int(windows.get("x_max", 1) * rate) + edge
        at = np.arange(count) * (SAMPLE_RATE / rate) + 911 * i
        own = np.interp(at % audio.samples.size, np.arange(audio.samples.size), audio.samples)
        samples = loudest(own * (-1) ** i, peak).astype(kind)
        samples[count // 3 : count // 3 + count // 5 * (i % 5 == 2)] = 0
        inputs = {"audio": samples}
        if rate == SAMPLE_RATE and f0_frames is not None:
            padded, more = f0_frames
            frames = (count + padded * 2 * int(SAMPLE_RATE * windows["x_pad"])) // HOP_SAMPLES + more
            f0 = np.resize(np.roll(np.repeat(OWN_HZ, 7), 5 * i), frames) * (i % 8 != 5)
            inputs["own_f0"] = f0.astype(kind_f0)
        yield Probe(f"stand-ins {i + 1}", inputs, settings, walked=False)
    for number, (seconds, quiet) in enumerate(LONG_S):
        samples = loudest(fitted(audio.samples, round(seconds * SAMPLE_RATE)), 1.1)
        for second in quiet:
            samples[int(second * SAMPLE_RATE) :][: SAMPLE_RATE // 20] = 0
        settings = {"stand_ins": 4.0, "profile": PROFILES[(number + 1) % 2], "index_rate": 0.5}
        settings["rms_mix"] = (0.4, 1.0)[number % 2]
        yield Probe(f"stand-ins, {seconds:g} s", {"audio": samples}, settings, walked=False, pieces=False)
