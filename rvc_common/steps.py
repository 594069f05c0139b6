"""The steps around the networks, in NumPy: what RVC does to audio, pitch and features on the host.

Behaviour as in IAHispano/Applio, revision b9c0ccb, and, where ``profile="webui"``, in
RVC-Project/Retrieval-based-Voice-Conversion-WebUI, revision 4338f12. Shapes: n = samples,
F = 10 ms frames, H = 20 ms frames.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SAMPLE_RATE = 16000
HOP_SAMPLES = 160
HIGH_PASS_ORDER, HIGH_PASS_HZ = 5, 48
# what the zero-phase filter mirrors at either end: three times the filter's length
FILTER_EDGE = 18
FILTER_BLOCK = 1 << 20
LOUDNESS_BLOCK = 1 << 15  # windows: their sums stay in a cache
INPUT_PEAK, OUTPUT_PEAK = 0.95, 0.99
F0_MIN_HZ, F0_MAX_HZ = 50.0, 1100.0
PITCH_CODES = 256
LARGEST_PROPOSAL = 12
# notes that autotune pulls to, G1 to C6, in Hz; upstream's table has E5 rounded down
NOTES_HZ = np.array([659.25 if midi == 76 else round(440 * 2 ** ((midi - 69) / 12), 2) for midi in range(31, 85)])
RMS_FLOOR = 1e-6


class Windows(NamedTuple):
    """Seconds: mirrored at both ends, searched around a cut, between cuts, and uncut at most."""

    x_pad: float = 1
    x_query: float = 6
    x_center: float = 38
    x_max: float = 41

    def samples(self) -> tuple[int, int, int, int]:
        return tuple(int(SAMPLE_RATE * seconds) for seconds in self)  # type: ignore[return-value]


# ---------------------------------------------------------------------- audio
def resample(audio: np.ndarray, sr: int) -> np.ndarray:
    """``[n]`` at ``sr`` Hz to 16 kHz, in its own type."""
    if sr == SAMPLE_RATE:
        return audio
    import soxr

    return soxr.resample(audio, sr, SAMPLE_RATE, quality="VHQ")


def high_pass_coefficients() -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of the Butterworth high-pass."""
    from scipy.signal import butter

    return butter(N=HIGH_PASS_ORDER, Wn=HIGH_PASS_HZ, btype="high", fs=SAMPLE_RATE)


def high_pass(audio: np.ndarray) -> np.ndarray:
    """``[n]`` filtered forward and backward, float64; odd reflection at the ends.

    Equal to ``scipy.signal.filtfilt``, in blocks: that keeps several copies of the whole.
    """
    from scipy.signal import lfilter, lfilter_zi

    b, a = high_pass_coefficients()
    audio = np.asarray(audio, np.float64)
    head = 2 * audio[0] - audio[FILTER_EDGE:0:-1]
    tail = 2 * audio[-1] - audio[-2 : -FILTER_EDGE - 2 : -1]
    y = np.concatenate([head, audio, tail])
    steady = lfilter_zi(b, a)
    for view in (y, y[::-1]):
        state = steady * view[0]
        for start in range(0, view.size, FILTER_BLOCK):
            block = slice(start, start + FILTER_BLOCK)
            view[block], state = lfilter(b, a, view[block], zi=state)
    return y[FILTER_EDGE:-FILTER_EDGE]


def limit_peak(audio: np.ndarray, peak: float) -> np.ndarray:
    """Scaled down to ``peak`` where it is louder; never up."""
    excess = np.abs(audio).max() / peak
    return audio / excess if excess > 1 else audio


def find_cuts(filtered: np.ndarray, windows: Windows, profile: str) -> list[int]:
    """Quiet places ``[cut]``, multiples of 160 samples, to cut long audio at; none where it is short."""
    _, query, center, longest = windows.samples()
    if filtered.size + HOP_SAMPLES <= longest:
        return []
    half = HOP_SAMPLES // 2
    padded = np.pad(filtered, half, mode="reflect")
    cuts = []
    for middle in range(center, filtered.size, center):
        start, stop = max(0, middle - query), min(filtered.size, middle + query)
        samples = padded[start : stop + HOP_SAMPLES - 1]
        samples = np.abs(samples) if profile == "webui" else samples
        loudness = np.zeros(stop - start)
        for block in range(0, loudness.size, LOUDNESS_BLOCK):
            total = loudness[block : block + LOUDNESS_BLOCK]
            for i in range(block, block + HOP_SAMPLES):  # in upstream's order, so that ties are resolved the same way
                total += samples[i : i + total.size]
        cuts.append((middle - query + int(np.argmin(np.abs(loudness)))) // HOP_SAMPLES * HOP_SAMPLES)
    return cuts


def segment_bounds(samples: int, cuts: list[int], windows: Windows) -> list[tuple[int, int, int]]:
    """Per segment of the padded clip ``[samples]``: first sample, end, and the end of its pitch frames."""
    pad = windows.samples()[0]
    starts = [0, *cuts]
    bounds = [(s, t + 2 * pad + HOP_SAMPLES, (t + 2 * pad) // HOP_SAMPLES) for s, t in zip(starts, cuts, strict=False)]
    return [*bounds, (starts[-1], samples, samples // HOP_SAMPLES)]


# ---------------------------------------------------------------------- pitch
def shift(f0: np.ndarray, semitones: float) -> np.ndarray:
    """``[F]`` Hz transposed."""
    return f0 * 2.0 ** (semitones / 12)


def autotune(f0: np.ndarray, strength: float) -> np.ndarray:
    """``[F]`` Hz pulled towards the nearest note. As upstream does, unvoiced zeros are pulled to 49 Hz too."""
    nearest = NOTES_HZ[np.abs(f0[:, None] - NOTES_HZ).argmin(axis=1)]
    return f0 + (nearest - f0) * strength


def proposed_shift(f0: np.ndarray, target_hz: float) -> int:
    """Semitones, at most an octave, that bring the median pitch to ``target_hz``."""
    voiced = np.flatnonzero(f0 > 0)
    if voiced.size < 2:
        return 0
    median = np.median(np.interp(np.arange(f0.size), voiced, f0[voiced]))
    wanted = int(np.round(12 * np.log2(target_hz / median)))
    return max(-LARGEST_PROPOSAL, min(LARGEST_PROPOSAL, wanted))


def fill_unvoiced(f0: np.ndarray) -> np.ndarray:
    """Gaps bridged by straight lines, as the WebUI does: the source is voiced throughout."""
    voiced = np.flatnonzero(f0 > 0)
    return np.interp(np.arange(f0.size), voiced, f0[voiced]) if voiced.size else f0


def coarse_pitch(f0: np.ndarray) -> np.ndarray:
    """``[F]`` Hz to codes 1 to 255, int64: mel scale between 50 and 1100 Hz; 1 where unvoiced."""
    low, high = (1127 * np.log(1 + hz / 700) for hz in (F0_MIN_HZ, F0_MAX_HZ))
    mel = 1127 * np.log(1 + f0 / 700)
    code = np.where(mel > 0, (mel - low) * (PITCH_CODES - 2) / (high - low) + 1, mel)
    return np.rint(np.clip(code, 1, PITCH_CODES - 1)).astype(np.int64)


# ---------------------------------------------------------------------- features and output
def double(features: np.ndarray) -> np.ndarray:
    """``[H, D] -> [2H, D]``: each frame twice."""
    return np.repeat(features, 2, axis=0)


def protect_unvoiced(retrieved: np.ndarray, original: np.ndarray, f0: np.ndarray, protect: float) -> np.ndarray:
    """Frames with f0 below 1 Hz keep ``1 - protect`` of their original features, float32; 0.5 and more: none."""
    if protect >= 0.5:
        return retrieved
    share = np.where(f0 < 1, np.float32(protect), np.float32(1))[:, None]
    return retrieved * share + original * (1 - share)


def loudness(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """RMS over one second, every half second, centred with zeros beyond the ends; float64."""
    window, hop = sample_rate // 2 * 2, sample_rate // 2
    # per half second one sum: a window is two of them, shifted by a half window at the start
    padded = np.pad(np.square(audio, dtype=np.float64), (window // 2, window // 2))
    halves = padded[: padded.size // hop * hop].reshape(-1, hop).sum(axis=1)
    return np.sqrt((halves[:-1] + halves[1:]) / window)


def mix_loudness(source: np.ndarray, converted: np.ndarray, sample_rate: int, rate: float) -> np.ndarray:
    """``converted`` at ``sample_rate`` with the loudness of ``source`` (16 kHz); rate 1 keeps its own, 0 takes all."""
    curves = []
    for audio, hz in ((source, SAMPLE_RATE), (converted, sample_rate)):
        curve = loudness(audio, hz).astype(np.float32)
        at = (np.arange(converted.size) + 0.5) * (curve.size / converted.size) - 0.5
        curves.append(np.interp(at, np.arange(curve.size), curve))
    gain = curves[0] ** (1 - rate) * np.maximum(curves[1], RMS_FLOOR) ** (rate - 1)
    return (converted * gain).astype(np.float32)


def to_int16(audio: np.ndarray) -> np.ndarray:
    """The WebUI's output: scaled to 16 bits, below full scale where it would exceed it."""
    excess = np.abs(audio).max() / OUTPUT_PEAK
    return np.clip(audio * (32768 / max(excess, 1)), -32768, 32767).astype(np.int16)
