"""What a fault is, and how one is injected and taken back."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest import mock

Change = Callable[[dict[str, Any]], Any]


class Patches:
    """Changes to modules and classes that can be undone. Everything here runs in the worker that has MLX."""

    def __init__(self) -> None:
        self._made = ExitStack()
        self.undo = self._made.close

    def module(self, name: str) -> Any:
        own = importlib.util.find_spec(f"rvc_mlx.{name}")
        return importlib.import_module(f"rvc_mlx.{name}" if own else f"rvc_common.{name}")

    @property
    def mx(self) -> Any:
        return self.module("runtime").mx

    def _owner(self, where: str) -> tuple[Any, str]:
        first, *inner, name = where.split(".")
        return functools.reduce(getattr, inner, self.module(first)), name

    def set(self, where: str, value: Any) -> None:
        """Another value of ``module.NAME`` or ``module.Class.NAME``."""
        self._made.enter_context(mock.patch.object(*self._owner(where), value))

    def undone(self, undo: Callable[[], object]) -> None:
        """Call this, too, where the changes are undone."""
        self._made.callback(undo)

    def wrap(self, where: str, changed: Callable[..., Any]) -> None:
        """Replace a function or method: ``changed(original, *arguments)``."""
        original = getattr(*self._owner(where))

        def replaced(*arguments: Any, **options: Any) -> Any:
            return changed(original, *arguments, **options)

        self.set(where, replaced)

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


Inject = Callable[[Patches], object]


def after(stage: Any, change: Change) -> Any:
    """A stage without parts, with ``change(carry)`` after it."""

    def apply(carry: dict[str, Any]) -> None:
        stage.apply(carry)
        change(carry)

    return stage._replace(apply=apply)


# ---------------------------------------------------------------------- ways to make a fault
def constant(where: str, value: Any) -> Inject:
    """Another value of ``module.NAME``."""
    return lambda p: p.set(where, value)


def both(first: Inject, second: Inject) -> Inject:
    return lambda p: (first(p), second(p))


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


@dataclass(frozen=True)
class Fault:
    """A mutation, made before the model is loaded.

    ``model``: the suite whose trace must find it. ``expect``: regular expression that the path of the stage named
    must match as a whole. ``optimize``: what ``rvc_mlx`` is loaded with: paths differ. ``known``: a fault of
    published ports.
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
