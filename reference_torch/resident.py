"""Calls whose inputs are on the device already and whose outputs stay there: what is left of a call without copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

Outputs = Mapping[str, torch.Tensor]


class Resident:
    """Each use runs ``work`` once and returns when every output is computed.

    ``work() -> {name: tensor}``.
    """

    def __init__(self, work: Callable[[], Outputs], device: str) -> None:
        self.work, self.device = work, device

    def __call__(self) -> Outputs:
        with torch.inference_mode():
            found = self.work()
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        elif self.device == "mps":
            torch.mps.synchronize()
        return found

    def host(self, found: Outputs) -> dict[str, np.ndarray]:
        """The outputs as NumPy arrays, half precision widened."""
        return {name: _wide(value).cpu().numpy() for name, value in found.items()}


def _wide(value: torch.Tensor) -> torch.Tensor:
    return value if value.dtype == torch.float64 else value.to(torch.float32)
