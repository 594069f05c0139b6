"""Shrinks golden vectors: ``python -m tools.pack_golden FILE.npz...`` turns each into a smaller FILE.npz.xz.

Inputs and outputs stay bit for bit. Draws that ``recipe.make_draw`` reproduces bit for bit are dropped. Of a large
intermediate the first and last entries of the last axis stay, with its mean, standard deviation and largest magnitude.
"""

from __future__ import annotations

import io
import json
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np

from rvc_common.outputs import whole
from suites.base.files import read_arrays
from suites.inputs import recipe

# of one intermediate: about how many values stay, and the fewest entries of the last axis at either end
VALUES, LEAST = 2048, 4
# a test feeds it to the next stage
WHOLE = ("log_mel",)
# four-byte values: the coder's contexts follow the place of a byte within its value
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 2, "pb": 2}]

Arrays = dict[str, np.ndarray]


def without_draws(arrays: Arrays, meta: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """All but the draws that their seed gives again, which ``meta`` then lists as not stored."""
    made = [d for d in meta["draws"] if f"draw.{d['index']}" in arrays and _reproduced(arrays, meta["draw_seed"], d)]
    gone = {f"draw.{d['index']}" for d in made}
    listed = sorted({*meta["draws_not_stored"], *(d["index"] for d in made)})
    return {name: a for name, a in arrays.items() if name not in gone}, meta | {"draws_not_stored": listed}


def _reproduced(arrays: Arrays, seed: int, draw: dict[str, Any]) -> bool:
    again = recipe.make_draw(seed, draw["index"], draw["kind"], tuple(draw["shape"]))
    stored = arrays[f"draw.{draw['index']}"]
    return (again.dtype, again.shape, again.tobytes()) == (stored.dtype, stored.shape, stored.tobytes())


def without_middles(arrays: Arrays, meta: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """Large intermediates by their head, tail and summary; heads and tails stored already are shortened."""
    kept: Arrays = {}
    shapes = dict(meta.get("truncated_shapes", {}))
    for name, values in arrays.items():
        group, _, path = name.partition(".")
        if not group.startswith("mid") or group == "mid_stats" or path in WHOLE or values.ndim == 0:
            kept[name] = values
            continue
        size = values.shape[-1]
        ends = max(LEAST if size > 2 * LEAST + 1 else 1, VALUES * size // (2 * values.size))
        if group == "mid_head":
            kept[name] = values[..., :ends]
        elif group == "mid_tail":
            kept[name] = values[..., -ends:]
        elif values.size <= VALUES or size <= 2 * ends or values.dtype.kind != "f":
            kept[name] = values
        else:
            kept[f"mid_head.{path}"], kept[f"mid_tail.{path}"] = values[..., :ends], values[..., -ends:]
            wide = values.astype(np.float64)
            kept[f"mid_stats.{path}"] = np.array([wide.mean(), wide.std(), np.abs(wide).max()])
            shapes[path] = list(values.shape)
    return kept, {key: value for key, value in meta.items() if key != "edge"} | {"truncated_shapes": shapes}


def pack(path: Path) -> Path:
    """Write ``path`` with ``.xz`` added, and remove ``path``."""
    arrays = read_arrays(path)
    meta = json.loads(str(arrays.pop("meta")))
    arrays, meta = without_middles(*without_draws(arrays, meta))
    content = io.BytesIO()
    np.savez(content, **arrays, meta=np.array(json.dumps(meta)))
    packed = path.with_name(f"{path.name}.xz")
    with whole(packed) as part:
        part.write_bytes(lzma.compress(content.getvalue(), filters=FILTERS))
    path.unlink()
    return packed


if __name__ == "__main__":
    try:
        for name in sys.argv[1:]:
            print(pack(Path(name)))
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
