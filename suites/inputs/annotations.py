"""F0 annotations of a recording, read from a text file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..base.errors import UserError

HIGHEST_HZ = 8000.0


def read_f0(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and F0 in Hz, 0 where unvoiced, from lines of ``time_s,f0_hz`` with or without a header.
    Commas, semicolons, tabs or spaces between them; any step of time. Values below 0 are unvoiced, as in mir_eval.

    Raises ``UserError``: missing, not such lines, times that do not rise, or values that are no F0."""
    where = f"suite.f0={path}"
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: {getattr(error, 'strerror', None) or 'is not text'}") from None
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").replace(";", " ").split()
        if not words or line.lstrip().startswith("#"):
            continue
        row = _pair(words)
        if row is None and not rows and number == 1 + sum(not text.strip() for text in lines[: number - 1]):
            continue  # a header
        if row is None:
            raise UserError(f"{where}:{number}: {line.strip()[:40]!r} is not time_s,f0_hz")
        rows.append(row)
    if not rows:
        raise UserError(f"{where}: holds no line of time_s,f0_hz")
    times, f0 = np.array(rows).T
    wrong = np.flatnonzero(np.diff(times) <= 0)
    if wrong.size or times[0] < 0:
        at = times[wrong[0] + 1] if wrong.size else times[0]
        raise UserError(f"{where}: times must rise from 0 on, in seconds; {at:g} does not")
    if f0.max() > HIGHEST_HZ or not (f0 > 0).any():
        what = f"{f0.max():g} Hz is no F0" if f0.max() > HIGHEST_HZ else "no frame is voiced"
        raise UserError(f"{where}: {what}; F0 in Hz is expected in the second column")
    return times, np.maximum(f0, 0.0)


def _pair(words: list[str]) -> tuple[float, float] | None:
    try:
        time, f0 = (float(word) for word in words[:2])
    except ValueError:
        return None
    return (time, f0) if math.isfinite(time) and math.isfinite(f0) else None
