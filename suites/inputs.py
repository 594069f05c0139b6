"""Audio that the cases run on: the synthetic voice, the speech clip, or a file of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import UserError
from .voice import SAMPLE_RATE, synthesize

SPEECH_CLIP = Path(__file__).parent / "data" / "speech.flac"
BLOCK_FRAMES = 1 << 20
# RMVPE mirrors frames up to a multiple of 32 and cannot with 16 or fewer
SHORTEST_SAMPLES = 2560


class Audio(NamedTuple):
    """``samples [n]`` float32, 16 kHz mono; ``f0_hz [1 + n // 160]`` where the truth is known."""

    samples: np.ndarray
    f0_hz: np.ndarray | None
    source: str


def read_audio(path: str | Path) -> np.ndarray:
    """Any file libsndfile reads (wav, flac, ogg, mp3; any rate and channels) as 16 kHz mono.

    Read and resampled block by block, so a three-hour file needs only its 16 kHz size.

    Raises:
        UserError: missing, unreadable, empty, too short, or with NaN or infinite samples.
    """
    import soundfile
    import soxr

    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"audio {path}: no such file")
    parts: list[np.ndarray] = []
    try:
        with soundfile.SoundFile(path) as file:
            if not 1000 <= file.samplerate <= 768000:
                raise UserError(f"audio {path}: a sample rate of {file.samplerate} Hz makes no sense")
            resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32", quality="VHQ")
            for block in file.blocks(BLOCK_FRAMES, dtype="float32", always_2d=True):
                mono = block.mean(axis=1)
                if not np.isfinite(mono).all():
                    raise UserError(f"audio {path}: has NaN or infinite samples")
                parts.append(mono if file.samplerate == SAMPLE_RATE else resampler.resample_chunk(mono))
            if file.samplerate != SAMPLE_RATE and parts:
                parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    except soundfile.LibsndfileError as error:
        raise UserError(f"audio {path}: cannot be read ({error.error_string.strip()})") from None
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if samples.size == 0:
        raise UserError(f"audio {path}: is empty")
    if samples.size < SHORTEST_SAMPLES:
        length, least = samples.size * 1000 / SAMPLE_RATE, SHORTEST_SAMPLES * 1000 / SAMPLE_RATE
        raise UserError(f"audio {path}: {length:.0f} ms is too short; RMVPE needs {least:.0f} ms")
    return samples


def make_audio(kind: str, seconds: float | None, path: str | None, seed: int, snr_db: float) -> Audio:
    """The audio of one case; ``kind``: synthetic, speech or file."""
    if kind == "synthetic":
        assert seconds is not None
        voice = synthesize(seconds, seed, snr_db)
        return Audio(voice.audio, voice.f0_hz, f"synthetic voice, seed {seed}, SNR {snr_db:g} dB")
    if kind == "speech":
        return Audio(read_audio(SPEECH_CLIP), None, "speech clip made with espeak-ng")
    assert path is not None
    return Audio(read_audio(path), None, f"file {Path(path).name}")
