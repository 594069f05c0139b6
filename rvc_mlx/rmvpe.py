"""RMVPE pitch estimation in MLX.

Method: Wei et al., "RMVPE: A Robust Model for Vocal Pitch Estimation in Polyphonic Music"
(2023); behaviour and state-dict keys as in IAHispano/Applio, revision b9c0ccb. Shapes:
B = batch, T = 10 ms frames; arrays inside are channels last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

import rvc_common.config
from rvc_common import rmvpe
from rvc_common.checks import PROFILES, check_choice
from rvc_common.keys import check_keys
from rvc_common.rmvpe import FRAME_MULTIPLE, N_BINS, N_MELS
from rvc_common.stages import BANDS, BINS, FEATURES, Carry, Stage, leaf, run

from .audio import LogMel
from .files import read_file
from .gru import BiGRU
from .keys import rmvpe_shapes
from .layers import Weights
from .layouts import RmvpeLayout
from .model import Model
from .packed import PackedUNet
from .runtime import mx
from .unet import NativeUNet

CENTS_FIRST_BIN, CENTS_PER_BIN = 1997.3794084376191, 20.0
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
        self.profile, self.chunk = profile, CHUNK_FRAMES if profile == "applio" else 0
        self.config = RMVPEConfig.from_state_dict(state)
        check_keys("RMVPE", rmvpe_shapes(self.config), state)
        self._place("rmvpe", dtype, device, optimize)
        with self.on_device(None):
            self._build(state)

    def _build(self, state: Mapping[str, np.ndarray]) -> None:
        self.log_mel = LogMel()
        self.front = (
            leaf("mel", self.log_mel, axes=BANDS),
            leaf("padded_log_mel", lambda x: self._pad_frames(x[None])[0], axes=BANDS),
        )
        self.layout = RmvpeLayout(N_MELS)
        weights = Weights(state, self.dtype, self.optimize)
        self.packed = PackedUNet(state, self.config) if "gemm_conv" in self.optimize else None
        self.native = None if self.packed else NativeUNet(self.config, N_MELS, weights)
        self._gru = gru = BiGRU(state, "fc.0.gru", self.dtype, self.optimize)
        # only the optimisations that this machine allows are reported as used
        self.optimize -= {"compile_gru", "gru_kernel"} - gru.used
        if self.packed:  # it has its own folding and upsampling
            self.optimize -= {"fold_norm", "polyphase"}
        self.head = (
            leaf("fc.0", gru, axes=FEATURES),
            leaf("fc.1", weights.linear("fc.1"), axes=FEATURES),
            leaf("sigmoid", mx.sigmoid, axes=BINS, ranks=True),
        )

    @classmethod
    def from_state_dict(cls, state: Mapping[str, np.ndarray], **options: Any) -> RMVPE:
        """Build from upstream's keys mapped to arrays. ``options`` as the constructor's."""
        return cls(state, **options)

    def _mel(self, audio: mx.array) -> mx.array:
        return self.log_mel(audio).T

    def _batch(self, mel: np.ndarray) -> mx.array:
        """``[B, 128, F]`` to MLX's ``[B, F, 128]``."""
        return self.to_wide(mel).transpose(0, 2, 1)

    def settle(self, carry: Carry) -> Carry:
        return super().settle({name: mx.contiguous(value) for name, value in carry.items()})

    def _salience(self, mel: mx.array, chunk: int | None = None) -> mx.array:
        blocks = [self._block(block) for block in self._split(self._pad_frames(mel), chunk)]
        return mx.concatenate(blocks, axis=1)[:, : mel.shape[1]].astype(mx.float32)

    def _split(self, mel: mx.array, chunk: int | None = None) -> list[mx.array]:
        chunk = (self.chunk if chunk is None else chunk) or mel.shape[1]
        return [mel[:, i : i + chunk] for i in range(0, mel.shape[1], chunk)]

    def _pad_frames(self, mel: mx.array) -> mx.array:
        frames = mel.shape[1]
        extra = self._missing_frames(frames)
        if self.profile == "webui":
            return mx.pad(mel, [(0, 0), (0, extra), (0, 0)])
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
        for part in self._parts(x):
            stages, carry = self._entered(part)
            self.run(stages, carry)
            results.append(carry["x"])
        return mx.concatenate(results)

    def _parts(self, x: mx.array) -> list[mx.array]:
        return [x] if self.packed is None else x.split(x.shape[0])

    def _entered(self, x: mx.array) -> tuple[tuple[Stage, ...], Carry]:
        """The U-Net's stages for ``[B, T, 128]`` and the carry that they begin with; packed, B is 1."""
        if self.native is not None:
            return self.native.stages, {"x": x[..., None].astype(self.dtype)}
        assert self.packed is not None
        return self.packed.stages(x.shape[1], N_MELS), {"x": x[0], "rows": x.shape[1]}

    def _network(self, block: mx.array) -> tuple[tuple[Stage, ...], Carry]:
        stages, carry = self._entered(block)
        return (*stages, *self.head), carry

    def _cents(self, salience: mx.array, threshold: float) -> np.ndarray:
        """The window around the maximum on the device, its mean in float64 on the host."""
        salience = salience.astype(mx.float32)
        peak = mx.argmax(salience, axis=1)[:, None]
        bins = peak + mx.arange(-4, 5)
        inside = (bins >= 0) & (bins < N_BINS)
        nearby = mx.where(inside, mx.take_along_axis(salience, mx.clip(bins, 0, N_BINS - 1), axis=1), 0.0)
        # a CPU's maximum is NaN where there is any; a GPU's may pass over it, a sum does not
        sums = salience.sum(axis=1) if self.on_gpu else None
        if sums is not None:
            mx.eval(nearby, bins, sums)
        window = np.array(nearby)
        # a bin outside has weight zero, so its cents do not matter
        weighted = (window * (CENTS_FIRST_BIN + CENTS_PER_BIN * np.array(bins).astype(np.float64))).sum(axis=1)
        unvoiced = window.max(axis=1, initial=0.0) <= threshold  # NaN is not
        total = np.where(unvoiced, np.float32(1), window.sum(axis=1, dtype=np.float32))
        with np.errstate(invalid="ignore"):
            cents = np.where(unvoiced, 0.0, weighted / total)
        if sums is not None:
            cents[~np.isfinite(np.array(sums))] = np.nan
        return cents

    def _hertz(self, cents: np.ndarray) -> np.ndarray:
        return np.where(cents == 0, 0.0, 10.0 * 2.0 ** (cents / 1200.0))
