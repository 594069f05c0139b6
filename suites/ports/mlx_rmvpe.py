"""``mlx-rmvpe`` from PyPI, with RMVPE's checkpoint of upstream in place of its own file. The package is not changed.

Its sizes are fixed to upstream's. Another checkpoint of the same structure gets the package's own classes in its sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rvc_common.checkpoint import read_rmvpe
from rvc_common.config import RMVPEConfig
from rvc_common.rmvpe import FRAME_MULTIPLE, N_BINS, N_MELS
from rvc_mlx.files import read_file

from .mlx_base import MlxPort, Rename, Staged, Watch, fill, host, mx, renamed, watched

RENAMED: Rename = (
    (r"\.conv2?\.(\d+)\.(conv\.|shortcut\.)", r".conv_blocks.\1.\2"),
    (r"\.conv1\.0\.", ".conv_transpose."),
    (r"\.conv1\.1\.", ".bn."),
    (r"\.conv\.0\.", ".conv1."),
    (r"\.conv\.1\.", ".bn1."),
    (r"\.conv\.3\.", ".conv2."),
    (r"\.conv\.4\.", ".bn2."),
    (r"^fc\.1\.", "linear."),
)
GRU = "fc.0.gru."
# PyTorch counts the batches of training
UNUSED = ".num_batches_tracked"
# a residual block's modules, and upstream's names of them
BLOCK = {"conv1": "conv.0", "bn1": "conv.1", "conv2": "conv.3", "bn2": "conv.4", "shortcut": "shortcut"}


def converted(state: Mapping[str, np.ndarray], config: RMVPEConfig) -> dict[str, np.ndarray]:
    """Upstream's weights under the port's names, channels last."""
    found = {}
    for key, value in state.items():
        if key.startswith(GRU) or key.endswith(UNUSED):
            continue
        if value.ndim == 4:
            value = value.transpose(1, 2, 3, 0) if ".conv1.0." in key else value.transpose(0, 2, 3, 1)
        found[f"model.{renamed(key, RENAMED)}"] = value
    for suffix, name in (("", "gru_forward"), ("_reverse", "gru_backward")):
        bias, hidden = (state[f"{GRU}bias_{part}_l0{suffix}"] for part in ("ih", "hh"))
        # the new gate's recurrent bias is inside the reset gate's product, the others are added at once
        first = np.concatenate([hidden[: 2 * config.hidden], np.zeros_like(hidden[2 * config.hidden :])])
        parts = {"b": bias + first, "bhn": hidden[2 * config.hidden :]}
        parts |= {"Wx": state[f"{GRU}weight_ih_l0{suffix}"], "Wh": state[f"{GRU}weight_hh_l0{suffix}"]}
        found |= {f"model.bigru.{name}.{part}": value for part, value in parts.items()}
    # the port's transposed convolutions have a bias, upstream's have none
    for i in range(config.levels):
        width = config.width * 2 ** (config.levels - 1 - i)
        found[f"model.unet.decoder.layers.{i}.conv_transpose.bias"] = np.zeros(width, np.float32)
    return found


class Adapter(MlxPort):
    title = "mlx-rmvpe"
    components = {"rmvpe": ["mel", "network", "decode", "f0"]}  # noqa: RUF012
    needs = ("librosa",)

    def load(self, model: str, paths: Mapping[str, str], options: Mapping[str, Any]) -> None:
        from mlx import nn
        from mlx_rmvpe import E2E, RMVPE, BiGRU

        self.place(options)
        state = read_rmvpe(paths["rmvpe"], read_file)
        config = RMVPEConfig.from_state_dict(state)
        self.port = RMVPE()
        if config != RMVPEConfig():
            self.port.model = E2E(config.blocks, 1, (2, 2), en_out_channels=config.width)
            self.port.model.bigru = BiGRU(3 * N_MELS, config.hidden)
            self.port.model.linear = nn.Linear(2 * config.hidden, N_BINS)
        fill(self.title, self.port, converted(state, config))

    def call(self, component: str, inputs: Mapping[str, Any]) -> np.ndarray:
        if component == "mel":
            return host(self.port.mel_spectrogram(mx.array(inputs["audio"])))[0]
        if component == "network":
            return self._salience(self._padded(inputs["mel"]), inputs["mel"].shape[-1])
        if component == "decode":
            return self.port.decode(inputs["salience"], inputs["threshold"]).astype(np.float64)
        return self.port.infer_from_audio(inputs["audio"], threshold=inputs["threshold"]).astype(np.float64)

    def _padded(self, mel: np.ndarray) -> Any:
        """As ``infer_from_audio`` pads: with zeros."""
        return mx.pad(mx.array(mel)[None], [(0, 0), (0, 0), (0, -mel.shape[-1] % FRAME_MULTIPLE)])

    def _salience(self, padded: Any, frames: int) -> np.ndarray:
        return host(self.port(padded)[:, :frames])[0]

    # ------------------------------------------------------------------ stages
    def stages(self, component: str, inputs: Mapping[str, Any]) -> Iterator[Staged]:
        """Our stages that the port has too. Its transposed convolutions are yielded in the shape that it gives them."""
        salience = inputs.get("salience")
        if component != "decode":
            mel = self.call("mel", inputs) if component in ("mel", "f0") else inputs["mel"]
            if component in ("mel", "f0"):
                yield "mel", mel
            if component == "mel":
                return
            padded = self._padded(mel)
            yield "padded_log_mel", host(padded)[0]
            with watched(_watches(self.port)) as seen:
                salience = self._salience(padded, mel.shape[-1])
            yield from seen
        if component != "network":
            yield "f0", self.port.decode(salience, inputs["threshold"]).astype(np.float64)


def _channels_second(x: Any) -> Any:
    """``[B, T, bands, C]`` to ``[B, C, T, bands]``."""
    return x.transpose(0, 3, 1, 2)


def _watches(port: Any) -> Iterator[Watch]:
    unet = port.model.unet
    yield Watch(unet.encoder, "bn", {"unet.encoder.bn": _channels_second})
    for i, layer in enumerate(unet.encoder.layers):
        name = f"unet.encoder.layers.{i}"
        yield from _blocks(layer, f"{name}.conv")
        pooled = dict.fromkeys((f"{name}.pool", name), lambda found: _channels_second(found[1]))
        yield Watch(unet.encoder.layers, i, pooled)
    yield Watch(unet, "encoder", {"unet.encoder": lambda found: _channels_second(found[0])})
    for i, layer in enumerate(unet.intermediate.layers):
        yield from _blocks(layer, f"unet.intermediate.layers.{i}.conv")
        yield Watch(unet.intermediate.layers, i, {f"unet.intermediate.layers.{i}": _channels_second})
    yield Watch(unet, "intermediate", {"unet.intermediate": _channels_second})
    for i, layer in enumerate(unet.decoder.layers):
        name = f"unet.decoder.layers.{i}"
        yield Watch(layer, "conv_transpose", {f"{name}.conv1.0": _channels_second})
        yield Watch(layer, "bn", {f"{name}.conv1.1": _channels_second})
        yield from _blocks(layer, f"{name}.conv2", joined=name)
        yield Watch(unet.decoder.layers, i, {name: _channels_second})
    yield Watch(unet, "decoder", {"unet.decoder": _channels_second})
    model = port.model
    yield Watch(model, "unet", {"unet": _channels_second})
    yield Watch(model, "cnn", {"cnn": _channels_second})
    yield Watch(model, "bigru", {"fc.0": lambda x: x}, {"flatten": lambda x: x})
    yield Watch(model, "linear", {"fc.1": lambda x: x})
    yield Watch(port, "model", {"sigmoid": lambda x: x})


def _blocks(layer: Any, name: str, joined: str = "") -> Iterator[Watch]:
    """Residual blocks; ``joined``: a decoder layer, whose first block takes the upsampled value and the skip."""
    for j, block in enumerate(layer.conv_blocks):
        for key, ours in BLOCK.items():
            if getattr(block, key) is not None:
                yield Watch(block, key, {f"{name}.{j}.{ours}": _channels_second})
        given = {}
        if joined and j == 0:
            given[f"{joined}.conv1"] = lambda x: _channels_second(x)[:, : x.shape[-1] // 2]
            given[f"{joined}.concat"] = _channels_second
        yield Watch(layer.conv_blocks, j, {f"{name}.{j}": _channels_second}, given)
