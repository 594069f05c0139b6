"""What other programs compute in a worker: librosa's mel, and F0 by other estimators."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..inputs.estimators import ESTIMATORS


def librosa_mel() -> Callable[[np.ndarray], np.ndarray]:
    """Raises ``ModuleNotFoundError``: librosa is not installed."""
    from librosa import stft
    from librosa.filters import mel as filters

    from rvc_mlx import audio as own

    sizes = {"sr": own.SAMPLE_RATE, "n_fft": own.N_FFT, "n_mels": own.N_MELS}
    basis = filters(**sizes, fmin=own.F_MIN_HZ, fmax=own.F_MAX_HZ, htk=True)

    def mel(audio: np.ndarray) -> np.ndarray:
        """Audio ``[n]`` at 16 kHz to ``[128, 1 + n // 160]``: bands by frames, natural log."""
        spectrum = stft(audio, n_fft=own.N_FFT, hop_length=own.HOP_SAMPLES, pad_mode="reflect")
        return np.log(np.maximum(basis @ np.abs(spectrum), own.LOG_FLOOR)).astype(np.float32)

    return mel


def estimated(name: str, audio: np.ndarray, warm: int) -> tuple[np.ndarray, dict[str, Any]]:
    """F0 in Hz, after a call on ``warm`` samples; and how long it took."""
    found = ESTIMATORS[name]
    found.find(audio[:warm], found.settings)
    start = time.perf_counter()
    f0 = found.find(audio, found.settings)
    seconds = time.perf_counter() - start
    voided = ~(np.isfinite(f0) & (f0 >= 0))  # WORLD's may come out as NaN: that is no F0, so it is unvoiced
    return np.where(voided, 0.0, f0), {
        "seconds": seconds,
        "facts": found.facts() | {"voided_frames": int(voided.sum())},
    }
