"""What a worker asks of a framework. A port in another framework is measured once it has such an adapter.

Models and calls are not the adapter's: a suite loads and calls them, from NumPy to NumPy. The adapter knows the
framework around them: its version and devices, its queue of work, its memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

Facts = dict[str, Any]
Call = Callable[[], Any]


class Adapter(ABC):
    """One framework on one device, by the backend's name for it. Methods that are not abstract have a default."""

    def __init__(self, device: str) -> None:
        self.device = device

    @abstractmethod
    def describe(self) -> Facts:
        """``available``, with a ``reason`` where it is False; else the facts for ``environment.json``: JSON values,
        among them ``blas``, the name of the BLAS library or None."""

    @abstractmethod
    def configure(self, precision: str, threads: int) -> None:
        """Set the precision policy (``fp32``, ``tf32``, ``fp16`` or ``bf16``) and the number of CPU threads, where
        the framework does not take them from the environment (``worker_environment``). Called before ``describe``."""

    def thread_counts(self) -> dict[str, int]:
        """CPU threads as the framework reports them, by the names of its pools."""
        return {}

    def load_options(self, dtype: str, optimize: Any) -> Facts:
        """Keyword arguments of a model's ``from_checkpoint``. ``dtype``: such as ``float32``; ``optimize``: the
        optimisations that were asked for, which a package without any does not take."""
        return {"dtype": dtype, "device": self.device}

    @abstractmethod
    def device_of(self, model: Any) -> str:
        """The device that a loaded model is on, in the backend's words."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has finished all work that was queued."""

    # ------------------------------------------------------------------ memory, in bytes
    @abstractmethod
    def memory(self) -> dict[str, int] | None:
        """What is held now, by the framework's own names; None where it keeps no count."""

    @abstractmethod
    def reset_peak_memory(self) -> None:
        """Begin a new peak."""

    @abstractmethod
    def peak_memory(self) -> int | None:
        """The largest amount allocated since the last reset, weights included; None where it keeps no count."""

    # ------------------------------------------------------------------ roofline
    @abstractmethod
    def matmul(self, size: int, dtype: str) -> Call:
        """A call that multiplies ``[size, size]`` by itself and returns when that is done.
        The values are random: GPUs take less power, and run faster, on constant ones."""

    @abstractmethod
    def copy(self, n_bytes: int) -> Call:
        """A call that reads and writes ``n_bytes`` of float32 and returns when that is done."""

    def count(self, call: Call) -> dict[str, int]:
        """Work of one call: ``flops_products``, ``flops_other``, ``bytes``.

        Raises ``NotImplementedError``: the framework cannot count it."""
        raise NotImplementedError(f"{type(self).__name__} counts no FLOPs")

    def work(self, call: Callable[[], Iterable[Any]]) -> dict[str, int]:
        """``flops`` of a call that returns what it leaves to others, and ``bytes``: each input, weight and value left
        once, as no call of this result can do with less.

        Raises ``NotImplementedError``: the framework cannot count it."""
        raise NotImplementedError(f"{type(self).__name__} counts no FLOPs")

    # ------------------------------------------------------------------ traces
    def settle(self, values: Iterable[Any]) -> None:
        """Wait until these values of a walk are computed."""
        self.synchronize()

    def small_pieces(self) -> AbstractContextManager[None] | None:
        """Within it the package cuts short inputs into tiles and blocks too, as it does long ones; None where it
        computes everything in one piece."""
        return None
