"""Packed vectors: inputs and outputs bit for bit, large intermediates by their ends and statistics."""

from __future__ import annotations

import io
import json
import lzma
from pathlib import Path

import numpy as np

from suites.inputs import recipe
from tools.pack_golden import pack


def test_packing(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    made = recipe.make_draw(5, 0, "normal", (1, 300))
    draws = [{"index": index, "kind": "normal", "shape": [1, 300]} for index in (0, 1)]
    meta = {"draw_seed": 5, "draws_not_stored": [], "edge": 48, "draws": draws}
    arrays = {
        "in.x": rng.normal(size=(3, 5000)).astype(np.float32),
        "draw.0": made,
        "draw.1": np.nextafter(made, np.float32(9)),  # not what its seed gives
        "mid.big": rng.normal(size=(8, 1000)).astype(np.float32),
        "mid.small": rng.normal(size=(8, 10)).astype(np.float32),
        "mid.code": np.arange(9000),
        "mid.log_mel": rng.normal(size=(8, 1000)).astype(np.float32),
        "mid_head.cut": rng.normal(size=(64, 48)).astype(np.float32),
        "mid_tail.cut": rng.normal(size=(64, 48)).astype(np.float32),
        "mid_stats.cut": np.arange(3.0),
        "out.y": rng.normal(size=(3, 5000)).astype(np.float32),
    }
    path = tmp_path / "vector.npz"
    np.savez_compressed(path, **arrays, meta=np.array(json.dumps(meta)))
    packed = pack(path)
    assert not path.exists()
    with np.load(io.BytesIO(lzma.decompress(packed.read_bytes()))) as stored:
        found = {name: stored[name] for name in stored.files}
    told = json.loads(str(found.pop("meta")))
    assert told["draws_not_stored"] == [0]
    assert told["truncated_shapes"] == {"big": [8, 1000]}
    big, ends = arrays["mid.big"], 128  # 2048 values: 8 rows, two ends
    expected = {name: a for name, a in arrays.items() if name not in ("draw.0", "mid.big")} | {
        "mid_head.big": big[:, :ends],
        "mid_tail.big": big[:, -ends:],
        "mid_stats.big": np.array([big.mean(dtype=float), big.astype(float).std(), np.abs(big).max()]),
        "mid_head.cut": arrays["mid_head.cut"][:, :16],
        "mid_tail.cut": arrays["mid_tail.cut"][:, -16:],
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values), name
