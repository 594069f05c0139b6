"""The base class of the models of both implementations: loading, watched calls, walks, calls without copies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import numpy as np

from .checkpoint import Reader, file_named
from .decoders import shown
from .finite import NonFiniteError, Watcher, first_stage, is_finite
from .stages import Carry, Event, Layout, Stage, run, walk

# the framework's arrays by name, in PyTorch's axis order; a list holds pieces along the last axis
Outputs = Mapping[str, Any]


class Model(ABC):
    """A network on a device. Each implementation supplies the methods that move and compute arrays."""

    title: str  # what messages call it
    file: str | Path | None = None  # where it was loaded from
    dtype: Any  # the framework's own, of the network
    # opens checkpoints; each implementation has its own
    read_file: Reader
    layout: Layout
    # runs its body on the model's device; takes the name of a whole call, or None for a part of one
    on_device: Callable[[str | None], AbstractContextManager[Any]]
    to_device: Callable[[np.ndarray], Any]  # an array as it is, in the network's type
    to_wide: Callable[[np.ndarray], Any]  # and in one of no less than float32
    to_host: Callable[[Any], np.ndarray]  # one of the framework's arrays, or its pieces; half precision widened
    # carries out work for an owner and returns when every output is computed
    compute: Callable[[object, Callable[[], Outputs]], Outputs]

    @classmethod
    def from_checkpoint(cls, path: str | Path, **options: Any) -> Self:
        """Load a checkpoint of either upstream, or a converted ``.safetensors``, strictly.

        Args:
            path: a file; of HuBERT also a Hugging Face folder.
            options: as the constructor's.

        Raises ``CheckpointError``: unreadable file, or keys and shapes of another model."""
        with file_named(path):
            model = cls.from_state_dict(*cls._read(path), **options)
        model.file = path
        return model

    @classmethod
    @abstractmethod
    def from_state_dict(cls, state: Mapping[str, np.ndarray], *facts: Any, **options: Any) -> Self:
        """Build from upstream's keys mapped to arrays. ``options`` as the constructor's."""

    @classmethod
    @abstractmethod
    def _read(cls, path: str | Path) -> tuple[Any, ...]:
        """What ``from_state_dict`` takes, from a file."""

    def settle(self, carry: Carry) -> Carry:
        """The carry with every array computed, where the framework is lazy."""
        return carry

    def finite(self, result: np.ndarray, again: Callable[[Watcher], object], *given: np.ndarray | None) -> np.ndarray:
        """``result``, which a call made of ``given``; ``again``: the same call, watched. A call that a user watches is
        not checked: the watcher sees every value.

        Raises ``NonFiniteError``: the result, or ``ValueError``: what was given, has NaN or infinite values."""
        if is_finite(result):
            return result
        if not all(array is None or is_finite(np.asarray(array)) for array in given):
            raise ValueError(f"{self.title}: the input has NaN or infinite values")
        raise self.non_finite(first_stage(again))

    def non_finite(self, where: str) -> NonFiniteError:
        name = self.title if self.file is None else f"{self.title} {shown(self.file)}"
        half = str(self.dtype).endswith(".float16")
        hint = "; float16 ends at 65504: try float32" if half else ""
        return NonFiniteError(f"{name}: computes NaN or infinite values, {where}{hint}")

    def stepped(self, events: Iterator[Event]) -> Iterator[Event]:
        """The events of a walk with the model's layout; the work happens on its device."""
        events = iter(events)
        while True:
            with self.on_device(None):  # not across the yield: it would apply to the caller too
                event = next(events, None)
            if event is None:
                return
            yield event if event.layout else event._replace(layout=self.layout)

    def run(self, stages: tuple[Stage, ...], carry: Carry, watch: Watcher | None = None, prefix: str = "") -> None:
        """Run ``stages``; ``watch(path, array)`` is called after each, arrays in PyTorch's layouts."""
        if watch is None:
            run(stages, carry)
        else:
            self.report(walk(stages, carry, prefix), watch)

    def report(self, events: Iterator[Event], watch: Watcher) -> None:
        """Calls ``watch(path, array)`` for every event."""
        for event in events:
            array = self.layout.public(event, event.product)
            assert array is not None
            watch(event.path, array)


class Resident:
    """A call whose inputs are on the device already and whose outputs stay there: for timing it without copies."""

    def __init__(self, model: Model, work: Callable[[], Outputs]) -> None:
        self.model, self.work = model, work

    def __call__(self) -> Outputs:
        return self.model.compute(self, self.work)

    def host(self, found: Outputs) -> dict[str, np.ndarray]:
        """The outputs as NumPy arrays, half precision widened.

        Raises ``NonFiniteError``: they have NaN or infinite values; the call that copies says which stage makes them.
        """
        with self.model.on_device(None):
            arrays = {name: self.model.to_host(value) for name, value in found.items()}
        for name, array in arrays.items():
            if not is_finite(array):
                raise self.model.non_finite(f"in {name}")
        return arrays
