"""The synthesizer's text encoder in PyTorch: content features and coarse pitch to the prior.

Windowed relative attention: Shaw et al., "Self-Attention with Relative Position Representations"
(2018), as in VITS (Kim et al., 2021); behaviour and keys as in IAHispano/Applio, revision b9c0ccb.
Shapes: B = batch, T = 10 ms frames, C = hidden channels, h = heads.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import leaky_relu, pad

from rvc_common.config import SynthesizerConfig
from rvc_common.stages import FEATURES, HEADS, SCORES, Carry, Stage, group, leaf, residual

WINDOW = 10
PITCH_CODES = 256
NORM_EPS = 1e-5
MASKED_SCORE = -1e4
SLOPE = 0.1


class ChannelNorm(nn.Module):
    """Layer norm over the channels of ``[B, C, T]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.transpose(1, 2)
        return nn.functional.layer_norm(x, self.gamma.shape, self.gamma, self.beta, NORM_EPS).transpose(1, 2)


class RelativeAttention(nn.Module):
    """Self-attention with relative positions of up to ten frames in logits and outputs; larger ones add nothing."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_channels = heads, channels // heads
        self.conv_q, self.conv_k, self.conv_v, self.conv_o = (nn.Conv1d(channels, channels, 1) for _ in range(4))
        self.emb_rel_k = nn.Parameter(torch.zeros(1, 2 * WINDOW + 1, self.head_channels))
        self.emb_rel_v = nn.Parameter(torch.zeros(1, 2 * WINDOW + 1, self.head_channels))

    def stages(self) -> tuple[Stage, ...]:
        """From ``x [B, C, T]`` and ``mask [B, 1, T]``."""
        return (
            *(leaf(f"conv_{name}", getattr(self, f"conv_{name}"), name, of="x") for name in "qkv"),
            Stage(":relative_scores", self._relative_scores, product="relative_scores", axes=SCORES),
            Stage(":scores", self._scores, product="scores", axes=SCORES, ranks=True),
            Stage(":weights", self._weights, product="weights", axes=SCORES, ranks=True),
            leaf(":relative_output", self._relative_output, "relative_output", of="weights", axes=HEADS),
            Stage(":attended", self._attended),
            leaf("conv_o", self.conv_o),
        )

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, C, T] -> [B, h, T, C / h]``."""
        # exporters of the legacy kind would fix T in ``unflatten``
        return x.reshape(x.shape[0], self.heads, self.head_channels, x.shape[2]).transpose(2, 3)

    def _relative_scores(self, carry: Carry) -> None:
        carry["q"] = self._split(carry["q"]) / math.sqrt(self.head_channels)
        by_offset = carry["q"] @ self.emb_rel_k.transpose(1, 2)  # [B, h, T, 21]
        carry["relative_scores"] = offsets_to_keys(by_offset)

    def _scores(self, carry: Carry) -> None:
        scores = carry.pop("q") @ self._split(carry.pop("k")).transpose(2, 3) + carry.pop("relative_scores")
        mask = carry["mask"]
        both = mask.unsqueeze(2) * mask.unsqueeze(-1)
        carry["scores"] = scores.masked_fill(both == 0, MASKED_SCORE)

    def _weights(self, carry: Carry) -> None:
        carry["weights"] = carry.pop("scores").softmax(dim=-1)

    def _relative_output(self, weights: torch.Tensor) -> torch.Tensor:
        return keys_to_offsets(weights) @ self.emb_rel_v

    def _attended(self, carry: Carry) -> None:
        output = carry.pop("weights") @ self._split(carry.pop("v")) + carry.pop("relative_output")
        carry["x"] = output.transpose(2, 3).flatten(1, 2)


def offsets_to_keys(by_offset: torch.Tensor) -> torch.Tensor:
    """``[B, h, T, 21]`` (key offset -10 to 10) to ``[B, h, T, T]``; zero where the offset is larger."""
    frames = by_offset.shape[2]
    # row i holds its band at columns i to i + 20 of a matrix that begins ten columns early
    wide = pad(by_offset, (0, frames))
    shifted = wide.flatten(2)[..., : frames * (frames + 2 * WINDOW)].unflatten(2, (frames, frames + 2 * WINDOW))
    return shifted[..., WINDOW : WINDOW + frames]


def keys_to_offsets(weights: torch.Tensor) -> torch.Tensor:
    """``[B, h, T, T]`` to ``[B, h, T, 21]``: each row's entries at key offsets -10 to 10, zero outside."""
    frames = weights.shape[2]
    flat = pad(weights, (WINDOW, WINDOW)).flatten(2)
    return pad(flat, (0, frames)).unflatten(2, (frames, frames + 2 * WINDOW + 1))[..., : 2 * WINDOW + 1]


class FeedForward(nn.Module):
    def __init__(self, channels: int, filter_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv1d(channels, filter_channels, kernel)
        self.conv_2 = nn.Conv1d(filter_channels, channels, kernel)
        self.padding = ((kernel - 1) // 2,) * 2

    def stages(self) -> tuple[Stage, ...]:
        def convolve(name: str) -> Stage:
            layer = getattr(self, name)

            def apply(carry: Carry) -> None:
                carry["x"] = layer(pad(carry["x"] * carry["mask"], self.padding))

            return Stage(name, apply)

        return (convolve("conv_1"), leaf("relu", torch.relu), convolve("conv_2"), Stage("mask", apply_mask))


def apply_mask(carry: Carry) -> None:
    carry["x"] = carry["x"] * carry["mask"]


class Encoder(nn.Module):
    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        c, layers = config.hidden_channels, range(config.n_layers)
        self.attn_layers = nn.ModuleList(RelativeAttention(c, config.n_heads) for _ in layers)
        self.norm_layers_1 = nn.ModuleList(ChannelNorm(c) for _ in layers)
        self.ffn_layers = nn.ModuleList(FeedForward(c, config.filter_channels, config.kernel_size) for _ in layers)
        self.norm_layers_2 = nn.ModuleList(ChannelNorm(c) for _ in layers)

    def stages(self) -> tuple[Stage, ...]:
        parts = [Stage(":mask", apply_mask)]
        for i, (attention, feed_forward) in enumerate(zip(self.attn_layers, self.ffn_layers, strict=True)):
            parts += [
                *residual(f"attn_layers.{i}", attention.stages()),
                leaf(f"norm_layers_1.{i}", self.norm_layers_1[i]),
                *residual(f"ffn_layers.{i}", feed_forward.stages()),
                leaf(f"norm_layers_2.{i}", self.norm_layers_2[i]),
            ]
        return (*parts, Stage(":masked", apply_mask))


class TextEncoder(nn.Module):
    """``phone [B, T, D]`` and ``pitch [B, T]`` to mean and log deviation, stacked: ``[B, 2 * 192, T]``."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        c = config.hidden_channels
        self.emb_phone = nn.Linear(config.phone_channels, c)
        self.emb_pitch = nn.Embedding(PITCH_CODES, c) if config.has_f0 else None
        self.encoder = Encoder(config)
        self.proj = nn.Conv1d(c, 2 * config.inter_channels, 1)
        self.scale = math.sqrt(c)

    def stages(self) -> tuple[Stage, ...]:
        """From ``x`` (phone), ``pitch`` and ``mask``."""

        def combine(carry: Carry) -> None:
            x = carry["x"] + carry.pop("pitch") if self.emb_pitch is not None else carry["x"]
            carry["x"] = leaky_relu(x * self.scale, SLOPE).transpose(1, 2)

        pitch = () if self.emb_pitch is None else (leaf("emb_pitch", self.emb_pitch, product="pitch", axes=FEATURES),)
        return (
            leaf("emb_phone", self.emb_phone, axes=FEATURES),
            *pitch,
            Stage(":embedded", combine),
            group("encoder", self.encoder.stages()),
            leaf("proj", self.proj),
            Stage(":stats", apply_mask),
        )
