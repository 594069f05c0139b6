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


_RMVPE, _HUBERT, _CONVOLUTIONAL, _ALL = (
    ("rmvpe",), ("hubert",), ("rmvpe", "synthesizer"), ("rmvpe", "hubert", "synthesizer"),
)  # fmt: skip
OPTIMIZATIONS = {
    "fold_norm": Optimization("batch norms folded into the convolutions before them", _RMVPE, cpu=True, gpu=True),
    "fuse_elementwise": Optimization(
        "chains of elementwise operations in one compiled kernel", _ALL, cpu=False, gpu=True
    ),
    "polyphase": Optimization(
        "transposed convolutions as matrix products and an interleave", _CONVOLUTIONAL, cpu=True, gpu=True
    ),
    "gemm_conv": Optimization(
        "convolutions as chained matrix products, norms folded", _ALL, cpu=True, gpu=False, float32_only=True
    ),
    "rational_erf": Optimization(
        "GELU's error function as a quotient of polynomials", _HUBERT, cpu=True, gpu=False, float32_only=True
    ),
    "tile_extractor": Optimization(
        "HuBERT's first convolutions in stretches that fit the cache, with the norm in the kernel",
        _HUBERT, cpu=True, gpu=False, float32_only=True,
    ),
    "block_groups": Optimization(
        "HuBERT's grouped convolution as products of blocks of four frames",
        _HUBERT, cpu=True, gpu=False, float32_only=True,
    ),
    "block_attention": Optimization(
        "attention in blocks that fit the cache, with an exponential of its own",
        ("hubert", "synthesizer"), cpu=True, gpu=False, float32_only=True,
    ),
    "exponential_gate": Optimization(
        "the flow's gates by an exponential of its own", ("synthesizer",), cpu=True, gpu=False, float32_only=True
    ),
    "two_streams": Optimization(
        "halves of HuBERT's frames, the text encoder's heads and the decoder's tiles on two CPU streams, each with half"
        " of the BLAS's threads",
        ("hubert", "synthesizer"), cpu=True, gpu=False, float32_only=True,
    ),
    "compile_gru": Optimization("32 GRU steps at a time as one compiled graph", _RMVPE, cpu=True, gpu=False),
    "gru_kernel": Optimization("all GRU steps in one GPU kernel", _RMVPE, cpu=False, gpu=True),
    "fused_conv": Optimization(
        "convolutions with what surrounds them in one GPU kernel, on CUDA with tensor cores",
        _ALL, cpu=False, gpu=True,
    ),
    "compile_network": Optimization(
        "a network's calls recorded once for each length, then replayed", _ALL, cpu=False, gpu=True
    ),
    "tile": Optimization(
        "bounded memory: long inputs through the U-Net or the decoder in overlapping tiles",
        _CONVOLUTIONAL, cpu=True, gpu=True,
    ),
}  # fmt: skip


def resolve(selection: Iterable[str] | str, model: str, *, gpu: bool, dtype: str) -> frozenset[str]:
    """``"all"``, ``"none"`` or a list of names to those that apply to this model, device and type.

    Raises ``ValueError``: an unknown name."""
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
