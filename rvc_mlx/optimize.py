"""The named optimisations: each can be turned off, so that its gain and error can be measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Optimization(NamedTuple):
    """What it does, and where it applies."""

    summary: str
    models: tuple[str, ...]
    cpu: bool
    gpu: bool
    float32_only: bool = False


OPTIMIZATIONS = {
    "fold_norm": Optimization(
        "batch norms folded into the convolutions before them", models=("rmvpe",), cpu=True, gpu=True
    ),
    "fuse_elementwise": Optimization(
        "chains of elementwise operations in one compiled kernel",
        models=("rmvpe", "hubert", "synthesizer"),
        cpu=False,
        gpu=True,
    ),
    "polyphase": Optimization(
        "transposed convolutions as matrix products and an interleave",
        models=("rmvpe", "synthesizer"),
        cpu=True,
        gpu=True,
    ),
    "gemm_conv": Optimization(
        "convolutions as chained matrix products, norms folded",
        models=("rmvpe", "hubert", "synthesizer"),
        cpu=True,
        gpu=False,
        float32_only=True,
    ),
    "rational_erf": Optimization(
        "GELU's error function as a quotient of polynomials",
        models=("hubert",),
        cpu=True,
        gpu=False,
        float32_only=True,
    ),
    "block_attention": Optimization(
        "attention in blocks that fit the cache, with an exponential of its own",
        models=("hubert",),
        cpu=True,
        gpu=False,
        float32_only=True,
    ),
    "compile_gru": Optimization("32 GRU steps at a time as one compiled graph", models=("rmvpe",), cpu=True, gpu=False),
    "gru_kernel": Optimization("all GRU steps in one GPU kernel", models=("rmvpe",), cpu=False, gpu=True),
    "tile": Optimization(
        "bounded memory: long inputs through the U-Net or the decoder in overlapping tiles",
        models=("rmvpe", "synthesizer"),
        cpu=True,
        gpu=True,
    ),
}


def resolve(selection: Iterable[str] | str, model: str, *, gpu: bool, dtype: str) -> frozenset[str]:
    """``"all"``, ``"none"`` or a list of names to those that apply to this model, device and type.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(selection, str):
        selection = {"all": list(OPTIMIZATIONS), "none": []}.get(selection, [selection])
    names = list(selection)
    unknown = [name for name in names if name not in OPTIMIZATIONS]
    if unknown:
        raise ValueError(f"unknown optimisation {unknown[0]!r}: one of {', '.join(OPTIMIZATIONS)}, all or none")

    def applies(name: str) -> bool:
        one = OPTIMIZATIONS[name]
        return model in one.models and (one.gpu if gpu else one.cpu) and (dtype == "float32" or not one.float32_only)

    return frozenset(name for name in names if applies(name))
