"""The checkpoints that a run loads: given, synthetic, or the included trained network; perhaps in fewer bits."""

from __future__ import annotations

from pathlib import Path

from ..definitions import SUITES
from ..definitions.config import Config
from ..inputs.checkpoints import write_quantized
from ..inputs.weights import TRAINED_WEIGHTS, Weights, cache_folder, cached, find_weights, shipped, shipped_file

QUANTIZED = ("rmvpe", "hubert", "voice")


def weights_of(config: Config) -> dict[str, Weights]:
    """The weights that the suite loads, by name; an index only where one was given. What ``quantize`` names is in a
    file of the cache.

    Raises ``UserError``: a file is missing or no checkpoint, or the cache cannot be written."""
    found, bits_of = _chosen(config), {kind: getattr(config.quantize, kind) for kind in QUANTIZED}
    kinds = {name: "rmvpe" if name == TRAINED_WEIGHTS else name for name in found}
    return {
        name: _in_fewer_bits(one, kinds[name], bits, config.quantize.group, cache_folder(config.paths.cache))
        if (bits := bits_of.get(kinds[name]))
        else one
        for name, one in found.items()
    }


def _chosen(config: Config) -> dict[str, Weights]:
    suite = SUITES[config.suite.name]
    if suite.trained and config.weights.rmvpe is None:
        return {"rmvpe": shipped(cache_folder(config.paths.cache))}
    given, folder = config.weights.given(), cache_folder(config.paths.cache)
    voice = getattr(config.suite, "voice", None)
    found = {
        name: find_weights(name, given.get(name), config.weights.seed, config.measure.model, voice, folder)
        for name in (*suite.checkpoints, *(["index"] if "index" in given else []))
    }
    if suite.trained_calls and "rmvpe" not in given and shipped_file() is not None:
        found[TRAINED_WEIGHTS] = shipped(folder)
    return found


def _in_fewer_bits(weights: Weights, kind: str, bits: int, group: int, cache: Path) -> Weights:
    target = cache / f"{kind}-{weights.sha256[:16]}-{bits}bit-{group}.safetensors"
    digest = cached(target, lambda part: write_quantized(weights.path, part, kind, bits, group))
    return Weights(target, f"{weights.label}, in {bits} bits", digest)
