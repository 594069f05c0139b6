"""The synthesizer's residual coupling flow in MLX, in its reverse direction.

Method: VITS (Kim et al., 2021) with mean-only coupling layers over a WaveNet; behaviour and keys
as in IAHispano/Applio, revision b9c0ccb. Shapes: B = batch, T = 10 ms frames, C = channels; channels last.
"""

from __future__ import annotations

from rvc_common.config import SynthesizerConfig
from rvc_common.stages import Carry, Stage, group, leaf

from . import exponential
from .keys import FLOW_KERNEL as KERNEL
from .keys import FLOW_LAYERS as LAYERS
from .keys import FLOWS
from .layers import Weights
from .runtime import mx
from .text_encoder import apply_mask


def _gate(first: mx.array, second: mx.array, offset: mx.array, other: mx.array) -> mx.array:
    return mx.tanh(first + offset) * mx.sigmoid(second + other)


class WaveNet:
    """Gated convolutions conditioned on the speaker; the last layer has only a skip output."""

    def __init__(self, name: str, channels: int, weights: Weights) -> None:
        self.channels = channels
        self.gate = exponential.gate() if "exponential_gate" in weights.methods else weights.fused(_gate)
        self.cond_layer = weights.linear(f"{name}.cond_layer")
        self.in_layers = [weights.conv(f"{name}.in_layers.{i}", padding=KERNEL // 2) for i in range(LAYERS)]
        self.res_skip_layers = [weights.linear(f"{name}.res_skip_layers.{i}") for i in range(LAYERS)]

    def stages(self) -> tuple[Stage, ...]:
        """From ``x [B, T, C]``, ``speaker [B, 1, G]`` and ``mask``."""

        def condition(carry: Carry) -> None:
            carry["condition"] = self.cond_layer(carry["speaker"])
            carry["hidden"], carry["skip"] = carry["x"], None

        def finish(carry: Carry) -> None:
            del carry["condition"], carry["hidden"]
            carry["x"] = carry.pop("skip")
            apply_mask(carry)

        layers = [stage for i in range(LAYERS) for stage in self._layer(i)]
        return (Stage("cond_layer", condition, product="condition"), *layers, Stage(":output", finish))

    def _layer(self, i: int) -> tuple[Stage, ...]:
        c = self.channels

        def gate(carry: Carry) -> None:
            offsets = carry["condition"][..., 2 * c * i : 2 * c * (i + 1)]
            x = carry["x"]
            carry["x"] = self.gate(x[..., :c], x[..., c:], offsets[..., :c], offsets[..., c:])

        def update(carry: Carry) -> None:
            x, mask = carry["x"], carry["mask"]
            if i < LAYERS - 1:
                hidden = carry["hidden"] + x[..., :c]
                carry["hidden"] = hidden if mask is None else hidden * mask
            carry["skip"] = x[..., -c:] if carry["skip"] is None else carry["skip"] + x[..., -c:]

        return (
            leaf(f"in_layers.{i}", self.in_layers[i], of="hidden"),
            Stage(f"in_layers.{i}:gated", gate),
            leaf(f"res_skip_layers.{i}", self.res_skip_layers[i]),
            Stage(f"res_skip_layers.{i}:skip", update, product="skip"),
        )


def _coupling(name: str, config: SynthesizerConfig, weights: Weights) -> tuple[Stage, ...]:
    """The first half of the channels passes through and decides what is subtracted from the second."""
    half = config.inter_channels // 2
    pre, post = weights.linear(f"{name}.pre"), weights.linear(f"{name}.post")
    net = WaveNet(f"{name}.enc", config.hidden_channels, weights)

    def couple(carry: Carry) -> None:
        z, mask = carry.pop("z"), carry["mask"]
        if mask is None:
            shifted = z[..., half:] - carry["x"]
        else:
            shifted = (z[..., half:] - carry["x"] * mask) * mask
        carry["x"] = mx.concatenate([z[..., :half], shifted], axis=-1)

    return (
        leaf("pre", lambda x: pre(x[..., :half]), keep="z"),
        Stage("pre:masked", apply_mask),
        group("enc", net.stages()),
        leaf("post", post),
        Stage(":coupled", couple),
    )


def flow_stages(config: SynthesizerConfig, weights: Weights) -> tuple[Stage, ...]:
    """Four coupling layers, each followed by a flip of the channels; reversed, the flips come first.

    From ``x`` (z_p ``[B, T, 192]``), ``speaker`` and ``mask``. Upstream's numbering: the flips,
    which have no weights, are the odd ones.
    """

    def stage(i: int) -> Stage:
        if i % 2 == 0:
            return group(f"flows.{i}", _coupling(f"flow.flows.{i}", config, weights))
        return leaf(f"flows.{i}", lambda x: x[..., ::-1])

    return tuple(stage(i) for i in reversed(range(2 * FLOWS)))
