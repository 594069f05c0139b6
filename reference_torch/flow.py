"""The synthesizer's residual coupling flow in PyTorch, in its reverse direction.

Method: VITS (Kim et al., 2021) with mean-only coupling layers over a WaveNet; behaviour and keys
as in IAHispano/Applio, revision b9c0ccb. Shapes: B = batch, T = 10 ms frames, C = channels.
"""

from __future__ import annotations

import torch
from torch import nn

from rvc_common.config import SynthesizerConfig
from rvc_common.stages import Carry, Stage, group, leaf

from .layers import weight_normed
from .text_encoder import apply_mask

FLOWS, LAYERS, KERNEL = 4, 3, 5


class WaveNet(nn.Module):
    """Gated convolutions conditioned on the speaker; the last layer has only a skip output."""

    def __init__(self, channels: int, gin_channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.cond_layer = weight_normed(nn.Conv1d(gin_channels, 2 * channels * LAYERS, 1))
        self.in_layers = nn.ModuleList(
            weight_normed(nn.Conv1d(channels, 2 * channels, KERNEL, padding=KERNEL // 2)) for _ in range(LAYERS)
        )
        self.res_skip_layers = nn.ModuleList(
            weight_normed(nn.Conv1d(channels, channels if i == LAYERS - 1 else 2 * channels, 1)) for i in range(LAYERS)
        )

    def stages(self) -> tuple[Stage, ...]:
        """From ``x [B, C, T]``, ``speaker [B, G, 1]`` and ``mask``."""

        def condition(carry: Carry) -> None:
            carry["condition"] = self.cond_layer(carry["speaker"])
            carry["hidden"], carry["skip"] = carry["x"], 0

        def finish(carry: Carry) -> None:
            del carry["condition"], carry["hidden"]
            carry["x"] = carry.pop("skip") * carry["mask"]

        layers = [stage for i in range(LAYERS) for stage in self._layer(i)]
        return (Stage("cond_layer", condition, product="condition"), *layers, Stage(":output", finish))

    def _layer(self, i: int) -> tuple[Stage, ...]:
        c = self.channels

        def gate(carry: Carry) -> None:
            x = carry["x"] + carry["condition"][:, 2 * c * i : 2 * c * (i + 1)]
            carry["x"] = torch.tanh(x[:, :c]) * torch.sigmoid(x[:, c:])

        def update(carry: Carry) -> None:
            x = carry["x"]
            if i < LAYERS - 1:
                carry["hidden"] = (carry["hidden"] + x[:, :c]) * carry["mask"]
            carry["skip"] = carry["skip"] + x[:, -c:]

        return (
            leaf(f"in_layers.{i}", self.in_layers[i], of="hidden"),
            Stage(f"in_layers.{i}:gated", gate),
            leaf(f"res_skip_layers.{i}", self.res_skip_layers[i]),
            Stage(f"res_skip_layers.{i}:skip", update, product="skip"),
        )


class CouplingLayer(nn.Module):
    """The first half of the channels passes through and decides what is subtracted from the second."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        self.half = config.inter_channels // 2
        self.pre = nn.Conv1d(self.half, config.hidden_channels, 1)
        self.enc = WaveNet(config.hidden_channels, config.gin_channels)
        self.post = nn.Conv1d(config.hidden_channels, self.half, 1)

    def stages(self) -> tuple[Stage, ...]:
        def couple(carry: Carry) -> None:
            z, mask = carry.pop("z"), carry["mask"]
            shifted = (z[:, self.half :] - carry["x"] * mask) * mask
            carry["x"] = torch.cat([z[:, : self.half], shifted], dim=1)

        return (
            leaf("pre", lambda x: self.pre(x[:, : self.half]), keep="z"),
            Stage("pre:masked", apply_mask),
            group("enc", self.enc.stages()),
            leaf("post", self.post),
            Stage(":coupled", couple),
        )


class Flow(nn.Module):
    """Four coupling layers, each followed by a flip of the channels; reversed, the flips come first."""

    def __init__(self, config: SynthesizerConfig) -> None:
        super().__init__()
        # upstream's numbering: the flips, which have no weights, are the odd ones
        self.flows = nn.ModuleList(CouplingLayer(config) if i % 2 == 0 else nn.Identity() for i in range(2 * FLOWS))

    def stages(self) -> tuple[Stage, ...]:
        """From ``x`` (z_p ``[B, 192, T]``), ``speaker`` and ``mask``."""

        def stage(i: int) -> Stage:
            layer = self.flows[i]
            if isinstance(layer, CouplingLayer):
                return group(f"flows.{i}", layer.stages())
            return leaf(f"flows.{i}", lambda x: x.flip(1))

        return tuple(stage(i) for i in reversed(range(2 * FLOWS)))
