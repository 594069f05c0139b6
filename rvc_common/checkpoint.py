"""Checkpoints of the three models: kind, weights and configuration, checked strictly.

Entries as in IAHispano/Applio (revision b9c0ccb), RVC-Project's WebUI (4338f12), Hugging Face and
fairseq. Each implementation has its own ``Reader`` of files, which the functions here take.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from . import CheckpointError, quantized
from .config import HIFIGAN, MRF, REFINEGAN, VOCODERS, features_of, matrix_shape, named_config
from .formats import AGAIN, other_kind
from .keys import hubert_names, looks_like, normalise_keys, recognise
from .pickles import StandIn

FORMAT = "rvc-parity/1"
DEFAULT_EMBEDDER = "contentvec"
_EXPECTED = {
    "rmvpe": "RMVPE (rmvpe.pt)",
    "hubert": "HuBERT or ContentVec (a Hugging Face folder or fairseq's .pt)",
    "voice": "voice (the .pth that Applio or the WebUI exports)",
    None: "RMVPE, HuBERT or a voice",
}
# Applio's content models; the last one is every project's default, and has the name of its file too
_EMBEDDERS = {
    **{f"{language}-hubert-base": language for language in ("chinese", "japanese", "korean")},
    "spin-v2": r"\bspin\b.*\bv2",
    "spin": r"\bspin\b",
    DEFAULT_EMBEDDER: r"content-?vec|checkpoint-best-legacy|^hubert(-base)?(-?768)?(-pt)?$",
}
# where the weights are, by who saved them: an export, a trainer, Lightning; and what wraps a network adds to names
_NESTED = ("weight", "model", "state_dict")
_WRAPPED = r"(module\.|_orig_mod\.)+"
_HUGGING_FACE = ("model.safetensors", "pytorch_model.bin")
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

    def __call__(self, path: Path) -> tuple[Any, dict[str, str]]:
        """Content and metadata of a ``.safetensors`` file, or of a pickle (which has no metadata).

        Tensors become arrays of the stored dtype, except bfloat16, which NumPy lacks: float32. What is neither a
        tensor nor a plain value becomes a ``StandIn``. Raises whatever a damaged file leads to.
        """


class Voice(NamedTuple):
    """A voice: ``state`` float32 with weight norm as ``.weight_g``/``.weight_v``, ``config`` by name.

    ``embedder``: the content model that it was trained with, where the file says so.
    """

    state: dict[str, np.ndarray]
    config: dict[str, Any]
    version: str
    f0: bool
    vocoder: str
    embedder: str | None = None


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


def _opened(path: Path, read: Reader) -> tuple[Any, dict[str, str]]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    with file_named(path):
        try:
            content, metadata = read(path)
            return (quantized.widen(content, metadata) if quantized.METADATA in metadata else content), metadata
        except CheckpointError:
            raise
        except PermissionError as error:
            raise CheckpointError(f"cannot be read ({error.strerror})") from None
        except Exception as error:  # a pickle is a program: damaged ones fail in arbitrary ways
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise CheckpointError(f"not a readable checkpoint: truncated or damaged ({reason:.80}); {AGAIN}") from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """Metadata of a ``.safetensors`` file; empty for other files.

    Raises ``CheckpointError``: missing or unreadable file."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such file")
    with Path(path).open("rb") as file:
        if file.read(9)[8:] != b"{":
            return {}
    try:
        with safe_open(path, "np") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from None


def read_rmvpe(path: str | Path, read: Reader) -> dict[str, np.ndarray]:
    """RMVPE's weights, float32: a bare state dict, or the one in a training checkpoint.

    Raises ``CheckpointError``: unreadable, or of another kind."""
    return float32(read_content(path, read, "rmvpe").state)


def read_hubert(path: str | Path, read: Reader) -> dict[str, np.ndarray]:
    """HuBERT's weights in the names of Hugging Face's ``HubertModel`` and ``final_proj``, float32.

    Takes a Hugging Face folder or its weights file, fairseq's ``.pt`` and our ``.safetensors``.

    Raises ``CheckpointError``: unreadable, of another kind, or a HuBERT variant that is not the base model."""
    return float32(read_content(path, read, "hubert").state)


def read_voice(path: str | Path, read: Reader) -> Voice:
    """A voice as exported by either upstream (``.pth``), or our ``.safetensors``.

    Raises ``CheckpointError``: unreadable, of another kind, or without what the network is built from."""
    with file_named(path):
        return as_voice(read_content(path, read, "voice"))


def as_voice(content: Content) -> Voice:
    """What the network is built from; where an entry is absent, the weights tell.

    Raises ``CheckpointError``: an entry is wrong, or the speakers' embedding is missing."""
    state, fields = content.state, content.fields
    config = named_config(fields["config"])
    embedding = matrix_shape(state, "emb_g.weight")
    if embedding is None:
        raise CheckpointError("weight has no emb_g.weight, which counts the speakers")
    # upstream keeps a stale count and overwrites it in the same way
    config["spk_embed_dim"] = embedding[0]
    version = _version(state, fields)
    f0 = _one_of(fields, "f0", {0: False, 1: True, "0": False, "1": True}, int("enc_p.emb_pitch.weight" in state))
    part = {"dec.mrfs.": MRF, "dec.upsample_conv_blocks.": REFINEGAN}
    found = next((name for start, name in part.items() if any(key.startswith(start) for key in state)), HIFIGAN)
    vocoder = _one_of(fields, "vocoder", {name: name for name in VOCODERS}, found)
    named = fields.get("embedder_model") or fields.get("embedder_name")  # Applio's entry, ddPn08's
    embedder = embedder_called(named) if isinstance(named, str) else None
    return Voice(float32(state), config, version, f0, vocoder, embedder)


def _version(state: Mapping[str, np.ndarray], fields: Mapping[str, Any]) -> str:
    """``v1`` or ``v2``: which content features the voice takes.

    In ddPn08's fork (revision 282fb68) it says how the voice was trained, and the width and the layer stand apart."""
    _, width = matrix_shape(state, "enc_p.emb_phone.weight") or (0, 0)
    told = {256: "v1", 768: "v2"}.get(width)
    version = str(_one_of(fields, "version", {"v1": "v1", "v2": "v2"}, told or "v1"))
    features, layer = features_of(fields["config"]), fields.get("embedder_output_layer")
    if features is not None and features != width:
        raise CheckpointError(f"config: emb_channels is {features}, but the weights take features of {width} values")
    if layer is not None and layer not in ((9, 12) if width == 256 else (12,)):
        raise CheckpointError(f"embedder_output_layer {layer!r:.60} is not supported with features of {width} values")
    return version if features is None else told or version


def _one_of(fields: Mapping[str, Any], name: str, known: Mapping[Any, Any], default: Any) -> Any:
    value = fields.get(name)
    value = default if value is None else value
    if not isinstance(value, str | int) or value not in known:
        raise CheckpointError(f"unknown {name} {value!r:.60}: one of {', '.join(str(k) for k in known)}")
    return known[value]


def read_content(path: str | Path, read: Reader, expected: str | None = None) -> Content:
    """Read a checkpoint of any supported kind, keeping stored dtypes (bfloat16 and quantised tensors become float32).

    ``expected``: the kind it has to be; None recognises it.

    Raises ``CheckpointError``: unreadable, unknown, or of another kind."""
    path = Path(path)
    if path.is_dir():
        weights = _weights_in(path, expected)
        content, metadata = _opened(weights, read)
    else:
        content, metadata = _opened(path, read)
        _check_beside(path)
    with file_named(path):
        state, fields = _state_of(content)
        kind = recognise(state)
        if kind is None or (expected is not None and kind != expected):
            what = looks_like(state)
            looks = f"this looks like {what}" if what else f"no supported kind of checkpoint (with {next(iter(state))})"
            raise CheckpointError(f"{looks}; expected {_EXPECTED[expected]}")
        if kind != "voice":
            return Content(kind, hubert_names(state) if kind == "hubert" else state, {})
        fields = _stored_fields(metadata) or fields
        if "config" not in fields:
            what = "a training checkpoint" if fields else "a bare state dict"
            raise CheckpointError(
                f"this is {what}, which lacks the voice's config; give the exported voice file "
                "(with weight, config and version) or what `convert` made of it"
            )
        return Content(kind, normalise_keys(state), fields)


def _state_of(content: object) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The weights, under the names that the network itself gives them, and the entries beside them."""
    fields: dict[str, Any] = {}
    state = content
    if isinstance(content, Mapping):
        nested = next((name for name in _NESTED if isinstance(content.get(name), Mapping)), None)
        if nested is not None:
            state, fields = content[nested], {str(k): v for k, v in content.items() if k != nested}
    if isinstance(state, StandIn):
        raise CheckpointError(f"holds an object ({type(state).__name__}), not its weights; save its state_dict()")
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError("holds no weights of a supported model")
    odd = next((k for k, v in state.items() if not isinstance(k, str) or not isinstance(v, np.ndarray)), None)
    if odd is not None:
        kind = type(state[odd]).__name__
        raise CheckpointError(f"holds no weights of a supported model: {str(odd)[:60]!r} is no plain tensor ({kind})")
    if all(re.match(_WRAPPED, key) for key in state):
        state = {re.sub(f"^{_WRAPPED}", "", key): value for key, value in state.items()}
    return dict(state), fields


def _weights_in(folder: Path, expected: str | None) -> Path:
    """The weights of a Hugging Face folder, its configuration checked."""
    if expected not in ("hubert", None):
        inside = sorted(p.name for p in folder.iterdir() if p.suffix in (".pth", ".pt", ".safetensors"))
        advice = f"give the file itself, such as {inside[0]}" if inside else "give the file itself"
        raise CheckpointError(f"{folder}: is a folder; {advice}")
    weights = next((folder / n for n in _HUGGING_FACE if (folder / n).is_file()), None)
    if weights is None:
        raise CheckpointError(f"{folder}: a folder without {' or '.join(_HUGGING_FACE)}")
    try:
        text = (folder / "config.json").read_bytes()
        config = json.loads(text)
        model = config.get("model_type", "hubert")
        wanted = _HUBERT_CONFIG | {"num_attention_heads": config.get("hidden_size", 768) // 64}
        different = [f"{k} is {config[k]!r}" for k, v in wanted.items() if config.get(k, v) != v]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        what = other_kind(text) if isinstance(error, ValueError) else None
        reason = f"is {what}" if what else f"cannot be read ({error})"
        raise CheckpointError(f"{folder}: config.json {reason}") from None
    _check_type(folder, model)
    if different:
        raise CheckpointError(f"{folder}: not HuBERT's base variant: {', '.join(different)}")
    return weights


def embedder_called(name: str) -> str:
    """One spelling for the names that projects give to a content model, or to its file or folder."""
    plain = re.sub(r"[\W_]+", "-", name.rstrip("/\\").replace("\\", "/").rpartition("/")[2].lower()).strip("-")
    return next((known for known, pattern in _EMBEDDERS.items() if re.search(pattern, plain)), plain)


def embedder_of(path: str | Path) -> str | None:
    """Which content model a file or folder holds, by its names alone; None: weights that were made up."""
    path = Path(path)
    metadata = {} if path.is_dir() else read_metadata(path)
    if "recipe" in metadata:
        return None
    folder = path if path.is_dir() else path.parent
    own = folder if path.is_dir() or path.name in _HUGGING_FACE else path.with_suffix("")
    names = [metadata.get("source", ""), *(part for part in folder.parts if part.startswith("models--")), own.name]
    found = [embedder_called(name) for name in names if name]
    return next((name for name in found if name in _EMBEDDERS), found[-1])


def same_embedder(given: str, wanted: str) -> bool:
    """Whether a content model may be the one that a voice wants; one of no known name is taken for the default."""
    return given == wanted or (wanted == DEFAULT_EMBEDDER and given not in _EMBEDDERS)


def _check_beside(path: Path) -> None:
    """The weights of a Hugging Face folder may be given without it."""
    try:
        config = json.loads((path.parent / "config.json").read_bytes()) if path.name in _HUGGING_FACE else {}
    except (OSError, ValueError):
        return
    _check_type(path, config.get("model_type", "hubert") if isinstance(config, dict) else "hubert")


def _check_type(path: Path, model: object) -> None:
    """WavLM, wav2vec 2.0 and others have HuBERT's names and shapes, but compute or mean something else."""
    if model != "hubert":
        raise CheckpointError(
            f"{path}: config.json says that this is a {model!r:.40} model; expected {_EXPECTED['hubert']}"
        )


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


def float32(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state as the networks take it; whole numbers as they are."""
    with np.errstate(over="ignore"):  # what becomes infinite is refused with its name
        return {k: (v.astype(np.float32, copy=False) if v.dtype.kind == "f" else v) for k, v in state.items()}
