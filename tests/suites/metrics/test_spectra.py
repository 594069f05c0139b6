"""The spectra that a report draws."""

from __future__ import annotations

import numpy as np
import pytest

from suites.metrics.audio import DRAWN_BINS, DRAWN_WINDOW, spectra

RATE = 16000


def tone(hz: float, level_db: float, seconds: float = 0.5) -> np.ndarray:
    return 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)


def test_spectra_show_a_tone_at_its_place_and_level():
    """A sine of amplitude one has 0 dB in its bin, 6 dB less beside it; a band is the mean of four bins."""
    hz = 129 * RATE / DRAWN_WINDOW  # the second bin of a band
    found = spectra({"a": tone(hz, -20)}, "a", RATE, 1.0)["spectrum.a"]
    assert found.shape == (DRAWN_WINDOW // 2 // DRAWN_BINS, 51)
    assert found.dtype == np.float16
    middle = found[:, 25].astype(float)
    assert middle.argmax() == 129 // DRAWN_BINS
    assert middle.max() == pytest.approx(-20 + 10 * np.log10(1.5 / DRAWN_BINS), abs=0.1)


def test_the_residual_is_the_spectrum_of_the_difference():
    a, b = tone(1000, 0), tone(3000, -60)
    found = spectra({"torch": a, "mlx": a + b}, "torch", RATE, 1.0)
    assert set(found) == {"spectrum.torch", "spectrum.mlx", "residual.mlx", "sample_rate"}
    assert np.array_equal(found["residual.mlx"], spectra({"b": b}, "b", RATE, 1.0)["spectrum.b"])
    assert int(found["sample_rate"]) == RATE


def test_spectra_of_silence_of_other_lengths_and_of_the_beginning_alone():
    silent = np.zeros(RATE)
    found = spectra({"a": silent, "b": silent[:-100]}, "a", RATE, 0.3)
    assert found["spectrum.a"].shape == found["residual.b"].shape == (128, 31)
    assert set(found["spectrum.a"].ravel()) == {np.float16(-160)}
    assert "residual.b" not in spectra({"b": silent}, "a", RATE, 0.3)  # the reference was lost
