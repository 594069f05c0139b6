"""Which weights a run uses: a real checkpoint, or seeded synthetic ones, made once and cached."""

from __future__ import annotations

import functools
import hashlib
import json
import lzma
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..base.errors import UserError
from ..base.files import write_whole
from ..base.paths import DATA, PACKAGE, ROOT
from . import recipe

MANIFESTS = DATA / "manifests"
# a trained RMVPE, compressed or not: next to the packages in a clone, inside this one in an installed wheel
SHIPPED = "rmvpe-small.safetensors"
# its name among a run's weights, where another network is timed
TRAINED_WEIGHTS = "pitch"
ASSETS = (ROOT / "assets", PACKAGE / "assets")
UPSTREAM_WIDTH, UPSTREAM_HIDDEN = 16, 256
FORMAT = "rvc-parity/1"
# a file that was left alone for so long is read once for its checksum, by every step of ``run all`` and a sweep
SETTLED_NS = 100_000_000


class Weights(NamedTuple):
    path: Path
    label: str
    sha256: str


def _manifest(name: str) -> dict[str, Any]:
    return recipe.load_manifest(MANIFESTS / f"{name}.json")


def _reduced(manifest: dict[str, Any], scale: Callable[[str, list[int]], list[int]], **config: Any) -> dict[str, Any]:
    """With every shape scaled, and other values in its configuration."""
    tensors = [entry | {"shape": scale(entry["key"], entry["shape"])} for entry in manifest["tensors"]]
    return manifest | {"tensors": tensors} | ({"config": manifest["config"] | config} if config else {})


def reduced_manifest(width: int, hidden: int) -> dict[str, Any]:
    """RMVPE's tensors at another width of the U-Net and another size of the GRU."""

    def scale(key: str, shape: list[int]) -> list[int]:
        if key.startswith("fc.0."):
            sizes = {3 * UPSTREAM_HIDDEN: 3 * hidden, UPSTREAM_HIDDEN: hidden}
            return [sizes.get(n, n) for n in shape]
        if key.startswith("fc."):
            return [shape[0], 2 * hidden] if key == "fc.1.weight" else shape
        # every channel count is a multiple of the width, no kernel size is
        return [n * width // UPSTREAM_WIDTH if n % UPSTREAM_WIDTH == 0 else n for n in shape]

    return _reduced(_manifest("rmvpe"), scale)


def reduced_hubert() -> dict[str, Any]:
    """HuBERT's tensors at width 128 (two heads), 32 convolution channels and a projection to 64."""
    sizes = {768: 128, 3072: 256, 512: 32, 256: 64}

    def scale(key: str, shape: list[int]) -> list[int]:
        if key.endswith("pos_conv_embed.conv.weight_v"):
            return [128, 8, shape[2]]
        if key.endswith("pos_conv_embed.conv.weight_g"):
            return shape
        return [sizes.get(n, n) for n in shape[:2]] + shape[2:]  # the rest are kernel sizes

    config = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "classifier_proj_size": 64}
    return _reduced(_manifest("hubert_contentvec"), scale, conv_dim=[32] * 7, **config)


def voice_manifest(name: str) -> dict[str, Any]:
    """A voice as its checkpoint holds it: without the posterior encoder, which only training needs."""
    manifest = _manifest(name)
    return manifest | {"tensors": [t for t in manifest["tensors"] if t["in_voice_checkpoint"]]}


def reduced_voice(name: str) -> dict[str, Any]:
    """A voice's tensors at a quarter of the encoder's and flow's width and an eighth of the vocoder's.
    It takes the features of ``reduced_hubert``: 128 wide, 64 for a v1 voice."""
    manifest = voice_manifest(name)
    phone = 64 if manifest["version"] == "v1" else 128

    def scale(key: str, shape: list[int]) -> list[int]:
        if key == "emb_g.weight":
            return [4, 32]
        if key == "enc_p.emb_phone.weight":
            return [48, phone]
        if key == "enc_p.emb_pitch.weight":
            return [shape[0], 48]
        if ".emb_rel_" in key:
            return [*shape[:2], 24]
        if key.startswith("dec."):
            return [48 if n == 192 else n // 8 if n % 8 == 0 else n for n in shape[:2]] + shape[2:]
        sizes = {192: 48, 384: 96, 96: 24} | ({768: 192} if key.startswith("enc_p.") else {1152: 288, 256: 32})
        return [sizes.get(n, n) for n in shape[:2]] + shape[2:]

    channels = {"inter_channels": 48, "hidden_channels": 48, "filter_channels": 192, "upsample_initial_channel": 64}
    found = _reduced(manifest, scale, **channels, spk_embed_dim=4, gin_channels=32)
    return found | {"config_list": list(found["config"].values()), "text_enc_hidden_dim": phone}


# of the self-test alone: Applio pads odd upsampling rates by a rule of their own
ODD_RATES = "odd_v2_44k_f0_applio"


def voice_names() -> list[str]:
    """Of the synthetic stock voices; manifests ``odd_*`` have upsampling rates that no published voice has."""
    return sorted(path.stem for path in MANIFESTS.glob("synth_*.json"))


def cache_folder(configured: str | None) -> Path:
    """Absolute, because workers have another working folder.

    Raises ``UserError``: none is configured, and no home folder is known."""
    try:
        default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rvc-parity"
    except RuntimeError:  # an unknown user without HOME
        default = None
    if not configured and default is None:
        raise UserError("no home folder is known for cached weights; set paths.cache=FOLDER or XDG_CACHE_HOME")
    return Path(configured or str(default)).expanduser().absolute()


def manifest_of(model: str, size: str, voice: str | None) -> dict[str, Any]:
    """The tensors of ``rmvpe``, ``hubert`` or ``voice`` in full or tiny size; ``voice``: the manifest's name."""
    if model == "rmvpe":
        return _manifest("rmvpe") if size == "full" else reduced_manifest(4, 64)
    if model == "hubert":
        return _manifest("hubert_contentvec") if size == "full" else reduced_hubert()
    assert voice is not None
    return voice_manifest(voice) if size == "full" else reduced_voice(voice)


def find_weights(model: str, path: str | None, seed: int, size: str, voice: str | None, cache: Path) -> Weights:
    """The checkpoint to load: the user's file, or a synthetic one from the cache.

    Raises ``UserError``: the file is missing, or the cache cannot be written."""
    if path is not None:
        real = Path(path).expanduser()
        if not real.exists():
            raise UserError(f"weights.{model}={path}: no such file")
        return Weights(real.resolve(), f"{model}: {real.name}", sha256(real))
    stem = voice if model == "voice" else model
    target = cache / f"{stem}-{size}-seed{seed}-recipe{recipe.RECIPE_VERSION}.safetensors"

    def make(part: Path) -> None:
        from safetensors.numpy import save_file

        manifest = manifest_of(model, size, voice)
        save_file(recipe.make_state_dict(manifest, seed), part, metadata=metadata(model, manifest))
        _sort_metadata(part)

    label = f"{stem}: synthetic, seed {seed}, {size} size (time and parity only)"
    return Weights(target, label, cached(target, make))


def shipped(cache: Path) -> Weights:
    """The trained RMVPE of reduced width that comes with the project, decompressed into ``cache`` on first use.

    Raises ``UserError``: it is not there, or the cache cannot be written."""
    path = shipped_file()
    if path is None:
        raise UserError(f"the trained RMVPE {ASSETS[0] / SHIPPED} is missing; name another one: weights.rmvpe=FILE")
    if path.suffix == ".xz":
        packed, path = path, cache / sha256(path)[:12] / SHIPPED
        cached(path, lambda part: part.write_bytes(lzma.decompress(packed.read_bytes())))
    return Weights(path, f"rmvpe: {SHIPPED}, trained, reduced width", sha256(path))


def shipped_file() -> Path | None:
    files = (folder / name for folder in ASSETS for name in (SHIPPED, f"{SHIPPED}.xz"))
    return next((file for file in files if file.is_file()), None)


def is_shipped(found: Weights, cache: Path) -> bool:
    return shipped_file() is not None and shipped(cache).sha256 == found.sha256


def metadata(model: str, manifest: dict[str, Any]) -> dict[str, str]:
    """What a .safetensors file says of itself; the loaders read it. A voice needs more than its tensors."""
    found = {"format": FORMAT, "model": model, "recipe": str(recipe.RECIPE_VERSION)}
    if model == "voice":
        config = manifest["config"]
        found |= {"config": json.dumps(config), "version": manifest["version"], "f0": str(manifest["f0"])}
        found |= {"vocoder": manifest["vocoder"], "sample_rate": str(config["sr"])}
    return found


def _sort_metadata(path: Path) -> None:
    """Safetensors writes metadata in any order: sorted, the same weights are the same file, whoever made it."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)
        assert len(text) == size
        file.seek(8)
        file.write(text)


def cached(target: Path, write: Callable[[Path], object]) -> str:
    """The checksum of a cached file, made where it is missing or no longer what was written.

    Runs that make it at once make the same."""
    note = target.with_name(f"{target.name}.sha256")
    try:
        if target.is_file():
            found, known = sha256(target), note.read_bytes() if note.is_file() else None
            if known == found.encode():
                return found
            if known is not None:
                print(f"cached file {target} is not what was written: made anew", file=sys.stderr)
        _write_cached(target, write)
        write_whole(note, found := sha256(target))
    except OSError as error:
        raise UserError(f"cannot use the cached file {target}: {error.strerror}; set paths.cache=FOLDER") from None
    return found


def _write_cached(target: Path, write: Callable[[Path], object]) -> None:
    from safetensors import SafetensorError

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            part = Path(scratch) / target.name
            write(part)
            part.rename(target)  # whole or not at all
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write the cached weights {target}: {why}; set paths.cache=FOLDER") from None


def sha256(path: Path) -> str:
    """Of a file's content, read once as long as the file stays as it is; of a folder (HuBERT's may be one), of its
    files' names and contents."""
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        return hashlib.sha256("".join(f"{p.relative_to(path)} {sha256(p)}\n" for p in inside).encode()).hexdigest()
    about = path.stat()
    facts = about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
    # what is changed twice within a tick of the file system's clock looks unchanged
    settled = time.time_ns() - max(about.st_mtime_ns, about.st_ctime_ns) > SETTLED_NS
    return _of_file(path, facts) if settled else _of_file.__wrapped__(path, facts)


@functools.lru_cache(maxsize=64)
def _of_file(path: Path, facts: tuple[int, ...]) -> str:
    """``facts``: of the file, by which a change of it shows."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
