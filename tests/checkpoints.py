"""Checkpoints as users have them, at toy sizes: every key of the real ones, no axis longer than three."""

from __future__ import annotations

import importlib
import json
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from rvc_common import checkpoint
from suites.inputs.weights import MANIFESTS

# modules of a transformer layer: fairseq's name, then Hugging Face's
FAIRSEQ_LAYER = {
    "self_attn.k_proj": "attention.k_proj",
    "self_attn.v_proj": "attention.v_proj",
    "self_attn.q_proj": "attention.q_proj",
    "self_attn.out_proj": "attention.out_proj",
    "self_attn_layer_norm": "layer_norm",
    "fc1": "feed_forward.intermediate_dense",
    "fc2": "feed_forward.output_dense",
    "final_layer_norm": "final_layer_norm",
}
FAIRSEQ_CONVOLUTIONS, FAIRSEQ_LAYERS = 7, 12


def fairseq_table() -> dict[str, str]:
    """Every parameter of fairseq's base HuBERT that a voice conversion needs, to its name in Hugging Face's model.

    Source: facebookresearch/fairseq, revision ac61741, read module by module: ``HubertModel`` in
    fairseq/models/hubert/hubert.py; ``ConvFeatureExtractionModel`` (mode "default", no bias), ``make_conv_pos``,
    ``TransformerEncoder`` and ``TransformerSentenceEncoderLayer`` in fairseq/models/wav2vec/wav2vec2.py; and
    ``MultiheadAttention`` in fairseq/modules/multihead_attention.py, revision 00bc279.
    """
    table = {
        "mask_emb": "masked_spec_embed",
        # a Sequential of convolution, dropout, (in the first one alone) group norm, GELU
        "feature_extractor.conv_layers.0.2.weight": "feature_extractor.conv_layers.0.layer_norm.weight",
        "feature_extractor.conv_layers.0.2.bias": "feature_extractor.conv_layers.0.layer_norm.bias",
        # a Sequential of weight-normed convolution, cut, GELU
        "encoder.pos_conv.0.weight_g": "encoder.pos_conv_embed.conv.weight_g",
        "encoder.pos_conv.0.weight_v": "encoder.pos_conv_embed.conv.weight_v",
        "encoder.pos_conv.0.bias": "encoder.pos_conv_embed.conv.bias",
    }
    for i in range(FAIRSEQ_CONVOLUTIONS):
        table[f"feature_extractor.conv_layers.{i}.0.weight"] = f"feature_extractor.conv_layers.{i}.conv.weight"
    modules = {
        "layer_norm": "feature_projection.layer_norm",
        "post_extract_proj": "feature_projection.projection",
        "encoder.layer_norm": "encoder.layer_norm",
        "final_proj": "final_proj",
    }
    for i in range(FAIRSEQ_LAYERS):
        modules |= {f"encoder.layers.{i}.{ours}": f"encoder.layers.{i}.{hf}" for ours, hf in FAIRSEQ_LAYER.items()}
    return table | {f"{a}.{end}": f"{b}.{end}" for a, b in modules.items() for end in ("weight", "bias")}


def reading(side: str) -> SimpleNamespace:
    """The functions of ``rvc_common.checkpoint`` that read, with one side's way of opening files."""
    read = importlib.import_module(f"{side}.files").read_file
    names = ("read_content", "read_hubert", "read_rmvpe", "read_voice")
    bound = {name: partial(getattr(checkpoint, name), read=read) for name in names}
    bound["read_file"] = lambda path: read(path)[0]
    return SimpleNamespace(read_metadata=checkpoint.read_metadata, **bound)


def manifest(name: str) -> dict[str, Any]:
    return json.loads((MANIFESTS / f"{name}.json").read_text())


def toy_state(name: str, *, enc_q: bool = False) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    return {
        entry["key"]: random.standard_normal([min(n, 3) for n in entry["shape"]]).astype(np.float32)
        for entry in manifest(name)["tensors"]
        if enc_q or not entry["key"].startswith("enc_q.")
    }


def in_memory_names(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    ends = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
    return {k[:-9] + ends[k[-9:]] if k[-9:] in ends else k: v for k, v in state.items()}


def tensors(state: dict[str, np.ndarray], dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    made = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}
    return made if dtype is None else {k: v.to(dtype) if v.is_floating_point() else v for k, v in made.items()}


def save_voice(path: Path, name: str = "synth_v2_40k_f0", dtype: torch.dtype = torch.float16, **fields: Any) -> Path:
    """``fields`` replace entries; None removes one."""
    facts = manifest(name)
    state = fields.pop("state", None)
    content = {
        "weight": tensors(toy_state(name) if state is None else state, dtype),
        "config": facts["config_list"],
        "version": facts["version"],
        "f0": facts["f0"],
        "sr": facts["config"]["sr"],
    }
    if facts["vocoder"] != "HiFi-GAN":
        content["vocoder"] = facts["vocoder"]
    torch.save({k: v for k, v in (content | fields).items() if v is not None}, path)
    return path


def fairseq_names(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = {new: old for old, new in fairseq_table().items()}
    return {names.get(key, key): value for key, value in state.items()}


def save_fairseq(path: Path, state: dict[str, np.ndarray], *, beside: dict[str, Any] | None = None, **how: Any) -> Path:
    """With objects of classes that do not exist any more when the file is read."""
    module = ModuleType("fairseq_of_old")
    exec(
        "import enum\n"
        "class Dictionary:\n    def __init__(self): self.symbols, self.indices = ['<s>'], {'<s>': 0}\n"
        "class Config(dict):\n    pass\n"
        "class Choice(enum.Enum):\n    HARD = 'hard'\n"
        "class Node:\n    def __init__(self, v): self.v = v\n"
        "    def __getstate__(self): return {'v': self.v}\n"
        "    def __setstate__(self, d): self.__dict__.update(d)\n",
        module.__dict__,
    )
    for name in ("Dictionary", "Choice", "Node"):
        getattr(module, name).__module__ = module.__name__
    sys.modules[module.__name__] = module
    import argparse

    counts: defaultdict[str, list] = defaultdict(list)
    counts["a"].append(module.Node(1))
    try:
        content = {
            "args": argparse.Namespace(arch="hubert", choice=module.Choice.HARD),
            "cfg": {"task": module.Node({"labels": ["km"]}), "counts": counts},
            "model": tensors(fairseq_names(state) | {"label_embs_concat": np.zeros((3, 2), np.float32)}),
            "optimizer_history": [{"criterion_name": "HubertCriterion", "num_updates": 3}],
            "last_optimizer_state": {"state": {0: {"exp_avg": torch.ones(4)}}, "scalar": np.float64(3)},
            "task_state": {"dictionaries": [module.Dictionary()], "types": [int, str, dict, list, range(3)]},
        }
        torch.save(content | (beside or {}), path, **how)
    finally:
        del sys.modules[module.__name__]
    return path


def save_folder(path: Path, state: dict[str, np.ndarray], weights: str = "model.safetensors", **config: Any) -> Path:
    from safetensors.numpy import save_file

    path.mkdir()
    (path / "config.json").write_text(json.dumps(manifest("hubert_contentvec")["config"] | config))
    if weights.endswith(".safetensors"):
        save_file(state, path / weights, metadata={"format": "pt"})
    elif weights:
        torch.save(tensors(state), path / weights)
    return path
