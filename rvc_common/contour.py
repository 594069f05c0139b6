"""Files of F0: Hz every 10 ms, or lines of time and Hz, checked before any long work."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from .decoders import shown
from .recording import opened
from .steps import HOP_SAMPLES, SAMPLE_RATE, Windows

FRAMES_PER_S = SAMPLE_RATE // HOP_SAMPLES
# the frequencies of RMVPE's first and last bin, rounded outwards
LOWEST_HZ, HIGHEST_HZ = 31.7, 2006.0
# estimators leave out the ends of a recording, where their windows do not fit
END_S = 0.1
SEPARATOR = re.compile(r"\s*[,;\t]\s*|\s+")


def read_lines(path: str | Path, where: str) -> tuple[np.ndarray | None, np.ndarray]:
    """Times in seconds and F0 in Hz, 0 where unvoiced, of lines ``time_s,f0_hz``; no times where lines hold F0 alone.

    Commas, semicolons, tabs or spaces between them; with or without a header. Beside a time, an F0 that is empty, or
    below 0 as in mir_eval, is unvoiced.

    Raises ``ValueError``: missing, not such lines, or times that do not rise from 0 on."""
    with opened(path, where) as file:
        try:
            lines = file.read().decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{where}: {getattr(error, 'strerror', None) or 'is not text'}") from None
    stripped = [(i, line.partition("#")[0].strip(" \r\n")) for i, line in enumerate(lines, 1)]
    rows = [(i, SEPARATOR.split(line)) for i, line in stripped if line.strip()]
    if rows and _number(rows[0][1][0]) is None:
        rows.pop(0)  # a header
    if not rows:
        raise ValueError(f"{where}: holds no line of time_s,f0_hz")
    alone = all(len(words) == 1 for _, words in rows)
    if len(rows) == 1 and len(rows[0][1]) > 2:  # values in one line
        alone, rows = True, [(rows[0][0], [word]) for word in rows[0][1]]
    found = []
    for i, words in rows:
        pair = [_number(word) for word in words[: 1 if alone else 2]]
        if not alone and len(words) > 1 and not words[1]:
            pair[1] = 0.0
        if len(pair) != (1 if alone else 2) or not all(value is not None and math.isfinite(value) for value in pair):
            what = "F0 in Hz" if alone else "time_s,f0_hz"
            raise ValueError(f"{where}:{i}: {lines[i - 1].strip()[:40]!r} is not {what}")
        found.append(pair)
    table = np.array(found, np.float64)
    if alone:
        return None, table[:, 0]
    times, f0 = table.T
    wrong = np.flatnonzero(np.diff(times) <= 0)
    if wrong.size or times[0] < 0:
        at = times[wrong[0] + 1] if wrong.size else times[0]
        raise ValueError(f"{where}: times must rise from 0 on, in seconds; {at:g} does not")
    return times, np.maximum(f0, 0.0)


def read_f0(path: Path) -> tuple[np.ndarray | None, np.ndarray]:
    """The file of ``--f0``: ``.npy`` with Hz ``[F]``, or see ``read_lines``.

    Raises ``ValueError``: unreadable, not numbers, fewer than two, or Hz outside of what the models know."""
    where, times = f"--f0 {shown(path)}", None
    if path.suffix.lower() == ".npy":
        with opened(path, where) as file:
            try:
                f0 = np.load(file)
            except (OSError, ValueError, EOFError, MemoryError) as error:
                raise ValueError(f"{where}: cannot be read ({error})") from None
        if not isinstance(f0, np.ndarray) or f0.dtype.kind not in "iuf" or f0.ndim != 1:
            raise ValueError(f"{where}: not an array [F] of numbers")
        f0 = f0.astype(np.float64)
    else:
        times, f0 = read_lines(path, where)
    if f0.size < 2:
        raise ValueError(f"{where}: holds {f0.size} value of F0; at least two are needed")
    wrong = np.flatnonzero((f0 != 0) & ~((f0 >= LOWEST_HZ) & (f0 <= HIGHEST_HZ)))
    if wrong.size:
        raise ValueError(
            f"{where}: value {wrong[0] + 1} is {f0[wrong[0]]:g} Hz; {LOWEST_HZ:g} to {HIGHEST_HZ:g} Hz are expected,"
            " or 0 where unvoiced"
        )
    return times, f0


def fit_f0(times_s: np.ndarray | None, f0_hz: np.ndarray, samples: int, path: Path) -> np.ndarray:
    """F0 of a file on the frames of a recording of so many samples at 16 kHz; ``Pipeline.convert`` takes it.

    Raises ``ValueError``: the file belongs to a shorter or a longer recording."""
    seconds, where = samples / SAMPLE_RATE, f"--f0 {shown(path)}"
    if times_s is None:
        pad = Windows().samples()[0]
        own, whole = samples // HOP_SAMPLES, (samples + 2 * pad) // HOP_SAMPLES
        if f0_hz.size not in (own, own + 1, whole, whole + 1):
            raise ValueError(
                f"{where}: {f0_hz.size} values every 10 ms last {f0_hz.size / FRAMES_PER_S:.2f} s, the recording lasts"
                f" {seconds:.2f} s ({own + 1} values)"
            )
        return f0_hz
    if abs(times_s[-1] - seconds) > max(END_S, float(np.median(np.diff(times_s)))):
        raise ValueError(f"{where}: ends at {times_s[-1]:.2f} s, the recording at {seconds:.2f} s")
    return on_frames(times_s, f0_hz, 1 + samples // HOP_SAMPLES)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def on_frames(times_s: np.ndarray, f0_hz: np.ndarray, frames: int) -> np.ndarray:
    """``[frames]`` at 0, 10, 20 ms, ... from F0 at rising times: voiced where the nearest time is.

    Between two voiced times the logarithm of F0 is interpolated. Unvoiced where no time is as near as the annotation's
    usual step: lines that were left out are silence.
    """
    wanted = np.arange(frames) / FRAMES_PER_S
    step = float(np.median(np.diff(times_s))) if times_s.size > 1 else 1 / FRAMES_PER_S
    left = np.clip(np.searchsorted(times_s, wanted + 1e-9) - 1, 0, times_s.size - 1)
    right = np.minimum(left + 1, times_s.size - 1)
    distance = np.abs(np.stack([times_s[left], times_s[right]]) - wanted)
    nearest = np.where(distance[0] <= distance[1], left, right)
    share = np.clip((wanted - times_s[left]) / np.maximum(times_s[right] - times_s[left], 1e-9), 0.0, 1.0)
    both = (f0_hz[left] > 0) & (f0_hz[right] > 0)
    a, b = (np.log(np.where(both, f0_hz[side], 1.0)) for side in (left, right))
    found = np.where(both, np.exp(a + share * (b - a)), f0_hz[nearest])
    return np.where(distance.min(axis=0) <= step * 1.001, found, 0.0)
