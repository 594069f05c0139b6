"""What a fault is, and how one is injected and taken back."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

State = dict[str, np.ndarray]
Change = Callable[[dict[str, Any]], Any]


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

    def owner(self, where: str) -> tuple[Any, str]:
        """The module or class that holds ``module.NAME`` or ``module.Class.NAME``, and that name."""
        first, *inner, name = where.split(".")
        return functools.reduce(getattr, inner, self.module(first)), name

    def wrap(self, where: str, changed: Callable[..., Any]) -> None:
        """Replace a function or method: ``changed(original, *arguments)``."""
        target, name = self.owner(where)
        original = getattr(target, name)

        def replaced(*arguments: Any, **options: Any) -> Any:
            return changed(original, *arguments, **options)

        self.set(target, name, replaced)

    def weights(self, model: str, change: Callable[[State], Any]) -> None:
        """Change the state dict after it was read and before the model is built from it."""
        cls = getattr(self.module(model), {"rmvpe": "RMVPE", "hubert": "Hubert", "synthesizer": "Synthesizer"}[model])
        original = cls.from_state_dict

        def load(cls: Any, state: State, *rest: Any, **options: Any) -> Any:
            changed = {key: np.array(value) for key, value in state.items()}
            change(changed)
            return original(changed, *rest, **options)

        self.set(cls, "from_state_dict", classmethod(load))

    def changed(self, made: Any, path: str, change: Change) -> Any:
        """A stage or a tuple of stages, with ``change(carry)`` after the stage ``path``, where it is among them."""
        stages, (name, _, rest) = self.module("stages"), path.partition("/")
        if not isinstance(made, stages.Stage):
            return tuple(self.changed(stage, path, change) for stage in made)
        if made.name != name:
            return made
        if rest:
            return stages.group(name, self.changed(made.parts, rest, change), made.product)
        if made.parts:  # a group: the change comes as one more step of its last part
            *before, last = made.parts
            return stages.group(name, (*before, self.changed(last, last.name, change)), made.product)
        return after(made, change)

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()


Inject = Callable[[Patches], None]


def after(stage: Any, change: Change) -> Any:
    """A stage without parts, with ``change(carry)`` after it."""

    def apply(carry: dict[str, Any]) -> None:
        stage.apply(carry)
        change(carry)

    return stage._replace(apply=apply)


# ---------------------------------------------------------------------- ways to make a fault
def constant(where: str, value: Any) -> Inject:
    """Another value of ``module.NAME``."""
    return lambda p: p.set(*p.owner(where), value)


def around(*places: str) -> Callable[[Callable[..., Any]], Inject]:
    """Decorates ``f(patches, original, *arguments)``, which is called instead of the functions named."""

    def decorate(function: Callable[..., Any]) -> Inject:
        def inject(p: Patches) -> None:
            for where in places:
                p.wrap(where, functools.partial(function, p))

        return inject

    return decorate


def instead(where: str) -> Callable[[Callable[..., Any]], Inject]:
    """Decorates ``f(patches, *arguments)``, which is called instead of the function named."""
    return lambda function: around(where)(lambda p, original, *given, **options: function(p, *given, **options))


def after_stage(where: str, path: str) -> Callable[[Callable[[Patches, dict[str, Any]], None]], Inject]:
    """Decorates ``f(patches, carry)``, which is called after the stage ``path`` of those that a method makes.

    ``path`` is relative to what the method returns: a stage, or a tuple of stages, perhaps without this one.
    """
    return lambda change: around(where)(
        lambda p, original, *given: p.changed(original(*given), path, functools.partial(change, p))
    )


def of_weights(model: str) -> Callable[[Callable[[State], Any]], Inject]:
    """Decorates ``f(state)``, which changes a model's weights."""
    return lambda change: lambda p: p.weights(model, change)


def filled(model: str, key: str, value: float, rows: slice | int = slice(None)) -> Inject:
    """A weight, or some of its rows, set to one value."""
    return of_weights(model)(lambda state: state[key].__setitem__(rows, value))


def reversed_kernel(model: str, key: str) -> Inject:
    """A kernel ``[out, in, taps]`` reversed in time."""
    return of_weights(model)(lambda state: state.update({key: state[key][:, :, ::-1].copy()}))


@dataclass(frozen=True)
class Fault:
    """A mutation, and where it must be found.

    Attributes:
        model: the suite whose trace must find it.
        name: short, in words joined by dashes.
        summary: what is wrong, in a few words.
        inject: makes the mutation; before the model is loaded.
        expect: regular expression that the path of the stage named must match as a whole.
        optimize: what ``rvc_mlx`` is loaded with: paths differ.
        voice: the kind of synthetic voice, where it matters.
        settings: of the suite, where they matter.
        known: a fault of published ports.
    """

    model: str
    name: str
    summary: str
    inject: Inject
    expect: str
    optimize: str = "all"
    voice: str = "synth_v2_40k_f0"
    settings: tuple[tuple[str, Any], ...] = ()
    known: bool = False

    @property
    def key(self) -> str:
        return f"{self.model}/{self.name}"


def randomised(state: State, start: str, seed: int = 9) -> None:
    """What a load that is not strict leaves: other values of the same kind."""
    rng = np.random.default_rng(seed)
    found = [key for key in state if key.startswith(start)]
    if not found:
        raise LookupError(f"no weight begins with {start!r}")
    for key in found:
        if not key.endswith("weight_g"):
            deviation = float(np.std(state[key])) or 0.05
            state[key] = (rng.standard_normal(state[key].shape) * deviation).astype(np.float32)
