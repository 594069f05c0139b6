"""The signals themselves: their periods, measured without the generator, are those of the labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reference_torch.audio import HOP_SAMPLES, SAMPLE_RATE
from tools.voices.batch import CLEAN, TRAINING, Batch, frame_energy, make_batch
from tools.voices.contours import EXTREME, GLIDING, NOTHING, SINGING, SPEECH, STEADY, VOICED
from tools.voices.draw import Draw

FRAMES = 192


def make(seed: int, conditions: object = CLEAN, batch: int = 24) -> Batch:
    return make_batch(Draw("cpu", seed, 5), batch, FRAMES, conditions)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def clean() -> list[Batch]:
    return [make(seed) for seed in range(3)]


def between(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values at ascending ``places`` that lie between samples."""
    low, high = max(0, int(places[0])), min(x.size, int(places[-1]) + 2)
    return np.interp(places, np.arange(low, high), x[low:high])


def correlation(x: np.ndarray, centre: int, lag: float, width: int) -> float:
    """Normalised correlation of two stretches of ``width`` samples, ``lag`` apart around ``centre``."""
    first = centre - lag / 2 - width / 2 + np.arange(width)
    a, b = (between(x, places) for places in (first, first + lag))
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-12))


def resampled(x: np.ndarray, factor: int = 4) -> np.ndarray:
    """More samples a second, through the spectrum, so that straight lines between them do no harm."""
    spectrum = np.fft.rfft(x)
    return np.fft.irfft(spectrum, x.size * factor) * factor


def offset_cents(x: np.ndarray, frame: int, hz: float) -> tuple[float, float, float]:
    """Where near the labelled period the correlation is highest, that correlation, and the one at half of it."""
    rate, centre = 4 * SAMPLE_RATE, 4 * HOP_SAMPLES * frame
    period = rate / hz
    width = int(max(1.5 * period, 0.006 * rate))
    shifts = np.arange(-100, 101, 10)
    values = [correlation(x, centre, period * 2 ** (-s / 1200), width) for s in shifts]
    return float(shifts[int(np.argmax(values))]), max(values), correlation(x, centre, period / 2, width)


@pytest.mark.parametrize("style", [SPEECH, SINGING, GLIDING, STEADY, EXTREME])
def test_period_of_the_signal_is_that_of_the_label(clean: list[Batch], style: int) -> None:
    offsets, octave_high = [], []
    for made in clean:
        for item in np.flatnonzero(made.contour.style.numpy() == style):
            x = resampled(made.voice[item].numpy().astype(np.float64))
            quiet = (made.contour.halving[item].amax() < 0.05) & (made.contour.jitter[item].amax() < 0.01)
            usable = (made.truth.weight[item] == 1) & made.truth.voiced[item] & (made.contour.gate[item, ::10] > 0.9)
            for frame in np.flatnonzero(usable.numpy())[4:-4:9] if quiet else ():
                hz = 10 * 2 ** (float(made.truth.cents[item, frame]) / 1200)
                offset, at_period, at_half = offset_cents(x, int(frame), hz)
                if at_period > 0.8:  # else a change of vowel, level or pitch is all there is
                    offsets.append(offset)
                    octave_high.append(at_half > at_period)
    assert len(offsets) > 40
    assert abs(np.median(offsets)) <= 5
    assert np.mean(np.abs(offsets) <= 50) > 0.97
    assert np.mean(octave_high) < 0.01


def test_where_the_glottis_rests_there_is_no_voice(clean: list[Batch]) -> None:
    for made in clean:
        silent = (~made.contour.voiced).float()
        # 50 ms and more from any voiced control point
        far = torch.nn.functional.avg_pool1d(silent[:, None], 101, 1, 50, count_include_pad=False)[:, 0, ::10] == 1
        assert far.any()
        assert not made.truth.voiced[far].any()
        assert frame_energy(made.voice)[far].max() < 1e-5  # what the filters ring
        assert frame_energy(made.voice)[made.truth.voiced & (made.truth.weight == 1)].min() > 1e-5


def test_nothing_is_voiced_in_items_without_voice(clean: list[Batch]) -> None:
    found = [made.truth.voiced[made.contour.style == NOTHING] for made in [*clean, *(make(s, batch=8) for s in (7, 8))]]
    joined = torch.cat(found)
    assert len(joined) >= 1
    assert not joined.any()


def test_unvoiced_sounds_are_labelled_unvoiced(clean: list[Batch]) -> None:
    for made in clean:
        kind = made.contour.kind[:, ::10]
        assert torch.equal(made.truth.voiced, kind == VOICED)
        sounding = (made.contour.kind[:, ::10] >= 2) & (frame_energy(made.audio) > 1e-7)
        assert sounding.any()


def test_values_are_sound_under_all_conditions() -> None:
    made = make(11, TRAINING)
    assert made.audio.shape == (24, HOP_SAMPLES * (FRAMES - 1))
    assert made.truth.cents.shape == made.truth.voiced.shape == made.truth.weight.shape == (24, FRAMES)
    assert torch.isfinite(made.audio).all()
    assert made.audio.abs().max() <= 1.0
    assert 0.3 < made.truth.voiced.float().mean() < 0.95
    assert made.truth.weight.mean() > 0.85


def test_a_seed_gives_the_same_batch_and_another_another() -> None:
    first, again, other = (make(seed, TRAINING, 2) for seed in (3, 3, 4))
    assert torch.equal(first.audio, again.audio)
    assert torch.equal(first.truth.cents, again.truth.cents)
    assert not torch.equal(first.audio, other.audio)


def test_a_room_leaves_the_direct_sound_where_it_is() -> None:
    from tools.voices.rooms import room

    responses = room(Draw("cpu", 1), 16, 1.0)
    assert responses[:, 0].min() > 0.5
    assert (responses[:, 0] >= responses[:, 1:].abs().amax(1)).float().mean() > 0.8
    assert torch.equal(room(Draw("cpu", 1), 2, 0.0)[:, 1:], torch.zeros(2, responses.shape[1] - 1))
