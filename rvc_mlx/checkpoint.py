"""What the models' checkpoints mean: names, configuration and kind, judged strictly.

Key names and entries as in IAHispano/Applio (revision b9c0ccb), RVC-Project's WebUI (4338f12),
Hugging Face's ``HubertModel`` and fairseq. How files are opened is in ``files``. Both packages
hold this module in the same words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .files import CheckpointError, RefusedError, read_file

__all__ = [
    "CONFIG_NAMES",
    "FORMAT",
    "VOCODERS",
    "CheckpointError",
    "Content",
    "Voice",
    "as_voice",
    "check_keys",
    "named_config",
    "normalise_keys",
    "read_content",
    "read_hubert",
    "read_metadata",
    "read_state_dict",
    "read_voice",
    "recognise",
]

FORMAT = "rvc-parity/1"
VOCODERS = ("HiFi-GAN", "MRF HiFi-GAN", "RefineGAN")
CONFIG_NAMES = (
    "spec_channels", "segment_size", "inter_channels", "hidden_channels", "filter_channels", "n_heads", "n_layers",
    "kernel_size", "p_dropout", "resblock", "resblock_kernel_sizes", "resblock_dilation_sizes", "upsample_rates",
    "upsample_initial_channel", "upsample_kernel_sizes", "spk_embed_dim", "gin_channels", "sr",
)  # fmt: skip
_LISTS = ("resblock_kernel_sizes", "upsample_rates", "upsample_kernel_sizes")
_TITLES = {"rmvpe": "RMVPE", "hubert": "HuBERT", "voice": "voice"}
# keys that every file of the kind has and no other kind does, in any naming that is read
_MARKS = {
    "rmvpe": r"unet\.(encoder|decoder|intermediate)\.",
    "hubert": r"(hubert\.)?(feature_extractor\.conv_layers|encoder\.pos_conv|encoder\.pos_conv_embed)\.",
    "voice": r"enc_p\.|emb_g\.|dec\.|flow\.flows\.",
}
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
_FROM_FAIRSEQ = (
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (r"feature_extractor\.conv_layers\.0\.2\.", "feature_extractor.conv_layers.0.layer_norm."),
    (r"layer_norm\.", "feature_projection.layer_norm."),
    (r"post_extract_proj\.", "feature_projection.projection."),
    (r"encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
    (r"(encoder\.layers\.\d+)\.self_attn\.", r"\1.attention."),
    (r"(encoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.layer_norm."),
    (r"(encoder\.layers\.\d+)\.fc1\.", r"\1.feed_forward.intermediate_dense."),
    (r"(encoder\.layers\.\d+)\.fc2\.", r"\1.feed_forward.output_dense."),
    (r"mask_emb$", "masked_spec_embed"),
)


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


def recognise(keys: Iterable[str]) -> str | None:
    """``rmvpe``, ``hubert`` or ``voice`` by characteristic keys; None for anything else."""
    names = list(keys)
    return next((kind for kind, mark in _MARKS.items() if any(re.match(mark, name) for name in names)), None)


def normalise_keys(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weight norm in either naming to ``.weight_g`` and ``.weight_v``.

    Raises:
        CheckpointError: a layer has both.
    """
    result: dict[str, np.ndarray] = {}
    for key, value in state.items():
        layer, style, end = key.rpartition(".parametrizations.weight.original")
        name = f"{layer}.weight_{'gv'[int(end)]}" if style and end in ("0", "1") else key
        if name in result or (name != key and name in state):
            raise CheckpointError(f"layer {name.rpartition('.')[0]} has its weight norm in both namings")
        result[name] = value
    return result


def named_config(config: object) -> dict[str, Any]:
    """The 18 values that a voice's network is built from, by name, from a list or a mapping.

    Raises:
        CheckpointError: names or count are wrong, or a value cannot be what its name says.
    """
    if isinstance(config, Mapping):
        wrong = [f"{n} is missing" for n in CONFIG_NAMES if n not in config]
        wrong += [f"{n!r} is unknown" for n in config if n not in CONFIG_NAMES]
        if wrong:
            raise CheckpointError("config: " + ", ".join(wrong))
        values = {name: config[name] for name in CONFIG_NAMES}
    elif isinstance(config, list | tuple):
        if len(config) != len(CONFIG_NAMES):
            raise CheckpointError(f"config has {len(config)} values instead of {len(CONFIG_NAMES)}")
        values = dict(zip(CONFIG_NAMES, config, strict=True))
    else:
        raise CheckpointError(f"config must be a list or a mapping, not {type(config).__name__}")
    wrong = [f"{name} cannot be {value!r:.60}" for name, value in values.items() if not _plausible(name, value)]
    for kernels, others in (_LISTS[0], "resblock_dilation_sizes"), (_LISTS[1], _LISTS[2]):
        if not wrong and len(values[kernels]) != len(values[others]):
            wrong = [f"{kernels} and {others} differ in length"]
    if wrong:
        raise CheckpointError("config: " + ", ".join(wrong))
    return {name: _as_list(value) for name, value in values.items()}


def _plausible(name: str, value: object) -> bool:
    if name in _LISTS:
        return isinstance(value, list | tuple) and len(value) > 0 and all(_is_count(n) for n in value)
    if name == "resblock_dilation_sizes":
        return isinstance(value, list | tuple) and all(_plausible(_LISTS[0], row) for row in value)
    if name == "resblock":
        return str(value) in ("1", "2")
    if name == "p_dropout":
        return isinstance(value, int | float) and 0 <= value <= 1
    return _is_count(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _as_list(value: Any) -> Any:
    return [_as_list(v) for v in value] if isinstance(value, list | tuple) else value


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read a bare state dict (``.pt``, ``.pth`` or ``.safetensors``) as NumPy arrays, keys as stored.

    Floating tensors come back as float32 (upstream often stores float16), others as stored.

    Raises:
        CheckpointError: missing, truncated or malicious file, or not a bare state dict.
    """
    content, _ = read_file(Path(path))
    if not _is_state(content):
        expected = "a bare state dict (expected names mapped to tensors)"
        what = _nested_kind(content)
        raise CheckpointError(f"{path}: " + (f"this looks like {what}, not {expected}" if what else f"not {expected}"))
    return _float32(content)


def read_metadata(path: str | Path) -> dict[str, str]:
    """Metadata of a ``.safetensors`` file; empty for other files.

    Raises:
        CheckpointError: missing or unreadable file.
    """
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


def read_hubert(path: str | Path) -> dict[str, np.ndarray]:
    """HuBERT's weights in the names of Hugging Face's ``HubertModel`` and ``final_proj``, float32.

    Takes a Hugging Face folder or its weights file, fairseq's ``.pt`` and our ``.safetensors``.

    Raises:
        CheckpointError: unreadable, of another kind, or a HuBERT variant that is not the base model.
    """
    return _float32(read_content(path, "hubert").state)


def read_voice(path: str | Path) -> Voice:
    """A voice as exported by either upstream (``.pth``), or our ``.safetensors``.

    Raises:
        CheckpointError: unreadable, of another kind, or without what the network is built from.
    """
    try:
        return as_voice(read_content(path, "voice"))
    except CheckpointError as error:
        raise CheckpointError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def as_voice(content: Content) -> Voice:
    """What the network is built from; entries that are absent mean v1, with pitch, HiFi-GAN.

    Raises:
        CheckpointError: an entry is wrong, or the speakers' embedding is missing.
    """
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


def read_content(path: str | Path, expected: str | None = None) -> Content:
    """Read any checkpoint that this project knows, keeping stored dtypes (bfloat16 becomes float32).

    ``expected``: the kind it has to be; None recognises it.

    Raises:
        CheckpointError: unreadable, unknown, or of another kind.
    """
    path = Path(path)
    content, metadata = _read_any(path)
    state, fields = content, {}
    if isinstance(content, Mapping) and not _is_state(content):
        state = content.get("model" if _is_state(content.get("model")) else "weight")
        fields = {str(k): v for k, v in content.items() if k != "weight"}
    if not _is_state(state):
        raise CheckpointError(f"{path}: holds no weights that are known here")
    kind = recognise(state)
    if kind is None or (expected is not None and kind != expected):
        looks = f"this looks like {_article(kind)} checkpoint" if kind else "no kind of checkpoint that is known here"
        raise CheckpointError(f"{path}: {looks}; expected {_TITLES.get(expected or '', 'RMVPE, HuBERT or a voice')}")
    try:
        if kind == "voice":
            fields = _stored_fields(metadata) if state is content else fields
            if "config" not in fields:
                raise CheckpointError(_lacks_config("model" in fields))
            return Content(kind, normalise_keys(state), fields)
        return Content(kind, _hubert_names(state) if kind == "hubert" else dict(state), {})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _read_any(path: Path) -> tuple[Any, dict[str, str]]:
    if path.is_dir():
        return read_file(_weights_in(path))
    try:
        return read_file(path)
    except RefusedError as refusal:
        # fairseq stores objects of its own beside the model; stand-ins are for its layout alone
        content, _ = read_file(path, foreign=True)
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


def _hubert_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = {key: key.removeprefix("hubert.") for key in state}
    if any(re.match(r"feature_extractor\.conv_layers\.0\.0\.|post_extract_proj\.", key) for key in state):
        names.pop("label_embs_concat", None)  # the training targets
        for key in names:
            for old, new in _FROM_FAIRSEQ:
                if re.match(old, key):
                    names[key] = re.sub(f"^{old}", new, key)
                    break
    if len(set(names.values())) < len(names):
        raise CheckpointError("two of its keys mean the same tensor")
    return normalise_keys({new: state[old] for old, new in names.items()})


def _stored_fields(metadata: Mapping[str, str]) -> dict[str, Any]:
    """A voice's entries from the metadata of our ``.safetensors``; none from another's."""
    if not metadata.get("format", "").startswith("rvc-parity/"):
        return {}
    if metadata["format"] != FORMAT:
        raise CheckpointError(f"format {metadata['format']} is not known here; this version reads {FORMAT}")
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


def _lacks_config(training: bool) -> str:
    what = "a training checkpoint" if training else "a bare state dict"
    return (
        f"this is {what}, which lacks the voice's config; give the exported voice file "
        "(with weight, config and version) or what `convert` made of it"
    )


def _is_state(content: object) -> bool:
    if not isinstance(content, Mapping) or not content:
        return False
    return all(isinstance(k, str) and isinstance(v, np.ndarray) for k, v in content.items())


def _nested_kind(content: object) -> str | None:
    if not isinstance(content, Mapping):
        return None
    if _is_state(content.get("weight")):
        return "a voice checkpoint"
    return "a training checkpoint" if _is_state(content.get("model")) else None


def _article(kind: str) -> str:
    return f"{'an' if kind == 'rmvpe' else 'a'} {_TITLES[kind]}"


def _float32(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: (v.astype(np.float32) if v.dtype.kind == "f" else v) for k, v in state.items()}


def check_keys(model: str, expected: Mapping[str, tuple[int, ...]], state: Mapping[str, np.ndarray]) -> None:
    """Compare names, shapes and kinds of values; ``num_batches_tracked`` counters are ignored.

    Raises:
        CheckpointError: lists the first missing, unexpected and misshapen keys and their counts, or those
            with values that no network can compute with.
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
        kind = recognise(given)
        if kind and kind != recognise(expected):
            told.append(f"this looks like {_article(kind)} checkpoint")
        raise CheckpointError(f"not a checkpoint of this {model}: " + "; ".join(told))
    broken = [f"{k} ({why})" for k in expected if (why := _unusable(k, state[k]))]
    if broken:
        raise CheckpointError(f"a damaged checkpoint of this {model}: {len(broken)} tensors, first {broken[0]}")


def _unusable(key: str, value: np.ndarray) -> str | None:
    """Why a tensor cannot be a weight, if so."""
    if value.dtype.kind != "f":
        return f"of type {value.dtype}"
    if not np.isfinite(value).all():
        return "has NaN or infinite values"
    if key.endswith("weight_v") and value.ndim == 3:
        # the kept axis is the first one; HuBERT's positional convolution keeps the last
        axes = (0, 1) if ".pos_conv" in key else (1, 2)
        if not np.square(value, dtype=np.float64).sum(axis=axes).all():
            return "has a direction of length zero"
    return None
