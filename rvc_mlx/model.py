"""What the three models share in MLX: their device and type, and how arrays get there and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np

from rvc_common import model
from rvc_common.checks import check_choice
from rvc_common.model import Outputs, Watcher
from rvc_common.stages import Carry, Stage, run

from . import fused_conv, streams
from .buffers import bounded
from .layers import DTYPES, recording
from .layouts import ChannelsLast, RmvpeLayout
from .optimize import resolve
from .runtime import mx, resolve_device, warn_if_half, warn_if_slow

# graphs of one network for different lengths: a process that hears many would keep them all
MOST_GRAPHS = 64


class _Graph(NamedTuple):
    """``stages`` are kept with their graph: an id is free again when its object is gone."""

    stages: tuple[Stage, ...]
    call: Callable[[Carry], Carry]
    shapes: set[tuple[Any, ...]]


def _recorded(stages: tuple[Stage, ...], carry: Carry) -> Carry:
    token = recording.set(True)
    try:
        run(stages, carry)
    finally:
        recording.reset(token)
    return carry


class Model(model.Model):
    layout: ChannelsLast | RmvpeLayout

    def _place(self, name: str, dtype: str, device: str | None, optimize: Iterable[str] | str) -> None:
        """Takes the options that every model has; ``name``: whose optimisations apply."""
        check_choice("dtype", dtype, DTYPES)
        self.device, self.dtype = resolve_device(device), DTYPES[dtype]
        self.on_gpu = self.device == mx.Device(mx.gpu)
        self.optimize = resolve(optimize, name, gpu=self.on_gpu, dtype=dtype)
        if not fused_conv.is_available(self.dtype):
            self.optimize -= {"fused_conv"}
        if not self.on_gpu and not streams.are_available():
            self.optimize -= {"two_streams"}
        warn_if_slow(self.device)
        warn_if_half(self.device, self.dtype)

    def run(self, stages: tuple[Stage, ...], carry: Carry, watch: Watcher | None = None, prefix: str = "") -> None:
        """As in the base class; with ``compile_network`` as one recorded graph, where the carry holds arrays and None
        alone."""
        recorded = watch is None and "compile_network" in self.optimize
        if not recorded or not all(value is None or isinstance(value, mx.array) for value in carry.values()):
            super().run(stages, carry, watch, prefix)
            return
        shapes = tuple((name, None if value is None else value.shape) for name, value in carry.items())
        result = self._graph(stages, shapes)(dict(carry))
        carry.clear()
        carry.update(result)

    def _graph(self, stages: tuple[Stage, ...], shapes: tuple[Any, ...]) -> Callable[[Carry], Carry]:
        """``stages`` as one call, of which MLX keeps a graph for each of ``shapes``: of so many and no more."""
        graphs: dict[tuple[int, ...], _Graph] = self.__dict__.setdefault("_graphs", {})
        key = tuple(map(id, stages))
        graph = graphs.get(key)
        if graph is None or (shapes not in graph.shapes and len(graph.shapes) >= MOST_GRAPHS):
            graph = graphs[key] = _Graph(stages, mx.compile(lambda carry: _recorded(stages, carry)), set())
        graph.shapes.add(shapes)
        return graph.call

    def alone(self, whole: Stage, entries: tuple[str, ...]) -> Stage:
        """The same stages for a walk; where nothing is watched they see ``entries`` of the carry alone, and so can be
        recorded."""

        def apply(carry: Carry) -> None:
            own = {name: carry.pop(name) for name in entries if name in carry}
            self.run(whole.parts, own)
            carry.update(own)

        return whole._replace(apply=apply)

    def on_device(self, call: str | None) -> AbstractContextManager[Any]:
        return mx.stream(self.device) if call is None else bounded(self.device)

    def to_device(self, array: np.ndarray) -> mx.array:
        return self.to_wide(array).astype(self.dtype)

    def to_wide(self, array: np.ndarray) -> mx.array:
        return mx.array(np.asarray(array, np.float32))

    def to_host(self, value: mx.array | list[mx.array]) -> np.ndarray:
        return np.concatenate([_numpy(x) for x in value], axis=-1) if isinstance(value, list) else _numpy(value)

    def settle(self, carry: Carry) -> Carry:
        mx.eval([value for value in carry.values() if isinstance(value, mx.array)])
        return carry

    def compute(self, owner: object, work: Callable[[], Outputs]) -> Outputs:
        with bounded(self.device):
            found = work()
            mx.eval(found)
        return found


def _numpy(x: mx.array) -> np.ndarray:
    # contiguous on the device, so that the copy to NumPy is a plain one
    return np.array(mx.contiguous(x.astype(mx.float32)))
