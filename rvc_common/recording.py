"""Recordings on disk: files of every sort as 16 kHz mono, and results written whole."""

from __future__ import annotations

import shutil
import stat
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .decoders import PADDING_S, decode, shown
from .outputs import OutputError, whole


def read_recording(path: str | Path) -> np.ndarray:
    """A file (any rate and channels) as ``[n]`` float32, 16 kHz, channels averaged.

    libsndfile reads it (wav, flac, ogg, opus, mp3, aiff and more) or, where that cannot, ffmpeg if it is installed.
    Read and resampled block by block, so a three-hour file needs only its 16 kHz size. Recordings joined in one file
    are read one after another. Warns where the file holds more or less audio than its header says.

    Raises ``ValueError``: missing, unreadable, empty, or with NaN or infinite samples."""
    name = f"audio {shown(path)}"
    with opened(path, name) as file:
        found = decode(file, name)
    claimed, got = found.claimed_s, found.seconds
    if not got:
        raise ValueError(f"{name}: is empty, or holds nothing that can be decoded")
    # no error: all audio that exists was decoded, and a download that broke off can still be wanted
    if claimed is not None and abs(claimed - got) > PADDING_S:
        warnings.warn(f"{name}: its header says {claimed:.2f} s, {got:.2f} s are there and were read", stacklevel=2)
    return np.concatenate(found.blocks)


def check_recording(path: str | Path) -> None:
    """Check that there is something to read, without decoding it.

    Raises ``ValueError``: missing, not a file, empty, or it cannot be opened."""
    name = f"audio {shown(path)}"
    with opened(path, name) as file:
        if not file.read(1):
            raise ValueError(f"{name}: is empty")


def opened(path: str | Path, name: str) -> BinaryIO:
    """A file to read from; ``name`` begins the message of every error.

    Raises ``ValueError``: missing, not a file, or it cannot be opened."""
    try:
        path = Path(path).expanduser()
        if not stat.S_ISREG(path.stat().st_mode):  # asked before: opening a pipe waits for its writer
            raise ValueError("is not a file, but a " + ("folder" if path.is_dir() else "pipe or device"))
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise ValueError(f"{name}: no such file") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{name}: {getattr(error, 'strerror', None) or error}") from None


def check_space(path: Path, seconds: float, sample_rate: int) -> None:
    """Check before the conversion that the disk can hold its result.

    Raises ``OutputError``: too little space; the message states how much is needed."""
    folder = next(one for one in path.resolve().parents if one.is_dir())
    needed, free = int(seconds * sample_rate * 3), shutil.disk_usage(folder).free
    if path.suffix.lower() == ".wav" and free < needed:  # how far .flac packs is not known before
        raise OutputError(path, f"{needed >> 10} KiB are needed, {free >> 10} KiB are free on that disk")


def write_recording(path: Path, audio: np.ndarray, sample_rate: int) -> None:
    """``[n]`` float32 as 24 bits, int16 as 16; the file appears whole or not at all.

    Raises ``OutputError``: the disk is full or the folder cannot be written."""
    import soundfile

    how = {"format": path.suffix[1:].upper(), "subtype": "PCM_16" if audio.dtype == np.int16 else "PCM_24"}
    with whole(path, soundfile.LibsndfileError) as part:
        soundfile.write(part, audio, sample_rate, **how)
        if soundfile.info(part).frames != audio.size:
            raise OutputError(path, "could not be written whole; is the disk full?")
