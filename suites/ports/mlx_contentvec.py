"""``mlx-contentvec`` from PyPI, with the checkpoint of HuBERT or ContentVec in place of its own file.

The package is not changed. It has no ``final_proj``, so it computes the features of v2 voices alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rvc_common.checkpoint import read_hubert
from rvc_common.config import HEAD_CHANNELS, HubertConfig
from rvc_common.keys import normalise_keys
from rvc_mlx.files import read_file
from rvc_mlx.keys import KERNELS, STRIDES

from .mlx_base import MlxPort, Rename, Staged, Watch, fill, host, mx, renamed, watched

RENAMED: Rename = (
    (r"^feature_extractor\.conv_layers\.0\.layer_norm\.", "feature_extractor.conv_layers.0.norm."),
    (r"^feature_projection\.layer_norm\.", "layer_norm."),
    (r"^feature_projection\.projection\.", "post_extract_proj."),
    (r"^encoder\.pos_conv_embed\.conv\.bias", "encoder.pos_conv.layers.0.module.bias"),
    (r"^encoder\.pos_conv_embed\.conv\.weight_", "encoder.pos_conv.layers.0."),
    (r"^(encoder\.layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"\.attention\.", ".self_attn."),
    (r"\.feed_forward\.intermediate_dense\.", ".fc1."),
    (r"\.feed_forward\.output_dense\.", ".fc2."),
)
# of training, and of v1 voices
UNUSED = ("masked_spec_embed", "final_proj.weight", "final_proj.bias")
POSITION = "encoder.pos_conv.layers.0."


def converted(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights under the port's names, channels last."""
    found = {}
    for key, value in state.items():
        if key not in UNUSED:
            found[renamed(key, RENAMED)] = value.transpose(0, 2, 1) if value.ndim == 3 else value
    # made from g and v at every call
    found[f"{POSITION}module.weight"] = found[f"{POSITION}v"]
    return found


class Adapter(MlxPort):
    title = "mlx-contentvec"
    components = {"hubert": ["features"]}  # noqa: RUF012

    def load(self, model: str, paths: Mapping[str, str], options: Mapping[str, Any]) -> None:
        if options["version"] != "v2":
            raise NotImplementedError(
                f"{self.title} has no final_proj, which version={options['version']} needs; it computes version=v2"
            )
        from mlx_contentvec import ContentvecModel

        self.place(options)
        state = normalise_keys(read_hubert(paths["hubert"], read_file))
        config = HubertConfig.from_state_dict(state)
        convolutions = [(config.conv_channels, *sizes) for sizes in zip(KERNELS, STRIDES, strict=True)]
        self.port = ContentvecModel(
            conv_feature_layers=str(convolutions),
            encoder_embed_dim=config.channels,
            encoder_ffn_embed_dim=config.filter_channels,
            encoder_attention_heads=config.channels // HEAD_CHANNELS,
            encoder_layers=config.layers,
            encoder_layers_1=0,
        )
        fill(self.title, self.port, converted(state))

    def call(self, component: str, inputs: Mapping[str, Any]) -> np.ndarray:
        return host(self.port(mx.array(inputs["audio"])[None])["x"])[0]

    def stages(self, component: str, inputs: Mapping[str, Any]) -> Iterator[Staged]:
        with watched(_watches(self.port)) as seen:
            features = self.call(component, inputs)
        yield from seen
        yield "features", features


def _same(x: Any) -> Any:
    return x


def _channels_second(x: Any) -> Any:
    return x.transpose(0, 2, 1)


def _batch_first(x: Any) -> Any:
    """``[H, B, C]`` to ``[B, H, C]``: the port's transformer has the frames first."""
    return x.transpose(1, 0, 2)


def _first(found: Any) -> Any:
    """Of a result that attention's weights come with."""
    return _batch_first(found[0])


def _watches(port: Any) -> Iterator[Watch]:
    extractor, encoder = port.feature_extractor, port.encoder
    for i, layer in enumerate(extractor.conv_layers):
        name = f"feature_extractor.conv_layers.{i}"
        yield Watch(layer, "conv", {f"{name}.conv": _channels_second})
        if layer.norm is not None:
            yield Watch(layer, "norm", {f"{name}.layer_norm": _same})
        yield Watch(layer, "activation", {f"{name}.gelu": _same})
        yield Watch(extractor.conv_layers, i, {name: _same})
    yield Watch(port, "feature_extractor", {"feature_extractor": _same})
    yield Watch(port, "layer_norm", {"feature_projection.layer_norm": _same}, {"transpose": _same})
    projected = dict.fromkeys(("feature_projection.projection", "feature_projection"), _same)
    yield Watch(port, "post_extract_proj", projected)
    yield Watch(encoder, "pos_conv", {"encoder.pos_conv_embed": _same})
    summed = {"encoder.pos_conv_embed:sum": _batch_first}
    yield Watch(encoder, "layer_norm", {"encoder.layer_norm": _batch_first}, summed)
    for i, layer in enumerate(encoder.layers):
        yield from _layer(layer, f"encoder.layers.{i}")
        yield Watch(encoder.layers, i, {f"encoder.layers.{i}": _first})
    yield Watch(port, "encoder", {"encoder": lambda found: found[0]})


def _layer(layer: Any, name: str) -> Iterator[Watch]:
    attention, dense = f"{name}.attention", f"{name}.feed_forward"
    for part in "qkv":
        yield Watch(layer.self_attn, f"{part}_proj", {f"{attention}.{part}_proj": _batch_first})
    attended = {f"{attention}:attended": _batch_first}
    yield Watch(layer.self_attn, "out_proj", {f"{attention}.out_proj": _batch_first}, attended)
    yield Watch(layer, "self_attn", {attention: _first})
    yield Watch(layer, "self_attn_layer_norm", {f"{name}.layer_norm": _batch_first}, {f"{attention}:sum": _batch_first})
    yield Watch(layer, "fc1", {f"{dense}.intermediate_dense": _batch_first})
    made = dict.fromkeys((f"{dense}.output_dense", dense), _batch_first)
    yield Watch(layer, "fc2", made, {f"{dense}.gelu": _batch_first})
    yield Watch(layer, "final_layer_norm", {f"{name}.final_layer_norm": _batch_first}, {f"{dense}:sum": _batch_first})
