"""Key names of checkpoints: which model they belong to, the spellings in use, and the strict check.

Names as in IAHispano/Applio (revision b9c0ccb), RVC-Project's WebUI (4338f12), Hugging Face's
``HubertModel`` and fairseq.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from . import CheckpointError

TITLES = {"rmvpe": "RMVPE", "hubert": "HuBERT", "voice": "voice"}
# keys that every file of the kind has in some naming, and that no other kind has
_MARKS = {
    "rmvpe": r"unet\.(encoder|decoder|intermediate)\.",
    "hubert": r"(hubert\.)?(feature_extractor\.conv_layers|encoder\.pos_conv|encoder\.pos_conv_embed)\.",
    "voice": r"enc_p\.|emb_g\.|dec\.|flow\.flows\.",
}
# others that come along with them, or share HuBERT's names
_OTHERS = {
    "a discriminator (D_*.pth), which only training needs": r"discriminators\.",
    "WavLM": r"wavlm\.|.*(gru_rel_pos|rel_attn_embed|grep_|relative_attention_bias)",
    "wav2vec 2.0": r"wav2vec2\.|quantizer\.|project_q\.",
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


def recognise(keys: Iterable[str]) -> str | None:
    """``rmvpe``, ``hubert`` or ``voice`` by characteristic keys; None for anything else."""
    names = list(keys)
    return None if _match(_OTHERS, names) else _match(_MARKS, names)


def looks_like(keys: Iterable[str]) -> str | None:
    """What a checkpoint with these keys is, in words with their article; None: nobody knows."""
    names = list(keys)
    kind = recognise(names)
    return f"{'an' if kind == 'rmvpe' else 'a'} {TITLES[kind]} checkpoint" if kind else _match(_OTHERS, names)


def _match(marks: Mapping[str, str], names: list[str]) -> str | None:
    return next((what for what, mark in marks.items() if any(re.match(mark, name) for name in names)), None)


def normalise_keys(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weight norm in either naming to ``.weight_g`` and ``.weight_v``.

    Raises ``CheckpointError``: a layer has both."""
    result: dict[str, np.ndarray] = {}
    for key, value in state.items():
        layer, style, end = key.rpartition(".parametrizations.weight.original")
        name = f"{layer}.weight_{'gv'[int(end)]}" if style and end in ("0", "1") else key
        if name in result or (name != key and name in state):
            raise CheckpointError(f"layer {name.rpartition('.')[0]} has its weight norm in both namings")
        result[name] = value
    return result


def hubert_names(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """HuBERT's keys from fairseq's or Hugging Face's naming to Hugging Face's, weight norm as ``normalise_keys``.

    Raises ``CheckpointError``: two keys name the same tensor."""
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


def check_keys(model: str, expected: Mapping[str, tuple[int, ...]], state: Mapping[str, np.ndarray]) -> None:
    """Compare a state dict with the expected shapes (PyTorch's axis order); batch-norm counters are ignored.

    Raises ``CheckpointError``: counts the missing, unexpected and misshapen keys and lists the first of each, or
    names a tensor with values that no network can compute with."""
    given = {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    problems = {
        "missing": [k for k in expected if k not in given],
        "unexpected": [k for k in given if k not in expected],
        "misshapen": [
            f"{k} {list(given[k])} instead of {list(s)}" for k, s in expected.items() if k in given and given[k] != s
        ],
    }
    found = [f"{len(v)} {how} ({', '.join(v[:3])}{', ...' if len(v) > 3 else ''})" for how, v in problems.items() if v]
    if found:
        if recognise(given) != recognise(expected) and (what := looks_like(given)):
            found.append(f"this looks like {what}")
        raise CheckpointError(f"not a checkpoint of this {model}: " + "; ".join(found))
    if not any(state[k].any() for k, shape in expected.items() if len(shape) > 1 and not k.endswith(("_g", "_v"))):
        raise CheckpointError(f"a damaged checkpoint of this {model}: all of its weights are zero")
    broken = [f"{k} ({why})" for k in expected if (why := _unusable(k, state[k]))]
    if broken:
        raise CheckpointError(f"a damaged checkpoint of this {model}: {len(broken)} tensors, first {broken[0]}")


def _unusable(key: str, value: np.ndarray) -> str | None:
    """Why a tensor cannot be a weight, if so."""
    if value.dtype.kind != "f":
        return f"of type {value.dtype}"
    if not np.isfinite(value).all():
        return "has NaN or infinite values"
    if key.endswith("running_var") and (value < 0).any():
        return "has a negative variance"
    if key.endswith("weight_v") and value.ndim == 3:
        # the kept axis is the first one; HuBERT's positional convolution keeps the last
        axes = (0, 1) if ".pos_conv" in key else (1, 2)
        if not np.square(value, dtype=np.float64).sum(axis=axes).all():
            return "has a direction of length zero"
    return None
