"""The calls of RMVPE, for both implementations. Shapes: B = batch, n = samples at 16 kHz, F = 10 ms frames."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import read_state_dict
from .checks import check_pitch_audio
from .model import Model
from .stages import Event


class RMVPE(Model):
    """Pitch of 16 kHz mono audio, 100 frames a second. NumPy in, NumPy out."""

    @classmethod
    def _read(cls, path: str | Path) -> tuple[dict[str, np.ndarray]]:
        return (read_state_dict(path, cls.read_file),)

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
