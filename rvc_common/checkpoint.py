"""Checkpoints of the three models: kind, weights and configuration, checked strictly.

Entries as in IAHispano/Applio (revision b9c0ccb), RVC-Project's WebUI (4338f12), Hugging Face and
fairseq. Each implementation has its own ``Reader`` of files, which the functions here take.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from . import CheckpointError, RefusedError
from .config import VOCODERS, named_config
from .keys import TITLES, article, hubert_names, normalise_keys, recognise

FORMAT = "rvc-parity/1"
_HUBERT_CONFIG = {
    "do_stable_layer_norm": False,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "hidden_act": "gelu",
    "conv_bias": False,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "layer_norm_eps": 1e-5,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
}


class Reader(Protocol):
    """Opens one file without running code from it."""

    def __call__(self, path: Path, foreign: bool = False) -> tuple[Any, dict[str, str]]:
        """Content and metadata of a ``.safetensors`` file, or of a pickle (which has no metadata).

        Tensors become arrays of the stored dtype, except bfloat16, which NumPy lacks: float32.

        Args:
            path: an existing file.
            foreign: classes of other libraries become inert stand-ins, and of a pickle only the entry ``model``
                is kept.

        Raises:
            CheckpointError: truncated or unreadable file.
            RefusedError: the pickle asks for code.
        """


class Voice(NamedTuple):
    """A voice: ``state`` float32 with weight norm as ``.weight_g``/``.weight_v``, ``config`` by name."""

    state: dict[str, np.ndarray]
    config: dict[str, Any]
    version: str
    f0: bool
    vocoder: str


class Content(NamedTuple):
    """A checkpoint in our naming with the stored dtypes; ``fields``: a voice's other entries, as in a ``.pth``."""

    kind: str
    state: dict[str, np.ndarray]
    fields: dict[str, Any]


@contextmanager
def file_named(path: str | Path) -> Iterator[None]:
    """Puts ``path`` in front of a ``CheckpointError`` that does not name it yet."""
    try:
        yield
    except CheckpointError as error:
        raise (error if str(path) in str(error) else type(error)(f"{path}: {error}")) from None


def _opened(path: Path, read: Reader, foreign: bool = False) -> tuple[Any, dict[str, str]]:
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    return read(path, foreign)


def read_state_dict(path: str | Path, read: Reader) -> dict[str, np.ndarray]:
    """Read a bare state dict (``.pt``, ``.pth`` or ``.safetensors``) as NumPy arrays, keys as stored.

    Floating tensors come back as float32 (upstream often stores float16), others as stored.

    Raises ``CheckpointError``: missing, truncated or malicious file, or not a bare state dict."""
    content, _ = _opened(Path(path), read)
    if not _is_state(content):
        expected = "a bare state dict (expected names mapped to tensors)"
        nested = content if isinstance(content, Mapping) else {}
        kinds = {"weight": "a voice checkpoint", "model": "a training checkpoint"}
        what = next((kind for key, kind in kinds.items() if _is_state(nested.get(key))), None)
        raise CheckpointError(f"{path}: " + (f"this looks like {what}, not {expected}" if what else f"not {expected}"))
    return _float32(content)


def read_metadata(path: str | Path) -> dict[str, str]:
    """Metadata of a ``.safetensors`` file; empty for other files.

    Raises ``CheckpointError``: missing or unreadable file."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such file")
    if Path(path).suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, "np") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from None


def read_hubert(path: str | Path, read: Reader) -> dict[str, np.ndarray]:
    """HuBERT's weights in the names of Hugging Face's ``HubertModel`` and ``final_proj``, float32.

    Takes a Hugging Face folder or its weights file, fairseq's ``.pt`` and our ``.safetensors``.

    Raises ``CheckpointError``: unreadable, of another kind, or a HuBERT variant that is not the base model."""
    return _float32(read_content(path, read, "hubert").state)


def read_voice(path: str | Path, read: Reader) -> Voice:
    """A voice as exported by either upstream (``.pth``), or our ``.safetensors``.

    Raises ``CheckpointError``: unreadable, of another kind, or without what the network is built from."""
    with file_named(path):
        return as_voice(read_content(path, read, "voice"))


def as_voice(content: Content) -> Voice:
    """What the network is built from; entries that are absent mean v1, with pitch, HiFi-GAN.

    Raises ``CheckpointError``: an entry is wrong, or the speakers' embedding is missing."""
    state, fields = content.state, content.fields
    config = named_config(fields["config"])
    embedding = state.get("emb_g.weight")
    if embedding is None or embedding.ndim != 2:
        raise CheckpointError("weight has no emb_g.weight, which counts the speakers")
    # upstream keeps a stale count and overwrites it in the same way
    config["spk_embed_dim"] = int(embedding.shape[0])
    version = _one_of(fields, "version", {"v1": "v1", "v2": "v2"}, "v1")
    f0 = _one_of(fields, "f0", {0: False, 1: True, "0": False, "1": True}, 1)
    vocoder = _one_of(fields, "vocoder", {name: name for name in VOCODERS}, VOCODERS[0])
    return Voice(_float32(state), config, version, f0, vocoder)


def _one_of(fields: Mapping[str, Any], name: str, known: Mapping[Any, Any], default: Any) -> Any:
    value = fields.get(name)
    value = default if value is None else value
    if not isinstance(value, str | int) or value not in known:
        raise CheckpointError(f"unknown {name} {value!r:.60}: one of {', '.join(str(k) for k in known)}")
    return known[value]


def read_content(path: str | Path, read: Reader, expected: str | None = None) -> Content:
    """Read a checkpoint of any supported kind, keeping stored dtypes (bfloat16 becomes float32).

    ``expected``: the kind it has to be; None recognises it.

    Raises ``CheckpointError``: unreadable, unknown, or of another kind."""
    path = Path(path)
    content, metadata = _read_any(path, read)
    state, fields = content, {}
    if isinstance(content, Mapping) and not _is_state(content):
        state = content.get("model" if _is_state(content.get("model")) else "weight")
        fields = {str(k): v for k, v in content.items() if k != "weight"}
    if not _is_state(state):
        raise CheckpointError(f"{path}: holds no weights of a supported model")
    kind = recognise(state)
    if kind is None or (expected is not None and kind != expected):
        looks = f"this looks like {article(kind)} checkpoint" if kind else "no supported kind of checkpoint"
        raise CheckpointError(f"{path}: {looks}; expected {TITLES.get(expected or '', 'RMVPE, HuBERT or a voice')}")
    with file_named(path):
        if kind == "voice":
            fields = _stored_fields(metadata) if state is content else fields
            if "config" not in fields:
                what = "a training checkpoint" if "model" in fields else "a bare state dict"
                raise CheckpointError(
                    f"this is {what}, which lacks the voice's config; give the exported voice file "
                    "(with weight, config and version) or what `convert` made of it"
                )
            return Content(kind, normalise_keys(state), fields)
        return Content(kind, hubert_names(state) if kind == "hubert" else dict(state), {})


def _read_any(path: Path, read: Reader) -> tuple[Any, dict[str, str]]:
    if path.is_dir():
        return _opened(_weights_in(path), read)
    try:
        return _opened(path, read)
    except RefusedError as refusal:
        # fairseq stores its own objects next to the model; stand-ins are allowed for its layout only
        content, _ = _opened(path, read, foreign=True)
        if not _is_state(content.get("model")) or recognise(content["model"]) != "hubert":
            raise refusal from None
        return content, {}


def _weights_in(folder: Path) -> Path:
    """The weights of a Hugging Face folder, its configuration checked."""
    weights = next((folder / n for n in ("model.safetensors", "pytorch_model.bin") if (folder / n).is_file()), None)
    if weights is None:
        raise CheckpointError(f"{folder}: a folder without model.safetensors or pytorch_model.bin")
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        wanted = _HUBERT_CONFIG | {"num_attention_heads": config.get("hidden_size", 768) // 64}
        different = [f"{k} is {config[k]!r}" for k, v in wanted.items() if config.get(k, v) != v]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{folder}: config.json cannot be read ({error})") from None
    if different:
        raise CheckpointError(f"{folder}: not HuBERT's base variant: {', '.join(different)}")
    return weights


def _stored_fields(metadata: Mapping[str, str]) -> dict[str, Any]:
    """A voice's entries from the metadata of our ``.safetensors``; none from another's."""
    if not metadata.get("format", "").startswith("rvc-parity/"):
        return {}
    if metadata["format"] != FORMAT:
        raise CheckpointError(f"format {metadata['format']} is not supported; this version reads {FORMAT}")
    try:
        named = named_config(json.loads(metadata["config"]))
        fields = dict(json.loads(metadata.get("extras", "{}")))
        return fields | {
            "config": list(named.values()),
            "version": metadata["version"],
            "f0": int(metadata["f0"]),
            "vocoder": metadata["vocoder"],
        }
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"its metadata is damaged ({error!r:.80})") from None


def _is_state(content: object) -> bool:
    if not isinstance(content, Mapping) or not content:
        return False
    return all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in content.items())


def _float32(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: (v.astype(np.float32) if v.dtype.kind == "f" else v) for k, v in state.items()}
