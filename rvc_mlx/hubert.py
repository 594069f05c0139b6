"""HuBERT / ContentVec content features in MLX.

Method: Hsu et al., "HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction
of Hidden Units" (2021), base size; keys as in Hugging Face's ``HubertModel`` with upstream's
``final_proj``. Shapes: B = batch, N = samples at 16 kHz, H = 20 ms frames; channels last.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from rvc_common import hubert
from rvc_common.config import HEAD_CHANNELS, HubertConfig
from rvc_common.keys import check_keys
from rvc_common.stages import FEATURES, SAMPLES, Carry, Stage, group, leaf, plus, residual, run

from . import attention, extractor, streams
from .erf import ERF_P, ERF_Q
from .files import read_file
from .fused_conv import GELU, FusedConv
from .gru import has_compiler
from .keys import KERNELS, POSITION_GROUPS, POSITION_KERNEL, STRIDES, hubert_shapes
from .layers import Layer, Weights
from .layouts import ChannelsLast
from .model import Model
from .runtime import mx

NORM_EPS = 1e-5
ATTENDED = ":attended"
SHORTEST_FRAMES = 64  # shorter audio is not worth two halves


def gelu(x: mx.array) -> mx.array:
    """The exact one, by the error function."""
    return x * (0.5 + 0.5 * mx.erf(x * 0.7071067811865476))


def rational_gelu(x: mx.array) -> mx.array:
    """The same with erf as a quotient of polynomials: MLX evaluates it one value at a time on CPUs."""
    z = mx.clip(x * 0.7071067811865476, -4.0, 4.0)
    square = z * z
    p, q = (functools.reduce(lambda total, c: total * square + c, powers[1:], powers[0]) for powers in (ERF_P, ERF_Q))
    return x * (0.5 + 0.5 * (z * p / q))


def fastest_gelu(methods: frozenset[str]) -> Layer:
    if "rational_erf" in methods:
        return mx.compile(rational_gelu, shapeless=True) if has_compiler() else rational_gelu
    return mx.compile(gelu, shapeless=True) if "fuse_elementwise" in methods else gelu


def fastest_attention(methods: frozenset[str]) -> Callable[[mx.array, mx.array, mx.array], mx.array]:
    """Of ``q, k, v [B, heads, H, 64]``."""
    scale, blocked = HEAD_CHANNELS**-0.5, attention.blocked_attention() if "block_attention" in methods else None

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        if blocked is not None and q.shape[2] >= attention.SHORTEST_FRAMES:
            return blocked(q * scale, k, v)
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale)

    return attend


class Network:
    """The stages; the carry's ``x`` goes from ``[B, N, 1]`` to ``[B, H, 768]``."""

    def __init__(self, config: HubertConfig, weights: Weights) -> None:
        self.config, self.weights = config, weights
        self.gelu = fastest_gelu(weights.methods)
        self.attention = fastest_attention(weights.methods)
        convolutions = group("feature_extractor", tuple(self._conv_layer(i) for i in range(len(KERNELS))), axes=SAMPLES)
        if "tile_extractor" in weights.methods:
            convolutions = self._tiled(convolutions)
        # "transpose" does nothing: frames come first here already
        self.extracting = (convolutions, leaf("transpose", lambda x: x, axes=FEATURES))
        projection = (
            leaf("layer_norm", weights.norm("feature_projection.layer_norm", NORM_EPS)),
            leaf("projection", weights.linear("feature_projection.projection")),
        )
        self.projection = group("feature_projection", projection, axes=FEATURES)
        self.position = self._position()
        self.layers = tuple(group(f"layers.{i}", self._layer(f"encoder.layers.{i}")) for i in range(config.layers))
        self.encoders: dict[int, Stage] = {}
        self.in_halves = "two_streams" in weights.methods
        self.final_proj: tuple[Stage, ...] = ()
        if config.projected is not None:
            self.final_proj = (leaf("final_proj", weights.linear("final_proj"), axes=FEATURES),)
        del self.weights  # the stages hold their own arrays

    def encoding(self, layers: int, project: bool) -> tuple[Stage, ...]:
        if layers not in self.encoders:  # one object each: a recorded graph is found by its stages
            whole = group("encoder", (*self.position, *self.layers[:layers]), axes=FEATURES)
            self.encoders[layers] = self._halved(whole, layers) if self.in_halves else whole
        return (self.projection, self.encoders[layers], *(self.final_proj if project else ()))

    def _halved(self, whole: Stage, layers: int) -> Stage:
        """The same stages for a walk; where nothing is watched, each half of the frames on a stream of its own."""

        def apply(carry: Carry) -> None:
            if carry["x"].shape[1] < SHORTEST_FRAMES:
                return whole.apply(carry)
            run(self.position, carry)
            x = carry["x"]
            middle = x.shape[1] // 2
            halves: list[Carry] = [{"x": x[:, :middle]}, {"x": x[:, middle:]}]
            mx.eval(halves)
            for layer in self.layers[:layers]:
                _layer_in_halves(layer, halves)
            carry["x"] = mx.concatenate([half["x"] for half in halves], axis=1)

        return whole._replace(apply=apply)

    def _tiled(self, whole: Stage) -> Stage:
        """The same stages for a walk; where nothing is watched the first ones are one step."""
        first = extractor.tiled_extractor(self.weights, self.gelu, NORM_EPS)

        def apply(carry: Carry) -> None:
            if carry["x"].shape[1] < extractor.SHORTEST_SAMPLES:
                return whole.apply(carry)
            carry["x"] = first(carry["x"])
            run(whole.parts[extractor.LAYERS :], carry)

        return whole._replace(apply=apply)

    def _conv_layer(self, i: int) -> Stage:
        name = f"feature_extractor.conv_layers.{i}"
        if i > 0:
            conv = self.weights.conv(f"{name}.conv", stride=STRIDES[i], long=True, then=GELU)
            if isinstance(conv, FusedConv):
                return leaf(f"conv_layers.{i}", conv)
        stages = [leaf("conv", self.weights.conv(f"{name}.conv", stride=STRIDES[i]))]
        if i == 0:
            weight, bias = (
                self.weights.array(self.weights.state[f"{name}.layer_norm.{x}"]) for x in ("weight", "bias")
            )
            stages.append(leaf("layer_norm", lambda x: norm_over_time(x) * weight + bias))
        return group(f"conv_layers.{i}", (*stages, leaf("gelu", self.gelu)))

    def _position(self) -> tuple[Stage, ...]:
        name = "encoder.pos_conv_embed.conv"
        conv = self.weights.conv(name, padding=POSITION_KERNEL // 2, groups=POSITION_GROUPS, then=GELU, after=self.gelu)

        return (
            leaf("pos_conv_embed", lambda x: conv(x)[:, :-1], "position", of="x"),
            plus("pos_conv_embed:sum", "position"),
            leaf("layer_norm", self.weights.norm("encoder.layer_norm", NORM_EPS)),
        )

    def _layer(self, name: str) -> tuple[Stage, ...]:
        return (
            *residual("attention", self._attention(f"{name}.attention")),
            leaf("layer_norm", self.weights.norm(f"{name}.layer_norm", NORM_EPS)),
            *self._feed_forward(f"{name}.feed_forward"),
            leaf("final_layer_norm", self.weights.norm(f"{name}.final_layer_norm", NORM_EPS)),
        )

    def _feed_forward(self, name: str) -> tuple[Stage, Stage]:
        """With ``fused_conv`` a stage without parts: the GELU is in the first product's kernel."""
        dense, last = f"{name}.intermediate_dense", self.weights.linear(f"{name}.output_dense")
        if "fused_conv" in self.weights.methods:
            together = self.weights.linear(dense, then=GELU)
            if isinstance(together, FusedConv):
                whole, total = residual("feed_forward", (leaf("both", lambda x: last(together(x))),))
                return whole._replace(parts=()), total
        parts = (
            leaf("intermediate_dense", self.weights.linear(dense)),
            leaf("gelu", self.gelu),
            leaf("output_dense", last),
        )
        return residual("feed_forward", parts)

    def _attention(self, name: str) -> tuple[Stage, ...]:
        def attend(carry: Carry) -> None:
            q, k, v = (split_heads(carry.pop(part)) for part in "qkv")
            y = self.attention(q, k, v)
            carry["x"] = y.transpose(0, 2, 1, 3).flatten(2)

        projections = self.weights.projections(name, "{}_proj")
        last = leaf("out_proj", self.weights.linear(f"{name}.out_proj"))
        return (*projections, Stage(ATTENDED, attend), last)


def _leaves(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    return tuple(leaf for stage in stages for leaf in (_leaves(stage.parts) if stage.parts else (stage,)))


def _layer_in_halves(layer: Stage, halves: list[Carry]) -> None:
    """Attention alone looks at other frames than its own."""
    stages = _leaves(layer.parts)
    middle = [stage.name for stage in stages].index(ATTENDED)

    def before(half: Carry) -> Carry:
        run(stages[:middle], half)
        return half

    def after(half: Carry, seen: list[tuple[mx.array, mx.array]]) -> Carry:
        half["k"], half["v"] = (mx.concatenate(list(parts), axis=1) for parts in zip(*seen, strict=True))
        run(stages[middle:], half)
        return half

    streams.in_turns([functools.partial(before, half) for half in halves])
    seen = [(half["k"], half["v"]) for half in halves]
    streams.in_turns([functools.partial(after, half, seen) for half in halves])


def split_heads(x: mx.array) -> mx.array:
    """``[B, H, C] -> [B, heads, H, 64]``."""
    return x.reshape(*x.shape[:2], -1, HEAD_CHANNELS).transpose(0, 2, 1, 3)


def norm_over_time(x: mx.array) -> mx.array:
    """Every channel of ``[B, T, C]`` to mean 0 and variance 1 over T, in float32."""
    wide = x.astype(mx.float32)
    centred = wide - _mean_over_time(wide)
    return (centred / mx.sqrt(_mean_over_time(mx.square(centred)) + NORM_EPS)).astype(x.dtype)


def _mean_over_time(x: mx.array) -> mx.array:
    """``[B, T, C] -> [B, 1, C]`` in two steps: one running float32 sum over T loses digits with T."""
    batch, frames, c = x.shape
    block = max(1, math.isqrt(frames))
    whole = frames // block * block
    total = x[:, :whole].reshape(batch, -1, block, c).sum(axis=2).sum(axis=1, keepdims=True)
    return (total + x[:, whole:].sum(axis=1, keepdims=True)) / frames


# only the convolutions have channels in the middle in PyTorch
LAYOUT = ChannelsLast(lambda event, name: not event.path.startswith("feature_extractor"))


class Hubert(Model, hubert.Hubert):
    __doc__ = hubert.Hubert.__doc__
    read_file = staticmethod(read_file)
    layout = LAYOUT

    def __init__(
        self,
        state: Mapping[str, np.ndarray],
        config: HubertConfig,
        *,
        dtype: str = "float32",
        device: str | None = None,
        optimize: Iterable[str] | str = "all",
    ) -> None:
        self.config = config
        check_keys("HuBERT", hubert_shapes(config) | config.unused_shapes(state), state)
        self._place("hubert", dtype, device, optimize)
        with self.on_device(None):
            self.network = Network(config, Weights(state, self.dtype, self.optimize))
        self.extracting, self._encoding_stages = self.network.extracting, self.network.encoding

    def _entered(self, audio: np.ndarray) -> Carry:
        return {"x": self.to_device(audio).reshape(-1, audio.shape[-1], 1)}
