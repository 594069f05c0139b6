"""The figures of sound, tested with differences of known size and inputs that they must refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.inputs.voice import synthesize
from suites.metrics import parity
from suites.metrics.audio import compare_audio, compare_pitch, noise_spread
from suites.metrics.parity import NotComparable
from suites.metrics.wording import describe

RATE = 16000
LENGTH = 24000
# more than the longest delay on either side, so that what a shift brings in is the signal's own
MARGIN = 800
KINDS = ["voice", "noise", "sine", "noisy_tone"]
DELAYS = [sign * samples for samples in (1, 160, 400, 480) for sign in (1, -1)]
few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**16)


@pytest.fixture(scope="module")
def signals() -> dict[str, np.ndarray]:
    """One and a half seconds of each kind of sound, with margins."""
    total = LENGTH + 2 * MARGIN
    noise = np.random.default_rng(1).standard_normal(total)
    # its period is no divisor of a delay below 50 ms, so only one lag fits exactly
    sine = np.sin(2 * np.pi * 223.7 * np.arange(total) / RATE)
    return {
        "voice": synthesize(total / RATE, seed=3).audio.astype(np.float64),
        "noise": 0.1 * noise,
        "sine": sine,
        "noisy_tone": sine + noise * np.sqrt(0.5) * 10 ** (-20 / 20),
    }


def late(x: np.ndarray, delay: int) -> np.ndarray:
    """``LENGTH`` samples of ``x``, late by ``delay``."""
    return x[MARGIN - delay : MARGIN - delay + LENGTH]


def padded_late(x: np.ndarray, delay: int) -> np.ndarray:
    """The same where nothing precedes or follows: zeros move in."""
    return np.pad(x, MARGIN)[MARGIN - delay : MARGIN - delay + x.size]


def white(seed: int, size: int = 4000) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size)


def decibels(db: float) -> float:
    return 10 ** (db / 20)


# what cannot be compared


@pytest.mark.parametrize("compare_any", [lambda a, b: compare_audio(a, b, RATE), compare_pitch])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.array([1.0, np.nan, 1.0]), "1 NaN or infinite"),
        (np.array([1.0, np.inf, -np.inf]), "2 NaN or infinite"),
        (np.ones(4), "shapes differ"),
        (np.ones(0), "shapes differ"),
        (np.ones((1, 3)), "2 dimensions instead of one"),
        (np.float64(1.0), "0 dimensions instead of one"),
    ],
)
def test_unfit_inputs_are_refused_on_either_side(compare_any, place, bad, reason):
    pair = [np.ones(3), np.ones(3)]
    pair[place] = bad
    with pytest.raises(NotComparable, match=reason) as refusal:
        compare_any(*pair)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("compare_any", [lambda a, b: compare_audio(a, b, RATE), compare_pitch])
def test_nothing_is_no_agreement(compare_any):
    with pytest.raises(NotComparable, match="empty"):
        compare_any(np.ones(0), np.ones(0))


def test_two_columns_are_not_flattened():
    with pytest.raises(NotComparable, match="dimensions"):
        compare_audio(np.ones((5, 2)), np.ones((5, 2)), RATE)


@pytest.mark.parametrize("rate", [0, -16000])
def test_a_rate_must_be_positive(rate):
    with pytest.raises(NotComparable, match="sample rate"):
        compare_audio(np.ones(5), np.ones(5), rate)


# level


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("db", [0.5, -0.5, 6.0])
def test_a_gain_is_read_within_a_hundredth_of_a_db(signals, kind, db):
    x = late(signals[kind], 0)
    figures = compare_audio(x * decibels(db), x, RATE)
    assert figures["level_db"] == pytest.approx(db, abs=0.01)
    assert figures["delay_samples"] == 0
    assert describe(figures) == f"{abs(db):.2f} dB {'louder' if db > 0 else 'quieter'}"


def test_correlation_is_blind_to_half_a_db(signals):
    x = late(signals["voice"], 0)
    figures = compare_audio(x * decibels(-0.5), x, RATE)
    assert figures["corr"] == pytest.approx(1.0, abs=1e-12)
    assert figures["level_db"] == pytest.approx(-0.5, abs=0.01)
    assert figures["lsd_db"] == pytest.approx(0.5, abs=0.05)


def test_half_a_db_shows_beside_noise_and_delay(signals):
    x = signals["voice"]
    value = late(x, 160) * decibels(-0.5) + 0.01 * white(1, LENGTH)
    figures = compare_audio(value, late(x, 0), RATE)
    assert figures["level_db"] == pytest.approx(-0.5, abs=0.05)
    assert describe(figures).startswith(f"{-figures['level_db']:.2f} dB quieter, one frame (160 samples) late; SNR ")


@given(seeds, st.floats(-60, 60), st.floats(-60, 60))
@few
def test_gains_move_the_level_and_nothing_else_that_is_relative(seed, of_value, of_both):
    a, b = white(seed), white(seed + 1)
    plain = compare_audio(a, b, RATE)
    assert compare_audio(a * decibels(of_value), b, RATE)["level_db"] == pytest.approx(plain["level_db"] + of_value)
    both = compare_audio(a * decibels(of_both), b * decibels(of_both), RATE)
    for name in ("level_db", "snr_db", "mr_stft", "lsd_db", "delay_samples", "delay_corr", "corr"):
        assert both[name] == pytest.approx(plain[name], abs=1e-6), name


@pytest.mark.parametrize(
    ("value", "reference", "silent", "text"),
    [
        (0.0, 0.3, "value", "silent, and the reference is not"),
        (0.3, 0.0, "reference", "not silent, and the reference is"),
        (0.0, 0.0, "both", "equal"),
        (1e-12, 0.0, "both", "both silent"),
    ],
)
def test_silence_has_no_level_and_is_told_apart(value, reference, silent, text):
    x = white(2)
    figures = compare_audio(x * value, x * reference, RATE)
    assert figures["silent"] == silent
    assert figures["level_db"] is None
    assert figures["delay_samples"] == (0 if text == "equal" else None)
    assert (figures["snr_db"] is None) == (text == "equal")
    assert describe(figures) == text
    json.dumps(figures, allow_nan=False)


# delay


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("delay", DELAYS)
def test_a_delay_is_found(signals, kind, delay):
    figures = compare_audio(late(signals[kind], delay), late(signals[kind], 0), RATE)
    assert figures["delay_samples"] == delay
    assert figures["delay_corr"] == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("delay", DELAYS)
def test_a_delay_is_found_where_zeros_move_in(signals, kind, delay):
    x = late(signals[kind], 0)
    assert compare_audio(padded_late(x, delay), x, RATE)["delay_samples"] == delay


@pytest.mark.parametrize("kind", ["voice", "noise"])
@pytest.mark.parametrize("delay", DELAYS)
def test_a_delay_is_found_under_noise_and_gain(signals, kind, delay):
    x = signals[kind] / signals[kind].std()
    value = 0.4 * late(x, delay) + 0.04 * white(5, LENGTH)
    assert compare_audio(value, late(x, 0) + 0.1 * white(6, LENGTH), RATE)["delay_samples"] == delay


@pytest.mark.parametrize("sign", [1, -1])
def test_one_frame_at_the_vocoders_rate_is_named(signals, sign):
    x = late(signals["voice"], 0)
    text = describe(compare_audio(padded_late(x, 400 * sign), x, 40000))
    assert text == f"one frame (400 samples) {'late' if sign > 0 else 'early'}"


@pytest.mark.parametrize(
    ("delay", "text"),
    [(1, "1 sample (0.062 ms) late"), (-37, "37 samples (2.3 ms) early"), (480, "3 frames (480 samples) late")],
)
def test_other_delays_are_named(signals, delay, text):
    x = signals["noise"]
    assert describe(compare_audio(late(x, delay), late(x, 0), RATE)) == text


@pytest.mark.parametrize("noise", [0.0, 0.07])
@pytest.mark.parametrize(("delay", "read"), [(0, 0), (160, 0), (-480, 0), (163, 3), (-158, 2), (480 - 5, -5)])
def test_of_equal_periods_the_nearest_counts(delay, read, noise):
    x = np.sin(2 * np.pi * 500 * np.arange(LENGTH + 2 * MARGIN) / RATE)  # a period of 32 samples
    value, reference = late(x, delay) + noise * white(3, LENGTH), late(x, 0) + noise * white(4, LENGTH)
    assert compare_audio(value, reference, RATE)["delay_samples"] == read


def test_the_side_lags_of_a_slow_tone_are_no_periods():
    x = np.sin(2 * np.pi * 100 * np.arange(LENGTH + 2 * MARGIN) / RATE)
    # one sample lowers this correlation by less than a thousandth
    assert compare_audio(late(x, 1), late(x, 0), RATE)["delay_samples"] == 1
    assert compare_audio(late(x, 3) + 0.01 * white(3, LENGTH), late(x, 0), RATE)["delay_samples"] == 3


def test_an_inverted_sign_is_not_a_delay(signals):
    x = signals["voice"]
    figures = compare_audio(-late(x, 0), late(x, 0), RATE)
    assert figures["delay_samples"] == 0
    assert figures["delay_corr"] == pytest.approx(-1.0)
    assert describe(figures) == "inverted"
    assert describe(compare_audio(-late(x, 160), late(x, 0), RATE)) == "inverted, one frame (160 samples) late"


def test_blocks_join_without_a_seam():
    x = white(7, 200_000)  # several blocks of the transform
    for delay in (-799, 1, 800):
        figures = compare_audio(padded_late(x, delay), x, RATE)
        assert figures["delay_samples"] == delay
        assert figures["delay_corr"] == pytest.approx(1.0, abs=1e-9)


def test_unrelated_sounds_name_no_delay():
    figures = compare_audio(white(1), white(2), RATE)
    assert abs(figures["delay_corr"]) < 0.2
    assert describe(figures) == f"SNR {figures['snr_db']:.1f} dB"


@given(seeds, st.integers(-800, 800))
@few
def test_a_delay_turns_around_with_the_sides(seed, delay):
    x = white(seed, 4000 + 2 * MARGIN)
    a, b = x[MARGIN - delay :][:4000], x[MARGIN:][:4000]
    assert compare_audio(a, b, RATE)["delay_samples"] == delay
    assert compare_audio(b, a, RATE)["delay_samples"] == -delay


# spectrum, edges and all figures together


@given(seeds, st.integers(1, 3000), st.sampled_from([8000, 16000, 48000]))
@few
def test_a_sound_equals_itself(seed, size, rate):
    x = white(seed, size)
    figures = compare_audio(x, x, rate)
    assert figures["max_abs"] == figures["mr_stft"] == figures["lsd_db"] == figures["delay_samples"] == 0
    assert figures["level_db"] == 0
    assert figures["delay_corr"] == 1
    assert [figures[name] for name in figures if name.endswith("snr_db")] == [None] * 4
    assert describe(figures) == "equal"


@given(seeds, st.floats(0.01, 10))
@few
def test_what_is_symmetric(seed, gain):
    a, b = white(seed), gain * white(seed + 1)
    one, other = compare_audio(a, b, RATE), compare_audio(b, a, RATE)
    for name in ("max_abs", "corr", "lsd_db", "delay_corr"):
        assert one[name] == pytest.approx(other[name], rel=1e-9), name
    assert one["level_db"] == pytest.approx(-other["level_db"], abs=1e-9)


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([8000, 16000, 48000]))
@few
def test_short_sounds_have_figures_that_json_takes(size, seed, rate):
    figures = compare_audio(white(seed, size), white(seed + 1, size), rate)
    json.dumps(figures, allow_nan=False)
    assert describe(figures)


def test_figures_are_those_of_parity_and_more(signals):
    a, b = late(signals["voice"], 1), late(signals["voice"], 0)
    assert parity.compare(a, b).items() <= compare_audio(a, b, RATE).items()


def test_large_float32_values_do_not_overflow():
    x = np.full(3000, 3e38, np.float32)
    figures = compare_audio(x, x * np.float32(0.5), RATE)
    assert figures["level_db"] == pytest.approx(6.02, abs=0.01)
    assert figures["max_abs"] == pytest.approx(1.5e38)


def test_spectral_distances_of_a_gain_are_known(signals):
    # of a doubling, convergence is 1 and the logarithms differ by ln 2 in every bin above the floor
    figures = compare_audio(2 * late(signals["noise"], 0), late(signals["noise"], 0), RATE)
    assert figures["mr_stft"] == pytest.approx(1 + np.log(2), rel=1e-3)
    assert figures["lsd_db"] == pytest.approx(20 * np.log10(2), rel=1e-3)


def test_the_spectral_floor_hides_what_nobody_hears(signals):
    x = late(signals["voice"], 0).copy()
    x[8000:16000] = 0.0  # digital silence, where any rounding would be infinitely louder
    rounding = 1e-8 * white(9, LENGTH)
    figures = compare_audio(x + rounding, x, RATE)
    assert figures["lsd_db"] < 0.01
    assert figures["mr_stft"] < 0.001


def test_a_lost_band_shows_in_the_spectrum_though_hardly_in_correlation(signals):
    x = late(signals["voice"], 0)
    spectrum = np.fft.rfft(x)
    spectrum[int(4000 * LENGTH / RATE) :] = 0
    figures = compare_audio(np.fft.irfft(spectrum, LENGTH), x, RATE)
    assert figures["corr"] > 0.99
    assert figures["lsd_db"] > 10


@pytest.mark.parametrize(("at", "edge", "place"), [(-400, "end", "last"), (400, "start", "first")])
def test_a_click_at_an_edge_is_seen_only_there(signals, at, edge, place):
    x = late(signals["voice"], 0)
    value = x.copy()
    value[at] += 0.8
    figures = compare_audio(value, x, RATE)
    other = {"end": "start", "start": "end"}[edge]
    assert figures[f"edge_{edge}_snr_db"] < 25
    assert figures[f"edge_{other}_snr_db"] is None
    assert figures["inner_snr_db"] is None
    assert figures["corr"] > 0.999
    assert describe(figures).startswith(f"differs in the {place} 0.1 s (SNR ")


def test_a_click_in_the_middle_is_no_edge(signals):
    x = late(signals["voice"], 0)
    value = x.copy()
    value[LENGTH // 2] += 0.8
    figures = compare_audio(value, x, RATE)
    assert figures["edge_start_snr_db"] is None
    assert figures["edge_end_snr_db"] is None
    assert describe(figures) == f"SNR {figures['snr_db']:.1f} dB"


def test_a_click_in_a_silent_edge_does_not_pass_as_equal():
    x = np.concatenate([white(1, 8000), np.zeros(1600)])
    value = x.copy()
    value[-5] = 0.001
    figures = compare_audio(value, x, RATE)
    assert figures["edge_end_snr_db"] < -80
    assert "last 0.1 s" in describe(figures)


# several noise seeds


def test_noise_spread_is_that_of_the_pairs():
    voice = synthesize(1.0, seed=3).audio
    signals = [voice + 0.05 * white(seed, RATE) for seed in range(3)]
    figures = noise_spread(signals, RATE)
    pairs = [compare_audio(signals[j], signals[i], RATE) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert (figures["signals"], figures["pairs"], figures["equal_pairs"]) == (3, 3, 0)
    for name in ("corr", "snr_db", "mr_stft", "lsd_db"):
        low, middle, high = sorted(pair[name] for pair in pairs)
        assert [figures[f"{name}_{of}"] for of in ("min", "median", "max")] == pytest.approx([low, middle, high])
    assert figures["abs_level_db_max"] == pytest.approx(max(abs(pair["level_db"]) for pair in pairs))
    json.dumps(figures, allow_nan=False)


def test_noise_that_does_not_reach_the_output_is_counted():
    x = white(1)
    figures = noise_spread([x, x, x + 0.1], RATE)
    assert figures["equal_pairs"] == 1
    assert figures["snr_db_min"] == pytest.approx(figures["snr_db_max"])  # of the two pairs that differ
    assert noise_spread([x, x], RATE)["snr_db_median"] is None
    assert noise_spread([x, x], RATE)["corr_median"] == pytest.approx(1.0)


@pytest.mark.parametrize("signals", [[], [np.ones(5)], [np.ones(5), np.ones(6)], [np.ones(5), np.full(5, np.nan)]])
def test_no_spread_without_two_fit_signals(signals):
    with pytest.raises(NotComparable):
        noise_spread(signals, RATE)
