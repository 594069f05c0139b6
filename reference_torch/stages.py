"""Named stages: the ordered steps of a model, nested where the model is.

A model builds its forward pass as a tuple of stages and its call runs them and nothing else,
so what is traced or timed is what runs. Stages pass a *carry*: a dict of named arrays whose
entry ``"x"`` is the main value; side values (skips, residuals) have entries of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Carry = dict[str, Any]
Watch = Callable[[str, Any], None]


class Stage(NamedTuple):
    """One step. ``apply`` edits the carry; ``product`` names the entry that it makes."""

    name: str
    apply: Callable[[Carry], None]
    parts: tuple[Stage, ...] = ()
    product: str = "x"


def leaf(name: str, function: Callable[[Any], Any]) -> Stage:
    """A stage that replaces the main value by ``function(x)``."""

    def apply(carry: Carry) -> None:
        carry["x"] = function(carry["x"])

    return Stage(name, apply)


def group(name: str, parts: tuple[Stage, ...]) -> Stage:
    """A stage made of other stages, whose names are relative to this one's."""
    return Stage(name, lambda carry: run(parts, carry), parts)


def run(stages: tuple[Stage, ...], carry: Carry, watch: Watch | None = None, prefix: str = "") -> None:
    """Run ``stages`` in order on ``carry``.

    ``watch(path, value)`` is called after every stage, innermost first, with the dotted path.
    """
    for stage in stages:
        # ":name" is a value inside the enclosing module, not a module of its own
        path = prefix.removesuffix(".") + stage.name if stage.name.startswith(":") else prefix + stage.name
        if stage.parts and watch is not None:
            run(stage.parts, carry, watch, path + ".")
        else:
            stage.apply(carry)
        if watch is not None:
            watch(path, carry[stage.product])
