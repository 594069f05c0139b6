"""The calls of HuBERT / ContentVec, for both implementations.

Shapes: B = batch, n = samples at 16 kHz, H = 20 ms frames, C = values per frame.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from .checkpoint import embedder_of, read_hubert
from .checks import check_content_audio
from .config import HubertConfig
from .keys import normalise_keys
from .model import Model, Outputs, Resident, Watcher
from .stages import FEATURES, Carry, Event, Stage, walk

# v1 voices of the WebUI were trained on the output of the ninth layer
WEBUI_V1_LAYERS = 9


class Hubert(Model):
    """Content features of 16 kHz mono audio, 50 frames a second. NumPy in, NumPy out."""

    title = "HuBERT"
    config: HubertConfig
    # which content model it is, by the name of its file; may be set where that is another one
    embedder: str | None = None
    # the seven convolutions
    extracting: tuple[Stage, ...]

    # an implementation's own
    _entered: Callable[[np.ndarray], Carry]  # ``x`` of the convolutions, from ``[n]`` or ``[B, n]``
    # what follows the convolutions: so many layers, and perhaps ``final_proj``
    _encoding_stages: Callable[[int, bool], tuple[Stage, ...]]

    @abstractmethod
    def __init__(self, state: Mapping[str, np.ndarray], config: HubertConfig, **options: Any) -> None: ...

    @classmethod
    def from_checkpoint(cls, path: str | Path, **options: Any) -> Self:
        model = super().from_checkpoint(path, **options)
        model.embedder = embedder_of(path)
        return model

    @classmethod
    def _read(cls, path: str | Path) -> tuple[dict[str, np.ndarray]]:
        return (read_hubert(path, cls.read_file),)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, np.ndarray], **options: Any) -> Self:
        """Build from Hugging Face's keys mapped to arrays. ``options`` as the constructor's."""
        state = normalise_keys(state)
        return cls(state, HubertConfig.from_state_dict(state), **options)

    def features(
        self, audio: np.ndarray, version: str = "v2", profile: str = "applio", watch: Watcher | None = None
    ) -> np.ndarray:
        """``[n]`` or ``[B, n]`` at 16 kHz to ``[H, C]`` or ``[B, H, C]``, H = (n - 400) // 320 + 1.

        C is 768 for v2 voices and 256, through ``final_proj``, for v1. ``watch(path, array)`` is
        called after every stage, arrays in PyTorch's layouts.
        """
        with self.on_device("features"):
            carry = self._entered(check_content_audio(audio))
            stages = (*self.extracting, *self._encoding(version, profile))
            return self._result(stages, carry, np.ndim(audio) == 2, watch)

    def width(self, version: str, profile: str) -> int | None:
        """Values per frame that ``features`` gives.

        Raises ``ValueError``: no such version or profile, or this model lacks what the version needs."""
        _, projects = self._last_stage(version, profile)
        return self.config.projected if projects else self.config.channels

    def extract(self, audio: np.ndarray) -> np.ndarray:
        """The seven convolutions alone: ``[n]`` or ``[B, n]`` to ``[H, 512]`` or ``[B, H, 512]``."""
        with self.on_device("extract"):
            return self._result(self.extracting, self._entered(check_content_audio(audio)), np.ndim(audio) == 2)

    def encode(
        self, extracted: np.ndarray, version: str = "v2", profile: str = "applio", layers: int | None = None
    ) -> np.ndarray:
        """What follows ``extract``: ``[H, 512]`` or ``[B, H, 512]`` to ``[.., H, 768 or 256]``; ``layers``: the first
        so many of the transformer, without ``final_proj``."""
        with self.on_device("encode"):
            stages = self._encoding(version, profile) if layers is None else self._encoding_stages(layers, False)
            return self._result(stages, self._encoded(extracted), np.ndim(extracted) == 3, None, extracted)

    def _encoded(self, extracted: np.ndarray) -> Carry:
        return {"x": self.to_device(extracted.reshape(-1, *extracted.shape[-2:]))}

    def walk_layers(self, extracted: np.ndarray, layers: int) -> Iterator[Event]:
        """``encode`` with so many layers, stage by stage."""
        return self.stepped(self._walk_layers(extracted, layers))

    def _walk_layers(self, extracted: np.ndarray, layers: int) -> Iterator[Event]:
        yield from walk(self._encoding_stages(layers, False), self._encoded(extracted))

    def _result(
        self,
        stages: tuple[Stage, ...],
        start: Carry,
        batched: bool,
        watch: Watcher | None = None,
        given: np.ndarray | None = None,
    ) -> np.ndarray:
        carry = dict(start)
        self.run(stages, carry, watch)
        result = self.to_host(carry["x"])
        if watch is None:
            self.finite(result, lambda seen: self.run(stages, dict(start), seen), given)
        return result if batched else result[0]

    def resident(self, audio: np.ndarray, version: str = "v2", profile: str = "applio") -> Resident:
        """``features`` with its input on the device already."""
        stages = (*self.extracting, *self._encoding(version, profile))
        with self.on_device(None):
            start = self.settle(self._entered(check_content_audio(audio)))

        def work() -> Outputs:
            carry = dict(start)
            self.run(stages, carry)
            return {"features": carry["x"] if np.ndim(audio) == 2 else carry["x"][0]}

        return Resident(self, work)

    def walk(self, audio: np.ndarray, version: str = "v2", profile: str = "applio") -> Iterator[Event]:
        """``features`` stage by stage; see ``stages.walk``."""
        return self.stepped(self._walk(audio, version, profile))

    def _walk(self, audio: np.ndarray, version: str, profile: str) -> Iterator[Event]:
        carry = self._entered(check_content_audio(audio))
        yield from walk((*self.extracting, *self._encoding(version, profile)), carry)
        carry["features"] = self.to_host(carry["x"])
        yield Event("features", carry, "features", axes=FEATURES)

    def _encoding(self, version: str, profile: str) -> tuple[Stage, ...]:
        return self._encoding_stages(*self._last_stage(version, profile))

    def _last_stage(self, version: str, profile: str) -> tuple[int, bool]:
        if version not in ("v1", "v2") or profile not in ("applio", "webui"):
            raise ValueError(f"unknown version or profile: {version!r}, {profile!r}; v1 or v2, applio or webui")
        projects = version == "v1"
        layers = WEBUI_V1_LAYERS if projects and profile == "webui" else self.config.layers
        if projects and self.config.projected is None:
            raise ValueError("this HuBERT has no final_proj, which v1 voices need")
        if layers > self.config.layers:
            raise ValueError(f"this HuBERT has {self.config.layers} layers; the WebUI's v1 voices need {layers}")
        return layers, projects
