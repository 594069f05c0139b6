"""Retrieval of a voice's own features, in MLX.

Method: RVC's index search (IAHispano/Applio, revision b9c0ccb): the eight nearest vectors by
squared distance, weighted by its inverse square; of an inverted file, among the vectors of the
lists nearest to the frame. Shapes: V = vectors in the bank, L = lists, H = frames, D = width of the features.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rvc_common.index import read_index

from .buffers import bounded
from .runtime import mx

NEIGHBOURS = 8
# the ranking by products rounds: so many candidates are compared by their true distance
CANDIDATES = 32
BLOCK_VALUES = 1 << 24


class Table:
    """Vectors ``[V, D]`` on the device."""

    def __init__(self, vectors: np.ndarray) -> None:
        # centred: distances stay, and their products round less
        self.centre = vectors.mean(axis=0)
        self.vectors = mx.array(vectors)
        self.shifted = mx.array((vectors - self.centre).T)
        self.norms = mx.square(self.shifted).sum(axis=0)

    def nearest(self, queries: np.ndarray, count: int, allowed: mx.array | None = None) -> tuple[mx.array, mx.array]:
        """Numbers of the ``count`` nearest vectors and their squared distances, ``[H, count]``, nearest first.

        ``allowed [H, V]``: what may be found; distances are infinite where that is not enough.
        """
        # squared distance less the query's own norm
        ranking = self.norms - 2.0 * (mx.array(queries - self.centre) @ self.shifted)
        ranking = ranking if allowed is None else mx.where(allowed, ranking, mx.inf)
        near = mx.argpartition(ranking, self.pool(count) - 1, axis=1)[:, : self.pool(count)]
        distance = _square_sum(self.vectors[near] - mx.array(queries)[:, None])
        if allowed is not None:
            distance = mx.where(mx.take_along_axis(allowed, near, axis=1), distance, mx.inf)
        order = mx.argsort(distance, axis=1)[:, :count]
        return mx.take_along_axis(near, order, axis=1), mx.take_along_axis(distance, order, axis=1)

    def pool(self, count: int) -> int:
        """Vectors whose true distances are computed."""
        return min(max(CANDIDATES, 4 * count), len(self.norms))


class Bank:
    """A voice's vectors ``[V, D]``, ready to be searched.

    Raises ``ValueError``: see ``rvc_common.index.read_index``, which takes an array or a file."""

    def __init__(self, index: np.ndarray | str | Path, device: mx.Device | None = None) -> None:
        stored = read_index(index)
        self.device, self.probes = device or mx.default_device(), stored.probes
        with mx.stream(self.device):
            self.fine = Table(stored.vectors)
            self.coarse = None if stored.centroids is None else Table(stored.centroids)
            home = np.zeros(len(stored.vectors), np.int32)
            for number, members in enumerate(stored.lists):
                home[members] = number
            self.home = mx.array(home)

    @property
    def width(self) -> int:
        return int(self.fine.vectors.shape[1])

    def retrieve(self, features: np.ndarray, exhaustive: bool = False) -> np.ndarray:
        """``[H, D]`` to the weighted mean of each frame's neighbours ``[H, D]``, float32.

        A frame that equals one of the vectors searched gets that vector. ``exhaustive``: among all vectors, as
        always for an index without lists, and for a frame whose nearest lists are empty.
        """
        if features.shape[1] != self.width:
            raise ValueError(f"the index holds vectors of {self.width} values, the features have {features.shape[1]}")
        coarse = None if exhaustive else self.coarse
        pool = max(self.fine.pool(NEIGHBOURS), coarse.pool(self.probes) if coarse else 0)
        step = max(1, BLOCK_VALUES // max(len(self.home), pool * self.width))
        blocks = []
        with bounded(self.device):
            for i in range(0, len(features), step):
                blocks.append(np.array(self._block(features[i : i + step], coarse)))
        return np.concatenate(blocks)

    def _block(self, queries: np.ndarray, coarse: Table | None) -> mx.array:
        allowed = None if coarse is None else self._allowed(coarse.nearest(queries, self.probes)[0], coarse)
        near, distance = self.fine.nearest(queries, NEIGHBOURS, allowed)
        return (inverse_square(distance)[:, None] @ self.fine.vectors[near])[:, 0]

    def _allowed(self, probed: mx.array, coarse: Table) -> mx.array:
        """Numbers of lists ``[H, probes]`` to which vectors are in them, ``[H, V]``; all where none is."""
        chosen = mx.zeros((probed.shape[0], len(coarse.norms)), mx.bool_)
        chosen = mx.put_along_axis(chosen, probed, mx.array(True), axis=1)
        allowed = mx.take(chosen, self.home, axis=1)
        return allowed | ~allowed.any(axis=1, keepdims=True)


def _square_sum(x: mx.array) -> mx.array:
    """Sum of squares along the last axis, in two steps: one running float32 sum loses a digit."""
    block = next(n for n in (32, 16, 8, 4, 2, 1) if x.shape[-1] % n == 0)
    return mx.square(x).reshape(*x.shape[:-1], -1, block).sum(axis=-1).sum(axis=-1)


def inverse_square(distance: mx.array) -> mx.array:
    """Squared distances ``[H, K]``, nearest first, to weights (1 / d)^2 that sum to 1; finite also at 0."""
    nearest = distance[:, :1]
    relative = mx.where(distance == nearest, 1.0, nearest / mx.where(distance > 0, distance, 1.0))
    weights = mx.square(relative)
    return weights / weights.sum(axis=1, keepdims=True)


def load_bank(index: np.ndarray | Bank | str | Path, device: mx.Device | None = None) -> Bank:
    """``index`` as a ``Bank``; one that is loaded already is returned as it is."""
    return index if isinstance(index, Bank) else Bank(index, device)
