"""All models at once: what the suites of several models share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar

from .base import Results, Settings, Suite
from .config import ConversionOptions, SuiteConfig
from .hubert import Hubert
from .rmvpe import Rmvpe
from .synthesizer import Synthesizer

RMVPE, HUBERT, SYNTHESIZER = Rmvpe(), Hubert(), Synthesizer()


class Loaded:
    """The three models, and their calls whose inputs are on the device."""

    def __init__(self, hubert: Any, rmvpe: Any, synthesizer: Any) -> None:
        self.parts = self.hubert, self.rmvpe, self.synthesizer = hubert, rmvpe, synthesizer
        self.optimize = sorted({name for model in self.parts for name in getattr(model, "optimize", ())})
        self._given: Results = {}
        self._resident: dict[str, Any] = {}

    def resident(self, name: str, given: Results, make: Callable[[], Any]) -> Any:
        """Made once for these inputs."""
        if given is not self._given:
            self._given, self._resident = given, {}
        if name not in self._resident:
            self._resident[name] = make()
        return self._resident[name]


class Stack(Suite):
    options: ClassVar[type[SuiteConfig]] = ConversionOptions
    whole: ClassVar[str | None] = None
    checkpoints = ("hubert", "rmvpe", "voice")
    takes_audio: ClassVar[bool] = False

    def load(
        self, package: ModuleType, paths: Mapping[str, str], options: dict[str, Any], settings: Settings
    ) -> Loaded:
        return Loaded(*(suite.load(package, paths, options, settings) for suite in (HUBERT, RMVPE, SYNTHESIZER)))

    def facts(self, model: Any) -> dict[str, Any]:
        return SYNTHESIZER.facts(model.synthesizer) | {"optimize": model.optimize}

    def models(self, model: Any) -> tuple[Any, ...]:
        return tuple(model.parts)

    def frames(self, samples: int) -> int:
        return SYNTHESIZER.frames(samples)
