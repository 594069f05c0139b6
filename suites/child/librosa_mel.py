"""The log-mel as most ports compute it: with librosa on the CPU, whatever device the network runs on."""

from __future__ import annotations

from typing import Any

import numpy as np


class WithLibrosa:
    """An RMVPE of rvc_mlx with its ``mel`` replaced by librosa's.

    Raises:
        ModuleNotFoundError: librosa is not installed.
    """

    def __init__(self, model: Any) -> None:
        from librosa import stft
        from librosa.filters import mel

        from rvc_mlx import audio

        self.model, self.stft, self.audio = model, stft, audio
        sizes = {"sr": audio.SAMPLE_RATE, "n_fft": audio.N_FFT, "n_mels": audio.N_MELS}
        self.basis = mel(**sizes, fmin=audio.F_MIN_HZ, fmax=audio.F_MAX_HZ, htk=True)

    def mel(self, audio: np.ndarray) -> np.ndarray:
        """Audio ``[n]`` at 16 kHz to ``[128, 1 + n // 160]``: bands by frames, natural log."""
        own = self.audio
        spectrum = self.stft(audio, n_fft=own.N_FFT, hop_length=own.HOP_SAMPLES, pad_mode="reflect")
        return np.log(np.maximum(self.basis @ np.abs(spectrum), own.LOG_FLOOR)).astype(np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)
