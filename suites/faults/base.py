"""What a fault is, and how one is injected and taken back."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

State = dict[str, np.ndarray]


class Patches:
    """Changes to modules and classes that can be undone. Everything here runs in the worker that has MLX."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def module(self, name: str) -> Any:
        own = importlib.util.find_spec(f"rvc_mlx.{name}")
        return importlib.import_module(f"rvc_mlx.{name}" if own else f"rvc_common.{name}")

    @property
    def mx(self) -> Any:
        return self.module("runtime").mx

    def set(self, target: Any, name: str, value: Any) -> None:
        """Replace an attribute of a module, a class or an object."""
        had = name in vars(target)
        old = vars(target).get(name)

        def undo() -> None:
            setattr(target, name, old) if had else delattr(target, name)

        setattr(target, name, value)
        self._undo.append(undo)

    def constant(self, where: str, value: Any) -> None:
        """``module.NAME`` to another value."""
        module, _, name = where.rpartition(".")
        self.set(self.module(module), name, value)

    def wrap(self, target: Any, name: str, around: Callable[..., Any]) -> None:
        """Replace a function or method: ``around(original, *arguments)``."""
        original = getattr(target, name)

        def replaced(*arguments: Any, **options: Any) -> Any:
            return around(original, *arguments, **options)

        self.set(target, name, replaced)

    def weights(self, model: str, change: Callable[[State], Any]) -> None:
        """Change the state dict after it was read and before the model is built from it."""
        places = {
            "rmvpe": ("rmvpe", "RMVPE"),
            "hubert": ("hubert", "Hubert"),
            "synthesizer": ("synthesizer", "Synthesizer"),
        }
        module, name = places[model]
        cls = getattr(self.module(module), name)

        def load(original: Any, state: State, *rest: Any, **options: Any) -> Any:
            changed = {key: np.array(value) for key, value in state.items()}
            change(changed)
            return original(changed, *rest, **options)

        original = cls.from_state_dict
        self.set(cls, "from_state_dict", classmethod(lambda cls, *a, **o: load(original, *a, **o)))

    def stage(self, where: str, method: str, path: str, change: Callable[[dict[str, Any]], Any]) -> None:
        """After the stage ``path`` among those that ``module.Class.method`` makes, ``change(carry)``.

        ``path`` is relative to what that method returns: a stage, or a tuple of them, perhaps without this one.
        """
        module, _, name = where.rpartition(".")
        owner = getattr(self.module(module), name) if name else self.module(module)

        def around(original: Any, *arguments: Any, **options: Any) -> Any:
            return self._rebuilt(original(*arguments, **options), path.split("/"), change)

        self.wrap(owner, method, around)

    def _rebuilt(self, made: Any, names: list[str], change: Callable[[dict[str, Any]], Any]) -> Any:
        stages = self.module("stages")
        if isinstance(made, stages.Stage):
            return self._changed(made, names, change) if made.name == names[0] else made
        return tuple(self._changed(s, names, change) if s.name == names[0] else s for s in made)

    def _changed(self, stage: Any, names: list[str], change: Callable[[dict[str, Any]], Any]) -> Any:
        stages = self.module("stages")
        if len(names) > 1:
            return stages.group(stage.name, self._rebuilt(stage.parts, names[1:], change), stage.product)

        def apply(carry: dict[str, Any]) -> None:
            stage.apply(carry)
            change(carry)

        if stage.parts:  # a group: the change comes as one more step of its last part
            *before, last = stage.parts
            return stages.group(stage.name, (*before, self._changed(last, [last.name], change)), stage.product)
        return stage._replace(apply=apply)

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()


@dataclass(frozen=True)
class Fault:
    """A mutation, and where it must be found.

    Attributes:
        name: short, in words joined by dashes.
        model: the suite whose trace must find it.
        summary: what is wrong, as one would tell it.
        inject: makes the mutation; before the model is loaded.
        expect: regular expression that the path of the stage named must match as a whole.
        optimize: what ``rvc_mlx`` is loaded with: paths differ.
        voice: the kind of synthetic voice, where it matters.
        settings: of the suite, where they matter.
        known: it stands in the list of faults of published ports.
    """

    name: str
    model: str
    summary: str
    inject: Callable[[Patches], None]
    expect: str
    optimize: str = "all"
    voice: str = "synth_v2_40k_f0"
    settings: tuple[tuple[str, Any], ...] = ()
    known: bool = False

    @property
    def key(self) -> str:
        return f"{self.model}/{self.name}"


def keys(state: State, start: str) -> Iterator[str]:
    return (key for key in state if key.startswith(start))


def randomised(state: State, start: str, seed: int = 9) -> None:
    """What a load that is not strict leaves: other values of the same kind."""
    rng = np.random.default_rng(seed)
    found = list(keys(state, start))
    if not found:
        raise LookupError(f"no weight begins with {start!r}")
    for key in found:
        if not key.endswith("weight_g"):
            deviation = float(np.std(state[key])) or 0.05
            state[key] = (rng.standard_normal(state[key].shape) * deviation).astype(np.float32)
