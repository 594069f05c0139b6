"""Checkpoints read with every check that loading makes, and written as files that both sides load."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rvc_common import checkpoint, quantized
from rvc_common.checks import PROFILES
from rvc_common.config import HubertConfig, RMVPEConfig, SynthesizerConfig
from rvc_common.keys import check_keys
from rvc_common.outputs import whole
from rvc_common.pickles import holds_stand_in

# neither needs a framework
from rvc_mlx.files import read_file
from rvc_mlx.keys import hubert_shapes, rmvpe_shapes, state_shapes

from ..base.errors import UserError


def read_checked(source: Path, expected: str | None) -> tuple[checkpoint.Content, str]:
    """A checkpoint that some side would load, and the profile under which; ``expected``: as ``read_content``'s.

    Raises ``UserError``: none would; names the file and the reason."""
    try:
        with checkpoint.file_named(source):
            content = checkpoint.read_content(source, read_file, expected)
            stored = checkpoint.read_metadata(source).get("profile") if source.is_file() else None
            profile = stored or _profile(content.fields)
            _check_loadable(content, profile)
    except checkpoint.CheckpointError as error:
        raise UserError(str(error)) from None
    return content, profile


def write(
    content: checkpoint.Content,
    tensors: Mapping[str, np.ndarray],
    about: Mapping[str, str],
    source: Path,
    target: Path,
    profile: str,
) -> list[str]:
    """Names of a voice's extras that could not be kept; ``tensors``, ``about``: the weights as they are to be stored,
    and what a ``.safetensors`` file says of that."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    if target.suffix.lower() in (".pt", ".pth"):
        left_out = sorted(name for name, value in content.fields.items() if holds_stand_in(value))
        _write_torch(_voice_file(content, left_out) if content.kind == "voice" else content.state, target)
        return left_out
    metadata = {
        "format": checkpoint.FORMAT,
        "model": content.kind,
        "source": source.resolve().name,
        "source_sha256": _digest(source),
        **about,
    }
    left_out = []
    if content.kind == "voice":
        fields, left_out = _voice_metadata(content)
        metadata |= fields | {"profile": profile}
    with whole(target, SafetensorError) as part:
        save_file({k: np.asarray(v, order="C") for k, v in tensors.items()}, part, metadata=metadata)
    return left_out


def write_quantized(source: Path, target: Path, kind: str, bits: int, group: int) -> None:
    """``target``, a ``.safetensors`` file of the weights in ``source`` in fewer bits: see ``rvc_common.quantized``.

    Raises ``UserError``: ``source`` is not a checkpoint of this ``kind``."""
    content, profile = read_checked(source, kind)
    tensors, about = quantized.quantize(content.state, bits, group)
    write(content, tensors, about, source, target, profile)


def _voice_metadata(content: checkpoint.Content) -> tuple[dict[str, str], list[str]]:
    voice, config = checkpoint.as_voice(content), checkpoint.named_config(content.fields["config"])
    extras = {k: v for k, v in content.fields.items() if k not in ("config", "version", "f0", "vocoder")}
    kept = {k: v for k, v in extras.items() if _json_holds(v)}
    return {
        "config": json.dumps(config),
        "version": voice.version,
        "f0": str(int(voice.f0)),
        "vocoder": voice.vocoder,
        "sample_rate": str(config["sr"]),
        "extras": json.dumps(kept),
    }, sorted(set(extras) - set(kept))


def _voice_file(content: checkpoint.Content, left_out: list[str]) -> dict[str, Any]:
    """The ``.pth`` that either upstream reads."""
    voice, config = checkpoint.as_voice(content), checkpoint.named_config(content.fields["config"])
    own = {"config": list(config.values()), "version": voice.version, "f0": int(voice.f0), "sr": config["sr"]}
    if voice.vocoder != checkpoint.VOCODERS[0]:
        own["vocoder"] = voice.vocoder
    return (
        {"weight": content.state}
        | own
        | {k: v for k, v in content.fields.items() if k not in ("config", "version", "f0", "vocoder", *left_out)}
    )


def _json_holds(value: Any) -> bool:
    try:
        # as text: NaN differs from itself, and True equals 1
        return repr(json.loads(json.dumps(value))) == repr(value)
    except (TypeError, ValueError):
        return False


def _profile(fields: dict[str, Any]) -> str:
    """Whose export it looks like: the WebUI writes ``info`` and none of Applio's entries."""
    applio = ("epoch", "step", "vocoder", "model_hash", "model_name", "creation_date")
    return "webui" if "info" in fields and not any(name in fields for name in applio) else "applio"


def _check_loadable(content: checkpoint.Content, profile: str) -> None:
    """Refuse what no side loads, under neither profile.

    Raises ``CheckpointError``: as loading it with ``profile`` would."""
    state = checkpoint.float32(content.state)
    if content.kind == "rmvpe":
        check_keys("RMVPE", rmvpe_shapes(RMVPEConfig.from_state_dict(state)), state)
    elif content.kind == "hubert":
        config = HubertConfig.from_state_dict(state)
        check_keys("HuBERT", hubert_shapes(config) | config.unused_shapes(state), state)
    else:
        voice = checkpoint.as_voice(content)
        made = SynthesizerConfig.make(voice.config, voice.state, voice.version, voice.f0, voice.vocoder)
        refusals = []
        for one in sorted(PROFILES, key=lambda name: name != profile):
            try:
                made.check_upsampling(one)
                check_keys("synthesizer", state_shapes(made, one) | made.unused_shapes(state), state)
                return
            except checkpoint.CheckpointError as error:
                refusals.append(error)
        raise refusals[0]


def _digest(source: Path) -> str:
    names = ("config.json", "model.safetensors", "pytorch_model.bin")
    present = [source / name for name in names if (source / name).is_file()][:2]  # the weights that were read
    digest = hashlib.sha256()
    for path in present if source.is_dir() else [source]:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _write_torch(content: dict[str, Any], target: Path) -> None:
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        raise UserError("writing .pt needs PyTorch: pip install torch") from None

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: tensors(v) for k, v in value.items()}
        return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value

    with whole(target, RuntimeError) as part:  # what torch.save makes of a full disk
        torch.save(tensors(content), part)
