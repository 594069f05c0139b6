"""Log-mel front end of RMVPE in MLX (facts of the method: IAHispano/Applio, revision b9c0ccb)."""

from __future__ import annotations

import numpy as np

from .runtime import mx

SAMPLE_RATE = 16000
N_FFT = 1024
HOP_SAMPLES = 160
N_MELS = 128
F_MIN_HZ, F_MAX_HZ = 30.0, 8000.0
LOG_FLOOR = 1e-5
# frames transformed at a time: the windowed frames are 6.4 times the size of the audio
BLOCK_FRAMES = 4096


def mel_basis() -> np.ndarray:
    """Triangular filters ``[128, 513]``, float32: HTK mel spacing, Slaney area normalisation."""
    top, bottom = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (F_MAX_HZ, F_MIN_HZ))
    edges_hz = 700.0 * (10.0 ** (np.linspace(bottom, top, N_MELS + 2) / 2595.0) - 1.0)
    bins_hz = np.fft.rfftfreq(N_FFT, 1.0 / SAMPLE_RATE)
    basis = np.zeros((N_MELS, bins_hz.size), np.float32)
    for band, (low, centre, high) in enumerate(zip(edges_hz, edges_hz[1:], edges_hz[2:], strict=False)):
        rising = (bins_hz - low) / (centre - low)
        falling = (high - bins_hz) / (high - centre)
        basis[band] = np.maximum(0.0, np.minimum(rising, falling))
        # in place, hence rounded to float32 twice, as the reference's matrix is
        basis[band] *= 2.0 / (high - low)
    return basis


class LogMel:
    """Natural-log mel spectrogram: periodic Hann 1024, hop 160, centred with reflection."""

    def __init__(self) -> None:
        self.basis = mx.array(mel_basis().T)
        # as float64 rounded once: 0.5 - 0.5 cos(2 pi n / N)
        self.window = mx.array(0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(N_FFT) / N_FFT), dtype=mx.float32)

    def __call__(self, audio: mx.array) -> mx.array:
        """``[n]`` at 16 kHz to ``[F, 128]``, F = 1 + n // 160 (frames first)."""
        half = N_FFT // 2
        padded = mx.concatenate([audio[half:0:-1], audio, audio[-2 : -half - 2 : -1]])
        frames = 1 + audio.size // HOP_SAMPLES
        blocks = []
        for start in range(0, frames, BLOCK_FRAMES):
            count = min(BLOCK_FRAMES, frames - start)
            blocks.append(self._block(padded, start, count))
            mx.async_eval(blocks[-1])
        return mx.concatenate(blocks) if len(blocks) > 1 else blocks[0]

    def _block(self, padded: mx.array, start: int, count: int) -> mx.array:
        frames = mx.as_strided(padded, (count, N_FFT), (HOP_SAMPLES, 1), start * HOP_SAMPLES)
        spectrum = mx.fft.rfft(frames * self.window, axis=-1)
        magnitude = mx.sqrt(mx.square(mx.real(spectrum)) + mx.square(mx.imag(spectrum)))
        return mx.log(mx.maximum(magnitude @ self.basis, LOG_FLOOR))
