"""Recordings on disk: any file that libsndfile reads, as 16 kHz mono, and results written whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

SAMPLE_RATE = 16000
BLOCK_FRAMES = 1 << 20


def read_recording(path: str | Path) -> np.ndarray:
    """A file (wav, flac, ogg, mp3; any rate and channels) as ``[n]`` float32, 16 kHz, channels averaged.

    Read and resampled block by block, so a three-hour file needs only its 16 kHz size.

    Raises ``ValueError``: missing, unreadable, empty, or with NaN or infinite samples."""
    import soundfile
    import soxr

    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"audio {path}: no such file")
    parts: list[np.ndarray] = []
    try:
        with soundfile.SoundFile(path) as file:
            if not 1000 <= file.samplerate <= 768000:
                raise ValueError(f"audio {path}: a sample rate of {file.samplerate} Hz makes no sense")
            resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32", quality="VHQ")
            for block in file.blocks(BLOCK_FRAMES, dtype="float32", always_2d=True):
                mono = block.mean(axis=1)
                if not np.isfinite(mono).all():
                    raise ValueError(f"audio {path}: has NaN or infinite samples")
                parts.append(mono if file.samplerate == SAMPLE_RATE else resampler.resample_chunk(mono))
            if file.samplerate != SAMPLE_RATE and parts:
                parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    except soundfile.LibsndfileError as error:
        raise ValueError(f"audio {path}: cannot be read ({error.error_string.strip()})") from None
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if samples.size == 0:
        raise ValueError(f"audio {path}: is empty")
    return samples


def check_output(path: Path) -> None:
    """Check the output's path before the conversion starts.

    Raises ``ValueError``: an ending that cannot be written, or a folder that does not exist."""
    if path.suffix.lower() not in (".wav", ".flac"):
        raise ValueError(f"output {path}: write .wav or .flac")
    if not path.parent.is_dir():
        raise ValueError(f"output {path}: there is no folder {path.parent}")


def check_space(path: Path, seconds: float, sample_rate: int) -> None:
    """Check before the conversion that the disk can hold its result.

    Raises ``ValueError``: too little space; the message states how much is needed."""
    needed, free = int(seconds * sample_rate * 3), shutil.disk_usage(path.parent).free
    if path.suffix.lower() == ".wav" and free < needed:  # how far .flac packs is not known before
        raise ValueError(f"output {path}: {needed >> 10} KiB are needed, {free >> 10} KiB are free on that disk")


def write_recording(path: Path, audio: np.ndarray, sample_rate: int) -> None:
    """``[n]`` float32 as 24 bits, int16 as 16; the file appears whole or not at all.

    Raises ``ValueError``: the disk is full or the folder cannot be written."""
    import soundfile

    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        soundfile.write(part, audio, sample_rate, subtype="PCM_16" if audio.dtype == np.int16 else "PCM_24")
        if soundfile.info(part).frames != audio.size:
            raise ValueError(f"output {path}: could not be written whole; is the disk full?")
        part.replace(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"output {path}: cannot be written ({error}); is the disk full?") from None
    finally:
        part.unlink(missing_ok=True)
