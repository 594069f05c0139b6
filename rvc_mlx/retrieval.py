"""Retrieval of a voice's own features, in MLX.

Method: RVC's index search (IAHispano/Applio, revision b9c0ccb): the eight nearest vectors by
squared distance, weighted by its inverse square. The search here is exhaustive, so nothing is
missed. Shapes: V = vectors in the bank, H = frames, D = width of the features.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rvc_common.index import read_vectors

from .buffers import on_device
from .runtime import mx

NEIGHBOURS = 8
# the ranking by products rounds: so many candidates are compared by their true distance
CANDIDATES = 32
BLOCK_VALUES = 1 << 24


class Bank:
    """A voice's vectors ``[V, D]``, ready to be searched.

    Raises:
        ValueError: see ``rvc_common.index.read_vectors``, which takes an array or a file.
    """

    def __init__(self, index: np.ndarray | str | Path, device: mx.Device | None = None) -> None:
        vectors = read_vectors(index)
        self.device = device or mx.default_device()
        # centred: distances stay, and their products round less
        self.centre = vectors.mean(axis=0)
        with mx.stream(self.device):
            self.vectors = mx.array(vectors)
            self.shifted = mx.array((vectors - self.centre).T)
            self.norms = mx.square(self.shifted).sum(axis=0)

    def retrieve(self, features: np.ndarray) -> np.ndarray:
        """``[H, D]`` to the weighted mean of each frame's neighbours ``[H, D]``, float32.

        A frame that equals a vector of the bank gets that vector.
        """
        count, width = self.vectors.shape
        if features.shape[1] != width:
            raise ValueError(f"the index holds vectors of {width} values, the features have {features.shape[1]}")
        step = max(1, BLOCK_VALUES // max(count, CANDIDATES * width))
        blocks = []
        with on_device(self.device, self, "retrieve"):
            for i in range(0, len(features), step):
                blocks.append(np.array(self._block(features[i : i + step])))
        return np.concatenate(blocks)

    def _block(self, queries: np.ndarray) -> mx.array:
        # squared distance less the query's own norm
        ranking = self.norms - 2.0 * (mx.array(queries - self.centre) @ self.shifted)
        count = min(CANDIDATES, self.vectors.shape[0])
        near = mx.argpartition(ranking, count - 1, axis=1)[:, :count]
        difference = self.vectors[near] - mx.array(queries)[:, None]
        distance = _square_sum(difference)
        order = mx.argsort(distance, axis=1)[:, :NEIGHBOURS]
        near, distance = mx.take_along_axis(near, order, axis=1), mx.take_along_axis(distance, order, axis=1)
        weights = inverse_square(distance)
        return (weights[:, None] @ self.vectors[near])[:, 0]


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
