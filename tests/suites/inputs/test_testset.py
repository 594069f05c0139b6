"""The test set: its laws, and that an estimator that knows nothing of it finds its truth to be true."""

from __future__ import annotations

import numpy as np
import pytest

from suites.inputs import testset
from suites.inputs.estimators import ESTIMATORS
from suites.inputs.testset import CONDITIONS, room, score, tract
from suites.metrics.pitch import accuracy

SECONDS, FEW_SECONDS = 6.0, 2.0


@pytest.fixture(scope="module")
def made():
    return {name: testset.make(name, SECONDS, 3) for name in CONDITIONS}


@pytest.mark.parametrize("name", CONDITIONS)
def test_laws(made, name):
    found = made[name]
    low, high = CONDITIONS[name][0]
    assert found.samples.shape == (SECONDS * 16000,)
    assert found.samples.dtype == np.float32
    assert found.f0_hz.shape == found.scored.shape == (1 + SECONDS * 100,)
    assert np.abs(found.samples).max() <= 0.9
    voiced = found.f0_hz[found.f0_hz > 0]
    assert low <= voiced.min()
    assert voiced.max() <= high
    assert 0.5 < (found.f0_hz > 0).mean() < 0.95
    assert 0.8 < found.scored.mean() < 1


def test_the_same_seed_gives_the_same():
    first = testset.make("snr5", FEW_SECONDS, 3)
    testset.voices.cache_clear()
    again, other = testset.make("snr5", FEW_SECONDS, 3), testset.make("snr5", FEW_SECONDS, 4)
    np.testing.assert_array_equal(again.samples, first.samples)
    assert not np.array_equal(other.samples, again.samples)


def test_conditions_of_a_range_have_the_same_truth(made):
    for name in ("snr20", "snr0", "reverb"):
        np.testing.assert_array_equal(made[name].f0_hz, made["clean"].f0_hz)


def test_edges_do_not_count():
    voiced = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1], bool)
    assert np.flatnonzero(testset.near_edges(voiced)).tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("snr_db", [20.0, 0.0])
def test_noise_is_as_loud_as_it_says(snr_db):
    for part in testset.voices(testset.MIDDLE, FEW_SECONDS, 3):
        noisy = testset.in_noise(part, snr_db, FEW_SECONDS, 3, np.random.default_rng(0))
        voiced = np.repeat(part.voicing > testset.VOICED, 160)
        signal, noise = np.mean(part.samples[voiced] ** 2), np.mean((noisy - part.samples) ** 2)
        assert 10 * np.log10(signal / noise) == pytest.approx(snr_db, abs=1e-6)


def test_pink_noise_loses_3_db_an_octave():
    noise = room.pink(1 << 18, np.random.default_rng(0))
    power, hz = np.abs(np.fft.rfft(noise)) ** 2, np.fft.rfftfreq(noise.size, 1 / 16000)
    levels = [10 * np.log10(power[(hz >= low) & (hz < 1.5 * low)].mean()) for low in (100, 200, 400, 800, 1600, 3200)]
    np.testing.assert_allclose(np.diff(levels), -3.01, atol=0.4)


def test_a_room_begins_with_the_direct_sound():
    for seed in range(10):
        found = room.response(np.random.default_rng(seed))
        assert found[0] == pytest.approx(1, abs=0.05)
        assert 0.1 < np.flatnonzero(found)[-1] / 16000 < 0.6
        early, late = np.sum(found[:1600] ** 2), np.sum(found[-1600:] ** 2)
        assert late < 0.02 * early


def test_pulses_come_when_the_phase_says():
    """Without jitter and tract the waveform of a steady voice repeats exactly with its F0."""
    count, f0 = 500, 123.4
    ones, two = np.ones(count), np.ones((count, 2))
    tracks = score.Tracks(f0 * ones, ones, 0 * ones, 0 * ones, 4000 * ones, 9000 * two, 9000 * two)
    wave = tract.utter(tracks, tract.Larynx(0.6, 0.05, 0.0, 0.0, 0.0), np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(wave[4800:19200] * np.hanning(14400), 1 << 20))
    hz = np.fft.rfftfreq(1 << 20, 1 / tract.RATE)
    assert hz[np.argmax(spectrum)] == pytest.approx(f0, rel=1e-3)


@pytest.mark.parametrize("name", ["clean", "low"])
def test_the_truth_is_true(name):
    """Praat's autocorrelation reaches it on clean audio, and nowhere better than at the same time."""
    made, praat = testset.make(name, 15.0, 0), ESTIMATORS["praat"]
    found = praat.find(made.samples, praat.settings)
    inside = np.arange(found.size)
    inside = made.scored & (inside >= 5) & (inside < found.size - 5)
    shifts = {shift: accuracy(np.roll(found, shift), made.f0_hz, inside) for shift in (-3, -2, -1, 0, 1, 2, 3)}
    assert shifts[0]["rpa"] > 0.97
    assert max(shifts, key=lambda shift: shifts[shift]["rpa"]) == 0
    assert min(shifts, key=lambda shift: shifts[shift]["mean_cents"]) == 0
    assert shifts[0]["octave_errors"] < 0.005
    assert shifts[0]["voicing_recall"] > 0.97
