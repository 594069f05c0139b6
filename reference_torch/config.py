"""Sizes of a synthesizer, as a voice checkpoint states them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .checkpoint import VOCODERS, CheckpointError, named_config

HIFIGAN, MRF, REFINEGAN = VOCODERS
POSTERIOR_LAYERS, POSTERIOR_KERNEL = 16, 5


@dataclass(frozen=True)
class SynthesizerConfig:
    """Upstream's names; rates, kernels and dilations are per upsampling stage or per residual branch."""

    inter_channels: int
    hidden_channels: int
    filter_channels: int
    n_heads: int
    n_layers: int
    kernel_size: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    upsample_rates: tuple[int, ...]
    upsample_initial_channel: int
    upsample_kernel_sizes: tuple[int, ...]
    spk_embed_dim: int
    gin_channels: int
    spec_channels: int
    sample_rate: int
    phone_channels: int
    version: str
    has_f0: bool
    vocoder: str

    @property
    def hop_samples(self) -> int:
        """Samples of audio per frame."""
        return math.prod(self.upsample_rates)

    @classmethod
    def make(
        cls,
        config: Mapping[str, Any] | Sequence[Any],
        state: Mapping[str, np.ndarray],
        version: str,
        f0: bool,
        vocoder: str,
    ) -> SynthesizerConfig:
        """From upstream's 18 values (a list or a dict), what is stored beside them, and the weights.

        The number of speakers and the width of the content features are read off the weights.

        Raises:
            CheckpointError: values that make no synthesizer.
        """
        named = named_config(config)
        if version not in ("v1", "v2") or vocoder not in VOCODERS:
            raise CheckpointError(f"unknown version or vocoder: {version!r}, {vocoder!r}")
        if not f0 and vocoder != HIFIGAN:
            raise CheckpointError(f"the vocoder {vocoder} exists only with pitch")
        if str(named["resblock"]) != "1":
            raise CheckpointError(f"resblock {named['resblock']!r} is not supported, only '1'")
        speakers, phone = state.get("emb_g.weight"), state.get("enc_p.emb_phone.weight")
        width = (768 if version == "v2" else 256) if phone is None else phone.shape[-1]
        if width == (256 if version == "v2" else 768):
            raise CheckpointError(f"version {version}, but the weights take features of {width} values")
        sizes = {name: int(named[name]) for name in cls.__dataclass_fields__ if name in named and name in _NUMBERS}
        return cls(
            **sizes | {"spk_embed_dim": named["spk_embed_dim"] if speakers is None else speakers.shape[0]},
            resblock_kernel_sizes=tuple(named["resblock_kernel_sizes"]),
            resblock_dilation_sizes=tuple(tuple(d) for d in named["resblock_dilation_sizes"]),
            upsample_rates=tuple(named["upsample_rates"]),
            upsample_kernel_sizes=tuple(named["upsample_kernel_sizes"]),
            sample_rate=int(named["sr"]),
            phone_channels=width,
            version=version,
            has_f0=bool(f0),
            vocoder=vocoder,
        )

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels after each upsampling stage."""
        return tuple(self.upsample_initial_channel >> (i + 1) for i in range(len(self.upsample_rates)))

    def upsampling(self, i: int, profile: str) -> tuple[int, int]:
        """Padding and output padding of the i-th transposed convolution.

        Odd rates gained an output padding in Applio, with pitch; the WebUI treats all alike.
        """
        rate, kernel = self.upsample_rates[i], self.upsample_kernel_sizes[i]
        if rate % 2 and self.has_f0 and profile == "applio":
            return rate // 2 + 1, 1
        return (kernel - rate) // 2, 0

    def noise_convolution(self, i: int, profile: str) -> tuple[int, int, int]:
        """Kernel, stride and padding that bring the source to the i-th stage's rate."""
        stride = math.prod(self.upsample_rates[i + 1 :])
        if stride == 1:
            return 1, 1, 0
        if profile == "webui":
            return 2 * stride, stride, stride // 2
        kernel = 2 * stride - stride % 2
        return kernel, stride, (kernel - stride) // 2

    def posterior_shapes(self) -> dict[str, tuple[int, ...]]:
        """The posterior encoder's keys: training needs it, conversion does not, some files have it."""
        c, g, out = self.hidden_channels, self.gin_channels, self.inter_channels
        shapes: dict[str, tuple[int, ...]] = {
            "pre.weight": (c, self.spec_channels, 1),
            "pre.bias": (c,),
            "proj.weight": (2 * out, c, 1),
            "proj.bias": (2 * out,),
        }

        def normed(name: str, c_out: int, c_in: int, kernel: int) -> None:
            shapes.update({f"{name}.bias": (c_out,), f"{name}.weight_g": (c_out, 1, 1)})
            shapes[f"{name}.weight_v"] = (c_out, c_in, kernel)

        normed("enc.cond_layer", 2 * c * POSTERIOR_LAYERS, g, 1)
        for i in range(POSTERIOR_LAYERS):
            normed(f"enc.in_layers.{i}", 2 * c, c, POSTERIOR_KERNEL)
            normed(f"enc.res_skip_layers.{i}", c if i == POSTERIOR_LAYERS - 1 else 2 * c, c, 1)
        return {f"enc_q.{name}": shape for name, shape in shapes.items()}


_NUMBERS = (
    "inter_channels", "hidden_channels", "filter_channels", "n_heads", "n_layers", "kernel_size",
    "upsample_initial_channel", "spk_embed_dim", "gin_channels", "spec_channels",
)  # fmt: skip
