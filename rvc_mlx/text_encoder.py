"""The synthesizer's text encoder in MLX: content features and coarse pitch to the prior.

Windowed relative attention: Shaw et al., "Self-Attention with Relative Position Representations"
(2018), as in VITS (Kim et al., 2021); behaviour and keys as in IAHispano/Applio, revision b9c0ccb.
Shapes: B = batch, T = 10 ms frames, C = hidden channels, h = heads; channels last.
"""

from __future__ import annotations

import math

from rvc_common.config import SynthesizerConfig
from rvc_common.stages import FEATURES, HEADS, SCORES, Carry, Stage, group, leaf, residual, run

from . import attention
from .fused_conv import LEAKY_RELU, NONE, FusedConv
from .keys import WINDOW
from .layers import Layer, Weights
from .runtime import mx

NORM_EPS = 1e-5
MASKED_SCORE = -1e4
SLOPE = 0.1


class RelativeAttention:
    """Self-attention with relative positions of up to ten frames in logits and outputs; larger ones add nothing."""

    def __init__(self, name: str, heads: int, weights: Weights) -> None:
        self.heads = heads
        self.projections = weights.projections(name, "conv_{}")
        self.last = weights.linear(f"{name}.conv_o")
        self.keys, self.values = (weights.array(weights.state[f"{name}.emb_rel_{part}"][0]) for part in "kv")
        self.scale = 1 / math.sqrt(self.keys.shape[1])

        self.blocked = None
        if "block_attention" in weights.methods:
            self.blocked = attention.blocked_relative_attention("two_streams" in weights.methods)

    def at_once(self, whole: Stage) -> Stage:
        """The stages of ``whole`` for a walk; where nothing is watched or masked, without arrays of all scores."""
        attend = self.blocked
        if attend is None:
            return whole

        def apply(carry: Carry) -> None:
            if carry["mask"] is not None or carry["x"].shape[1] < attention.SHORTEST_FRAMES:
                return whole.apply(carry)
            remember = whole.parts[0]
            run((remember, *self.projections), carry)
            q, k, v = (self._split(carry.pop(part)) for part in "qkv")
            y = attend(q * self.scale, k, v, self.keys, self.values)
            carry["x"] = self.last(y.transpose(0, 2, 1, 3).flatten(2))

        return whole._replace(apply=apply)

    def stages(self) -> tuple[Stage, ...]:
        """From ``x [B, T, C]`` and ``mask [B, T, 1]``, or None where nothing is masked."""
        return (
            *self.projections,
            Stage(":relative_scores", self._relative_scores, product="relative_scores", axes=SCORES),
            Stage(":scores", self._scores, product="scores", axes=SCORES, ranks=True),
            Stage(":weights", self._weights, product="weights", axes=SCORES, ranks=True),
            leaf(":relative_output", self._relative_output, "relative_output", of="weights", axes=HEADS),
            Stage(":attended", self._attended),
            leaf("conv_o", self.last),
        )

    def _split(self, x: mx.array) -> mx.array:
        """``[B, T, C] -> [B, h, T, C / h]``."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)

    def _relative_scores(self, carry: Carry) -> None:
        carry["q"] = self._split(carry["q"]) * self.scale
        carry["relative_scores"] = offsets_to_keys(carry["q"] @ self.keys.T)

    def _scores(self, carry: Carry) -> None:
        scores = carry.pop("q") @ self._split(carry.pop("k")).transpose(0, 1, 3, 2) + carry.pop("relative_scores")
        mask = carry["mask"]
        if mask is not None:
            both = mask[:, None] * mask.transpose(0, 2, 1)[:, None]  # [B, 1, T, T]
            scores = mx.where(both == 0, mx.array(MASKED_SCORE, scores.dtype), scores)
        carry["scores"] = scores

    def _weights(self, carry: Carry) -> None:
        carry["weights"] = mx.softmax(carry.pop("scores"), axis=-1, precise=True)

    def _relative_output(self, weights: mx.array) -> mx.array:
        return keys_to_offsets(weights) @ self.values

    def _attended(self, carry: Carry) -> None:
        output = carry.pop("weights") @ self._split(carry.pop("v")) + carry.pop("relative_output")
        carry["x"] = output.transpose(0, 2, 1, 3).flatten(2)


def offsets_to_keys(by_offset: mx.array) -> mx.array:
    """``[B, h, T, 21]`` (key offset -10 to 10) to ``[B, h, T, T]``; zero where the offset is larger."""
    batch, heads, frames, _ = by_offset.shape
    width = frames + 2 * WINDOW
    # rows that are one value longer than ``width``: read ``width`` apart, row i holds its band at columns i to i + 20
    wide = mx.pad(by_offset, [(0, 0), (0, 0), (0, 0), (0, frames)])
    size = frames * (width + 1)
    return mx.as_strided(wide, (batch, heads, frames, frames), (heads * size, size, width, 1), WINDOW)


def keys_to_offsets(weights: mx.array) -> mx.array:
    """``[B, h, T, T]`` to ``[B, h, T, 21]``: each row's entries at key offsets -10 to 10, zero outside."""
    batch, heads, frames, _ = weights.shape
    width = frames + 2 * WINDOW
    padded = mx.pad(weights, [(0, 0), (0, 0), (0, 0), (WINDOW, WINDOW)])
    size = frames * width
    return mx.as_strided(padded, (batch, heads, frames, 2 * WINDOW + 1), (heads * size, size, width + 1, 1))


def apply_mask(carry: Carry) -> None:
    if carry["mask"] is not None:
        carry["x"] = carry["x"] * carry["mask"]


def _feed_forward(layer: str, kernel: int, weights: Weights) -> tuple[Stage, Stage]:
    """With ``fused_conv`` a stage without parts: the ReLU is in the first convolution's kernel."""

    first, second = (
        weights.conv(f"enc_p.encoder.{layer}.{name}", padding=(kernel - 1) // 2, then=then)
        for name, then in (("conv_1", LEAKY_RELU), ("conv_2", NONE))
    )

    def convolve(name: str, convolution: Layer) -> Stage:
        def apply(carry: Carry) -> None:
            apply_mask(carry)
            carry["x"] = convolution(carry["x"])

        return Stage(name, apply)

    relu = leaf("relu", lambda x: mx.maximum(x, 0.0))
    parts = (convolve("conv_1", first), relu, convolve("conv_2", second), Stage("mask", apply_mask))
    if isinstance(first, FusedConv):
        whole, total = residual(layer, (parts[0], *parts[2:]))
        return whole._replace(parts=()), total
    return residual(layer, parts)


def _encoder(config: SynthesizerConfig, weights: Weights, attentions: list[RelativeAttention]) -> tuple[Stage, ...]:
    def norm(name: str) -> Stage:
        return leaf(name, weights.norm(f"enc_p.encoder.{name}", NORM_EPS, ("gamma", "beta")))

    parts = [Stage(":mask", apply_mask)]
    for i, one in enumerate(attentions):
        whole, total = residual(f"attn_layers.{i}", one.stages())
        parts += [
            one.at_once(whole),
            total,
            norm(f"norm_layers_1.{i}"),
            *_feed_forward(f"ffn_layers.{i}", config.kernel_size, weights),
            norm(f"norm_layers_2.{i}"),
        ]
    return (*parts, Stage(":masked", apply_mask))


class TextEncoder:
    """``phone [B, T, D]`` and ``pitch [B, T]`` to mean and log deviation side by side: ``[B, T, 2 * 192]``."""

    def __init__(self, config: SynthesizerConfig, weights: Weights) -> None:
        name = "enc_p.encoder.attn_layers"
        self.attentions = [RelativeAttention(f"{name}.{i}", config.n_heads, weights) for i in range(config.n_layers)]
        scale = math.sqrt(config.hidden_channels)
        leaky_relu = weights.leaky_relu(SLOPE)
        pitch: tuple[Stage, ...] = ()
        if config.has_f0:
            table = weights.array(weights.state["enc_p.emb_pitch.weight"])
            pitch = (leaf("emb_pitch", lambda codes: table[codes], product="pitch", axes=FEATURES),)

        def combine(carry: Carry) -> None:
            x = carry["x"] + carry.pop("pitch") if pitch else carry["x"]
            carry["x"] = leaky_relu(x * scale)

        self.stages = (
            leaf("emb_phone", weights.linear("enc_p.emb_phone"), axes=FEATURES),
            *pitch,
            Stage(":embedded", combine),
            group("encoder", _encoder(config, weights, self.attentions)),
            leaf("proj", weights.linear("enc_p.proj")),
            Stage(":stats", apply_mask),
        )
