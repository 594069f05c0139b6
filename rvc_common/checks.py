"""Checks of inputs before a network runs: they refuse what would fail late, or silently mean something else.

Every function raises ``ValueError`` with what was expected. B = batch, T = 10 ms frames, n = samples.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .config import SynthesizerConfig
from .steps import PITCH_CODES

# RMVPE mirrors half an FFT at both ends; HuBERT's convolutions span this much
SHORTEST_PITCH_SAMPLES, SHORTEST_CONTENT_SAMPLES = 513, 400
PROFILES = ("applio", "webui")


def check_choice(what: str, given: str, known: Iterable[str]) -> None:
    """An option's value is one of those that are known."""
    if given not in known:
        raise ValueError(f"unknown {what} {given!r}: one of {', '.join(known)}")


def check_pitch_audio(audio: np.ndarray) -> np.ndarray:
    """Finite mono audio ``[n]`` of at least 513 samples, as float32."""
    audio = np.asarray(audio, dtype=np.float32)
    if audio.ndim != 1:
        raise ValueError(f"audio must be mono, shape [n], not {list(audio.shape)}")
    if not np.isfinite(audio).all():
        raise ValueError(f"audio has {np.count_nonzero(~np.isfinite(audio))} NaN or infinite samples")
    if audio.size < SHORTEST_PITCH_SAMPLES:
        raise ValueError(f"audio has {audio.size} samples; reflection needs at least {SHORTEST_PITCH_SAMPLES}")
    return audio


def check_content_audio(audio: np.ndarray) -> np.ndarray:
    """Finite audio ``[n]`` or ``[B, n]`` of at least 400 samples, in its own floating type."""
    audio = np.asarray(audio)
    if audio.ndim not in (1, 2) or audio.dtype.kind != "f":
        raise ValueError(f"audio must be floats of shape [n] or [B, n], not {audio.dtype} {list(audio.shape)}")
    if audio.shape[-1] < SHORTEST_CONTENT_SAMPLES:
        raise ValueError(f"audio has {audio.shape[-1]} samples; HuBERT needs at least {SHORTEST_CONTENT_SAMPLES}")
    if not np.isfinite(audio).all():
        raise ValueError(f"audio has {np.count_nonzero(~np.isfinite(audio))} NaN or infinite samples")
    return audio


def check_phone(config: SynthesizerConfig, phone: np.ndarray, pitch: np.ndarray | None) -> None:
    """Features ``[B, T, D]`` of the voice's width, and pitch codes ``[B, T]`` where the voice has pitch, else None."""
    if phone.ndim != 3 or phone.shape[2] != config.phone_channels:
        raise ValueError(f"phone must be [B, T, {config.phone_channels}], not {list(phone.shape)}")
    if config.has_f0 != (pitch is not None):
        raise ValueError("this voice needs pitch codes" if config.has_f0 else "this voice takes no pitch")
    if pitch is not None:
        if pitch.shape != phone.shape[:2] or pitch.dtype.kind not in "iu":
            raise ValueError(f"pitch must be whole numbers {list(phone.shape[:2])}, not {pitch.dtype} {pitch.shape}")
        if pitch.size and not 0 <= pitch.min() <= pitch.max() < PITCH_CODES:
            raise ValueError(f"pitch codes must lie in 0 to {PITCH_CODES - 1}")


def check_lengths(lengths: np.ndarray, frames: int, rate: float | None) -> None:
    """``lengths [B]`` in frames, from 1 to ``frames``, and a ``rate`` that leaves at least one frame."""
    if not ((np.asarray(lengths) >= 1) & (np.asarray(lengths) <= frames)).all():
        raise ValueError(f"lengths must lie in 1 to {frames}")
    if rate is not None and not (0 < rate <= 1 and int(frames * (1.0 - float(np.float32(rate)))) < frames):
        raise ValueError(f"rate={rate}: above 0 and at most 1 is expected, so that a frame is left")


def check_speaker(config: SynthesizerConfig, speaker: np.ndarray, batch: int) -> np.ndarray:
    """Speaker numbers ``[B]``, int64; a single number is repeated for the whole batch."""
    given = np.asarray(speaker).reshape(-1)
    if given.dtype.kind not in "iu" or not all(0 <= n < config.spk_embed_dim for n in given.tolist()):
        raise ValueError(f"speaker {given.tolist()}: this voice has speakers 0 to {config.spk_embed_dim - 1}")
    numbers = np.broadcast_to(given, (batch,))
    return numbers.astype(np.int64)


def check_f0(f0: np.ndarray) -> np.ndarray:
    """F0 ``[B, T]`` in Hz, 0 where unvoiced."""
    f0 = np.asarray(f0)
    if f0.ndim != 2 or not np.isfinite(f0).all() or (f0 < 0).any():
        raise ValueError("f0 must be [B, T] in Hz, finite, 0 where unvoiced")
    return f0
