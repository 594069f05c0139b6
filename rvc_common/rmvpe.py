"""The calls of RMVPE, for both implementations. Shapes: B = batch, n = samples at 16 kHz, F = 10 ms frames."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from .checkpoint import Reader, file_named, read_state_dict
from .checks import check_pitch_audio
from .model import Model
from .stages import Event


class RMVPE(Model):
    """Pitch of 16 kHz mono audio, 100 frames a second. NumPy in, NumPy out."""

    # opens checkpoints; each implementation has its own
    read_file: Reader

    @classmethod
    def from_checkpoint(cls, path: str | Path, **options: Any) -> Self:
        """Load upstream's ``rmvpe.pt`` (bare state dict) or ``.safetensors``, strictly.

        Raises:
            CheckpointError: unreadable file, or keys and shapes of another model.
        """
        with file_named(path):
            return cls.from_state_dict(read_state_dict(path, cls.read_file), **options)

    @classmethod
    @abstractmethod
    def from_state_dict(cls, state: Mapping[str, np.ndarray], **options: Any) -> Self:
        """Build from upstream keys mapped to arrays. ``options``: the constructor's."""

    def mel(self, audio: np.ndarray) -> np.ndarray:
        """``[n]`` 16 kHz mono in [-1, 1] to natural-log mel ``[128, F]``, F = 1 + n // 160."""
        with self.on_device("mel"):
            return self.to_host(self._mel(check_pitch_audio(audio)))

    def walk(self, audio: np.ndarray, threshold: float = 0.03) -> Iterator[Event]:
        """``f0`` stage by stage; see ``stages.walk``. Later blocks' paths begin with ``block.i.``."""
        return self.stepped(self._walk(check_pitch_audio(audio), threshold))

    # ------------------------------------------------------------------ an implementation's own
    @abstractmethod
    def _mel(self, audio: np.ndarray) -> Any:
        """``[n]`` to ``[128, F]``."""

    @abstractmethod
    def _walk(self, audio: np.ndarray, threshold: float) -> Iterator[Event]: ...
