"""Named stages: the ordered steps of a model, nested where the model is.

A model builds its forward pass as a tuple of stages and its call runs them and nothing else,
so what is traced or timed is what runs. Stages pass a *carry*: a dict of named arrays whose
entry ``"x"`` is the main value; side values (skips, residuals) have entries of their own.

``run`` executes stages, perhaps with a watcher. ``walk`` does the same one stage at a time and
hands the carry out in between: the caller may read every value, and may replace it before the next
stage runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

Carry = dict[str, Any]
Watch = Callable[[str, Any], None]
Axes = tuple[str, ...]

# what the axes of a value mean, in PyTorch's order
IMAGE: Axes = ("batch", "channel", "row", "column")
FRAMES: Axes = ("batch", "channel", "frame")
SAMPLES: Axes = ("batch", "channel", "sample")
FEATURES: Axes = ("batch", "frame", "feature")
SCORES: Axes = ("batch", "head", "query", "key")
HEADS: Axes = ("batch", "head", "query", "feature")
BANDS: Axes = ("band", "frame")
BINS: Axes = ("batch", "frame", "bin")
CONTOUR: Axes = ("frame",)
SIGNAL: Axes = ("sample",)
PHONE: Axes = ("frame", "feature")
# side values that look the same in every stage
ENTRIES: dict[str, Axes] = {
    "source": ("batch", "sample", "channel"),
    "voiced": ("batch", "sample", "channel"),
    "mask": FRAMES,
    "x_mask": FRAMES,
}


# side values that no stage declares, such as the F0 and the lengths of a batch
BY_RANK: tuple[Axes, ...] = ((), CONTOUR, ("batch", "frame"), FRAMES, IMAGE)


class Layout(Protocol):
    """Converts a model's values to NumPy in PyTorch's axis order, and back."""

    def public(self, event: Event, name: str) -> np.ndarray | None:
        """The carry's entry ``name`` as an array; None where it is not one."""

    def private(self, event: Event, name: str, array: np.ndarray) -> None:
        """Put an array into the carry in place of its entry ``name``."""


class Event(NamedTuple):
    """A stage has just run. ``product`` names the entry of the carry that it makes.

    ``layout`` None: the carry's arrays are NumPy's already. ``prefix``: the model's place inside another.
    ``shared``, ``axes``, ``decides``, ``ranks``: see ``Stage``.
    """

    path: str
    carry: Carry
    product: str
    layout: Layout | None = None
    prefix: str = ""
    shared: bool = False
    axes: Axes = ()
    decides: bool = False
    ranks: bool = False

    def axes_of(self, name: str, ndim: int) -> Axes:
        """What the ``ndim`` axes of the carry's entry ``name`` mean, in PyTorch's order."""
        known = ENTRIES.get(name, self.axes)
        return known if len(known) == ndim else BY_RANK[ndim]

    @property
    def whole_path(self) -> str:
        return joined(self.prefix, self.path)


class Stage(NamedTuple):
    """One step. ``apply`` edits the carry; ``product`` names the entry that it makes.

    ``inside``: for a walk, the same work as ``apply`` as the events of another model. ``shared``: both
    implementations run this very code, so comparing their results on equal inputs proves nothing.
    ``axes``: of its value, in PyTorch's order; parts take the enclosing stage's unless they have their own.
    ``decides``: it chooses (a bin, voiced or not, a pitch code), so the least difference may move its result by a
    lot. ``ranks``: which value along the last axis is largest matters.
    """

    name: str
    apply: Callable[[Carry], None]
    parts: tuple[Stage, ...] = ()
    product: str = "x"
    inside: Callable[[Carry], Iterator[Event]] | None = None
    shared: bool = False
    axes: Axes = ()
    decides: bool = False
    ranks: bool = False


def leaf(
    name: str,
    function: Callable[[Any], Any],
    product: str = "x",
    axes: Axes = (),
    ranks: bool = False,
    of: str = "",
    keep: str = "",
) -> Stage:
    """A stage that replaces the value ``product`` by ``function(value)``.

    ``of``: the entry that it is made from, where that is another one. ``keep``: a second name under which this one
    stays for a later stage.
    """

    def apply(carry: Carry) -> None:
        value = carry[of or product]
        if keep:
            carry[keep] = value
        carry[product] = function(value)

    return Stage(name, apply, product=product, axes=axes, ranks=ranks)


def plus(name: str, entry: str) -> Stage:
    """A stage that adds an entry to the main value and drops it."""

    def apply(carry: Carry) -> None:
        carry["x"] = carry["x"] + carry.pop(entry)

    return Stage(name, apply)


def group(name: str, parts: tuple[Stage, ...], product: str = "x", axes: Axes = ()) -> Stage:
    """A stage made of other stages, whose names are relative to this one's."""
    return Stage(name, lambda carry: run(parts, carry), parts, product, axes=axes)


def residual(name: str, parts: tuple[Stage, ...]) -> tuple[Stage, Stage]:
    """A group of stages, then the sum of its result and its input."""
    remember = leaf(":input", lambda x: x, keep="residual")
    return group(name, (remember, *parts)), plus(f"{name}:sum", "residual")


def branches(
    names: list[str],
    blocks: list[tuple[Stage, ...]],
    mean: Callable[[Any], Any],
    settle: Callable[[Any], None] = lambda x: None,
) -> tuple[Stage, ...]:
    """Blocks that all start from the same value, then ``mean`` of the sum of their results, which is settled."""

    def keep(carry: Carry) -> None:
        carry["sum"] = carry["sum"] + carry["x"] if "sum" in carry else carry["x"]

    def finish(carry: Carry) -> None:
        del carry["branch"]
        carry["x"] = mean(carry.pop("sum"))
        settle(carry["x"])

    stages = [leaf(f"{names[0]}:input", lambda x: x, keep="branch")]
    for name, block in zip(names, blocks, strict=True):
        rewind = leaf(f"{name}:rewind", lambda x: x, of="branch")
        stages += [rewind, group(name, block), Stage(f"{name}:kept", keep, product="sum")]
    return (*stages, Stage(f"{names[-1]}:mean", finish))


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


def walk(stages: tuple[Stage, ...], carry: Carry, prefix: str = "", axes: Axes = ()) -> Iterator[Event]:
    """Run ``stages`` one at a time: an event after each, innermost first.

    The next stage starts when the next event is asked for, on the carry as it is then.
    """
    for stage in stages:
        path = joined(prefix, stage.name)
        if stage.parts:
            yield from walk(stage.parts, carry, path + ".", stage.axes or axes)
        elif stage.inside is not None:
            for event in stage.inside(carry):
                yield event._replace(prefix=f"{path}.{event.prefix}")
        else:
            stage.apply(carry)
        yield Event(
            path,
            carry,
            stage.product,
            shared=stage.shared,
            axes=stage.axes or axes,
            decides=stage.decides,
            ranks=stage.ranks,
        )
