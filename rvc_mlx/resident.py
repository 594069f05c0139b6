"""Calls whose inputs are on the device already and whose outputs stay there: what is left of a call without copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .buffers import on_device
from .runtime import mx

Outputs = Mapping[str, mx.array | list[mx.array]]


class Resident:
    """Each use runs ``work`` once and returns when every output is computed.

    ``work() -> {name: array}`` in PyTorch's axis order; a list holds pieces along the last axis.
    """

    def __init__(self, work: Callable[[], Outputs], device: mx.Device) -> None:
        self.work, self.device = work, device

    def __call__(self) -> Outputs:
        with on_device(self.device, self, "work") as outlive:
            found = self.work()
            mx.eval(found)
            outlive.extend(x.nbytes for value in found.values() for x in _pieces(value))
        return found

    def host(self, found: Outputs) -> dict[str, np.ndarray]:
        """The outputs as NumPy arrays, half precision widened."""
        with mx.stream(self.device):
            return {name: np.concatenate([_numpy(x) for x in _pieces(v)], axis=-1) for name, v in found.items()}


def _pieces(value: mx.array | list[mx.array]) -> list[mx.array]:
    return value if isinstance(value, list) else [value]


def _numpy(x: mx.array) -> np.ndarray:
    return np.array(mx.contiguous(x.astype(mx.float32)))
