"""Retrieval of a voice's own features, in NumPy.

Method: RVC's index search (IAHispano/Applio, revision b9c0ccb): the eight nearest vectors by
squared distance, weighted by its inverse square; of an inverted file, among the vectors of the
lists nearest to the frame. Shapes: V = vectors in the bank, L = lists, H = frames, D = width of the features.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rvc_common.index import read_index

NEIGHBOURS = 8
# the ranking by products rounds: so many candidates are compared by their true distance
CANDIDATES = 32
BLOCK_VALUES = 1 << 24


class Bank:
    """A voice's vectors ``[V, D]``, ready to be searched.

    Raises ``ValueError``: see ``rvc_common.index.read_index``, which takes an array or a file."""

    def __init__(self, index: np.ndarray | str | Path) -> None:
        self.vectors, self.centroids, self.lists, self.probes = read_index(index)

    @property
    def width(self) -> int:
        return self.vectors.shape[1]

    def retrieve(self, features: np.ndarray, exhaustive: bool = False) -> np.ndarray:
        """``[H, D]`` to the weighted mean of each frame's neighbours ``[H, D]``, float32.

        A frame that equals one of the vectors searched gets that vector. ``exhaustive``: among all vectors, as
        always for an index without lists, and for a frame whose nearest lists are empty.
        """
        if features.shape[1] != self.width:
            raise ValueError(f"the index holds vectors of {self.width} values, the features have {features.shape[1]}")
        result = np.empty(features.shape, np.float32)
        for frames, members in self._searches(features, exhaustive):
            vectors = self.vectors[members]
            near, distance = nearest(features[frames], vectors, NEIGHBOURS)
            result[frames] = (vectors[near] * inverse_square(distance)[..., None]).sum(axis=1)
        return result

    def _searches(self, features: np.ndarray, exhaustive: bool) -> Iterator[tuple[np.ndarray, np.ndarray | slice]]:
        """Frames that are compared with the same vectors, and which vectors these are."""
        if exhaustive or self.centroids is None:
            yield np.arange(len(features)), slice(None)
            return
        probed = np.sort(nearest(features, self.centroids, self.probes)[0], axis=1)
        chosen, which = np.unique(probed, axis=0, return_inverse=True)
        for i, lists in enumerate(chosen):
            members = np.sort(np.concatenate([self.lists[number] for number in lists]))
            yield np.flatnonzero(which.ravel() == i), members if members.size else slice(None)


def nearest(queries: np.ndarray, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the ``count`` nearest of ``vectors [V, D]``, and their squared distances, float64: ``[H, count]``."""
    norms = np.einsum("vd,vd->v", vectors, vectors, dtype=np.float64)
    pool = min(max(CANDIDATES, 4 * count), len(vectors))
    step, found = max(1, BLOCK_VALUES // len(vectors)), []
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        ranking = norms - 2.0 * (block @ vectors.T)  # squared distance less the query's own norm
        near = np.argpartition(ranking, pool - 1, axis=1)[:, :pool]
        distance = np.empty(near.shape)
        for row, (query, chosen) in enumerate(zip(block, near, strict=True)):
            distance[row] = np.square(vectors[chosen] - query, dtype=np.float64).sum(axis=1)
        order = np.argsort(distance, axis=1, kind="stable")[:, :count]
        found.append((np.take_along_axis(near, order, 1), np.take_along_axis(distance, order, 1)))
    near, distance = map(np.concatenate, zip(*found, strict=True))
    return near, distance


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
