"""What a call has to do, counted on the PyTorch side, and what a device can do at best: the two halves of a roofline.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009.
Matrix products, convolutions and attention are counted by PyTorch's own ``FlopCounterMode``. What it leaves out
is added here: one FLOP per value of an elementwise operator, ``2.5 n log2 n`` for a real Fourier transform of
``n`` values. Bytes are those of every operator's tensors, each read or written once: what goes through memory
where no operator is fused with the next one and nothing stays in a cache.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

# of one measurement of a peak: the fastest call counts
PEAK_SECONDS = 0.4
# a matrix product grows until a call takes this long; what is copied is larger than caches
CALL_SECONDS, LARGEST_MATRIX = 0.02, 8192
COPIED_BYTES = 256 * 2**20


def count(call: Callable[[], Any]) -> dict[str, int]:
    """FLOPs and bytes of one call of PyTorch's: ``flops_products``, ``flops_other``, ``bytes``."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    class Traffic(TorchDispatchMode):
        """Bytes of all operators, and FLOPs of those that are no products."""

        bytes = flops = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            made = list(_tensors(found))
            given = list(_tensors((args, kwargs or {})))
            if func._schema.name.startswith("aten::_fft"):
                values = made[0].shape[-1] if "c2r" in func._schema.name else given[0].shape[-1]
                self.flops += int(given[0].numel() * 2.5 * math.log2(max(2, values)))
            elif torch.Tag.pointwise in func.tags:
                self.flops += sum(tensor.numel() for tensor in made)
            storages = {tensor.untyped_storage().data_ptr() for tensor in given}
            if (
                not made
                or any(tensor.untyped_storage().data_ptr() not in storages for tensor in made)
                or _in_place(func)
            ):
                self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in (*made, *given))
            return found

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    # PyTorch counts attention on GPUs, and leaves out the CPU's operator of its own
    own = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    traffic, products = Traffic(), FlopCounterMode(display=False, custom_mapping=own)
    # cuDNN's recurrent layers are one opaque operator; without cuDNN they are matrix products that can be counted
    with torch.backends.cudnn.flags(enabled=False), products, traffic:
        call()
    return {"flops_products": products.get_total_flops(), "flops_other": traffic.flops, "bytes": traffic.bytes}


def _in_place(func: Any) -> bool:
    return bool(func._schema.is_mutable)


def _tensors(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)


def peaks(framework: str, device: str, dtype: str) -> dict[str, float]:
    """FLOP/s of a matrix product in this precision, and bytes/s of a copy, as this framework reaches them.

    The product is of random numbers: GPUs take less power, and run faster, on constant ones.
    """
    matmul, copy = (_torch if framework == "torch" else _mlx)(device, dtype)
    size, taken = 512, 0.0
    while taken < CALL_SECONDS and size < LARGEST_MATRIX:
        size *= 2
        taken = _fastest(matmul(size), PEAK_SECONDS / 8)
    flops = 2 * size**3 / _fastest(matmul(size), PEAK_SECONDS)
    return {
        "matmul_flops_per_s": flops,
        "matmul_size": size,
        "copy_bytes_per_s": 2 * COPIED_BYTES / _fastest(copy(), PEAK_SECONDS),
    }


def _fastest(call: Callable[[], Any], seconds: float) -> float:
    """Of at least three calls after the first one."""
    call()
    started = time.perf_counter()
    taken: list[float] = []
    while len(taken) < 3 or time.perf_counter() - started < seconds:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _torch(device: str, dtype: str) -> tuple[Callable[[int], Callable[[], Any]], Callable[[], Callable[[], Any]]]:
    import torch

    def finished(call: Callable[[], Any]) -> Callable[[], None]:
        def whole() -> None:
            call()
            if device != "cpu":
                getattr(torch, device).synchronize()

        return whole

    def matmul(size: int) -> Callable[[], Any]:
        a = torch.randn((size, size), device=device).to(getattr(torch, dtype))
        out = torch.empty_like(a)
        return finished(lambda: torch.matmul(a, a, out=out))

    def copy() -> Callable[[], Any]:
        a = torch.ones(COPIED_BYTES // 4, device=device)
        out = torch.empty_like(a)
        return finished(lambda: out.copy_(a))

    return matmul, copy


def _mlx(device: str, dtype: str) -> tuple[Callable[[int], Callable[[], Any]], Callable[[], Callable[[], Any]]]:
    import mlx.core as mx

    where = mx.cpu if device == "cpu" else mx.gpu

    def matmul(size: int) -> Callable[[], Any]:
        a = mx.random.normal((size, size), stream=where).astype(getattr(mx, dtype), stream=where)
        mx.eval(a)
        return lambda: mx.eval(mx.matmul(a, a, stream=where))

    def copy() -> Callable[[], Any]:
        a = mx.ones(COPIED_BYTES // 4)
        mx.eval(a)
        return lambda: mx.eval(mx.negative(a, stream=where))  # MLX has no plain copy

    return matmul, copy
