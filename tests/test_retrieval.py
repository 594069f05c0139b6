"""A voice's index: the plain formula, faiss's own search of the same file, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import module, pipeline

BOTH = pytest.mark.parametrize("side", ["reference_torch", "rvc_mlx"])
WIDTH = 16
BANK = np.random.default_rng(0).standard_normal((200, WIDTH)).astype(np.float32)
QUERIES = np.random.default_rng(1).standard_normal((40, WIDTH)).astype(np.float32)


def weighted(neighbours: np.ndarray, squared: np.ndarray) -> np.ndarray:
    """``[H, K, D]`` and squared distances ``[H, K]`` to the mean weighted by the inverse square of the latter."""
    weights = 1 / np.square(squared.astype(np.float64))
    mean: np.ndarray = (neighbours * (weights / weights.sum(axis=1, keepdims=True))[..., None]).sum(axis=1)
    return mean


def inverted(lists: int = 8, probes: int = 1, ids: np.ndarray | None = None) -> faiss.IndexIVFFlat:
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(WIDTH), WIDTH, lists)
    index.nprobe = probes
    index.train(BANK)
    index.add_with_ids(BANK, np.arange(len(BANK)) if ids is None else ids)
    return index


def written(path: Path, index: faiss.Index) -> Path:
    faiss.write_index(index, str(path))
    return path


# ---------------------------------------------------------------------- search
@BOTH
@settings(max_examples=15, deadline=None)
@given(vectors=st.integers(1, 90), frames=st.integers(1, 30), seed=st.integers(0, 99))
def test_retrieval_is_the_plain_formula(side, vectors, frames, seed):
    rng = np.random.default_rng(seed)
    bank, queries = (rng.standard_normal((n, WIDTH)).astype(np.float32) for n in (vectors, frames))
    got = module(side, "retrieval").Bank(bank).retrieve(queries)
    squared = np.square(queries.astype(np.float64)[:, None] - bank).sum(axis=2)
    near = np.argsort(squared, axis=1, kind="stable")[:, :8]
    want = weighted(bank[near], np.take_along_axis(squared, near, 1))
    assert np.abs(got - want).max() < 1e-5


@BOTH
def test_a_query_of_the_bank_finds_itself(side, tmp_path):
    retrieval = module(side, "retrieval")
    bank = retrieval.Bank(np.concatenate([BANK, BANK[:3]]))
    for one in (bank, retrieval.Bank(written(tmp_path / "voice.index", inverted()))):
        got = one.retrieve(BANK)
        assert np.isfinite(got).all()
        assert (got == BANK).all()


MADE: dict[str, Callable[[], faiss.Index]] = {
    "one list": lambda: inverted(),
    "three lists": lambda: inverted(probes=3),
    "more lists than there are": lambda: inverted(probes=99),
    "many lists": lambda: inverted(lists=60, probes=20),
    "other ids": lambda: inverted(ids=np.arange(len(BANK))[::-1] * 7 + 1000),
    "flat": lambda: faiss.IndexFlatL2(WIDTH),
    "flat, by name": lambda: faiss.index_factory(WIDTH, "Flat"),
    "with an id map": lambda: faiss.IndexIDMap(faiss.IndexFlatL2(WIDTH)),
    "with both maps": lambda: faiss.IndexIDMap2(faiss.IndexFlatL2(WIDTH)),
}


@BOTH
@pytest.mark.parametrize("removed", [False, True], ids=["whole", "removed"])
@pytest.mark.parametrize("name", MADE)
def test_a_file_is_searched_as_faiss_searches_it(side, tmp_path, name, removed):
    """The oracle is faiss's own search of the same index; where it finds fewer than eight, weights are zero."""
    index, ids = MADE[name](), np.arange(len(BANK))
    if name == "other ids":
        ids = ids[::-1] * 7 + 1000
    if not index.ntotal:
        index.add_with_ids(BANK, ids) if "map" in name else index.add(BANK)
    if removed:
        index.remove_ids(ids[:40])
    squared, found = index.search(QUERIES, 8)
    vectors = dict(zip(ids.tolist(), BANK, strict=True))
    if removed and name.startswith("flat"):  # its vectors close ranks
        vectors = dict(enumerate(BANK[40:]))
    neighbours = np.stack([[vectors.get(i, BANK[0]) for i in row] for row in found.tolist()])
    bank = module(side, "retrieval").load_bank(written(tmp_path / "voice.index", index))
    assert bank.width == WIDTH
    assert np.abs(bank.retrieve(QUERIES) - weighted(neighbours, squared)).max() < 1e-5
    kept = BANK[40:] if removed else BANK
    everything = module(side, "retrieval").Bank(kept).retrieve(QUERIES)
    assert np.abs(bank.retrieve(QUERIES, exhaustive=True) - everything).max() < 1e-6
    restricted = index.nprobe < index.nlist if isinstance(index, faiss.IndexIVFFlat) else False
    assert (np.abs(bank.retrieve(QUERIES) - everything).max() > 1e-3) == restricted


@BOTH
def test_a_frame_whose_lists_are_empty_is_compared_with_all(side, tmp_path):
    """faiss finds nothing, and upstream makes that NaN."""
    index = inverted()
    _, nearest = index.quantizer.search(QUERIES[:1], 1)
    members = faiss.rev_swig_ptr(
        index.invlists.get_ids(int(nearest[0, 0])), index.invlists.list_size(int(nearest[0, 0]))
    )
    gone = members.copy()
    index.remove_ids(gone)
    assert (index.search(QUERIES[:1], 8)[1] == -1).all()
    bank = module(side, "retrieval").load_bank(written(tmp_path / "voice.index", index))
    want = module(side, "retrieval").Bank(np.delete(BANK, gone, axis=0)).retrieve(QUERIES[:1])
    assert np.abs(bank.retrieve(QUERIES[:1]) - want).max() < 1e-6


@pytest.mark.parametrize("block", [1, 1 << 9])
def test_blocks_change_nothing(tmp_path, monkeypatch, block):
    path, results = written(tmp_path / "voice.index", inverted(probes=2)), []
    for side in ("reference_torch", "rvc_mlx"):
        bank = module(side, "retrieval").load_bank(path)
        results.append(bank.retrieve(QUERIES))
        monkeypatch.setattr(module(side, "retrieval"), "BLOCK_VALUES", block)
        results.append(bank.retrieve(QUERIES))
    assert max(np.abs(result - results[0]).max() for result in results) < 1e-5


# ---------------------------------------------------------------------- files
@BOTH
def test_array_files(side, tmp_path):
    np.save(tmp_path / "voice.npy", BANK)
    retrieval = module(side, "retrieval")
    got = retrieval.load_bank(tmp_path / "voice.npy").retrieve(QUERIES)
    assert (got == retrieval.Bank(BANK).retrieve(QUERIES)).all()


def unusable(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that must be refused by name, and why."""
    whole = written(folder / "whole.index", inverted()).read_bytes()
    (folder / "cut.index").write_bytes(whole[:500])
    (folder / "other.index").write_bytes(b"not an index")
    (folder / "text.npy").write_bytes(b"not an array")
    np.save(folder / "cube.npy", np.zeros((2, 3, 4), np.float32))
    np.save(folder / "empty.npy", np.zeros((0, WIDTH), np.float32))
    untrained = faiss.IndexIVFFlat(faiss.IndexFlatL2(WIDTH), WIDTH, 8)
    emptied, products = inverted(), faiss.IndexIVFPQ(faiss.IndexFlatL2(WIDTH), WIDTH, 2, 4, 4)
    emptied.remove_ids(np.arange(len(BANK)))
    products.train(BANK)
    products.add(BANK)
    broken = faiss.IndexFlatL2(WIDTH)
    broken.add(np.full((1, WIDTH), np.nan, np.float32))
    inner = faiss.IndexFlatIP(WIDTH)
    inner.add(BANK)
    rotated = faiss.index_factory(WIDTH, "PCA4,IVF4,Flat")
    rotated.train(BANK)
    rotated.add(BANK)
    made = {
        "untrained": (untrained, "holds no vectors; it was never trained"),
        "emptied": (emptied, "holds no vectors"),
        "mapped": (faiss.IndexIDMap(faiss.IndexFlatL2(WIDTH)), "holds no vectors"),
        "products": (products, "IndexIVFPQ; only Flat and IVF,Flat"),
        "inner": (inner, "IndexFlat.*; only Flat and IVF,Flat"),
        "rotated": (rotated, "IndexPreTransform; only Flat and IVF,Flat"),
        "broken": (broken, "NaN or infinite"),
    }
    found = {name: (written(folder / f"{name}.index", index), why) for name, (index, why) in made.items()}
    return found | {
        "cut": (folder / "cut.index", "not a readable faiss index"),
        "other": (folder / "other.index", "not a readable faiss index"),
        "checkpoint": (folder / "voice.index", "not an index but a checkpoint"),
        "page": (folder / "page.index", "not an index but a web page"),
        "text": (folder / "text.npy", r"not a readable \.npy file"),
        "cube": (folder / "cube.npy", r"must hold vectors \[V, D\], not \[2, 3, 4\]"),
        "empty": (folder / "empty.npy", r"must hold vectors \[V, D\], not \[0, 16\]"),
        "missing": (folder / "missing.index", "no such file"),
    }


@BOTH
def test_files_that_cannot_be_used_are_named(side, tmp_path):
    (tmp_path / "voice.index").write_bytes(b"PK\x03\x04" + bytes(20))
    (tmp_path / "page.index").write_text("<!doctype html>")
    for name, (path, why) in unusable(tmp_path).items():
        with pytest.raises(ValueError, match=rf"index {path}:? .*{why}" if name != "missing" else why):
            module(side, "retrieval").load_bank(path)
    with pytest.raises(ValueError, match="NaN"):
        module(side, "retrieval").load_bank(np.full((3, 4), np.nan, np.float32))


@BOTH
def test_vectors_of_another_width_are_refused_before_the_work(side, tmp_path):
    path, seen = written(tmp_path / "voice.index", inverted()), []
    with pytest.raises(ValueError, match=rf"index {path} holds vectors of 16 values, this voice takes 128"):
        pipeline(side).convert(
            np.zeros(16000, np.float32), 16000, index=path, index_rate=1, watch=lambda name, _: seen.append(name)
        )
    assert seen == []


@BOTH
def test_a_conversion_can_search_everything(side, voice, tmp_path):
    bank = np.random.default_rng(2).standard_normal((300, 128)).astype(np.float32)
    index = faiss.index_factory(128, "IVF30,Flat")
    index.train(bank)
    index.add(bank)
    path = written(tmp_path / "voice.index", index)
    knobs = {"index_rate": 1.0, "f0": np.full(50, 200.0)}
    model, found = pipeline(side, windows={"x_pad": 0.1}), []
    for how in ({"index": path}, {"index": path, "exhaustive": True}, {"index": bank}):
        steps: dict[str, np.ndarray] = {}
        model.convert(voice[:8000], 16000, watch=steps.__setitem__, **knobs, **how)
        found.append(steps["segment.0.retrieved"])
    assert np.abs(found[1] - found[2]).max() < 1e-6
    assert np.abs(found[0] - found[2]).max() > 1e-2
