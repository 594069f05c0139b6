"""Retrieval of a voice's own features, in NumPy.

Method: RVC's index search (IAHispano/Applio, revision b9c0ccb): the eight nearest vectors by
squared distance, weighted by its inverse square. The search here is exhaustive, so nothing is
missed. Shapes: V = vectors in the bank, H = frames, D = width of the features.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rvc_common.index import read_vectors

NEIGHBOURS = 8
# the ranking by products rounds: so many candidates are compared by their true distance
CANDIDATES = 32
BLOCK_VALUES = 1 << 24


class Bank:
    """A voice's vectors ``[V, D]``, ready to be searched.

    Raises:
        ValueError: see ``rvc_common.index.read_vectors``, which takes an array or a file.
    """

    def __init__(self, index: np.ndarray | str | Path) -> None:
        self.vectors = read_vectors(index)
        self.norms = np.square(self.vectors, dtype=np.float64).sum(axis=1)

    def retrieve(self, features: np.ndarray) -> np.ndarray:
        """``[H, D]`` to the weighted mean of each frame's neighbours ``[H, D]``, float32.

        A frame that equals a vector of the bank gets that vector.
        """
        if features.shape[1] != self.vectors.shape[1]:
            width = self.vectors.shape[1]
            raise ValueError(f"the index holds vectors of {width} values, the features have {features.shape[1]}")
        step = max(1, BLOCK_VALUES // len(self.vectors))
        blocks = [self._block(features[i : i + step]) for i in range(0, len(features), step)]
        return np.concatenate(blocks).astype(np.float32)

    def _block(self, queries: np.ndarray) -> np.ndarray:
        ranking = self.norms - 2.0 * (queries @ self.vectors.T)  # squared distance less the query's own norm
        count = min(CANDIDATES, len(self.vectors))
        near = np.argpartition(ranking, count - 1, axis=1)[:, :count]
        distance = np.empty(near.shape)
        for row, (query, chosen) in enumerate(zip(queries, near, strict=True)):
            distance[row] = np.square(self.vectors[chosen] - query, dtype=np.float64).sum(axis=1)
        order = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
        near, distance = np.take_along_axis(near, order, 1), np.take_along_axis(distance, order, 1)
        weights = inverse_square(distance)
        return (self.vectors[near] * weights[..., None]).sum(axis=1)


def inverse_square(distance: np.ndarray) -> np.ndarray:
    """Squared distances ``[H, K]``, nearest first, to weights (1 / d)^2 that sum to 1; finite also at 0."""
    nearest = distance[:, :1]
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(distance == nearest, 1.0, nearest / distance)
    weights = np.square(relative)
    return weights / weights.sum(axis=1, keepdims=True)


def load_bank(index: np.ndarray | Bank | str | Path, device: str | None = None) -> Bank:
    """``index`` as a ``Bank``; one that is loaded already is returned as it is.

    This search is NumPy's: ``device`` is ignored, and is there so that both packages are called alike.
    """
    return index if isinstance(index, Bank) else Bank(index)
