"""Audio that the cases run on: the synthetic voice, the speech clip, or a file of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..base.errors import UserError
from ..base.paths import DATA
from .voice import SAMPLE_RATE, synthesize

SPEECH_CLIP = DATA / "speech.flac"
# RMVPE mirrors frames up to a multiple of 32 and cannot with 16 or fewer
SHORTEST_SAMPLES = 2560


class Audio(NamedTuple):
    """``samples [n]`` float32, 16 kHz mono; ``f0_hz [1 + n // 160]`` where the truth is known.
    ``scored``: frames that count when something is measured against the truth; None: all."""

    samples: np.ndarray
    f0_hz: np.ndarray | None
    source: str
    scored: np.ndarray | None = None


def read_audio(path: str | Path) -> np.ndarray:
    """Any file that libsndfile or ffmpeg reads (any rate and channels) as 16 kHz mono.

    Raises ``UserError``: missing, unreadable, empty, too short, or with NaN or infinite samples."""
    from rvc_common.recording import read_recording

    try:
        samples = read_recording(path)
    except ValueError as error:
        raise UserError(str(error)) from None
    if samples.size < SHORTEST_SAMPLES:
        length, least = samples.size * 1000 / SAMPLE_RATE, SHORTEST_SAMPLES * 1000 / SAMPLE_RATE
        raise UserError(f"audio {path}: {length:.0f} ms is too short; RMVPE needs {least:.0f} ms")
    return samples


def make_audio(kind: str, seconds: float | None, path: str | None, seed: int, snr_db: float) -> Audio:
    """The audio of one case; ``kind``: synthetic, speech or file."""
    if kind in ("synthetic", "growth"):
        assert seconds is not None
        voice = synthesize(seconds, seed, snr_db)
        return Audio(voice.audio, voice.f0_hz, f"synthetic voice, seed {seed}, SNR {snr_db:g} dB")
    if kind == "speech":
        return Audio(read_audio(SPEECH_CLIP), None, "speech clip made with espeak-ng")
    assert path is not None
    return Audio(read_audio(path), None, f"file {Path(path).name}")
