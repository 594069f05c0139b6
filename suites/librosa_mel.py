"""The log-mel as most ports compute it: librosa on the CPU, whatever the network runs on."""

from __future__ import annotations

from typing import Any

import numpy as np

SAMPLE_RATE, N_FFT, HOP, BANDS, LOW_HZ, HIGH_HZ, FLOOR = 16000, 1024, 160, 128, 30.0, 8000.0, 1e-5


class WithLibrosa:
    """An RMVPE whose ``mel`` is librosa's; everything else is its own."""

    def __init__(self, model: Any) -> None:
        from librosa.filters import mel

        self.model = model
        self.basis = mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=BANDS, fmin=LOW_HZ, fmax=HIGH_HZ, htk=True)

    def mel(self, audio: np.ndarray) -> np.ndarray:
        from librosa import stft

        magnitude = np.abs(stft(audio, n_fft=N_FFT, hop_length=HOP, window="hann", center=True, pad_mode="reflect"))
        return np.log(np.maximum(self.basis @ magnitude, FLOOR)).astype(np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def log_mel(model: Any) -> WithLibrosa:
    """
    Raises:
        ModuleNotFoundError: librosa is not installed.
    """
    return WithLibrosa(model)
