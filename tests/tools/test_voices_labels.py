"""Labels against the project's own front end and decoder."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reference_torch.audio import HOP_SAMPLES, N_FFT, SAMPLE_RATE, LogMel
from reference_torch.rmvpe import RMVPE, RMVPEConfig
from tools.voices.batch import salience, truth
from tools.voices.contours import HIGHEST_CENTS, LOWEST_CENTS, SPEECH, Contour
from tools.voices.draw import Draw
from tools.voices.sources import glottal_phase, pulse_train

FRAMES = 128
SAMPLES = HOP_SAMPLES * (FRAMES - 1)
CONTROLS = SAMPLES // 16 + 1


@pytest.fixture(scope="module")
def model() -> RMVPE:
    return RMVPE(RMVPEConfig(width=1, hidden=4))


def contour(cents: torch.Tensor, voiced: torch.Tensor | None = None) -> Contour:
    """A voice of one item with this pitch ``[C]``."""
    voiced = torch.ones(1, CONTROLS, dtype=torch.bool) if voiced is None else voiced[None]
    zero = torch.zeros(1, CONTROLS)
    gate, kind = voiced.float(), voiced.long()
    return Contour(kind, kind, voiced, gate, zero + 1, cents[None], zero, zero, torch.tensor([SPEECH]))


def test_oracle_decode_returns_the_pitch(model: RMVPE) -> None:
    cents = torch.linspace(LOWEST_CENTS, HIGHEST_CENTS, 4001)
    decoded = model.cents(salience(cents, torch.ones_like(cents)).numpy())
    error = np.abs(decoded - cents.numpy())
    whole = cents.numpy() < 9177 - 80  # above, the decoder's nine bins are cut off by the last one
    assert error[whole].max() < 1.0
    assert error.max() < 5.0


def test_unvoiced_frames_decode_to_nothing(model: RMVPE) -> None:
    assert not model.cents(salience(torch.full((4,), 5000.0), torch.zeros(4)).numpy()).any()


@pytest.mark.parametrize("frame", [10, 37])
def test_frame_k_is_centred_on_sample_160_k(frame: int) -> None:
    audio = torch.zeros(SAMPLES)
    audio[HOP_SAMPLES * frame] = 1.0
    mel = LogMel()(audio).exp().sum(0)
    assert mel.shape == (FRAMES,)
    assert int(mel.argmax()) == frame
    assert torch.allclose(mel[frame + 1 : frame + 4], mel[frame - 3 : frame].flip(0), rtol=1e-4)


@pytest.mark.parametrize("direction", [1, -1])
def test_a_glide_shows_no_lag(direction: int) -> None:
    per_second = 1500.0 * direction
    cents = 6600 + per_second * (torch.arange(CONTROLS) / 1000 - 0.6)
    made = contour(cents)
    phase, hz = glottal_phase(Draw("cpu", 1), made, SAMPLES)
    audio = torch.cos((2 * math.pi * phase).remainder(2 * math.pi)).float()
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(audio[0], N_FFT, HOP_SAMPLES, window=window, return_complex=True).abs().log()
    labels = truth(made, audio, torch.zeros(1, SAMPLES)).cents[0].numpy()
    errors = []
    for k in range(20, FRAMES - 20):
        peak = int(spectrum[:, k].argmax())
        left, middle, right = (float(v) for v in spectrum[peak - 1 : peak + 2, k])
        peak_hz = (peak + 0.5 * (left - right) / (left - 2 * middle + right)) * SAMPLE_RATE / N_FFT
        errors.append(1200 * math.log2(peak_hz / 10) - labels[k])
    # a lag of half a hop would be 7.5 cents
    assert abs(np.mean(errors)) < 1.5
    assert abs(float(hz[0, HOP_SAMPLES * 50]) - 10 * 2 ** (labels[50] / 1200)) < 0.01


def test_pulses_hold_every_harmonic_alike_and_alias_nothing() -> None:
    hz = torch.full((1, 16000), 250.0)
    phase = (hz.double() / SAMPLE_RATE).cumsum(1)
    spectrum = torch.fft.rfft(pulse_train(phase, hz)[0]).abs().numpy() / 8000
    harmonics = spectrum[250:7900:250]
    assert np.allclose(harmonics, 1, atol=1e-3)
    spectrum[250:7900:250] = 0
    assert spectrum[:7900].max() < 1e-3


def test_period_doubling_is_labelled_an_octave_lower_or_left_out() -> None:
    made = contour(torch.full((CONTROLS,), 5000.0))
    loud, none = torch.ones(1, SAMPLES), torch.zeros(1, SAMPLES)
    for halving, cents, weight in ((0.2, 5000, 1), (0.5, 5000, 0), (0.95, 3800, 1)):
        made.halving = torch.full((1, CONTROLS), halving)
        labels = truth(made, loud, none)
        assert set(labels.cents[0].tolist()) == {cents}
        assert set(labels.weight[0].tolist()) == {weight}


def test_edges_and_the_inaudible_are_left_out() -> None:
    voiced = torch.arange(CONTROLS) >= 500
    made = contour(torch.full((CONTROLS,), 5000.0), voiced)
    labels = truth(made, torch.ones(1, SAMPLES), torch.zeros(1, SAMPLES))
    assert labels.voiced[0].tolist() == [k >= 50 for k in range(FRAMES)]
    assert labels.weight[0, 50] == 0
    assert labels.weight[0, 52] == 1
    buried = truth(made, 0.05 * torch.ones(1, SAMPLES), torch.ones(1, SAMPLES))
    assert not buried.weight[0, 51:].any()
