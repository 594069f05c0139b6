"""``convert``: a checkpoint to one ``.safetensors`` file that both sides load, and back."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError
from .weights import reduced_manifest


def convert(source: Path, target: Path, model: str) -> str:
    """Read, check that it is the model, write, read back and compare every value.

    Raises:
        UserError: unreadable, another model, or an ending that is not known.
    """
    checkpoint = importlib.import_module("rvc_mlx.checkpoint")  # reads .pt without PyTorch
    try:
        state = checkpoint.read_state_dict(source)
        checkpoint.check_keys(model.upper(), _expected(state), state)
    except checkpoint.CheckpointError as error:
        text = str(error)
        raise UserError(text if str(source) in text else f"{source}: {text}") from None
    if source.resolve() == target.resolve():
        raise UserError(f"{target}: is the input itself")
    if target.suffix == ".safetensors":
        _write_safetensors(state, source, target, model)
    elif target.suffix in (".pt", ".pth"):
        _write_torch(state, target)
    else:
        raise UserError(f"{target}: write .safetensors, .pt or .pth")
    again = checkpoint.read_state_dict(target)
    different = [k for k in state if k not in again or not np.array_equal(state[k], again[k])]
    if different or len(again) != len(state):
        raise UserError(f"{target}: was written, but {len(different)} tensors read back differently")
    return f"{target}: {len(state)} tensors, {sum(v.size for v in state.values()):,} values, all equal to {source}"


def _expected(state: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """RMVPE's keys and shapes at the width that the checkpoint itself shows."""
    first = state.get("unet.encoder.layers.0.conv.0.conv.0.weight")
    recurrent = state.get("fc.0.gru.weight_hh_l0")
    sizes = (16, 256) if first is None or recurrent is None else (first.shape[0], recurrent.shape[-1])
    tensors = reduced_manifest(*sizes)["tensors"]
    return {t["key"]: tuple(t["shape"]) for t in tensors if not t["key"].endswith("num_batches_tracked")}


def _write_safetensors(state: dict[str, np.ndarray], source: Path, target: Path, model: str) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    part = target.with_name(target.name + ".part")
    try:
        save_file(state, part, metadata={"model": model, "source": source.name, "source_sha256": digest})
        part.replace(target)
    except SafetensorError as error:
        raise UserError(f"cannot write {target}: {error}") from None
    finally:
        part.unlink(missing_ok=True)


def _write_torch(state: dict[str, np.ndarray], target: Path) -> None:
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        raise UserError("writing .pt needs PyTorch: pip install torch") from None
    part = target.with_name(target.name + ".part")
    try:
        torch.save({k: torch.from_numpy(np.array(v)) for k, v in state.items()}, part)
        part.replace(target)
    except RuntimeError as error:  # what torch.save makes of a folder that is missing or a full disk
        raise UserError(f"cannot write {target}: {error}".splitlines()[0]) from None
    finally:
        part.unlink(missing_ok=True)
