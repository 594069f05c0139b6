"""What the traces' inputs are made of: audio of a length or level, salience, an index, a voice, conversions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rvc_common.index import Stored, read_index
from rvc_common.rmvpe import N_BINS

from ..base.errors import UserError
from ..inputs.recordings import SAMPLE_RATE, Audio
from .base import Probe

HOP_SAMPLES = 160
# of the clip that the knobs are turned on
OTHER_RATE = 22050
# padding of the other clips: shorter than Applio's, to save time
SHORT_PAD_S = 0.3
# a recording and a voice that are all but silent: below the least loudness that the mix divides by
FAINT_PEAK, FAINT_VOICE = 1e-5, 1e-7
# a result just below the peak limiter, and the seconds of the clip that it is made of
NEARLY_LIMITED, ENDS_S, ENDS_PAD_S = 0.98, 0.5, 0.1
# F0 that is given: below and above the pitch codes and all notes, below 1 Hz too, and unvoiced
GIVEN_HZ = (0.0, 0.4, 15.0, 45.0, 110.0, 330.0, 659.0, 1090.0, 1500.0, 3000.0)
# of salience that is given
DECODED_FRAMES = 40


def fitted(samples: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` samples; a shorter recording is repeated."""
    return np.resize(samples, count)


def loudest(samples: np.ndarray, peak: float) -> np.ndarray:
    """The samples scaled to this peak; silence stays."""
    return (samples * (peak / max(float(np.abs(samples).max()), 1e-9))).astype(np.float32)


def extreme_salience(rng: np.random.Generator, threshold: float) -> np.ndarray:
    """``[F, 360]``: maxima at and near both ends, two that are equal, one at the threshold and one just above it,
    nothing at all, and everything."""
    salience = (rng.random((DECODED_FRAMES, N_BINS)) * 0.02 * (threshold > 0)).astype(np.float32)
    ends = [*range(6), *range(N_BINS - 6, N_BINS)]
    rows = np.arange(len(ends))
    for distance in range(-5, 6):
        bins = np.array(ends) + distance
        inside = (bins >= 0) & (bins < N_BINS)
        salience[rows[inside], bins[inside]] = 0.9 * 0.6 ** abs(distance)
    salience[12, [100, 103]] = salience[13, [40, 300]] = 0.5
    salience[14, 200], salience[15, 200] = threshold, np.nextafter(np.float32(threshold), np.float32(1))
    salience[16], salience[17] = 0, 1
    centres = rng.integers(8, N_BINS - 8, DECODED_FRAMES - 18)
    salience[np.arange(18, DECODED_FRAMES), centres] = rng.random(centres.size) * 0.9 + 0.05
    return salience


def check_index(path: str, channels: int) -> None:
    """Raises ``UserError``: the file is no index, or its vectors are not those of a voice with so many values."""
    try:
        width = read_index(path).vectors.shape[1]
    except ValueError as error:
        raise UserError(str(error)) from None
    if width != channels:
        raise UserError(f"index {path} holds vectors of {width} values, this voice takes {channels}")


def in_lists(vectors: np.ndarray, own: np.ndarray) -> Stored:
    """An index in which every vector is in the list of the nearest of the features ``own`` but the first, of which
    there are two: their lists are empty, as those of other centroids may be."""
    centroids = np.concatenate([own[:1], own[:1] * np.float32(1.001), own[1:]])
    distance = np.square(vectors[:, None] - centroids[2:]).sum(axis=2)
    homes = 2 + distance.argmin(axis=1) if len(own) > 1 else np.ones(len(vectors), int)
    lists = tuple(np.flatnonzero(homes == number) for number in range(len(centroids)))
    return Stored(vectors, centroids, lists, probes=2)


class Levelled:
    """A voice whose audio is multiplied by ``level`` or, where that is None, scaled so that its peak without padding
    of ``pad_s`` is ``NEARLY_LIMITED``; on either side alike."""

    def __init__(self, voice: Any, level: float | None, pad_s: float) -> None:
        self.voice, self.level, self.pad = voice, level, int(pad_s * voice.sample_rate)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.voice, name)

    def infer(self, *arguments: Any) -> np.ndarray:
        return self._levelled(self.voice.infer(*arguments))

    def walk(self, *arguments: Any) -> Iterator[Any]:
        for event in self.voice.walk(*arguments):
            if event.path == "audio":
                event.carry["audio"] = self._levelled(event.carry["audio"])
            yield event

    def _levelled(self, audio: np.ndarray) -> np.ndarray:
        level = self.level
        if level is None:
            level = NEARLY_LIMITED / max(float(np.abs(audio[..., self.pad : -self.pad]).max(initial=0.0)), 1e-9)
        return audio * np.float32(level)


def of_conversion(audio: Audio, knobs: Mapping[str, float], speakers: int) -> tuple[Probe, ...]:
    """The clip with the suite's knobs; the knobs turned on a loud one of another rate, cut in three; F0 given, and so
    loud that the result is limited; F0 given otherwise, an index in lists, and all but silent; a
    short one with the knobs at their ends, whose result is all but limited."""
    samples, seconds = audio.samples, audio.samples.size / SAMPLE_RATE
    windows = {"x_pad": SHORT_PAD_S, "x_query": 0.1 * seconds, "x_center": 0.4 * seconds, "x_max": 0.8 * seconds}
    turned: dict[str, Any] = {**knobs, "transpose": 3, "speaker": speakers - 1}
    turned |= {"windows": windows, "sample_rate": OTHER_RATE, "propose_hz": 1.0}
    at = np.arange(int(seconds * OTHER_RATE)) / OTHER_RATE * SAMPLE_RATE
    other = np.interp(at, np.arange(samples.size), loudest(samples, 1.2)).astype(np.float32)
    # nearly square waves: louder, at equal peaks, than any voice is
    loud = np.tanh(loudest(samples, 40.0))
    frames = 1 + samples.size // HOP_SAMPLES
    short = samples[: int(ENDS_S * SAMPLE_RATE)]
    short = np.where(short > 0, 0.5 * short, short)  # its peak is negative
    f0 = np.repeat(GIVEN_HZ, -(-frames // len(GIVEN_HZ)))[:frames]
    same_length: dict[str, Any] = {"windows": {"x_pad": SHORT_PAD_S}, "index_rate": knobs["index_rate"]}
    tuned: dict[str, Any] = {"transpose": 0, "propose_hz": None, "autotune": 0.8, "rms_mix": 0.0}
    ends = {"windows": {"x_pad": ENDS_PAD_S}, "index_rate": 1.0, "rms_mix": 1.0, "voice_level": None}
    listed = {"lists": True, "propose_hz": 3000.0, "protect": 0.49, "rms_mix": knobs["rms_mix"]}
    return (
        Probe("clip", {"audio": samples}),
        Probe("knobs", {"audio": other}, turned),
        Probe("loud", {"audio": loud, "own_f0": f0}, same_length | tuned),
        Probe(
            "faint",
            {"audio": loudest(samples[::-1], FAINT_PEAK), "own_f0": f0[: frames - 1]},
            same_length | listed | {"voice_level": FAINT_VOICE},
        ),
        Probe(
            "ends",
            {"audio": loudest(short, 1.2), "own_f0": f0[np.linspace(0, frames - 1, 1 + short.size // 160).astype(int)]},
            {**tuned, **ends, "autotune": 1.0},
        ),
    )
