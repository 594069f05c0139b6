"""What the three models share in PyTorch: their device and type, and how arrays get there and back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch

from rvc_common import model
from rvc_common.checks import check_choice
from rvc_common.model import Outputs

from .layers import DTYPES, TensorLayout, check_device


class Model(model.Model):
    layout: TensorLayout

    def _place(self, dtype: str, device: str) -> None:
        """Takes the options that every model has."""
        check_choice("dtype", dtype, DTYPES)
        self.device, self.dtype = check_device(device), DTYPES[dtype]
        # of what needs more than half precision whatever the network's type: mel, the source's phase, results
        self.wide_dtype = torch.float64 if dtype == "float64" else torch.float32
        self.layout = TensorLayout(self.wide_dtype)

    def on_device(self, call: str | None) -> AbstractContextManager[None]:
        return torch.inference_mode()

    def to_device(self, array: np.ndarray) -> torch.Tensor:
        return self.to_wide(array).to(self.dtype)

    def to_wide(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, self.wide_dtype)

    def to_host(self, value: torch.Tensor) -> np.ndarray:
        return value.to(self.wide_dtype).cpu().numpy()

    def compute(self, owner: object, work: Callable[[], Outputs]) -> Outputs:
        with torch.inference_mode():
            found = work()
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        elif self.device == "mps":
            torch.mps.synchronize()
        return found
