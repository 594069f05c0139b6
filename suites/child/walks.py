"""The worker's part of a trace: walking a model stage by stage while another process does the same.

Two kinds of walk. A *chained* walk runs on its own values from the beginning: its error is the accumulated error. A
*reference-fed* walk gets the reference's values in place of its own after every stage: its error is the local error,
what one stage adds.

The reference walks three times at once: chained in the run's precision, chained in float64, and in float64 fed with the
values of the first. The second gives the rounding that accumulates (``floor_chained``), the third the rounding of each
stage (``floor_added``): limits are made from these floors. The other side walks twice, chained and reference-fed.

Only what changes from one stage to the next travels between the processes, as files that the parent removes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rvc_common.noise import Draws

from ..metrics import locate, parity
from ..metrics.audio import heard
from ..metrics.limits import exceeds
from ..metrics.parity import Figures, NotComparable, figures
from ..metrics.stages import inside, together

Answer = dict[str, Any]
# kinds of dtype without rounding: any difference is an error
EXACT_KINDS = "iub"
# a stage of more layers is named by its kind only
MOST_LAYERS = 4
# as many carries as are in use at once: a pipeline's, a segment's, a model's and its blocks'
KEPT_CARRIES = 5


class Walker:
    """One walk, and what its last stage changed. ``events``: of the packages' ``stages.walk``."""

    def __init__(self, events: Iterator[Any]) -> None:
        self.events = iter(events)
        self.event: Any = None
        self.changed: list[str] = []
        self._before: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._first = 0
        self._arrays: dict[str, np.ndarray | None] = {}  # of the event: converting a value costs as much as a stage

    def advance(self) -> bool:
        """The next stage; False at the end. ``changed``: entries that are other objects than before."""
        self._arrays = {}
        self.event = next(self.events, None)
        if self.event is None:
            return False
        carry = self.event.carry
        self._first = self._first or id(carry)
        _, before = self._before.get(id(carry), (None, {}))
        self.changed = [name for name, value in carry.items() if name not in before or before[name] is not value]
        self.settle()
        return True

    def settle(self) -> None:
        """Remember the carry as it is now. The carry itself is kept alive, so that its id stays its own."""
        carry = self.event.carry
        self._before.pop(id(carry), None)  # to the end: the latest
        self._before[id(carry)] = (carry, dict(carry))
        if len(self._before) > KEPT_CARRIES:  # drop the oldest but the first: that is the outermost, used to the end
            self._before.pop(next(key for key in self._before if key != self._first))

    def array(self, name: str) -> np.ndarray | None:
        """An entry in NumPy and PyTorch's axis order; None where it is absent or not an array."""
        if name not in self._arrays:
            self._arrays[name] = self._array(name)
        return self._arrays[name]

    def _array(self, name: str) -> np.ndarray | None:
        carry, layout = self.event.carry, self.event.layout
        if name not in carry:
            return None
        value = carry[name]
        if layout is not None and value is not None:
            return layout.public(self.event, name)
        return value if isinstance(value, np.ndarray) else None

    def replace(self, name: str, array: np.ndarray) -> None:
        """Put ``array``, in PyTorch's axis order, in the place of an entry: the next stage runs on it."""
        self._arrays.pop(name, None)
        if self.event.layout is None:
            self.event.carry[name] = array.astype(self.event.carry[name].dtype)
        else:
            self.event.layout.private(self.event, name, array)


UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
# TF32 keeps as many digits as float16; which products use it is each library's own choice
TF32_UNIT = 2.0**-11


def unit_of(value: Any) -> float:
    """Half a unit in the last place of 1 in the type that a value is kept in, at least float32's."""
    return UNITS.get(str(getattr(value, "dtype", "")).rpartition(".")[2], 2.0**-24)


def distance(value: np.ndarray, reference: np.ndarray) -> Figures:
    """``rmse`` and ``max_abs``; infinite where the two cannot be compared."""
    try:
        return parity.distance(*parity.checked(value, reference))
    except NotComparable:
        return {"rmse": float("inf"), "max_abs": float("inf")}


def operations(models: Iterable[Any]) -> Callable[[str], str]:
    """From a stage's path to the layers that it runs, as PyTorch prints them; empty where there is no such layer."""
    networks = [model.network for model in models if hasattr(model, "network")]
    layers = {name: layer for network in networks for name, layer in network.named_modules() if name}

    def operation(path: str) -> str:
        words = path.split(".")
        inner = (".".join(words[start:]) for start in range(len(words)))
        layer = next((layers[name] for name in inner if name in layers), None)
        if layer is None:
            return ""
        parts = [one for one in layer.modules() if next(one.children(), None) is None]
        return " + ".join(map(repr, parts)) if len(parts) <= MOST_LAYERS else type(layer).__name__

    return operation


class Noise:
    """The arrays that a walk draws, in order, until they are saved."""

    def __init__(self) -> None:
        self.drawn: list[tuple[int, str, np.ndarray]] = []
        self._followed: Draws | None = None

    def follow(self, carry: Mapping[str, Any]) -> None:
        """Keep what is drawn from now on; a walk's first carry has its noise, and no first stage draws any."""
        draws = carry.get("draws")
        if self._followed is not None or not isinstance(draws, Draws):
            return
        self._followed, draw = draws, draws.draw

        def kept(index: int, kind: str, shape: tuple[int, ...]) -> np.ndarray:
            self.drawn.append((index, kind, draw(index, kind, shape)))
            return self.drawn[-1][2]

        draws.draw = kept

    def saved(self, folder: Path) -> list[Answer]:
        """What was drawn since the last time."""
        found = []
        for index, kind, array in self.drawn:
            np.save(path := folder / f"noise.{index}.npy", array)
            found.append({"index": index, "kind": kind, "file": str(path)})
        self.drawn = []
        return found


class ReferenceWalk:
    """The reference's three walks in step: ``chain`` in the run's precision, ``exact`` (reference-fed) and
    ``exact_chain`` in float64; these are None where no floors are wanted. ``least_unit``: the smallest ``unit`` of a
    value, where products round more than the type that it is kept in."""

    def __init__(
        self,
        chain: Iterator[Any],
        exact: Iterator[Any] | None,
        exact_chain: Iterator[Any] | None,
        least_unit: float = 0.0,
        operation: Callable[[str], str] = lambda path: "",
    ) -> None:
        self.chain, self.least_unit, self.operation = Walker(chain), least_unit, operation
        self.exact = Walker(exact) if exact is not None else None
        self.exact_chain = Walker(exact_chain) if exact_chain is not None else None
        self.noise = Noise()

    def advance(self, until: str | None, leaf: bool, folder: Path) -> Answer:
        """Go on to the stage ``until`` (None: the end): per entry changed on the way a file and its floors.
        ``skipped``: stages passed over. Where ``until`` is a ``leaf`` on the other side, those that it computes
        together are one stage there, so their rounding counts together: float64 goes on with its own values between."""
        skipped: list[str] = []
        names: dict[str, None] = {}
        while self._advance():
            path, carry = self.chain.event.whole_path, self.chain.event.carry
            names = dict.fromkeys(name for name in [*names, *self.chain.changed] if name in carry)
            if path == until:
                entries = {name: entry for name in names if (entry := self.entry(name, folder)) is not None}
                self._feed(entries)
                return {"found": True, "skipped": skipped, "entries": entries}
            if not (leaf and until is not None and together(path, until)):
                skipped.append(path)
        return {"found": False, "skipped": skipped, "entries": {}}

    def step(self, folder: Path) -> Answer:
        """The next stage, whatever it is, as ``advance`` tells of one, and what it says of itself; ``path`` None: the
        end. ``draws``: the noise that it drew, in files."""
        if not self._advance():
            return {"path": None}
        event, entries = self.chain.event, {}
        for name in self.chain.changed:
            if (entry := self.entry(name, folder)) is not None:
                entries[name] = entry | {"axes": event.axes_of(name, len(entry["shape"]))}
        self._feed(entries)
        said = {name: getattr(event, name) for name in ("product", "prefix", "shared", "decides", "ranks")}
        return {"path": event.whole_path, "entries": entries, "draws": self.noise.saved(folder), **said}

    def _advance(self) -> bool:
        """The next stage of all three walks; False at the end."""
        more = self.chain.advance()
        for other in (self.exact, self.exact_chain) if more else ():
            if other is not None:
                other.advance()
        if more:
            self.noise.follow(self.chain.event.carry)
        return more

    def entry(self, name: str, folder: Path) -> Answer | None:
        """A value in a file, its size and its floors; None where there is no such array."""
        array = self.chain.array(name)
        if array is None:
            return None
        path = folder / f"{name}.npy"
        np.save(path, array)
        wide = array.astype(np.float64).ravel()  # squares of 16-bit values overflow
        square = float(np.dot(wide, wide))
        finite = math.isfinite(square) or bool(np.isfinite(wide).all())
        facts = {
            "file": str(path),
            "shape": list(array.shape),
            "operation": self.operation(self.chain.event.whole_path),
            "exact": array.dtype.kind in EXACT_KINDS,
            "finite": finite,
            "unit": max(self.least_unit, unit_of(self.chain.event.carry[name])),
            "rms": math.sqrt(square / array.size) if array.size and finite else 0.0,
            "peak": float(max(wide.max(), -wide.min())) if array.size and finite else 0.0,
        }
        for floor, walker in (("added", self.exact), ("chained", self.exact_chain)):
            other = walker.array(name) if walker is not None else None
            facts[f"floor_{floor}"] = None if other is None else distance(wide.reshape(array.shape), other)
            if floor == "added":
                facts["only_exact_finite"] = not finite and other is not None and bool(np.isfinite(other).all())
        return facts

    def _feed(self, entries: Mapping[str, Answer]) -> None:
        """The values of the run's precision take the place of float64's own."""
        if self.exact is None:
            return
        for name in entries:
            array = self.chain.array(name)
            if array is not None and name in self.exact.event.carry and self.exact.array(name) is not None:
                self.exact.replace(name, array.copy())
        self.exact.settle()


class TracedWalk:
    """The other side's two walks. The reference-fed one leads; the chained one follows it by path.
    ``sample_rate``: in Hz, of an entry ``audio``; None: audio gets tensor figures only."""

    def __init__(self, fed: Iterator[Any], chain: Iterator[Any], sample_rate: int | None = None) -> None:
        self.fed, self.chain, self.sample_rate = Walker(fed), Walker(chain), sample_rate
        self.broken: str | None = None
        self.result: np.ndarray | None = None
        self.last = ""

    def advance(self) -> Answer:
        """The next stage's path, and the entries that it changed."""
        if not self.fed.advance():
            self._follow(None)
            return {"path": None, "broken": self.broken}
        event = self.fed.event
        path = event.whole_path
        self._follow(path)
        arrays = [name for name in self.fed.changed if self.fed.array(name) is not None]
        leaf, self.last = not inside(self.last, path), path
        facts = {"product": event.product, "shared": event.shared, "decides": event.decides}
        return {"path": path, "changed": arrays, "leaf": leaf, "broken": self.broken, **facts}

    def _follow(self, path: str | None) -> None:
        """Own values may lead to other stages (more segments, say): the chained walk ends there, ``broken``."""
        if self.broken is not None:
            return
        try:
            more = self.chain.advance()
        except Exception as error:  # what a stage does with wrong values is a finding, not the end of the trace
            self.broken = f"on its own values {path} raises {type(error).__name__}: {error}"
            return
        own = self.chain.event.whole_path if more else None
        if own != path:
            self.broken = f"on its own values it goes to {own or 'the end'} instead of {path or 'the end'}"
        elif more:  # the last one's stays
            self.result = self.chain.array(self.chain.event.product)

    def again(self, until: str, entry: str) -> Answer:
        """The figures between both walks at a stage, where neither was fed: two calls on the same values."""
        while self.fed.advance() and self.chain.advance():
            if self.fed.event.whole_path == until:
                ours, theirs = self.fed.array(entry), self.chain.array(entry)
                return {"reason": "absent"} if ours is None or theirs is None else figures(ours, theirs)
        return {"reason": f"it does not come to {until} again"}

    def whole(self, result: np.ndarray) -> Answer:
        """Compare the call as users make it with the result of its stages one by one."""
        if self.result is None:
            return {"reason": self.broken or "there is no result of the stages"}
        return figures(result, self.result)

    def judge(self, entries: Mapping[str, Answer], limits: Mapping[str, Mapping[str, float]]) -> Answer:
        """Compare both walks with the reference's values, then feed these to the next stage."""
        found = {}
        for name, entry in entries.items():
            reference = np.load(entry["file"])
            found[name] = self._judged(name, reference, limits[name])
            if self.fed.array(name) is not None:
                self.fed.replace(name, reference)
        self.fed.settle()
        return {"entries": found}

    def _judged(self, name: str, reference: np.ndarray, limit: Mapping[str, float]) -> Answer:
        path = self.fed.event.whole_path
        answer: Answer = {}
        own = self.fed.array(name)
        if own is None and self.fed.event.carry.get(name, 0) is None:
            return {"absent": True}  # a mask of ones is left out
        if own is None:
            return {"added": {"reason": f"{path} makes no {name} here"}}
        argmax = self.fed.event.ranks
        answer["added"] = added = figures(own, reference, argmax)
        if exceeds(added, limit):
            axes = self.fed.event.axes_of(name, reference.ndim)
            found = locate.locate(own, reference, axes, limit["max_abs"])
            answer["where"] = {"kind": found.kind, "sentence": found.sentence, "facts": found.facts}
        if self.broken is None:
            chained = self.chain.array(name)
            answer["chained"] = {"reason": "absent"} if chained is None else figures(chained, reference, argmax)
            answer["heard"] = None if chained is None else heard(name, chained, reference, self.sample_rate)
        return answer
