"""What the models share: weight norm folded at loading, and a strict load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from rvc_common.keys import check_keys
from rvc_common.stages import Event, Stage, group

DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

Layer = TypeVar("Layer", bound=nn.Module)


def check_device(name: str) -> str:
    """``cpu``, ``cuda`` or ``mps``, perhaps with a number, where this machine has it.

    Raises ``ValueError``: another name, or a device that is not there."""
    kind = name.partition(":")[0]
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind not in present:
        raise ValueError(f"unknown device {name!r}: cpu, cuda or mps")
    if not present[kind]:
        raise ValueError(f"this machine has no {kind.upper()} device that PyTorch can use")
    return name


def weight_normed(layer: Layer, kept_axis: int = 0) -> Layer:
    """Mark a layer whose weight is stored as a direction ``weight_v`` and, along one axis, its norm ``weight_g``."""
    layer.kept_axis = kept_axis
    return layer


def numbered(name: str, modules: Iterable[Any]) -> tuple[Stage, ...]:
    """The stages of each module as a group of their own, ``name.0`` and so on."""
    return tuple(group(f"{name}.{i}", module.stages()) for i, module in enumerate(modules))


def expected_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Every key of the network's checkpoint and its shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        kept = getattr(module, "kept_axis", None)
        for leaf, tensor in _tensors(module):
            key, shape = f"{name}.{leaf}".removeprefix("."), tuple(tensor.shape)
            if leaf == "weight" and kept is not None:
                shapes[f"{key}_g"] = tuple(n if axis == kept else 1 for axis, n in enumerate(shape))
                shapes[f"{key}_v"] = shape
            else:
                shapes[key] = shape
    return shapes


def _tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """What a checkpoint holds of the module itself; a batch norm's counter is of no use."""
    own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return [(name, tensor) for name, tensor in own if name != "num_batches_tracked"]


def fold_weight_norm(state: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    """``g * v / |v|``, the norm over every axis along which g has length 1; in float64."""
    g, v = (np.asarray(state[f"{key}_{end}"], np.float64) for end in "gv")
    axes = tuple(axis for axis, n in enumerate(g.shape) if n == 1)
    return g * v / np.sqrt((v * v).sum(axis=axes, keepdims=True))


class Undrawn(TorchFunctionMode):
    """In it layers draw no first weights, which loading replaces: for a full network that takes as long as loading."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__:
            return None
        return func(*args, **(kwargs or {}))


def load_weights(
    model: str,
    network: nn.Module,
    state: Mapping[str, np.ndarray],
    dtype: torch.dtype,
    device: str,
    unused: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Fill ``network`` and move it; ``unused``: keys that must have these shapes but are not used.

    Raises ``CheckpointError``: missing, unexpected or misshapen keys."""
    check_keys(model, expected_shapes(network) | dict(unused or {}), state)
    network.to(dtype).eval().requires_grad_(False)
    for name, module in network.named_modules():
        for leaf, tensor in _tensors(module):
            key = f"{name}.{leaf}".removeprefix(".")
            folded = leaf == "weight" and hasattr(module, "kept_axis")
            value = fold_weight_norm(state, key) if folded else state[key]
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    network.to(device)


class TensorLayout:
    """Carries of tensors as NumPy arrays; PyTorch's axis order is the public one."""

    def __init__(self, wide_dtype: torch.dtype) -> None:
        self.wide_dtype = wide_dtype

    def public(self, event: Event, name: str) -> np.ndarray | None:
        value = event.carry[name]
        if isinstance(value, torch.Tensor):
            return value.to(self.wide_dtype if value.is_floating_point() else value.dtype).cpu().numpy()
        return value if isinstance(value, np.ndarray) else None

    def private(self, event: Event, name: str, array: np.ndarray) -> None:
        own = event.carry[name]
        if isinstance(own, torch.Tensor):
            event.carry[name] = torch.from_numpy(np.array(array)).to(own.device, own.dtype)
        else:
            event.carry[name] = array.astype(own.dtype)
