"""HuBERT's first convolutions on CPUs in stretches that stay in the cache.

Their arrays are by far the largest of the model, 22 million values for 13.5 s, and every elementwise
pass over one costs more than a product. The norm after the first convolution needs its mean and variance
over all time. Both follow from those of the ten samples that a window holds, so they are known
before anything is computed, and the norm becomes part of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from . import streams
from .keys import KERNELS, STRIDES
from .layers import Layer, Weights
from .runtime import mx

ROWS = 128  # outputs of the last of these convolutions that are made at a time
SHORTEST_SAMPLES = 1 << 15  # less audio takes one stage after the other
LAYERS = 3  # later ones are small


def tiled_extractor(weights: Weights, gelu: Layer, eps: float) -> Callable[[mx.array], mx.array]:
    """``[B, N, 1]`` to what the first ``LAYERS`` convolutions make of it, ``[B, T, 512]``."""
    names = [f"feature_extractor.conv_layers.{i}" for i in range(LAYERS)]
    kernel = weights.raw(f"{names[0]}.conv.weight")[:, 0]  # [512, 10]
    gain, bias = (np.asarray(weights.state[f"{names[0]}.layer_norm.{x}"], np.float64) for x in ("weight", "bias"))
    methods = weights.methods
    convolve = [weights.conv(f"{name}.conv", stride=STRIDES[i]) for i, name in enumerate(names) if i]

    def stretch(rows: mx.array, first: mx.array, low: int, high: int) -> mx.array:
        x = gelu(rows[low:high] @ first)[None]
        for layer in convolve:
            x = gelu(layer(x))
        return x[0]

    def item(samples: np.ndarray) -> mx.array:
        windows = np.lib.stride_tricks.sliding_window_view(samples, KERNELS[0])[:: STRIDES[0]]
        first = mx.array(normed(kernel, gain, bias, windows, eps).astype(np.float32))
        given = np.ones((len(windows), KERNELS[0] + 1), np.float32)
        given[:, :-1] = windows
        rows = mx.array(given)
        count, parts = len(windows), []
        for i in range(1, LAYERS):
            count = (count - KERNELS[i]) // STRIDES[i] + 1
        for start in range(0, count, ROWS):
            low, high = start, min(start + ROWS, count)
            for i in reversed(range(1, LAYERS)):
                low, high = low * STRIDES[i], (high - 1) * STRIDES[i] + KERNELS[i]
            parts.append(partial(stretch, rows, first, low, high))
        if "two_streams" in methods:
            return mx.concatenate(streams.in_turns(parts))
        return mx.concatenate([_begun(part()) for part in parts])

    return lambda x: mx.stack([item(samples) for samples in np.array(x[..., 0])])


def _begun(x: mx.array) -> mx.array:
    mx.async_eval(x)
    return x


def normed(kernel: np.ndarray, gain: np.ndarray, bias: np.ndarray, windows: np.ndarray, eps: float) -> np.ndarray:
    """``[K + 1, C]``: the kernel with the norm of its results in it, and their offset; in float64."""
    mean = windows.mean(axis=0, dtype=np.float64)
    centred = windows - mean
    # not a matrix product, which would start NumPy's threads
    covariance = np.einsum("ti,tj->ij", centred, centred) / len(windows)
    variance = np.einsum("ci,ij,cj->c", kernel, covariance, kernel)
    scale = gain / np.sqrt(variance + eps)
    return np.concatenate([(kernel * scale[:, None]).T, (bias - kernel @ mean * scale)[None]])
