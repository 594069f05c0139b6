"""Log-mel front end of RMVPE (facts of the method: IAHispano/Applio, revision b9c0ccb)."""

from __future__ import annotations

import numpy as np
import torch

SAMPLE_RATE = 16000
N_FFT = 1024
HOP_SAMPLES = 160
N_MELS = 128
F_MIN_HZ, F_MAX_HZ = 30.0, 8000.0
LOG_FLOOR = 1e-5


def mel_basis() -> np.ndarray:
    """Triangular filters ``[128, 513]``, float32: HTK mel spacing, Slaney area normalisation."""

    def to_mel(hz: float) -> float:
        return 2595.0 * np.log10(1.0 + hz / 700.0)

    mels = np.linspace(to_mel(F_MIN_HZ), to_mel(F_MAX_HZ), N_MELS + 2)
    edges_hz = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    distance = edges_hz[:, None] - np.fft.rfftfreq(N_FFT, 1.0 / SAMPLE_RATE)[None, :]
    widths = np.diff(edges_hz)[:, None]
    rising, falling = -distance[:-2] / widths[:-1], distance[2:] / widths[1:]
    # float32 before the normalisation: this is where the reference rounds
    basis = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    basis *= (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None]
    return basis


class LogMel:
    """Natural-log mel spectrogram: periodic Hann 1024, hop 160, centred with reflection."""

    def __init__(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.basis = torch.from_numpy(mel_basis()).to(device, dtype)
        self.window = torch.hann_window(N_FFT, dtype=dtype, device=device)

    def __call__(self, audio: torch.Tensor) -> torch.Tensor:
        """``[n]`` or ``[B, n]`` at 16 kHz to ``[128, F]`` or ``[B, 128, F]``, F = 1 + n // 160."""
        spectrum = torch.stft(
            audio, N_FFT, HOP_SAMPLES, window=self.window, center=True, pad_mode="reflect", return_complex=True
        )
        magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square())
        return torch.log(torch.clamp(self.basis @ magnitude, min=LOG_FLOOR))
