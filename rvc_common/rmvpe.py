"""The calls of RMVPE, for both implementations.

Shapes: B = batch, n = samples at 16 kHz, F = 10 ms frames, T = frames padded to a multiple of 32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import read_rmvpe
from .checks import check_pitch_audio
from .finite import is_finite
from .model import Model, Resident, Watcher
from .stages import CONTOUR, Carry, Event, Stage, run, walk
from .steps import HOP_SAMPLES

N_MELS, N_BINS = 128, 360
FRAME_MULTIPLE = 32


class RMVPE(Model):
    """Pitch of 16 kHz mono audio, 100 frames a second. NumPy in, NumPy out."""

    title = "RMVPE"
    profile: str
    # audio to mel, and that padded
    front: tuple[Stage, ...]
    # frames of an independent block under the model's profile; 0: the whole clip
    chunk: int

    # an implementation's own; what it calls frames are mels in its own axis order
    _mel: Callable[[Any], Any]  # ``[n]`` to ``[128, F]``
    _batch: Callable[[np.ndarray], Any]  # mels ``[B, 128, F]`` to frames
    _pad_frames: Callable[[Any], Any]
    _split: Callable[..., Sequence[Any]]  # padded frames to independent blocks; ``chunk`` as in ``salience``
    _block: Callable[[Any], Any]  # a block to salience ``[B, T, 360]``
    _salience: Callable[..., Any]  # frames to ``[B, F, 360]``; ``chunk`` as in ``salience``
    _network: Callable[[Any], tuple[tuple[Stage, ...], Carry]]  # stages for a part of a block, and their first carry
    _gru: Callable[[Any], Any]  # ``[B, T, 384] -> [B, T, 512]``
    # ``[F, 360]`` and the threshold to cents ``[F]``; NaN where a salience of the frame is NaN or infinite
    _cents: Callable[[Any, float], np.ndarray]
    _hertz: Callable[[np.ndarray], np.ndarray]  # from cents above 10 Hz; 0 stays 0 (unvoiced)

    @classmethod
    def _read(cls, path: str | Path) -> tuple[dict[str, np.ndarray]]:
        return (read_rmvpe(path, cls.read_file),)

    def mel(self, audio: np.ndarray) -> np.ndarray:
        """``[n]`` 16 kHz mono in [-1, 1] to natural-log mel ``[128, F]``, F = 1 + n // 160."""
        audio = check_pitch_audio(audio)
        with self.on_device("mel"):
            result = self.to_host(self._mel(self.to_wide(audio)))
        return self.finite(result, lambda watch: self.report(self.walk(audio), watch))

    def salience(self, mel: np.ndarray, chunk: int | None = None) -> np.ndarray:
        """``[128, F] -> [F, 360]`` or ``[B, 128, F] -> [B, F, 360]``, values in (0, 1).

        ``chunk``: frames per independent block, a multiple of 32; 0 for the whole clip; None for the profile's
        own: 32,000 in Applio, the whole clip in the WebUI.
        """
        mel = np.asarray(mel)
        if mel.ndim not in (2, 3) or mel.shape[-2] != N_MELS:
            raise ValueError(f"mel must be [128, F] or [B, 128, F], not {list(mel.shape)}")
        if chunk and (chunk < FRAME_MULTIPLE or chunk % FRAME_MULTIPLE):
            raise ValueError(f"chunk must be a positive multiple of {FRAME_MULTIPLE}, not {chunk}")
        batch = mel.reshape(-1, *mel.shape[-2:])
        with self.on_device("salience"):
            result = self.to_host(self._salience(self._batch(batch), chunk))
        self.finite(result, lambda watch: self.trace(batch, watch, chunk), mel)
        return result if mel.ndim == 3 else result[0]

    def decode(self, salience: np.ndarray, threshold: float = 0.03) -> np.ndarray:
        """``[F, 360]`` to Hz ``[F]``, float64; 0 where the maximum is at most ``threshold``."""
        return self._hertz(self.cents(salience, threshold))

    def cents(self, salience: np.ndarray, threshold: float = 0.03) -> np.ndarray:
        """``[F, 360]`` to cents above 10 Hz ``[F]``, float64; 0 where unvoiced.

        The salience-weighted mean of the nine bins around the first maximum.
        """
        salience = np.asarray(salience, dtype=np.float32)
        if salience.ndim != 2 or salience.shape[1] != N_BINS:
            raise ValueError(f"salience must be [F, {N_BINS}], not {list(salience.shape)}")
        with self.on_device("cents"):
            cents = self._cents(self.to_wide(salience), threshold)
        if not is_finite(cents):
            raise ValueError("salience has NaN or infinite values")
        return cents

    def f0(self, audio: np.ndarray, threshold: float = 0.03) -> np.ndarray:
        """``[n]`` 16 kHz mono to Hz ``[F]``, float64, 100 frames a second, 0 where unvoiced."""
        audio = check_pitch_audio(audio)
        with self.on_device("f0"):
            carry: Carry = {"x": self.to_wide(audio)}
            run(self.front, carry)
            # decoded block by block: the salience of an hour is half a gigabyte
            cents = [self._cents(self._block(block)[0], threshold) for block in self._split(carry["x"][None])]
        f0 = self._hertz(np.concatenate(cents)[: _frames(audio)])
        return self.finite(f0, lambda watch: self.report(self.walk(audio, threshold), watch))

    def resident(self, call: str, array: np.ndarray) -> Resident:
        """``mel`` of audio ``[n]``, ``network`` of mel ``[128, F]`` or ``gru`` of ``[B, T, 384]``, on the device."""
        work = {"mel": self._mel, "network": lambda x: self._salience(x)[0], "gru": self._gru}[call]
        with self.on_device(None):
            x = {"mel": self.to_wide, "network": lambda mel: self._batch(mel[None]), "gru": self.to_device}[call](array)
            inputs = self.settle({"x": x})
        return Resident(self, lambda: {call: work(inputs["x"])})

    def walk(self, audio: np.ndarray, threshold: float = 0.03) -> Iterator[Event]:
        """``f0`` stage by stage; see ``stages.walk``. Later blocks' paths begin with ``block.i.``."""
        return self.stepped(self._walk(check_pitch_audio(audio), threshold))

    def _walk(self, audio: np.ndarray, threshold: float) -> Iterator[Event]:
        def decode(carry: Carry) -> None:
            carry["cents"] = self._cents(carry["x"][0], threshold)

        decoding = Stage("cents", decode, product="cents", axes=CONTOUR, decides=True)
        carry: Carry = {"x": self.to_wide(audio)}
        cents = []
        yield from walk(self.front, carry)
        for i, block in enumerate(self._split(carry.pop("x")[None])):
            stages, inner = self._network(block)
            yield from walk((*stages, decoding), inner, f"block.{i}." if i else "")
            cents.append(inner["cents"])
        carry["f0"] = self._hertz(np.concatenate(cents)[: _frames(audio)])
        yield Event("f0", carry, "f0", axes=CONTOUR, decides=True)

    def trace(self, mel: np.ndarray, watch: Watcher, chunk: int | None = None) -> None:
        """Run the network on ``[B, 128, F]``; ``watch(path, array)`` after every stage.

        Arrays are in PyTorch's layouts. Stages that an optimisation merges are not reported.
        """
        self.report(self.walk_network(mel, chunk), watch)

    def walk_network(self, mel: np.ndarray, chunk: int | None = None) -> Iterator[Event]:
        """The network on ``[B, 128, F]``, stage by stage; see ``stages.walk``. Every block's paths are the same."""
        return self.stepped(self._walk_network(mel, chunk))

    def _walk_network(self, mel: np.ndarray, chunk: int | None) -> Iterator[Event]:
        carry: Carry = {"x": self._pad_frames(self._batch(mel))}
        yield Event("padded_log_mel", carry, "x")
        for block in self._split(carry["x"], chunk):
            for part in self._parts(block):
                yield from walk(*self._network(part))

    def _missing_frames(self, frames: int) -> int:
        """Frames up to a multiple of 32."""
        extra = -frames % FRAME_MULTIPLE
        if extra >= frames and self.profile != "webui":
            raise ValueError(
                f"audio is too short: {frames} frames, at least {FRAME_MULTIPLE // 2 + 1} are needed "
                f"({FRAME_MULTIPLE // 2 * HOP_SAMPLES} samples at 16 kHz)"
            )
        return extra

    def _parts(self, block: Any) -> Iterable[Any]:
        """What of a batch passes through the network at a time."""
        return [block]


def _frames(audio: np.ndarray) -> int:
    return 1 + audio.size // HOP_SAMPLES
