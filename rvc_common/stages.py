"""Named stages: the ordered steps of a model, nested where the model is.

A model builds its forward pass as a tuple of stages and its call runs them and nothing else,
so what is traced or timed is what runs. Stages pass a *carry*: a dict of named arrays whose
entry ``"x"`` is the main value; side values (skips, residuals) have entries of their own.

``run`` executes stages, perhaps with a watcher. ``walk`` does the same one stage at a time and
hands the carry out in between: whoever drives it may look at every value, and may put another
one in its place before the next stage sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

Carry = dict[str, Any]
Watch = Callable[[str, Any], None]


class Layout(Protocol):
    """How a model's values look from outside: in NumPy and in PyTorch's axis order."""

    def public(self, event: Event, name: str) -> np.ndarray | None:
        """The carry's entry ``name`` as an array; None where it is not one."""

    def private(self, event: Event, name: str, array: np.ndarray) -> None:
        """Put an array into the carry in place of its entry ``name``."""


class Event(NamedTuple):
    """A stage has just run. ``product`` names the entry of the carry that it makes.

    ``layout`` None: the carry's arrays are NumPy's already. ``prefix``: where the model stands inside another.
    ``shared``: see ``Stage``.
    """

    path: str
    carry: Carry
    product: str
    layout: Layout | None = None
    prefix: str = ""
    shared: bool = False

    @property
    def whole_path(self) -> str:
        return joined(self.prefix, self.path)


class Stage(NamedTuple):
    """One step. ``apply`` edits the carry; ``product`` names the entry that it makes.

    ``inside``: for a walk, the same work as ``apply`` as the events of another model. ``shared``: both
    implementations run this very code, so comparing their results on equal inputs proves nothing.
    """

    name: str
    apply: Callable[[Carry], None]
    parts: tuple[Stage, ...] = ()
    product: str = "x"
    inside: Callable[[Carry], Iterator[Event]] | None = None
    shared: bool = False


def leaf(name: str, function: Callable[[Any], Any], product: str = "x") -> Stage:
    """A stage that replaces the value ``product`` by ``function(value)``."""

    def apply(carry: Carry) -> None:
        carry[product] = function(carry[product])

    return Stage(name, apply, product=product)


def group(name: str, parts: tuple[Stage, ...], product: str = "x") -> Stage:
    """A stage made of other stages, whose names are relative to this one's."""
    return Stage(name, lambda carry: run(parts, carry), parts, product)


def joined(prefix: str, name: str) -> str:
    """``":name"`` is a value inside the enclosing module, not a module of its own."""
    return prefix.removesuffix(".") + name if name.startswith(":") else prefix + name


def run(stages: tuple[Stage, ...], carry: Carry, watch: Watch | None = None, prefix: str = "") -> None:
    """Run ``stages`` in order on ``carry``.

    ``watch(path, value)`` is called after every stage, innermost first, with the dotted path.
    """
    for stage in stages:
        path = joined(prefix, stage.name)
        if stage.parts and watch is not None:
            run(stage.parts, carry, watch, path + ".")
        else:
            stage.apply(carry)
        if watch is not None:
            watch(path, carry[stage.product])


def walk(stages: tuple[Stage, ...], carry: Carry, prefix: str = "") -> Iterator[Event]:
    """Run ``stages`` one at a time: an event after each, innermost first.

    The next stage starts when the next event is asked for, on the carry as it is then.
    """
    for stage in stages:
        path = joined(prefix, stage.name)
        if stage.parts:
            yield from walk(stage.parts, carry, path + ".")
        elif stage.inside is not None:
            for event in stage.inside(carry):
                yield event._replace(prefix=f"{path}.{event.prefix}")
        else:
            stage.apply(carry)
        yield Event(path, carry, stage.product, shared=stage.shared)
