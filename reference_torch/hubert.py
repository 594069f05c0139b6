"""HuBERT / ContentVec content features in PyTorch: the plain reference.

Method: Hsu et al., "HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction
of Hidden Units" (2021), base size; keys as in Hugging Face's ``HubertModel`` with upstream's
``final_proj``. Shapes: B = batch, N = samples at 16 kHz, H = 20 ms frames.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from rvc_common import hubert
from rvc_common.config import HEAD_CHANNELS, HubertConfig
from rvc_common.stages import FEATURES, SAMPLES, Carry, Stage, group, leaf, plus, residual

from .files import read_file
from .layers import Undrawn, load_weights, numbered, weight_normed
from .model import Model

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
POSITION_KERNEL, POSITION_GROUPS = 128, 16
NORM_EPS = 1e-5


class ConvLayer(nn.Module):
    """Strided convolution without bias, on the first layer a norm per channel over time, GELU."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(c_in, c_out, kernel, stride, bias=False)
        self.layer_norm = nn.GroupNorm(c_out, c_out, NORM_EPS) if c_in == 1 else None

    def stages(self) -> tuple[Stage, ...]:
        norm = () if self.layer_norm is None else (leaf("layer_norm", self.layer_norm),)
        return (leaf("conv", self.conv), *norm, leaf("gelu", gelu))


class FeatureExtractor(nn.Module):
    """``[B, 1, N] -> [B, 512, H]``."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        c = config.conv_channels
        self.conv_layers = nn.ModuleList(
            ConvLayer(1 if i == 0 else c, c, kernel, stride)
            for i, (kernel, stride) in enumerate(zip(KERNELS, STRIDES, strict=True))
        )

    def stages(self) -> tuple[Stage, ...]:
        return numbered("conv_layers", self.conv_layers)


class PositionalConvolution(nn.Module):
    """Grouped convolution over 128 frames, the one frame too many dropped, GELU: ``[B, H, C] -> [B, H, C]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv1d(channels, channels, POSITION_KERNEL, padding=POSITION_KERNEL // 2, groups=POSITION_GROUPS)
        self.conv = weight_normed(conv, kept_axis=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return gelu(self.conv(x.transpose(1, 2))[:, :, :-1]).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(channels, channels) for _ in range(4))
        self.heads = channels // HEAD_CHANNELS

    def stages(self) -> tuple[Stage, ...]:
        def attend(carry: Carry) -> None:
            q, k, v = (carry.pop(name).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in "qkv")
            carry["x"] = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

        projections = (leaf(f"{name}_proj", getattr(self, f"{name}_proj"), name, of="x") for name in "qkv")
        return (*projections, Stage(":attended", attend), leaf("out_proj", self.out_proj))


class EncoderLayer(nn.Module):
    """Attention, add, norm, feed-forward, add, norm."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.attention = Attention(config.channels)
        self.layer_norm = nn.LayerNorm(config.channels, NORM_EPS)
        c, wide = config.channels, config.filter_channels
        dense = {"intermediate_dense": nn.Linear(c, wide), "output_dense": nn.Linear(wide, c)}
        self.feed_forward = nn.ModuleDict(dense)
        self.final_layer_norm = nn.LayerNorm(config.channels, NORM_EPS)

    def stages(self) -> tuple[Stage, ...]:
        first, last = (leaf(name, layer) for name, layer in self.feed_forward.items())
        return (
            *residual("attention", self.attention.stages()),
            leaf("layer_norm", self.layer_norm),
            *residual("feed_forward", (first, leaf("gelu", gelu), last)),
            leaf("final_layer_norm", self.final_layer_norm),
        )


class Encoder(nn.Module):
    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.pos_conv_embed = PositionalConvolution(config.channels)
        self.layer_norm = nn.LayerNorm(config.channels, NORM_EPS)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))

    def stages(self, layers: int) -> tuple[Stage, ...]:
        return (
            leaf("pos_conv_embed", self.pos_conv_embed, "position", of="x"),
            plus("pos_conv_embed:sum", "position"),
            leaf("layer_norm", self.layer_norm),
            *numbered("layers", self.layers[:layers]),
        )


class Network(nn.Module):
    """``[B, 1, N] -> [B, H, 768]``, and ``final_proj`` to 256."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.feature_extractor = FeatureExtractor(config)
        norm, linear = nn.LayerNorm(config.conv_channels, NORM_EPS), nn.Linear(config.conv_channels, config.channels)
        self.feature_projection = nn.ModuleDict({"layer_norm": norm, "projection": linear})
        self.encoder = Encoder(config)
        self.final_proj = None if config.projected is None else nn.Linear(config.channels, config.projected)

    def extracting(self) -> tuple[Stage, ...]:
        return (
            group("feature_extractor", self.feature_extractor.stages(), axes=SAMPLES),
            leaf("transpose", lambda x: x.transpose(1, 2), axes=FEATURES),
        )

    def encoding(self, layers: int, project: bool) -> tuple[Stage, ...]:
        last = (leaf("final_proj", self.final_proj, axes=FEATURES),) if project and self.final_proj is not None else ()
        parts = tuple(leaf(name, layer) for name, layer in self.feature_projection.items())
        projection = group("feature_projection", parts, axes=FEATURES)
        return (projection, group("encoder", self.encoder.stages(layers), axes=FEATURES), *last)


class Hubert(Model, hubert.Hubert):
    __doc__ = hubert.Hubert.__doc__
    read_file = staticmethod(read_file)

    def __init__(
        self, state: Mapping[str, np.ndarray], config: HubertConfig, *, dtype: str = "float32", device: str = "cpu"
    ) -> None:
        self._place(dtype, device)
        self.config = config
        with Undrawn():
            self.network = Network(config)
        load_weights("HuBERT", self.network, state, self.dtype, self.device, config.unused_shapes(state))
        self.extracting, self._encoding_stages = self.network.extracting(), self.network.encoding

    def _entered(self, audio: np.ndarray) -> Carry:
        return {"x": self.to_device(audio).reshape(-1, 1, audio.shape[-1])}
