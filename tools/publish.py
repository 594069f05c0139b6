"""Makes run folders small enough to be committed: ``python -m tools.publish RUN...``, before the document is made.

``records.jsonl`` becomes ``records.jsonl.xz``. Arrays are compressed better, and the mel of a contour keeps what its
figure shows: its first seconds, rounded to the colours' levels. Working files and reports of one run are removed.
"""

from __future__ import annotations

import io
import lzma
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np

from reports.figures.sound import CONTOUR_SECONDS, FRAMES_PER_S, LEVELS, MEL_RANGE
from rvc_common.outputs import whole
from suites.base.errors import UserError
from suites.base.files import read_arrays
from suites.base.lock import Lock
from suites.base.records import RECORDS

NOT_PUBLISHED = ("report.md", "report.html", "stages.csv", "workers.log", "plots", "audio")


def as_drawn(mel: np.ndarray) -> np.ndarray:
    """Of a mel ``[bands, frames]`` the drawn frames, every value in the middle of its colour's interval; the extremes,
    which fix the scale, as they are."""
    mel = mel[:, : int(CONTOUR_SECONDS * FRAMES_PER_S)]
    wide = mel.astype(np.float32)
    high = wide.max()
    low = max(wide.min(), high - np.float32(MEL_RANGE))
    if high == low:
        return mel
    level = np.clip(np.floor((wide - low) / (high - low) * LEVELS), 0, LEVELS - 1)
    rounded = (low + (level + 0.5) / LEVELS * (high - low)).astype(mel.dtype)
    for extreme in (wide.argmin(), wide.argmax()):
        rounded.flat[extreme] = mel.flat[extreme]
    return rounded


def compress_arrays(path: Path) -> None:
    """Rewrite an ``.npz`` with LZMA, which ``numpy.load`` reads as well."""
    arrays = read_arrays(path)
    if "mel" in arrays:
        arrays["mel"] = as_drawn(arrays["mel"])
    with whole(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_LZMA) as file:
        for name, values in arrays.items():
            content = io.BytesIO()
            np.save(content, values, allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_LZMA)


def publish(folder: Path) -> None:
    for name in NOT_PUBLISHED:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink(missing_ok=True)
    for path in sorted(folder.glob("*/*.npz")):
        compress_arrays(path)
    records = folder / RECORDS
    with whole(folder / f"{RECORDS}.xz") as part:
        part.write_bytes(lzma.compress(records.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
    records.unlink()


if __name__ == "__main__":
    try:
        for name in sys.argv[1:]:
            with Lock(Path(name)):  # not while it is measured
                publish(Path(name))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
