"""Faults in HuBERT: convolutions, position, attention, norms."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .base import Fault, Patches, around, constant, instead
from .weights import backwards, exchanged, filled, weight

FIRST = r"feature_extractor\.conv_layers\.0"


@instead("hubert.fastest_gelu")
def tanh_gelu(p: Patches, methods: Any) -> Any:
    return lambda x: 0.5 * x * (1 + p.mx.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


@around("hubert.Network._position")
def _no_gelu_after_position(p: Patches, original: Any, self: Any) -> Any:
    first, *rest = original(self)

    def apply(carry: dict[str, Any]) -> None:
        kept, self.gelu = self.gelu, lambda x: x
        first.apply(carry)
        self.gelu = kept

    return (first._replace(apply=apply), *rest)


@around("layers._grouped")
def _first_frame_dropped(p: Patches, original: Any, x: Any, *rest: Any) -> Any:
    y = original(x, *rest)
    return p.mx.concatenate([y[:, 1:], y[:, :1]], axis=1)


@around("layers.Weights.raw")
def _position_norm_axis(p: Patches, original: Any, self: Any, name: str) -> Any:
    """All axes but the first, as everywhere else."""
    if "pos_conv_embed" not in name:
        return original(self, name)
    g, v = (np.asarray(self.state[f"{name}_{end}"], np.float64) for end in "gv")
    return g * v / np.sqrt((v * v).sum(axis=(1, 2), keepdims=True))


@instead("hubert.norm_over_time")
def _channel_norm(p: Patches, x: Any) -> Any:
    mean, var = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) * p.mx.rsqrt(var + 1e-5)


def _attention_scale(factor: float) -> Any:
    return around("runtime.mx.fast.scaled_dot_product_attention")(
        lambda p, original, q, k, v, scale: original(q, k, v, scale=scale * factor)
    )


@instead("hubert.split_heads")
def _heads_interleaved(p: Patches, x: Any) -> Any:
    b, t, c = x.shape
    return x.reshape(b, t, 64, c // 64).transpose(0, 3, 1, 2)


@around("hubert.Network.encoding")
def _first_of_features(p: Patches, original: Any, self: Any, layers: int, project: bool) -> Any:
    found = original(self, layers, project)
    width = self.config.projected
    return (*found[:-1], p.module("stages").leaf("final_proj", lambda x: x[..., :width])) if project else found


QUERY, KEY = (f"encoder.layers.3.attention.{name}_proj.weight" for name in "qk")
_normalised_input = around("hubert.Hubert._entered")(
    lambda p, original, self, x: original(
        self, (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-7)
    )
)
_no_projection_norm = around("layers.Weights.norm")(
    lambda p, original, self, name, *rest: (
        (lambda x: x) if name == "feature_projection.layer_norm" else original(self, name, *rest)
    )
)
_one_layer_short = around("hubert.Network.encoding")(
    lambda p, original, self, layers, project: original(self, layers - 1, project)
)
_fault = partial(Fault, "hubert")


FAULTS = (
    _fault("gelu-tanh", "GELU approximated by tanh", tanh_gelu, FIRST + r"\.gelu", known=True),
    _fault("position-gelu", "GELU missing after the position convolution", _no_gelu_after_position,
           r"encoder\.pos_conv_embed", known=True),
    _fault("v1-first-features", "v1 features are the first of all instead of the projection", _first_of_features,
           "final_proj", settings=(("version", "v1"),), known=True),
    _fault("position-frame", "the wrong frame of the position convolution dropped", _first_frame_dropped,
           r"encoder\.pos_conv_embed"),
    _fault("position-norm-axis", "position convolution's weight norm over the wrong axes", _position_norm_axis,
           r"encoder\.pos_conv_embed"),
    _fault("first-norm-axis", "first norm over channels instead of time", _channel_norm, FIRST + r"\.layer_norm"),
    _fault("norm-eps", "norms with eps 1e-3", constant("hubert.NORM_EPS", 1e-3), FIRST + r"\.layer_norm"),
    _fault("input-normalised", "audio scaled to unit variance", _normalised_input, FIRST + r"\.conv"),
    _fault("projection-norm", "norm before the projection left out", _no_projection_norm, r"feature_projection\.layer_norm"),
    _fault("attention-scale", "attention without its scale", _attention_scale(8.0), r"encoder\.layers\.0\.attention:attended"),
    _fault("attention-scale-slight", "attention's scale 0.1 % off", _attention_scale(1.001),
           r"encoder\.layers\.0\.attention:attended"),
    _fault("heads-interleaved", "heads read as the inner axis", _heads_interleaved, r"encoder\.layers\.0\.attention:attended"),
    _fault("key-bias", "key bias dropped in one layer",
           filled("hubert", "encoder.layers.0.attention.k_proj.bias", 0), r"encoder\.layers\.0\.attention\.k_proj"),
    _fault("query-key", "query and key exchanged in one layer", exchanged("hubert", (QUERY, KEY)),
           r"encoder\.layers\.3\.attention\.q_proj"),
    _fault("layers-exchanged", "two layers exchanged", exchanged("hubert", ("encoder.layers.4.", "encoder.layers.5.")),
           r"encoder\.layers\.4\.attention\.q_proj"),
    _fault("gamma-one", "one norm's gamma not loaded",
           filled("hubert", "encoder.layers.7.final_layer_norm.weight", 1), r"encoder\.layers\.7\.final_layer_norm"),
    _fault("dead-feature", "one row of a dense layer zero",
           filled("hubert", "encoder.layers.2.feed_forward.output_dense.weight", 0, 17),
           r"encoder\.layers\.2\.feed_forward\.output_dense"),
    _fault("kernel-backwards", "one kernel reversed in time",
           weight("hubert", "feature_extractor.conv_layers.2.conv.weight", backwards),
           r"feature_extractor\.conv_layers\.2\.conv"),
    _fault("layer-missing", "the last layer is left out", _one_layer_short, r"encoder\.layers\.11\.attention:input"),
)  # fmt: skip
