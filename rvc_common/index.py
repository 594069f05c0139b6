"""A voice's index: its vectors, read from a file and checked. The search is each implementation's own.

RVC's training writes ``IVF<n>,Flat`` files of faiss: every vector is in the list of its nearest centroid, and a
search looks only at the ``nprobe`` lists nearest to the query, as stored in the file (1 in both projects' files).
Shapes: V = vectors, D = width of the features, L = lists.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from .formats import other_kind


class Searched(Protocol):
    """An index that can be searched."""

    @property
    def width(self) -> int:
        """Of its vectors."""

    def retrieve(self, features: np.ndarray, exhaustive: bool = False) -> np.ndarray:
        """Features ``[frames, D]`` to the weighted mean of each frame's nearest vectors, same shape, float32.

        ``exhaustive``: among all vectors, even if the index's file restricts the search.
        """


class Stored(NamedTuple):
    """An index: vectors ``[V, D]``, and what restricts the search, if anything does.

    ``centroids [L, D]``; ``lists``: per centroid the numbers of its vectors; ``probes``: lists searched per query.
    """

    vectors: np.ndarray
    centroids: np.ndarray | None = None
    lists: tuple[np.ndarray, ...] = ()
    probes: int = 0


def read_index(index: np.ndarray | Stored | str | Path) -> Stored:
    """An array ``[V, D]``, a ``.npy`` file of one, or a faiss ``.index`` (needs ``faiss``), as float32; or what was
    read from one.

    Raises ``ValueError``: no such file, not an index, one of another kind, or vectors that are empty, misshapen, NaN
    or infinite; names the file."""
    named = isinstance(index, str | Path)
    name = f"index {index}" if named else "the index"
    if isinstance(index, Stored):
        stored = index
    else:
        stored = _read_file(Path(index), name) if named else Stored(index)  # type: ignore[arg-type]
    vectors = np.ascontiguousarray(stored.vectors, dtype=np.float32)
    if vectors.ndim != 2 or not vectors.size:
        raise ValueError(f"{name} must hold vectors [V, D], not {list(vectors.shape)}")
    if not all(np.isfinite(values).all() for values in (vectors, stored.centroids) if values is not None):
        raise ValueError(f"{name} has NaN or infinite values")
    return stored._replace(vectors=vectors)


def _read_file(path: Path, name: str) -> Stored:
    if not path.is_file():
        raise ValueError(f"{name}: no such file")
    if path.suffix == ".npy":
        try:
            return Stored(np.load(path, allow_pickle=False))
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{name}: not a readable .npy file ({error})") from None
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        raise ValueError(f"{name}: not an index but a checkpoint")
    if not head.startswith((b"I", b"\x93NUMPY")) and (other := other_kind(head)):
        raise ValueError(f"{name}: not an index but {other}")
    try:
        import faiss
    except ImportError:
        raise ValueError(f"{name}: reading it needs faiss: pip install 'rvc-parity[index]'") from None
    try:
        whole = faiss.read_index(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"{name}: not a readable faiss index ({reason})") from None
    # the ids that a wrapper gives to its vectors decide nothing; it owns the index inside, so it has to outlive it
    index: Any = whole
    while isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        index = faiss.downcast_index(index.index)
    kinds = [type(index).__name__]
    if kinds == ["IndexIVFFlat"]:
        kinds.append(type(faiss.downcast_index(index.quantizer)).__name__)
    if kinds[-1] not in ("IndexFlat", "IndexFlatL2") or index.metric_type != faiss.METRIC_L2:
        raise ValueError(f"{name}: {' on '.join(kinds)}; only Flat and IVF,Flat with Euclidean distance are supported")
    if not index.is_trained or not index.ntotal:
        raise ValueError(f"{name}: holds no vectors" + ("" if index.is_trained else "; it was never trained"))
    if len(kinds) == 1:
        return Stored(index.reconstruct_n(0, index.ntotal))
    return _inverted(index, faiss, name)


def _inverted(index: Any, faiss: Any, name: str) -> Stored:
    """An ``IndexIVFFlat``, its vectors in the order of their ids, which need not be 0 to V - 1."""
    if index.nprobe < 1 or index.quantizer.ntotal != index.nlist:
        raise ValueError(f"{name}: {index.nprobe} of {index.quantizer.ntotal} lists cannot be searched")
    stored, blocks, ids = index.invlists, [], []
    sizes = [stored.list_size(i) for i in range(index.nlist)]
    for i, size in enumerate(sizes):
        codes = faiss.rev_swig_ptr(stored.get_codes(i), size * index.code_size) if size else np.empty(0, np.uint8)
        blocks.append(codes.view(np.float32).reshape(size, index.d))
        ids.append(faiss.rev_swig_ptr(stored.get_ids(i), size) if size else np.empty(0, np.int64))
    order = np.argsort(np.concatenate(ids), kind="stable")
    lists = np.split(np.argsort(order), np.cumsum(sizes)[:-1])
    centroids = faiss.downcast_index(index.quantizer).reconstruct_n(0, index.nlist)
    return Stored(np.concatenate(blocks)[order], centroids, tuple(map(np.sort, lists)), min(index.nprobe, index.nlist))
