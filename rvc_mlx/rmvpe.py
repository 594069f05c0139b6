"""RMVPE pitch estimation in MLX.

Method: Wei et al., "RMVPE: A Robust Model for Vocal Pitch Estimation in Polyphonic Music"
(2023); behaviour and state-dict keys as in IAHispano/Applio, revision b9c0ccb. Shapes:
B = batch, T = 10 ms frames; arrays inside are channels last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

import rvc_common.config
from rvc_common import rmvpe
from rvc_common.checks import PROFILES, check_choice, check_pitch_audio
from rvc_common.keys import check_keys
from rvc_common.model import Resident, Watcher
from rvc_common.stages import BANDS, BINS, CONTOUR, FEATURES, Carry, Event, Stage, leaf, run, walk

from .audio import HOP_SAMPLES, N_MELS, LogMel
from .files import read_file
from .gru import BiGRU
from .layouts import RmvpeLayout
from .model import Model
from .packed import PackedUNet
from .runtime import mx
from .unet import NativeUNet

N_BINS = 360
CENTS_FIRST_BIN, CENTS_PER_BIN = 1997.3794084376191, 20.0
FRAME_MULTIPLE = 32
CHUNK_FRAMES = 32000
TILE_FRAMES = 10240


class RMVPEConfig(rvc_common.config.RMVPEConfig):
    """The sizes, and the U-Net's reach along time, which tiling needs."""

    @property
    def halo_frames(self) -> int:
        """Frames on either side that the U-Net's output at one frame depends on, rounded up to 32.

        Each 3x3 convolution at level i reaches 2 ** i frames; a transposed one, one row of its input.
        """
        per_level = 2 * self.blocks
        sides = sum(2 * per_level * 2**i for i in range(self.levels))
        bottom = self.inter_layers * per_level * 2**self.levels
        upsampling = sum(2 ** (i + 1) for i in range(self.levels))
        return -(-(sides + bottom + upsampling + 1) // FRAME_MULTIPLE) * FRAME_MULTIPLE


def state_shapes(config: RMVPEConfig) -> dict[str, tuple[int, ...]]:
    """Every key of the state dict and its shape (PyTorch's layouts), counters left out."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, c: int) -> None:
        shapes.update({f"{name}.{x}": (c,) for x in ("weight", "bias", "running_mean", "running_var")})

    def blocks(name: str, c_in: int, c_out: int) -> None:
        for j in range(config.blocks):
            a = c_in if j == 0 else c_out
            shapes[f"{name}.{j}.conv.0.weight"] = (c_out, a, 3, 3)
            norm(f"{name}.{j}.conv.1", c_out)
            shapes[f"{name}.{j}.conv.3.weight"] = (c_out, c_out, 3, 3)
            norm(f"{name}.{j}.conv.4", c_out)
            if a != c_out:
                shapes[f"{name}.{j}.shortcut.weight"] = (c_out, a, 1, 1)
                shapes[f"{name}.{j}.shortcut.bias"] = (c_out,)

    widths = [config.width * 2**i for i in range(config.levels + 1)]
    norm("unet.encoder.bn", 1)
    for i, (a, b) in enumerate(zip([1, *widths], widths[:-1], strict=False)):
        blocks(f"unet.encoder.layers.{i}.conv", a, b)
    for i in range(config.inter_layers):
        blocks(f"unet.intermediate.layers.{i}.conv", widths[-2] if i == 0 else widths[-1], widths[-1])
    for i, (a, b) in enumerate(zip(widths[::-1], widths[-2::-1], strict=False)):
        shapes[f"unet.decoder.layers.{i}.conv1.0.weight"] = (a, b, 3, 3)
        norm(f"unet.decoder.layers.{i}.conv1.1", b)
        blocks(f"unet.decoder.layers.{i}.conv2", 2 * b, b)
    shapes.update({"cnn.weight": (3, config.width, 3, 3), "cnn.bias": (3,)})
    for end in ("", "_reverse"):
        shapes[f"fc.0.gru.weight_ih_l0{end}"] = (3 * config.hidden, 3 * N_MELS)
        shapes[f"fc.0.gru.weight_hh_l0{end}"] = (3 * config.hidden, config.hidden)
        shapes[f"fc.0.gru.bias_ih_l0{end}"] = shapes[f"fc.0.gru.bias_hh_l0{end}"] = (3 * config.hidden,)
    shapes.update({"fc.1.weight": (N_BINS, 2 * config.hidden), "fc.1.bias": (N_BINS,)})
    return shapes


class RMVPE(Model, rmvpe.RMVPE):
    __doc__ = rmvpe.RMVPE.__doc__
    read_file = staticmethod(read_file)

    def __init__(
        self,
        state: Mapping[str, np.ndarray],
        *,
        dtype: str = "float32",
        device: str | None = None,
        profile: str = "applio",
        optimize: Iterable[str] | str = "all",
    ) -> None:
        check_choice("profile", profile, PROFILES)
        self.profile, self.config = profile, RMVPEConfig.from_state_dict(state)
        check_keys("RMVPE", state_shapes(self.config), state)
        self._place("rmvpe", dtype, device, optimize)
        with self.on_device(None):
            self._build(state)

    def _build(self, state: Mapping[str, np.ndarray]) -> None:
        config = self.config
        sizes = (config.levels, config.blocks, config.inter_layers)
        self.log_mel = LogMel()
        self.front = (
            leaf("mel", self.log_mel, axes=BANDS),
            leaf("padded_log_mel", lambda x: self._pad_frames(x[None])[0], axes=BANDS),
        )
        self.layout = RmvpeLayout(N_MELS)
        self.packed = PackedUNet(state, *sizes) if "gemm_conv" in self.optimize else None
        fold, fuse = "fold_norm" in self.optimize, "fuse_elementwise" in self.optimize
        options = {
            "fold": fold,
            "fuse": fuse,
            "polyphase": "polyphase" in self.optimize,
            "bound_memory": "tile" in self.optimize,
        }
        self.native = None if self.packed else NativeUNet(state, *sizes, dtype=self.dtype, **options)
        self.gru = gru = BiGRU(state, "fc.0.gru", self.dtype, self.optimize)
        # only the optimisations that this machine allows are reported as used
        self.optimize -= {"compile_gru", "gru_kernel"} - gru.used
        if self.packed:  # it has its own folding and upsampling
            self.optimize -= {"fold_norm", "polyphase"}
        weight = mx.array(np.ascontiguousarray(state["fc.1.weight"].T)).astype(self.dtype)
        bias = mx.array(state["fc.1.bias"]).astype(self.dtype)
        self.head = (
            leaf("fc.0", gru, axes=FEATURES),
            leaf("fc.1", lambda x: x @ weight + bias, axes=FEATURES),
            leaf("sigmoid", mx.sigmoid, axes=BINS, ranks=True),
        )

    @classmethod
    def from_state_dict(cls, state: Mapping[str, np.ndarray], **options: Any) -> RMVPE:
        """Build from upstream's keys mapped to arrays. ``options`` as the constructor's."""
        return cls(state, **options)

    @property
    def chunk(self) -> int:
        """Frames of an independent block under the model's profile; 0: the whole clip."""
        return CHUNK_FRAMES if self.profile == "applio" else 0

    def _mel(self, audio: np.ndarray) -> mx.array:
        return self.log_mel(mx.array(audio)).T

    def salience(self, mel: np.ndarray, chunk: int | None = None) -> np.ndarray:
        """``[128, F] -> [F, 360]`` or ``[B, 128, F] -> [B, F, 360]``, values in (0, 1).

        ``chunk``: frames per independent block, a multiple of 32; 0 for the whole clip; None for the profile's
        own: 32,000 in Applio, the whole clip in the WebUI.
        """
        mel = np.asarray(mel, dtype=np.float32)
        if mel.ndim not in (2, 3) or mel.shape[-2] != N_MELS:
            raise ValueError(f"mel must be [128, F] or [B, 128, F], not {list(mel.shape)}")
        with self.on_device("salience"):
            frames_first = mx.array(mel.reshape(-1, *mel.shape[-2:])).transpose(0, 2, 1)
            result = np.array(self._salience(frames_first, chunk))
        return result if mel.ndim == 3 else result[0]

    def _salience(self, mel: mx.array, chunk: int | None = None) -> mx.array:
        """``[B, F, 128] -> [B, F, 360]``."""
        frames = mel.shape[1]
        x = self._pad_frames(mel)
        chunk = (self.chunk if chunk is None else chunk) or x.shape[1]
        if chunk < FRAME_MULTIPLE or chunk % FRAME_MULTIPLE:
            raise ValueError(f"chunk must be a positive multiple of {FRAME_MULTIPLE}, not {chunk}")
        blocks = [self._block(x[:, i : i + chunk]) for i in range(0, x.shape[1], chunk)]
        return mx.concatenate(blocks, axis=1)[:, :frames].astype(mx.float32)

    def _pad_frames(self, mel: mx.array) -> mx.array:
        frames = mel.shape[1]
        extra = -frames % FRAME_MULTIPLE
        if self.profile == "webui":
            return mx.pad(mel, [(0, 0), (0, extra), (0, 0)])
        if extra >= frames:
            raise ValueError(
                f"audio is too short: {frames} frames, at least {FRAME_MULTIPLE // 2 + 1} are needed "
                f"({FRAME_MULTIPLE // 2 * HOP_SAMPLES} samples at 16 kHz)"
            )
        return mx.concatenate([mel, mel[:, frames - 2 : frames - 2 - extra : -1]], axis=1) if extra else mel

    def _block(self, x: mx.array) -> mx.array:
        """One independent block of frames through the network: ``[B, T, 128] -> [B, T, 360]``."""
        carry: Carry = {"x": self._features(x)}
        run(self.head, carry)
        mx.async_eval(carry["x"])
        return carry["x"]

    def _features(self, x: mx.array) -> mx.array:
        """The U-Net, tile by tile where the block is long: ``[B, T, 128] -> [B, T, 384]``."""
        frames, halo = x.shape[1], self.config.halo_frames
        if "tile" not in self.optimize or frames <= TILE_FRAMES + halo:
            return self._unet(x)
        count = -(-frames // TILE_FRAMES)
        step = -(-frames // count // FRAME_MULTIPLE) * FRAME_MULTIPLE
        parts = []
        for start in range(0, frames, step):
            first, stop = max(0, start - halo), min(frames, start + step + halo)
            part = self._unet(x[:, first:stop])
            # evaluated here, so that only one tile's activations are alive at a time
            parts.append(mx.contiguous(part[:, start - first : min(frames, start + step) - first]))
            mx.eval(parts[-1])
            del part
        return mx.concatenate(parts, axis=1)

    def _unet(self, x: mx.array) -> mx.array:
        results = []
        for part in [x] if self.packed is None else x.split(x.shape[0]):
            stages, carry = self._entered(part)
            run(stages, carry)
            results.append(carry["x"])
        return mx.concatenate(results)

    def _entered(self, x: mx.array) -> tuple[tuple[Stage, ...], Carry]:
        """The U-Net's stages for ``[B, T, 128]`` and the carry that they begin with; packed, B is 1."""
        if self.native is not None:
            return self.native.stages, {"x": x[..., None].astype(self.dtype)}
        assert self.packed is not None
        return self.packed.stages(x.shape[1], N_MELS), {"x": x[0], "rows": x.shape[1]}

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
        with self.on_device("cents"):
            return _cents(mx.array(salience), threshold)

    def f0(self, audio: np.ndarray, threshold: float = 0.03) -> np.ndarray:
        """``[n]`` 16 kHz mono to Hz ``[F]``, float64, 100 frames a second, 0 where unvoiced."""
        with self.on_device("f0"):
            carry: Carry = {"x": mx.array(check_pitch_audio(audio))}
            run(self.front, carry)
            # decoded block by block: the salience of an hour is half a gigabyte
            salience = (self._block(block)[0] for block in self._blocks(carry["x"]))
            cents = np.concatenate([_cents(block.astype(mx.float32), threshold) for block in salience])
        return cents_to_hz(cents[: frames_of(audio)])

    def _blocks(self, x: mx.array) -> Iterator[mx.array]:
        """Padded frames ``[T, 128]`` in the profile's independent blocks ``[1, T, 128]``."""
        chunk = self.chunk or x.shape[0]
        return (x[None, i : i + chunk] for i in range(0, x.shape[0], chunk))

    def resident(self, call: str, array: np.ndarray) -> Resident:
        """``mel`` of audio ``[n]``, ``network`` of mel ``[128, F]`` or ``gru`` of ``[B, T, 384]``, on the device."""
        with self.on_device(None):
            x = mx.array(np.asarray(array, np.float32))
            x = x.T[None] if call == "network" else x.astype(self.dtype) if call == "gru" else x
            x = mx.contiguous(x)
            mx.eval(x)
        work: dict[str, Callable[[], mx.array]] = {
            "mel": lambda: self.log_mel(x).T,
            "network": lambda: self._salience(x)[0],
            "gru": lambda: self.gru(x),
        }
        return Resident(self, lambda: {call: work[call]()})

    def _walk(self, audio: np.ndarray, threshold: float) -> Iterator[Event]:
        carry: Carry = {"x": mx.array(audio)}
        yield from walk(self.front, carry)
        cents = []
        for i, block in enumerate(self._blocks(carry.pop("x"))):
            stages, inner = self._entered(block)
            decoding = Stage(
                "cents",
                lambda c: c.update(cents=_cents(c["x"][0].astype(mx.float32), threshold)),
                product="cents",
                axes=CONTOUR,
                decides=True,
            )
            yield from walk((*stages, *self.head, decoding), inner, f"block.{i}." if i else "")
            cents.append(inner["cents"])
        carry["f0"] = cents_to_hz(np.concatenate(cents)[: frames_of(audio)])
        yield Event("f0", carry, "f0", axes=CONTOUR, decides=True)

    def trace(self, mel: np.ndarray, watch: Watcher, chunk: int | None = None) -> None:
        """Run the network on ``[B, 128, F]``; ``watch(path, array)`` after every stage.

        Arrays are in PyTorch's layouts. Stages that an optimisation merges are not reported.
        """
        self.report(self.stepped(self._walk_network(mel, chunk)), watch)

    def _walk_network(self, mel: np.ndarray, chunk: int | None) -> Iterator[Event]:
        x = self._pad_frames(mx.array(mel).transpose(0, 2, 1))
        yield Event("padded_log_mel", {"x": x}, "x")
        chunk = (self.chunk if chunk is None else chunk) or x.shape[1]
        for i in range(0, x.shape[1], chunk):
            block = x[:, i : i + chunk]
            for part in [block] if self.packed is None else block.split(block.shape[0]):
                stages, carry = self._entered(part)
                yield from walk((*stages, *self.head), carry)


def frames_of(audio: np.ndarray) -> int:
    return 1 + audio.size // HOP_SAMPLES


def _cents(salience: mx.array, threshold: float) -> np.ndarray:
    """The window around the maximum on the device, its mean in float64 on the host."""
    peak = mx.argmax(salience, axis=1)[:, None]
    bins = peak + mx.arange(-4, 5)
    inside = (bins >= 0) & (bins < N_BINS)
    nearby = mx.where(inside, mx.take_along_axis(salience, mx.clip(bins, 0, N_BINS - 1), axis=1), 0.0)
    window = np.array(nearby)
    # a bin outside has weight zero, so its cents do not matter
    weighted = (window * (CENTS_FIRST_BIN + CENTS_PER_BIN * np.array(bins).astype(np.float64))).sum(axis=1)
    voiced = window.max(axis=1, initial=0.0) > threshold
    total = np.where(voiced, window.sum(axis=1, dtype=np.float32), np.float32(1))
    return np.where(voiced, weighted / total, 0.0)


def cents_to_hz(cents: np.ndarray) -> np.ndarray:
    """Cents above 10 Hz to Hz; 0 stays 0 (unvoiced)."""
    return np.where(cents > 0, 10.0 * 2.0 ** (cents / 1200.0), 0.0)
