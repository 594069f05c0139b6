"""Reading checkpoints for PyTorch, strictly and without running code from them."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that belongs to another model."""


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read a bare state dict (``.pt``, ``.pth`` or ``.safetensors``) as NumPy arrays.

    Floating tensors come back as float32 (upstream often stores float16), others as stored.
    Pickles are opened with ``weights_only=True``: one that names any other code is refused.

    Raises:
        CheckpointError: missing, truncated or malicious file, or not a bare state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors: object = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: {_why(error)}") from error
    except Exception as error:  # safetensors raises its own type, which derives from Exception only
        if type(error).__name__ != "SafetensorError":
            raise
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(v, torch.Tensor) for v in tensors.values()):
        raise CheckpointError(f"{path}: not a bare state dict (expected names mapped to tensors)")
    return {str(k): (v.float() if v.is_floating_point() else v).numpy() for k, v in tensors.items()}


def _why(error: Exception) -> str:
    text = str(error) or type(error).__name__
    name = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", text)
    if name:
        return f"refused: the pickle asks for {name[1]}, which a state dict does not need"
    return "not a readable checkpoint; it may be truncated (" + text.splitlines()[0][:120] + ")"


def check_keys(model: str, expected: Mapping[str, tuple[int, ...]], state: Mapping[str, np.ndarray]) -> None:
    """Compare names and shapes; ``num_batches_tracked`` counters are ignored.

    Raises:
        CheckpointError: lists the first missing, unexpected and misshapen keys and their counts.
    """
    given = {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    problems = {
        "missing": [k for k in expected if k not in given],
        "unexpected": [k for k in given if k not in expected],
        "misshapen": [
            f"{k} {list(given[k])} instead of {list(s)}" for k, s in expected.items() if k in given and given[k] != s
        ],
    }
    told = [f"{len(v)} {kind} ({', '.join(v[:3])}{', ...' if len(v) > 3 else ''})" for kind, v in problems.items() if v]
    if told:
        raise CheckpointError(f"not a checkpoint of this {model}: " + "; ".join(told))
