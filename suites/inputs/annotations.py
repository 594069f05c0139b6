"""F0 annotations of a recording, read from a text file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rvc_common.contour import read_lines

from ..base.errors import UserError

HIGHEST_HZ = 8000.0


def read_f0(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and F0 in Hz, 0 where unvoiced, from lines of ``time_s,f0_hz``; see ``read_lines``.

    Raises ``UserError``: missing, not such lines, times that do not rise, or values that are no F0."""
    where = f"suite.f0={path}"
    try:
        times, f0 = read_lines(path, where)
    except ValueError as error:
        raise UserError(str(error)) from None
    if times is None:
        raise UserError(f"{where}: has one column; time_s,f0_hz are two")
    if f0.max() > HIGHEST_HZ or not (f0 > 0).any():
        what = f"{f0.max():g} Hz is no F0" if f0.max() > HIGHEST_HZ else "no frame is voiced"
        raise UserError(f"{where}: {what}; F0 in Hz is expected in the second column")
    return times, f0
