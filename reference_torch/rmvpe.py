"""RMVPE pitch estimation in PyTorch: the plain reference.

Method: Wei et al., "RMVPE: A Robust Model for Vocal Pitch Estimation in Polyphonic Music"
(2023); behaviour and state-dict keys as in IAHispano/Applio, revision b9c0ccb. Shapes:
B = batch, T = 10 ms frames, layouts are PyTorch's (channels first).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad

from rvc_common import rmvpe
from rvc_common.checks import PROFILES, check_choice
from rvc_common.config import RMVPEConfig
from rvc_common.rmvpe import N_BINS, N_MELS
from rvc_common.stages import BANDS, BINS, FEATURES, IMAGE, Carry, Stage, group, leaf, plus, run

from .audio import LogMel
from .files import read_file
from .layers import Undrawn, load_weights, numbered
from .model import Model

CENTS_FIRST_BIN, CENTS_PER_BIN = 1997.3794084376191, 20.0
CHUNK_FRAMES = 32000


class ResidualBlock(nn.Module):
    """conv-norm-ReLU twice, plus the input or its 1x1 projection; nothing after the sum."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
        )
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def stages(self) -> tuple[Stage, ...]:
        layers = (leaf(f"conv.{i}", layer, keep="" if i else "residual") for i, layer in enumerate(self.conv))
        shortcut = () if self.shortcut is None else (leaf("shortcut", self.shortcut, "residual"),)
        return (*layers, *shortcut, plus("add", "residual"))


def _residual_blocks(c_in: int, c_out: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(ResidualBlock(c_in if i == 0 else c_out, c_out) for i in range(count))


class EncoderLayer(nn.Module):
    """Residual blocks, then 2x2 average pooling; the skip is the value before pooling."""

    def __init__(self, c_in: int, c_out: int, blocks: int) -> None:
        super().__init__()
        self.conv = _residual_blocks(c_in, c_out, blocks)

    def stages(self, skip: str) -> tuple[Stage, ...]:
        return (*numbered("conv", self.conv), leaf("pool", lambda x: nn.functional.avg_pool2d(x, 2), keep=skip))


class Encoder(nn.Module):
    def __init__(self, config: RMVPEConfig) -> None:
        super().__init__()
        widths = [1] + [config.width * 2**i for i in range(config.levels)]
        self.bn = nn.BatchNorm2d(1)
        self.layers = nn.ModuleList(EncoderLayer(a, b, config.blocks) for a, b in itertools.pairwise(widths))

    def stages(self) -> tuple[Stage, ...]:
        layers = (group(f"layers.{i}", layer.stages(f"skip.{i}")) for i, layer in enumerate(self.layers))
        return (leaf("bn", self.bn), *layers)


class IntermediateLayer(nn.Module):
    def __init__(self, c_in: int, c_out: int, blocks: int) -> None:
        super().__init__()
        self.conv = _residual_blocks(c_in, c_out, blocks)

    def stages(self) -> tuple[Stage, ...]:
        return numbered("conv", self.conv)


class Intermediate(nn.Module):
    def __init__(self, config: RMVPEConfig) -> None:
        super().__init__()
        c_out = config.width * 2**config.levels
        self.layers = nn.ModuleList(
            IntermediateLayer(c_out // 2 if i == 0 else c_out, c_out, config.blocks) for i in range(config.inter_layers)
        )

    def stages(self) -> tuple[Stage, ...]:
        return numbered("layers", self.layers)


class DecoderLayer(nn.Module):
    """Transposed convolution to twice the size, norm, ReLU; (upsampled, skip); residual blocks."""

    def __init__(self, c_in: int, c_out: int, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.ConvTranspose2d(c_in, c_out, 3, stride=2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
        )
        self.conv2 = _residual_blocks(2 * c_out, c_out, blocks)

    def stages(self, skip: str) -> tuple[Stage, ...]:
        def concatenate(carry: Carry) -> None:
            carry["x"] = torch.cat([carry["x"], carry.pop(skip)], dim=1)

        up = group("conv1", tuple(leaf(str(i), module) for i, module in enumerate(self.conv1)))
        return (up, Stage("concat", concatenate), *numbered("conv2", self.conv2))


class Decoder(nn.Module):
    def __init__(self, config: RMVPEConfig) -> None:
        super().__init__()
        widths = [config.width * 2**i for i in range(config.levels, -1, -1)]
        self.layers = nn.ModuleList(DecoderLayer(a, b, config.blocks) for a, b in itertools.pairwise(widths))

    def stages(self) -> tuple[Stage, ...]:
        last = len(self.layers) - 1
        return tuple(group(f"layers.{i}", layer.stages(f"skip.{last - i}")) for i, layer in enumerate(self.layers))


class BiGRU(nn.Module):
    """``[B, T, in] -> [B, T, 2 * hidden]``, forward half first; gates r, z, n."""

    def __init__(self, c_in: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(c_in, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gru(x)[0]


def _flatten_bands(x: torch.Tensor) -> torch.Tensor:
    """``[B, C, T, bands] -> [B, T, C * bands]``, channel-major."""
    return x.transpose(1, 2).flatten(2)


class Network(nn.Module):
    """``[B, 1, T, 128] -> [B, T, 360]``, T a multiple of 32; salience in (0, 1)."""

    def __init__(self, config: RMVPEConfig) -> None:
        super().__init__()
        parts = {"encoder": Encoder(config), "intermediate": Intermediate(config), "decoder": Decoder(config)}
        self.unet = nn.ModuleDict(parts)
        self.cnn = nn.Conv2d(config.width, 3, 3, padding=1)
        self.fc = nn.Sequential(BiGRU(3 * N_MELS, config.hidden), nn.Linear(2 * config.hidden, N_BINS))

    def stages(self) -> tuple[Stage, ...]:
        unet = tuple(group(name, part.stages()) for name, part in self.unet.items())
        return (
            group("unet", unet, axes=IMAGE),
            leaf("cnn", self.cnn, axes=IMAGE),
            leaf("flatten", _flatten_bands, axes=FEATURES),
            leaf("fc.0", self.fc[0], axes=FEATURES),
            leaf("fc.1", self.fc[1], axes=FEATURES),
            leaf("sigmoid", torch.sigmoid, axes=BINS, ranks=True),
        )


class RMVPE(Model, rmvpe.RMVPE):
    __doc__ = rmvpe.RMVPE.__doc__
    read_file = staticmethod(read_file)
    _batch = Model.to_wide

    def __init__(
        self, config: RMVPEConfig, *, dtype: str = "float32", device: str = "cpu", profile: str = "applio"
    ) -> None:
        check_choice("profile", profile, PROFILES)
        self._place(dtype, device)
        self.config, self.profile, self.chunk = config, profile, CHUNK_FRAMES if profile == "applio" else 0
        self.log_mel = LogMel(device, self.wide_dtype)
        with Undrawn():
            self.network = Network(config).eval().requires_grad_(False)
        self.stages = self.network.stages()
        self.front = (leaf("mel", self.log_mel, axes=BANDS), leaf("padded_log_mel", self._pad_frames, axes=BANDS))

    @classmethod
    def from_state_dict(cls, state: Mapping[str, np.ndarray], **options: Any) -> RMVPE:
        """Build from upstream's keys mapped to arrays. ``options`` as the constructor's."""
        model = cls(RMVPEConfig.from_state_dict(state), **options)
        load_weights("RMVPE", model.network, state, model.dtype, model.device)
        model.network.fc[0].gru.flatten_parameters()  # cuDNN needs contiguous parameters after a change of type
        return model

    def _mel(self, audio: torch.Tensor) -> torch.Tensor:
        return self.log_mel(audio)

    def _salience(self, mel: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
        blocks = [self._block(block) for block in self._split(self._pad_frames(mel), chunk)]
        return torch.cat(blocks, dim=1)[:, : mel.shape[-1]].to(self.wide_dtype)

    def _split(self, mel: torch.Tensor, chunk: int | None = None) -> tuple[torch.Tensor, ...]:
        return mel.split((self.chunk if chunk is None else chunk) or mel.shape[-1], dim=-1)

    def _block(self, block: torch.Tensor) -> torch.Tensor:
        """``[B, 128, T] -> [B, T, 360]``."""
        stages, carry = self._network(block)
        run(stages, carry)
        return carry["x"]

    def _network(self, block: torch.Tensor) -> tuple[tuple[Stage, ...], Carry]:
        return self.stages, {"x": block.transpose(1, 2).unsqueeze(1).to(self.dtype)}

    def _pad_frames(self, mel: torch.Tensor) -> torch.Tensor:
        extra = self._missing_frames(mel.shape[-1])
        return pad(mel, (0, extra), mode="constant" if self.profile == "webui" else "reflect")

    def _gru(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.fc[0](x)

    def _cents(self, salience: torch.Tensor, threshold: float) -> np.ndarray:
        values = self.to_host(salience).astype(np.float32)
        peak = values.argmax(axis=1)
        bins = peak[:, None] + np.arange(-4, 5)
        inside = (bins >= 0) & (bins < N_BINS)
        weights = np.where(inside, np.take_along_axis(values, bins.clip(0, N_BINS - 1), axis=1), np.float32(0))
        bin_cents = np.where(inside, CENTS_FIRST_BIN + CENTS_PER_BIN * bins, 0.0)
        unvoiced = values.max(axis=1, initial=0.0) <= threshold  # NaN is not
        total = np.where(unvoiced, np.float32(1), weights.sum(axis=1, dtype=np.float32))
        with np.errstate(invalid="ignore"):
            return np.where(unvoiced, 0.0, (weights * bin_cents).sum(axis=1) / total)

    def _hertz(self, cents: np.ndarray) -> np.ndarray:
        return np.where(cents == 0, 0.0, 10.0 * 2.0 ** (cents / 1200.0))
