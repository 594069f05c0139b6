"""The vectors of a voice's index: read from a file and checked. The search is each implementation's own."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np


class Searched(Protocol):
    """An index that can be searched."""

    def retrieve(self, features: np.ndarray) -> np.ndarray:
        """Features ``[frames, width]`` to the weighted mean of each frame's nearest vectors, same shape, float32."""


def read_vectors(index: np.ndarray | str | Path) -> np.ndarray:
    """Vectors ``[count, width]`` of an array, a ``.npy`` file, or a faiss ``.index`` (needs ``faiss``), float32.

    Raises:
        ValueError: no such file, not an index, or vectors that are empty, misshapen, NaN or infinite.
    """
    stored = _stored(Path(index)) if isinstance(index, str | Path) else index
    vectors = np.ascontiguousarray(stored, dtype=np.float32)
    if vectors.ndim != 2 or not len(vectors):
        raise ValueError(f"an index must hold vectors [V, D], not {list(vectors.shape)}")
    if not np.isfinite(vectors).all():
        raise ValueError("the index has NaN or infinite values")
    return vectors


def _stored(path: Path) -> np.ndarray:
    if not path.is_file():
        raise ValueError(f"index {path}: no such file")
    if path.suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"index {path}: not a readable .npy file ({error})") from None
    try:
        import faiss
    except ImportError:
        raise ValueError(f"index {path}: reading it needs faiss: pip install 'rvc-parity[index]'") from None
    try:
        index = faiss.read_index(str(path))
        return index.reconstruct_n(0, index.ntotal)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"index {path}: not a readable faiss index ({reason})") from None
