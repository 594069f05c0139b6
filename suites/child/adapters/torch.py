"""PyTorch on a CPU, on CUDA and on MPS."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .base import Adapter, Call, Facts


class TorchAdapter(Adapter):
    def configure(self, precision: str, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"  # PyTorch's own default is on, even for float32

    def describe(self) -> Facts:
        found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
        if not found[self.device]:
            reason = f"this PyTorch ({torch.__version__}) sees no {self.device.upper()} device"
            return {"available": False, "reason": reason}
        blas = "MKL" if torch.backends.mkl.is_available() else "OpenBLAS or other"
        return {
            "available": True,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "gpu_name": torch.cuda.get_device_name() if self.device == "cuda" else None,
            "blas": blas if self.device == "cpu" else None,
            "threads": torch.get_num_threads(),
        }

    def thread_counts(self) -> dict[str, int]:
        return {"torch": torch.get_num_threads()}

    def device_of(self, model: Any) -> str:
        return str(model.device).partition(":")[0]

    def synchronize(self) -> None:
        if self.device != "cpu":
            getattr(torch, self.device).synchronize()

    def memory(self) -> dict[str, int] | None:
        if self.device == "cpu":
            return None
        if self.device == "mps":
            current, driver = torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory()
            return {"allocated_bytes": int(current), "driver_bytes": int(driver)}
        stats = torch.cuda.memory_stats()
        keys = {"allocated": "allocated_bytes.all.current", "reserved": "reserved_bytes.all.current"}
        keys |= {"peak_allocated": "allocated_bytes.all.peak", "peak_reserved": "reserved_bytes.all.peak"}
        return {f"{name}_bytes": int(stats.get(key, 0)) for name, key in keys.items()}

    def reset_peak_memory(self) -> None:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def peak_memory(self) -> int | None:
        # MPS reports only what is allocated now
        return int(torch.cuda.max_memory_allocated()) if self.device == "cuda" else None

    def matmul(self, size: int, dtype: str) -> Call:
        a = torch.randn((size, size), device=self.device).to(getattr(torch, dtype))
        out = torch.empty_like(a)
        return self._finished(lambda: torch.matmul(a, a, out=out))

    def copy(self, n_bytes: int) -> Call:
        a = torch.ones(n_bytes // 4, device=self.device)
        out = torch.empty_like(a)
        return self._finished(lambda: out.copy_(a))

    def _finished(self, call: Call) -> Call:
        def whole() -> None:
            call()
            self.synchronize()

        return whole

    def count(self, call: Call) -> dict[str, int]:
        """Matrix products, convolutions and attention are counted by PyTorch's own ``FlopCounterMode``, the rest by
        ``_Traffic``."""
        from torch.utils.flop_counter import FlopCounterMode  # here, so that it is no part of `import_s`

        # PyTorch counts attention on GPUs, and leaves out the CPU's own operator
        own = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
        traffic, products = _Traffic(), FlopCounterMode(display=False, custom_mapping=own)
        # cuDNN's recurrent layers are one opaque operator; without cuDNN they are matrix products that can be counted
        with torch.backends.cudnn.flags(enabled=False), products, traffic:
            call()
        return {"flops_products": products.get_total_flops(), "flops_other": traffic.flops, "bytes": traffic.bytes}

    def work(self, call: Callable[[], Iterable[Any]]) -> dict[str, int]:
        left: list[Any] = []
        with _Touched() as touched:
            counts = self.count(lambda: left.extend(call()))
        return {"flops": counts["flops_products"] + counts["flops_other"], "bytes": touched.bytes(left)}


class _Traffic(TorchDispatchMode):
    """Bytes of all operators, and FLOPs of those that are not products.
    One FLOP per value of an elementwise operator, ``2.5 n log2 n`` for a real Fourier transform of ``n`` values. Bytes
    are those of every operator's tensors, each read or written once; a view moves none."""

    bytes = flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        made, given = list(_tensors(found)), list(_tensors((args, kwargs or {})))
        if func._schema.name.startswith("aten::_fft"):
            values = made[0].shape[-1] if "c2r" in func._schema.name else given[0].shape[-1]
            self.flops += int(given[0].numel() * 2.5 * math.log2(max(2, values)))
        elif torch.Tag.pointwise in func.tags:
            self.flops += sum(tensor.numel() for tensor in made)
        storages = {tensor.untyped_storage().data_ptr() for tensor in given}
        fresh = not made or any(tensor.untyped_storage().data_ptr() not in storages for tensor in made)
        if fresh or func._schema.is_mutable:
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in (*made, *given))
        return found


class _Touched(TorchDispatchMode):
    """What a call reads that was there before it, and what of its results is left: each once, by its storage."""

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[int, int] = {}
        self.made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        made = {_place(tensor) for tensor in _tensors(found)}
        given = {_place(tensor): _size(tensor) for tensor in _tensors((args, kwargs or {}))}
        if not made <= given.keys() or func._schema.is_mutable:  # a view moves nothing
            for place, size in given.items():
                if place not in self.made:
                    self.read[place] = max(size, self.read.get(place, 0))
            self.made |= made if func._schema.is_mutable else made - given.keys()
        return found

    def bytes(self, left: Iterable[Any]) -> int:
        written = {_place(tensor): _size(tensor) for tensor in _tensors(list(left))}
        return sum(self.read.values()) + sum(size for place, size in written.items() if place in self.made)


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _size(tensor: torch.Tensor) -> int:
    """In bytes; a broadcast one has no more than it keeps."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Of three shapes ``[batch, heads, frames, channels]``."""
    from torch.utils.flop_counter import sdpa_flop_count

    return int(sdpa_flop_count(query, key, value))


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
