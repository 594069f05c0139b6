"""Which weights a run uses: a real checkpoint, or seeded synthetic ones, made once and cached."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from . import recipe
from .errors import UserError

MANIFESTS = Path(__file__).parent / "data" / "manifests"
UPSTREAM_WIDTH, UPSTREAM_HIDDEN = 16, 256


class Weights(NamedTuple):
    path: Path
    label: str
    sha256: str


def reduced_manifest(width: int, hidden: int) -> dict[str, Any]:
    """RMVPE's tensors at another width of the U-Net and another size of the GRU."""
    manifest = recipe.load_manifest(MANIFESTS / "rmvpe.json")

    def scale(key: str, shape: list[int]) -> list[int]:
        if key.startswith("fc.0."):
            sizes = {3 * UPSTREAM_HIDDEN: 3 * hidden, UPSTREAM_HIDDEN: hidden}
            return [sizes.get(n, n) for n in shape]
        if key == "fc.1.weight":
            return [shape[0], 2 * hidden]
        if key.startswith("fc."):
            return shape
        # every channel count is a multiple of the width, no kernel size is
        return [n * width // UPSTREAM_WIDTH if n % UPSTREAM_WIDTH == 0 else n for n in shape]

    tensors = [entry | {"shape": scale(entry["key"], entry["shape"])} for entry in manifest["tensors"]]
    return manifest | {"tensors": tensors}


def cache_folder(configured: str | None) -> Path:
    if configured:
        return Path(configured).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rvc-parity"


def rmvpe_weights(path: str | None, seed: int, width: int, hidden: int, cache: Path) -> Weights:
    """The checkpoint to load.

    Raises:
        UserError: the file is missing, or the cache cannot be written.
    """
    if path is not None:
        real = Path(path).expanduser()
        if not real.is_file():
            raise UserError(f"weights.rmvpe={path}: no such file")
        return Weights(real.resolve(), f"checkpoint {real.name}", sha256(real))
    name = f"rmvpe-w{width}-h{hidden}-seed{seed}-recipe{recipe.RECIPE_VERSION}.safetensors"
    target = cache / name
    if not target.is_file():
        _generate(reduced_manifest(width, hidden), seed, target)
    size = "full size" if (width, hidden) == (UPSTREAM_WIDTH, UPSTREAM_HIDDEN) else f"width {width}, hidden {hidden}"
    return Weights(target, f"synthetic, seed {seed}, {size} (no pitch to find: timing and parity only)", sha256(target))


def _generate(manifest: dict[str, Any], seed: int, target: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            part = Path(scratch) / target.name
            save_file(recipe.make_state_dict(manifest, seed), part, metadata={"recipe": str(recipe.RECIPE_VERSION)})
            part.rename(target)  # whole or not at all
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write the cached weights {target}: {error}; set paths.cache=FOLDER") from None


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
