"""How two sounds differ, in audible ways. Pure functions of NumPy arrays.

Correlation cannot tell: level does not change it, a delay of one sample ruins it, and between two equally right
outputs it is whatever their noise makes it (``noise_spread``). As in ``parity``, what cannot be compared has a reason
and no figures.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from . import parity
from .parity import Figures, NotComparable

# RMS at or below which a signal is silent: -200 dB of full scale, far below 24 bits
SILENCE = 1e-10
EDGE_SECONDS = 0.1
EDGE_FRAMES = 10
MAX_DELAY_SECONDS = 0.05
# The three windows of Yamamoto et al. (10, 25 and 50 ms at their 24 kHz), each moved by about a fifth
WINDOWS_SECONDS = (0.010, 0.025, 0.050)
LSD_WINDOW_SECONDS = 0.025
HOPS_PER_WINDOW = 5
# Magnitudes count from 100 dB below the louder signal's peak: lower values (rounding, and all of
# digital silence) are inaudible, and their logarithm has no bound
SPECTRAL_FLOOR = 1e-5
# Frames transformed at once: bounds the memory, whatever the length
FRAMES_AT_ONCE = 1024

OCTAVE_ERROR_CENTS = 600.0

DRAWN_WINDOW, DRAWN_BINS = 1024, 4


def compare_audio(value: np.ndarray, reference: np.ndarray, sample_rate: int) -> Figures:
    """All figures of ``parity.compare``, and those of sound. Audio ``[N]``, full scale 1; JSON values.

    ``snr_db``: None only where equal; a silent reference counts as one at ``SILENCE``. ``edge_start_snr_db``,
    ``edge_end_snr_db``: of the first and the last 0.1 s alone; ``inner_snr_db`` of what lies between (of all, where
    nothing does). ``level_db``: RMS of the value over the reference's; None where one is silent. ``silent``:
    "neither", "value", "reference" or "both". ``delay_samples``, ``delay_corr``: see ``_delay``. ``mr_stft``,
    ``lsd_db``: see ``_spectral_figures``; 0 where equal.

    Raises ``NotComparable``: not one-dimensional, other lengths, nothing, NaN or infinity."""
    a, b, figures = _audio_pair(value, reference, sample_rate)
    edge = max(1, round(EDGE_SECONDS * sample_rate))
    inner = slice(edge, -edge) if a.size > 2 * edge else slice(None)
    delay, delay_corr = _delay(a, b, round(MAX_DELAY_SECONDS * sample_rate))
    return figures | {
        "sample_rate": int(sample_rate),
        "silent": _silent(a, b),
        "level_db": _level_db(a, b),
        "delay_samples": delay,
        "delay_corr": delay_corr,
        "edge_start_snr_db": _snr_db(a[:edge], b[:edge]),
        "edge_end_snr_db": _snr_db(a[-edge:], b[-edge:]),
        "inner_snr_db": _snr_db(a[inner], b[inner]),
        **_spectral_figures(a, b, sample_rate),
    }


def compare_pitch(value: np.ndarray, reference: np.ndarray) -> Figures:
    """All figures of ``parity.compare_f0``, and audible differences. F0 ``[F]`` in Hz, 0 where unvoiced.

    ``voicing_false_alarms``: frames voiced in the value alone; ``voicing_misses``: in the reference alone;
    ``voicing_error_rate``: both over all frames. Of the ``both_voiced_frames`` (all 0 where there are none):
    ``octave_errors``, frames more than 600 cents off; ``rms_cents``; ``p95_cents``, the 95th percentile of the
    absolute difference. ``edge_start_...``, ``edge_end_...``: of the first and the last ten frames alone.

    Raises ``NotComparable``: not one-dimensional, other lengths, nothing, NaN or infinity."""
    _check_dimensions(value, reference)
    figures = parity.compare_f0(value, reference)
    a, b = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    both = (a > 0) & (b > 0)
    cents = np.abs(1200.0 * np.log2(a[both] / b[both]))
    figures |= {
        "both_voiced_frames": int(cents.size),
        "voicing_false_alarms": int(np.count_nonzero((a > 0) & ~(b > 0))),
        "voicing_misses": int(np.count_nonzero((b > 0) & ~(a > 0))),
        "voicing_error_rate": figures["voicing_mismatches"] / a.size,
        "octave_errors": int(np.count_nonzero(cents > OCTAVE_ERROR_CENTS)),
        "rms_cents": float(np.sqrt(np.mean(cents**2))) if cents.size else 0.0,
        "p95_cents": float(np.percentile(cents, 95)) if cents.size else 0.0,
    }
    for name, edge in (("start", slice(EDGE_FRAMES)), ("end", slice(-EDGE_FRAMES, None))):
        at_edge = parity.compare_f0(a[edge], b[edge])
        figures |= {f"edge_{name}_{figure}": at_edge[figure] for figure in ("voicing_mismatches", "max_cents")}
    return figures


def heard(name: str, value: np.ndarray, reference: np.ndarray, sample_rate: int | None) -> Figures | None:
    """Perceptual figures of a stage's ``audio``, figures in cents of its ``f0`` ``[F]``; None of any other value."""
    try:
        if name == "audio" and sample_rate:
            return compare_audio(value.reshape(-1), reference.reshape(-1), sample_rate)
        if name == "f0" and value.ndim == 1:
            return compare_pitch(value, reference)
    except NotComparable:
        return None
    return None


def noise_spread(signals: Sequence[np.ndarray], sample_rate: int) -> Figures:
    """How far equally right outputs are apart: one model under several noise seeds, ``[N]`` each.

    ``NAME_min``, ``NAME_median``, ``NAME_max`` over all pairs (the earlier signal is the reference). A pair without a
    figure, as equal signals have no ``snr_db``, is left out of that figure; None where no pair has one.
    ``equal_pairs`` should be 0: else the noise did not reach the output.

    Raises ``NotComparable``: fewer than two signals, or a pair that ``compare_audio`` refuses."""
    if len(signals) < 2:
        raise NotComparable(f"a spread takes at least two signals, not {len(signals)}")
    pairs = [_spread_figures(a, b, sample_rate) for b, a in itertools.combinations(signals, 2)]
    figures: Figures = {
        "signals": len(signals),
        "pairs": len(pairs),
        "equal_pairs": sum(pair["max_abs"] == 0 for pair in pairs),
    }
    for name in ("corr", "snr_db", "mr_stft", "lsd_db", "abs_level_db"):
        known = [pair[name] for pair in pairs if pair[name] is not None]
        for statistic, of in (("min", np.min), ("median", np.median), ("max", np.max)):
            figures[f"{name}_{statistic}"] = float(of(known)) if known else None
    return figures


def spectra(signals: Mapping[str, np.ndarray], reference: str, sample_rate: int, seconds: float) -> Figures:
    """What a report draws of the first ``seconds``: ``spectrum.NAME``, and ``residual.NAME``, that of the difference
    of the two waveforms.

    Power in dB of a sine of amplitude one, [bands, frames] as float16: Hann windows of ``DRAWN_WINDOW`` samples
    every 10 ms, ``DRAWN_BINS`` neighbouring bins averaged.
    """
    count = int(seconds * sample_rate)
    heads = {name: np.asarray(x, np.float64).reshape(-1)[:count] for name, x in signals.items()}
    found: Figures = {f"spectrum.{name}": _drawn(x, sample_rate) for name, x in heads.items()}
    for name, x in heads.items():
        if name != reference and reference in heads:
            length = min(x.size, heads[reference].size)
            found[f"residual.{name}"] = _drawn(x[:length] - heads[reference][:length], sample_rate)
    return found | {"sample_rate": np.array(sample_rate)}


def _drawn(x: np.ndarray, sample_rate: int) -> np.ndarray:
    hop, window = sample_rate // 100, np.hanning(DRAWN_WINDOW)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, DRAWN_WINDOW // 2), DRAWN_WINDOW)[::hop]
    power = np.abs(np.fft.rfft(frames * window * (2 / window.sum()), axis=1)[:, :-1]) ** 2
    power = power.reshape(len(power), -1, DRAWN_BINS).mean(axis=2)
    return (10 * np.log10(np.maximum(power, 1e-16))).T.astype(np.float16)


def _check_dimensions(value: np.ndarray, reference: np.ndarray) -> None:
    for name, x in (("result", value), ("reference", reference)):
        if np.ndim(x) != 1:
            raise NotComparable(f"the {name} has {np.ndim(x)} dimensions instead of one: {list(np.shape(x))}")


def _audio_pair(value: np.ndarray, reference: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray, Figures]:
    if sample_rate <= 0:
        raise NotComparable(f"a sample rate of {sample_rate} Hz")
    _check_dimensions(value, reference)
    figures = parity.compare(value, reference)
    a, b = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    return a, b, figures | {"snr_db": _snr_db(a, b)}


def _spread_figures(value: np.ndarray, reference: np.ndarray, sample_rate: int) -> Figures:
    a, b, figures = _audio_pair(value, reference, sample_rate)
    level = _level_db(a, b)
    return figures | {"abs_level_db": level and abs(level)} | _spectral_figures(a, b, sample_rate)


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def _snr_db(a: np.ndarray, b: np.ndarray) -> float | None:
    """``parity.compare``'s, except that None means equal and nothing else."""
    noise = _rms(a - b)
    return float(20.0 * np.log10(max(_rms(b), SILENCE) / noise)) if noise > 0 else None


def _silent(a: np.ndarray, b: np.ndarray) -> str:
    names = {(False, False): "neither", (True, False): "value", (False, True): "reference", (True, True): "both"}
    return names[_rms(a) <= SILENCE, _rms(b) <= SILENCE]


def _level_db(a: np.ndarray, b: np.ndarray) -> float | None:
    return float(20.0 * np.log10(_rms(a) / _rms(b))) if _silent(a, b) == "neither" else None


def _delay(a: np.ndarray, b: np.ndarray, longest: int) -> tuple[int | None, float | None]:
    """The delay of ``a`` in samples, positive where it is late, and the correlation at it.

    The largest normalised cross-correlation over the lags of at most ``longest``; the largest negative one where that
    is stronger: the sign is inverted. Where a period makes several lags equal, the smallest delay (early rather than
    late). The correlation says what the delay is worth: unrelated signals have one too. Equal signals have 0 (and no
    correlation if silent); else None where either is silent.
    """
    silent = _silent(a, b) != "neither"
    if np.array_equal(a, b):
        return 0, None if silent else 1.0
    if silent:
        return None, None
    correlation = _correlations(a, b, min(longest, a.size - 1))
    inverted = -correlation.min() > correlation.max() + _tie_width(correlation.max(), a.size)
    lag = _smallest_of_best(-correlation if inverted else correlation, a.size)
    return lag, float(np.clip(correlation[lag + correlation.size // 2], -1.0, 1.0))


def _tie_width(peak: float, size: int) -> float:
    """How far apart equal correlations may be: noise of relative power ``1 - peak`` on both sides moves each by about
    that over the root of the number of samples; without noise only rounding remains."""
    return 1e-9 + 6.0 * max(0.0, 1.0 - peak) / float(np.sqrt(size))


def _smallest_of_best(correlation: np.ndarray, size: int) -> int:
    """The lag of the top of the nearest hump among those as high as the highest.

    Humps, not lags: those next to the top of a slow tone are lower by less than noise changes them, and no periods.
    """
    lags = np.arange(correlation.size) - correlation.size // 2
    peak = float(correlation.max())
    tie = _tie_width(peak, size)
    (high,) = np.nonzero(correlation >= peak - 4.0 * tie)
    best: list[int] = []
    for hump in np.split(high, np.nonzero(np.diff(high) > 1)[0] + 1):
        top = correlation[hump].max()
        if top >= peak - tie:
            flat = lags[hump[correlation[hump] >= top - 1e-12]]
            best.append(int(flat[np.abs(flat).argmin()]))
    return min(best, key=abs)


def _correlations(a: np.ndarray, b: np.ndarray, longest: int) -> np.ndarray:
    """Normalised cross-correlation ``[2 longest + 1]``, lag 0 in the middle, each lag over its own overlap: else a
    short tone would seem less delayed. A lag whose overlap has no more than half of a signal's energy gets 0."""
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    products = _lag_products(a, b, longest)
    kept = [_overlap_energy(a, longest), _overlap_energy(b, longest)[::-1]]
    enough = (kept[0] > 0.5 * (a @ a)) & (kept[1] > 0.5 * (b @ b))
    return np.where(enough, products / np.sqrt(np.where(enough, kept[0] * kept[1], 1.0)), 0.0)


def _overlap_energy(x: np.ndarray, longest: int) -> np.ndarray:
    """Energy ``[2 longest + 1]`` of what a shift leaves of ``x``: lag ``k > 0`` drops the first ``k`` samples,
    ``k < 0`` the last."""
    head = np.cumsum(x[:longest] ** 2)
    tail = np.cumsum(x[::-1][:longest] ** 2)
    return x @ x - np.concatenate([tail[::-1], [0.0], head])


def _lag_products(a: np.ndarray, b: np.ndarray, longest: int) -> np.ndarray:
    """``sum over n of a[n + lag] b[n]`` for ``-longest <= lag <= longest``: FFTs of blocks, cheap at any length."""
    size = 1 << min(max(16, (8 * longest).bit_length()), (a.size + 2 * longest).bit_length())
    block = size - 2 * longest
    total = np.zeros(2 * longest + 1)
    padded = np.pad(a, longest)
    for start in range(0, a.size, block):
        # padded[start] is a[start - longest]: no product wraps around
        moved = np.fft.rfft(padded[start : start + block + 2 * longest], size)
        still = np.fft.rfft(b[start : start + block], size)
        total += np.fft.irfft(moved * still.conj(), size)[: total.size]
    return total


def _spectral_figures(a: np.ndarray, b: np.ndarray, sample_rate: int) -> Figures:
    """``mr_stft`` (no unit) and ``lsd_db`` of ``a`` against ``b``.

    ``mr_stft``: the multi-resolution STFT distance of R. Yamamoto, E. Song and J.-M. Kim, "Parallel WaveGAN" (ICASSP
    2020, arXiv:1910.11480): spectral convergence, which is the norm of the magnitudes' difference over the reference's
    norm, plus the mean absolute difference of their natural logarithms; the mean over three windows.
    ``lsd_db``: log-spectral distance after A. Gray and J. Markel, "Distance measures for speech processing" (IEEE
    TASSP, 1976): per frame of 25 ms the RMS over frequency of the levels' difference in dB, the mean over the frames.
    Magnitudes are those of a sine's amplitude and count from ``SPECTRAL_FLOOR`` times the louder signal's peak, so both
    figures stay the same where both signals get the same gain. Two silent signals have 0; against a silent reference
    alone, the convergence is in the thousands but finite.
    """
    peak = max(np.abs(a).max(), np.abs(b).max())
    if peak <= SILENCE:
        return {"mr_stft": 0.0, "lsd_db": 0.0}
    a, b = a / peak, b / peak
    found = {s: _stft_distance(a, b, max(2, round(s * sample_rate))) for s in WINDOWS_SECONDS}
    distances = [distance for distance, _ in found.values()]
    return {"mr_stft": float(np.mean(distances)), "lsd_db": found[LSD_WINDOW_SECONDS][1]}


def _stft_distance(a: np.ndarray, b: np.ndarray, window: int) -> tuple[float, float]:
    """Spectral convergence plus log-magnitude L1, and the log-spectral distance in dB, at one window length."""
    difference = norm = logs = lsd = 0.0
    frames = bins = 0
    for one, other in zip(_magnitudes(a, window), _magnitudes(b, window), strict=True):
        ratio = np.log(one / other)
        difference += float(np.sum((one - other) ** 2))
        norm += float(np.sum(other**2))
        logs += float(np.sum(np.abs(ratio)))
        lsd += float(np.sum(np.sqrt(np.mean(ratio**2, axis=1))))
        frames, bins = frames + len(ratio), ratio.shape[1]
    return float(np.sqrt(difference / norm)) + logs / (frames * bins), 20.0 / float(np.log(10.0)) * lsd / frames


def _magnitudes(x: np.ndarray, window: int) -> Iterator[np.ndarray]:
    """Floored magnitudes ``[frames, bins]`` of Hann windows, some frames at a time; half a window of
    zeros at both ends lets the first and last samples count in full."""
    hop = max(1, window // HOPS_PER_WINDOW)
    padded = np.pad(x, (window // 2, window // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(window) / window)
    weights = hann / (0.5 * hann.sum())
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        spectra = np.fft.rfft(frames[start : start + FRAMES_AT_ONCE] * weights, 1 << (window - 1).bit_length())
        yield np.maximum(np.abs(spectra), SPECTRAL_FLOOR)
