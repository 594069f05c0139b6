"""RMVPE pitch estimation in PyTorch: the plain reference.

Method: Wei et al., "RMVPE: A Robust Model for Vocal Pitch Estimation in Polyphonic Music"
(2023); behaviour and state-dict keys as in IAHispano/Applio, revision b9c0ccb. Shapes:
B = batch, T = 10 ms frames, layouts are PyTorch's (channels first).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import pad

from rvc_common import rmvpe
from rvc_common.checks import PROFILES, check_choice, check_pitch_audio
from rvc_common.config import RMVPEConfig
from rvc_common.keys import check_keys
from rvc_common.model import Resident, Watcher
from rvc_common.stages import BANDS, BINS, CONTOUR, FEATURES, IMAGE, Carry, Event, Stage, group, leaf, plus, run, walk

from .audio import HOP_SAMPLES, N_MELS, LogMel
from .files import read_file
from .layers import numbered
from .model import Model

N_BINS = 360
CENTS_FIRST_BIN, CENTS_PER_BIN = 1997.3794084376191, 20.0
FRAME_MULTIPLE = 32
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


class DeepUnet(nn.Module):
    def __init__(self, config: RMVPEConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.intermediate = Intermediate(config)
        self.decoder = Decoder(config)

    def stages(self) -> tuple[Stage, ...]:
        names = ("encoder", "intermediate", "decoder")
        return tuple(group(name, getattr(self, name).stages()) for name in names)


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
        self.unet = DeepUnet(config)
        self.cnn = nn.Conv2d(config.width, 3, 3, padding=1)
        self.fc = nn.Sequential(BiGRU(3 * N_MELS, config.hidden), nn.Linear(2 * config.hidden, N_BINS))

    def stages(self) -> tuple[Stage, ...]:
        return (
            group("unet", self.unet.stages(), axes=IMAGE),
            leaf("cnn", self.cnn, axes=IMAGE),
            leaf("flatten", _flatten_bands, axes=FEATURES),
            leaf("fc.0", self.fc[0], axes=FEATURES),
            leaf("fc.1", self.fc[1], axes=FEATURES),
            leaf("sigmoid", torch.sigmoid, axes=BINS, ranks=True),
        )


class RMVPE(Model, rmvpe.RMVPE):
    __doc__ = rmvpe.RMVPE.__doc__
    read_file = staticmethod(read_file)

    def __init__(
        self, config: RMVPEConfig, *, dtype: str = "float32", device: str = "cpu", profile: str = "applio"
    ) -> None:
        check_choice("profile", profile, PROFILES)
        self._place(dtype, device)
        self.config, self.profile = config, profile
        self.log_mel = LogMel(device, self.wide_dtype)
        self.network = Network(config).eval().requires_grad_(False)
        self.stages = self.network.stages()
        self.front = (leaf("mel", self.log_mel, axes=BANDS), leaf("padded_log_mel", self._pad_frames, axes=BANDS))

    @classmethod
    def from_state_dict(cls, state: Mapping[str, np.ndarray], **options: Any) -> RMVPE:
        """Build from upstream's keys mapped to arrays. ``options`` as the constructor's."""
        model = cls(RMVPEConfig.from_state_dict(state), **options)
        own = {k: v for k, v in model.network.state_dict().items() if not k.endswith("num_batches_tracked")}
        check_keys("RMVPE", {k: tuple(v.shape) for k, v in own.items()}, state)
        for key, tensor in own.items():
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(state[key])))
        model.network.to(model.device, model.dtype)
        model.network.fc[0].gru.flatten_parameters()  # cuDNN needs contiguous parameters after a change of type
        return model

    @property
    def chunk(self) -> int:
        """Frames of an independent block under the model's profile; 0: the whole clip."""
        return CHUNK_FRAMES if self.profile == "applio" else 0

    def _mel(self, audio: np.ndarray) -> torch.Tensor:
        return self.log_mel(self.to_wide(audio))

    @torch.inference_mode()
    def salience(self, mel: np.ndarray, chunk: int | None = None) -> np.ndarray:
        """``[128, F] -> [F, 360]`` or ``[B, 128, F] -> [B, F, 360]``, values in (0, 1).

        ``chunk``: frames per independent block, a multiple of 32; 0 for the whole clip; None for the profile's
        own: 32,000 in Applio, the whole clip in the WebUI.
        """
        mel = np.asarray(mel)
        if mel.ndim not in (2, 3) or mel.shape[-2] != N_MELS:
            raise ValueError(f"mel must be [128, F] or [B, 128, F], not {list(mel.shape)}")
        batch = torch.from_numpy(np.ascontiguousarray(mel)).to(self.device)
        result = self._salience(batch.reshape(-1, *mel.shape[-2:]), chunk).cpu().numpy()
        return result if mel.ndim == 3 else result[0]

    def _salience(self, mel: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
        frames = mel.shape[-1]
        x = self._pad_frames(mel)
        chunk = (self.chunk if chunk is None else chunk) or x.shape[-1]
        if chunk < FRAME_MULTIPLE or chunk % FRAME_MULTIPLE:
            raise ValueError(f"chunk must be a positive multiple of {FRAME_MULTIPLE}, not {chunk}")
        blocks = [self._block(block) for block in x.split(chunk, dim=-1)]
        return torch.cat(blocks, dim=1)[:, :frames].to(self.wide_dtype)

    def _block(self, block: torch.Tensor) -> torch.Tensor:
        """One independent block of frames through the network: ``[B, 128, T] -> [B, T, 360]``."""
        carry = self._entered(block)
        run(self.stages, carry)
        return carry["x"]

    def _entered(self, block: torch.Tensor) -> Carry:
        return {"x": block.transpose(1, 2).unsqueeze(1).to(self.dtype)}

    def _pad_frames(self, mel: torch.Tensor) -> torch.Tensor:
        frames = mel.shape[-1]
        extra = -frames % FRAME_MULTIPLE
        if self.profile == "webui":
            return pad(mel, (0, extra))
        if extra >= frames:
            raise ValueError(
                f"audio is too short: {frames} frames, at least {FRAME_MULTIPLE // 2 + 1} are needed "
                f"({FRAME_MULTIPLE // 2 * HOP_SAMPLES} samples at 16 kHz)"
            )
        return pad(mel, (0, extra), mode="reflect")

    def decode(self, salience: np.ndarray, threshold: float = 0.03) -> np.ndarray:
        """``[F, 360]`` to Hz ``[F]``, float64; 0 where the maximum is at most ``threshold``."""
        return cents_to_hz(self.cents(salience, threshold))

    def cents(self, salience: np.ndarray, threshold: float = 0.03) -> np.ndarray:
        """``[F, 360]`` to cents above 10 Hz ``[F]``, float64; 0 where unvoiced.

        The salience-weighted mean of the nine bins around the first maximum.
        """
        salience = np.asarray(salience, dtype=np.float32)
        if salience.ndim != 2 or salience.shape[1] != N_BINS:
            raise ValueError(f"salience must be [F, {N_BINS}], not {list(salience.shape)}")
        peak = salience.argmax(axis=1)
        bins = peak[:, None] + np.arange(-4, 5)
        inside = (bins >= 0) & (bins < N_BINS)
        weights = np.where(inside, np.take_along_axis(salience, bins.clip(0, N_BINS - 1), axis=1), np.float32(0))
        bin_cents = np.where(inside, CENTS_FIRST_BIN + CENTS_PER_BIN * bins, 0.0)
        voiced = salience.max(axis=1, initial=0.0) > threshold
        total = np.where(voiced, weights.sum(axis=1, dtype=np.float32), np.float32(1))
        return np.where(voiced, (weights * bin_cents).sum(axis=1) / total, 0.0)

    @torch.inference_mode()
    def f0(self, audio: np.ndarray, threshold: float = 0.03) -> np.ndarray:
        """``[n]`` 16 kHz mono to Hz ``[F]``, float64, 100 frames a second, 0 where unvoiced."""
        carry: Carry = {"x": self.to_wide(check_pitch_audio(audio))}
        run(self.front, carry)
        # decoded block by block: the salience of an hour is half a gigabyte
        cents = [self._cents(self._block(block[None]), threshold) for block in self._blocks(carry["x"])]
        return cents_to_hz(np.concatenate(cents)[: frames_of(audio)])

    def _blocks(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Padded frames ``[128, T]`` in the profile's independent blocks."""
        return x.split(self.chunk or x.shape[-1], dim=-1)

    def _cents(self, salience: torch.Tensor, threshold: float) -> np.ndarray:
        """``[1, T, 360]`` on the device to cents ``[T]``."""
        return self.cents(self.to_host(salience[0]), threshold)

    def resident(self, call: str, array: np.ndarray) -> Resident:
        """``mel`` of audio ``[n]``, ``network`` of mel ``[128, F]`` or ``gru`` of ``[B, T, 384]``, on the device."""
        x = self.to_wide(array)
        x = x[None] if call == "network" else x.to(self.dtype) if call == "gru" else x
        work: dict[str, Callable[[], torch.Tensor]] = {
            "mel": lambda: self.log_mel(x),
            "network": lambda: self._salience(x)[0],
            "gru": lambda: self.network.fc[0](x),
        }
        return Resident(self, lambda: {call: work[call]()})

    def _walk(self, audio: np.ndarray, threshold: float) -> Iterator[Event]:
        carry: Carry = {"x": self.to_wide(audio)}
        cents = []
        yield from walk(self.front, carry)
        for i, block in enumerate(self._blocks(carry.pop("x"))):
            inner = self._entered(block[None])
            decoding = self._decoding(threshold)
            yield from walk((*self.stages, decoding), inner, f"block.{i}." if i else "")
            cents.append(inner["cents"])
        carry["f0"] = cents_to_hz(np.concatenate(cents)[: frames_of(audio)])
        yield Event("f0", carry, "f0", axes=CONTOUR, decides=True)

    def _decoding(self, threshold: float) -> Stage:
        def decode(carry: Carry) -> None:
            carry["cents"] = self._cents(carry["x"], threshold)

        return Stage("cents", decode, product="cents", axes=CONTOUR, decides=True)

    def trace(self, mel: np.ndarray, watch: Watcher, chunk: int | None = None) -> None:
        """Run the network on ``[B, 128, F]``; ``watch(path, array)`` after every stage."""
        self.report(self.stepped(self._walk_network(mel, chunk)), watch)

    def _walk_network(self, mel: np.ndarray, chunk: int | None) -> Iterator[Event]:
        x = self._pad_frames(torch.from_numpy(np.ascontiguousarray(mel)).to(self.device))
        yield Event("padded_log_mel", {"x": x}, "x")
        chunk = self.chunk if chunk is None else chunk
        for block in x.split(chunk or x.shape[-1], dim=-1):
            yield from walk(self.stages, self._entered(block))


def frames_of(audio: np.ndarray) -> int:
    return 1 + audio.size // HOP_SAMPLES


def cents_to_hz(cents: np.ndarray) -> np.ndarray:
    """Cents above 10 Hz to Hz; 0 stays 0 (unvoiced)."""
    return np.where(cents > 0, 10.0 * 2.0 ** (cents / 1200.0), 0.0)
