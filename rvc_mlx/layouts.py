"""Carries of MLX arrays as NumPy arrays in PyTorch's axis order.

The networks keep channels last. A walk (``stages.walk``) shows its values, and takes others in
their place, through one of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rvc_common.stages import Event

from .packed import pack, unpack
from .runtime import mx

Keeps = Callable[[Event, str], bool]


def to_numpy(value: mx.array) -> np.ndarray:
    """A contiguous copy; half precision widened."""
    wide = value.astype(mx.float32) if mx.issubdtype(value.dtype, mx.floating) else value
    return np.array(mx.contiguous(wide))


class ChannelsLast:
    """``[B, T, C]`` and ``[B, H, W, C]`` against ``[B, C, T]`` and ``[B, C, H, W]``.

    ``keeps(event, name)``: whether an entry has PyTorch's axis order already.
    """

    def __init__(self, keeps: Keeps) -> None:
        self.keeps = keeps

    def public(self, event: Event, name: str) -> np.ndarray | None:
        value = event.carry[name]
        if not isinstance(value, mx.array):
            return value if isinstance(value, np.ndarray) else None
        moved = value.ndim < 3 or self.keeps(event, name)
        return to_numpy(value if moved else mx.moveaxis(value, -1, 1))

    def private(self, event: Event, name: str, array: np.ndarray) -> None:
        own = event.carry[name]
        if not isinstance(own, mx.array):
            event.carry[name] = array.astype(own.dtype)
            return
        same = own.ndim < 3 or self.keeps(event, name)
        value = array if same else np.moveaxis(array, 1, -1)
        event.carry[name] = mx.array(np.ascontiguousarray(value)).astype(own.dtype)


class RmvpeLayout:
    """RMVPE's: mel frames first, images channels last, or packed (see ``packed``) with a border of zeros."""

    def __init__(self, bands: int) -> None:
        self.bands = bands
        self.plain = ChannelsLast(lambda event, name: event.carry[name].ndim == 3)

    def public(self, event: Event, name: str) -> np.ndarray | None:
        value = event.carry[name]
        if event.path in ("mel", "padded_log_mel"):
            return to_numpy(value.swapaxes(-1, -2))
        if not self._is_packed(event, value):
            return self.plain.public(event, name)
        if event.path.endswith("cnn"):
            return to_numpy(value.transpose(1, 0, 2)[None])
        image = self._image(event, value)
        if event.path.endswith("concat") and name == "x":
            image = mx.concatenate([image, self._image(event, event.carry["concat"])], axis=1)
        return to_numpy(image)

    def private(self, event: Event, name: str, array: np.ndarray) -> None:
        value, carry = event.carry[name], event.carry
        if event.path in ("mel", "padded_log_mel"):
            carry[name] = mx.array(np.ascontiguousarray(array.T))
        elif not self._is_packed(event, value):
            self.plain.private(event, name, array)
        elif event.path.endswith("cnn"):
            carry[name] = mx.array(np.ascontiguousarray(array[0].transpose(1, 0, 2)))
        elif event.path.endswith("concat") and name == "x":
            c = value.shape[1]
            carry["x"], carry["concat"] = (pack(part, 0) for part in (array[:, :c], array[:, c:]))
        else:
            carry[name] = [pack(array, carry["halo"])] if isinstance(value, list) else pack(array, 0)

    @staticmethod
    def _is_packed(event: Event, value: Any) -> bool:
        if isinstance(value, list):
            return True
        inside = "rows" in event.carry and isinstance(value, mx.array)
        return inside and (value.ndim == 2 or event.path.endswith("cnn"))

    def _image(self, event: Event, value: mx.array | list[mx.array]) -> mx.array:
        """Without border, ``[1, C, H, W]``; its length gives the level."""
        halo, rows = 0, event.carry["rows"]
        if isinstance(value, list):
            value, halo = value[0], event.carry["halo"]
        count, level = value.shape[0] - 2 * halo, 0
        while count != (rows >> level) * ((self.bands >> level) + 1):
            level += 1
            if not rows >> level:
                raise ValueError(f"{event.path}: {count} positions are no image of {rows} rows")
        return unpack(value[halo : halo + count], rows >> level, self.bands >> level)
