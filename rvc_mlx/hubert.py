"""HuBERT / ContentVec content features in MLX.

Method: Hsu et al., "HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction
of Hidden Units" (2021), base size; keys as in Hugging Face's ``HubertModel`` with upstream's
``final_proj``. Shapes: B = batch, N = samples at 16 kHz, H = 20 ms frames; channels last.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rvc_common.checkpoint import file_named, read_hubert
from rvc_common.checks import check_content_audio
from rvc_common.config import HEAD_CHANNELS, HubertConfig
from rvc_common.keys import check_keys, normalise_keys
from rvc_common.stages import FEATURES, SAMPLES, Carry, Event, Stage, Watch, group, leaf, run, walk

from . import attention
from .buffers import on_device
from .files import read_file
from .gru import has_compiler
from .layers import DTYPES, Layer, Weights
from .layouts import ChannelsLast, stepped
from .optimize import resolve
from .resident import Resident
from .runtime import mx, resolve_device, warn_if_slow

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
POSITION_KERNEL, POSITION_GROUPS = 128, 16
NORM_EPS = 1e-5
# v1 voices of the WebUI were trained on the output of the ninth layer
WEBUI_V1_LAYERS = 9


def state_shapes(config: HubertConfig) -> dict[str, tuple[int, ...]]:
    """Every key of the checkpoint and its shape (PyTorch's layouts)."""
    shapes: dict[str, tuple[int, ...]] = {}
    c, first = config.channels, config.conv_channels

    def linear(name: str, c_out: int, c_in: int) -> None:
        shapes.update({f"{name}.weight": (c_out, c_in), f"{name}.bias": (c_out,)})

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.weight": (channels,), f"{name}.bias": (channels,)})

    for i, kernel in enumerate(KERNELS):
        shapes[f"feature_extractor.conv_layers.{i}.conv.weight"] = (first, 1 if i == 0 else first, kernel)
    norm("feature_extractor.conv_layers.0.layer_norm", first)
    norm("feature_projection.layer_norm", first)
    linear("feature_projection.projection", c, first)
    position = "encoder.pos_conv_embed.conv"
    shapes |= {f"{position}.bias": (c,), f"{position}.weight_g": (1, 1, POSITION_KERNEL)}
    shapes[f"{position}.weight_v"] = (c, c // POSITION_GROUPS, POSITION_KERNEL)
    norm("encoder.layer_norm", c)
    for i in range(config.layers):
        layer = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{layer}.attention.{name}", c, c)
        norm(f"{layer}.layer_norm", c)
        linear(f"{layer}.feed_forward.intermediate_dense", config.filter_channels, c)
        linear(f"{layer}.feed_forward.output_dense", c, config.filter_channels)
        norm(f"{layer}.final_layer_norm", c)
    if config.projected is not None:
        linear("final_proj", config.projected, c)
    return shapes


def gelu(x: mx.array) -> mx.array:
    """The exact one, by the error function."""
    return x * (0.5 + 0.5 * mx.erf(x * 0.7071067811865476))


# erf(x) on [-4, 4], where it is 1 to within float32, as x P(x^2) / Q(x^2), highest powers first;
# coefficients: the float approximation of the Eigen library
ERF_P = (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
    -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


def rational_gelu(x: mx.array) -> mx.array:
    """The same with erf as a quotient of polynomials: MLX evaluates it one value at a time on CPUs."""
    z = mx.clip(x * 0.7071067811865476, -4.0, 4.0)
    square = z * z
    p, q = (functools.reduce(lambda total, c: total * square + c, powers[1:], powers[0]) for powers in (ERF_P, ERF_Q))
    return x * (0.5 + 0.5 * (z * p / q))


def fastest_gelu(methods: frozenset[str]) -> Layer:
    if "rational_erf" in methods:
        return mx.compile(rational_gelu, shapeless=True) if has_compiler() else rational_gelu
    return mx.compile(gelu, shapeless=True) if "fuse_elementwise" in methods else gelu


def fastest_attention(methods: frozenset[str]) -> Callable[[mx.array, mx.array, mx.array], mx.array]:
    """Of ``q, k, v [B, heads, H, 64]``."""
    scale, blocked = HEAD_CHANNELS**-0.5, attention.blocked_attention() if "block_attention" in methods else None

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        if blocked is not None and q.shape[2] >= attention.SHORTEST_FRAMES:
            return blocked(q * scale, k, v)
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale)

    return attend


class Network:
    """The stages; the carry's ``x`` goes from ``[B, N, 1]`` to ``[B, H, 768]``."""

    def __init__(self, config: HubertConfig, weights: Weights) -> None:
        self.config, self.weights = config, weights
        self.gelu = fastest_gelu(weights.methods)
        self.attention = fastest_attention(weights.methods)
        # "transpose" does nothing: frames come first here already
        convolutions = group("feature_extractor", tuple(self._conv_layer(i) for i in range(len(KERNELS))), axes=SAMPLES)
        self.extracting = (
            convolutions,
            leaf("transpose", lambda x: x, axes=FEATURES),
        )  # frames come first here already
        projection = (
            leaf("layer_norm", weights.norm("feature_projection.layer_norm", NORM_EPS)),
            leaf("projection", weights.linear("feature_projection.projection")),
        )
        self.projection = group("feature_projection", projection, axes=FEATURES)
        self.position = self._position()
        self.layers = tuple(group(f"layers.{i}", self._layer(f"encoder.layers.{i}")) for i in range(config.layers))
        self.final_proj = (
            None if config.projected is None else leaf("final_proj", weights.linear("final_proj"), axes=FEATURES)
        )
        del self.weights  # the stages hold their own arrays

    def encoding(self, layers: int, project: bool) -> tuple[Stage, ...]:
        last = (self.final_proj,) if project and self.final_proj else ()
        return (self.projection, group("encoder", (*self.position, *self.layers[:layers]), axes=FEATURES), *last)

    def _conv_layer(self, i: int) -> Stage:
        name = f"feature_extractor.conv_layers.{i}"
        stages = [leaf("conv", self.weights.conv(f"{name}.conv", stride=STRIDES[i]))]
        if i == 0:
            weight, bias = (
                self.weights.array(self.weights.state[f"{name}.layer_norm.{x}"]) for x in ("weight", "bias")
            )
            stages.append(leaf("layer_norm", lambda x: norm_over_time(x) * weight + bias))
        return group(f"conv_layers.{i}", (*stages, leaf("gelu", self.gelu)))

    def _position(self) -> tuple[Stage, ...]:
        name = "encoder.pos_conv_embed.conv"
        conv = self.weights.conv(name, padding=POSITION_KERNEL // 2, groups=POSITION_GROUPS)

        def position(carry: Carry) -> None:
            carry["position"] = self.gelu(conv(carry["x"])[:, :-1])

        def add(carry: Carry) -> None:
            carry["x"] = carry["x"] + carry.pop("position")

        return (
            Stage("pos_conv_embed", position, product="position"),
            Stage("pos_conv_embed:sum", add),
            leaf("layer_norm", self.weights.norm("encoder.layer_norm", NORM_EPS)),
        )

    def _layer(self, name: str) -> tuple[Stage, ...]:
        feed_forward = (
            leaf("intermediate_dense", self.weights.linear(f"{name}.feed_forward.intermediate_dense")),
            leaf("gelu", self.gelu),
            leaf("output_dense", self.weights.linear(f"{name}.feed_forward.output_dense")),
        )
        return (
            *residual("attention", self._attention(f"{name}.attention")),
            leaf("layer_norm", self.weights.norm(f"{name}.layer_norm", NORM_EPS)),
            *residual("feed_forward", feed_forward),
            leaf("final_layer_norm", self.weights.norm(f"{name}.final_layer_norm", NORM_EPS)),
        )

    def _attention(self, name: str) -> tuple[Stage, ...]:
        def project(part: str) -> Stage:
            layer = self.weights.linear(f"{name}.{part}_proj")

            def apply(carry: Carry) -> None:
                carry[part] = layer(carry["x"])

            return Stage(f"{part}_proj", apply, product=part)

        def attend(carry: Carry) -> None:
            q, k, v = (split_heads(carry.pop(part)) for part in "qkv")
            y = self.attention(q, k, v)
            carry["x"] = y.transpose(0, 2, 1, 3).flatten(2)

        last = leaf("out_proj", self.weights.linear(f"{name}.out_proj"))
        return (*(project(part) for part in "qkv"), Stage(":attended", attend), last)


def split_heads(x: mx.array) -> mx.array:
    """``[B, H, C] -> [B, heads, H, 64]``."""
    return x.reshape(*x.shape[:2], -1, HEAD_CHANNELS).transpose(0, 2, 1, 3)


def norm_over_time(x: mx.array) -> mx.array:
    """Every channel of ``[B, T, C]`` to mean 0 and variance 1 over T, in float32."""
    wide = x.astype(mx.float32)
    centred = wide - _mean_over_time(wide)
    return (centred / mx.sqrt(_mean_over_time(mx.square(centred)) + NORM_EPS)).astype(x.dtype)


def _mean_over_time(x: mx.array) -> mx.array:
    """``[B, T, C] -> [B, 1, C]`` in two steps: one running float32 sum over T loses digits with T."""
    batch, frames, c = x.shape
    block = max(1, math.isqrt(frames))
    whole = frames // block * block
    total = x[:, :whole].reshape(batch, -1, block, c).sum(axis=2).sum(axis=1, keepdims=True)
    return (total + x[:, whole:].sum(axis=1, keepdims=True)) / frames


def residual(name: str, parts: tuple[Stage, ...]) -> tuple[Stage, Stage]:
    """A group of stages, then the sum of its result and its input."""

    def remember(carry: Carry) -> None:
        carry["residual"] = carry["x"]

    def add(carry: Carry) -> None:
        carry["x"] = carry["x"] + carry.pop("residual")

    return group(name, (Stage(":input", remember), *parts)), Stage(f"{name}:sum", add)


class Hubert:
    """Content features of 16 kHz mono audio, 50 frames a second. NumPy in, NumPy out."""

    def __init__(
        self,
        state: Mapping[str, np.ndarray],
        *,
        dtype: str = "float32",
        device: str | None = None,
        optimize: Iterable[str] | str = "all",
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}: one of {', '.join(DTYPES)}")
        self.device, self.dtype = resolve_device(device), DTYPES[dtype]
        self.optimize = resolve(optimize, "hubert", gpu=self.device == mx.Device(mx.gpu), dtype=dtype)
        state = normalise_keys(state)
        self.config = HubertConfig.from_state_dict(state)
        mask = {"masked_spec_embed": (self.config.channels,)} if "masked_spec_embed" in state else {}
        check_keys("HuBERT", state_shapes(self.config) | mask, state)
        warn_if_slow(self.device)
        with mx.stream(self.device):
            self.network = Network(self.config, Weights(state, self.dtype, self.optimize))

    @classmethod
    def from_checkpoint(cls, path: str | Path, **options: Any) -> Hubert:
        """Load a Hugging Face folder or file, fairseq's ``hubert_base.pt``, or ``.safetensors``, strictly.

        Raises:
            CheckpointError: unreadable file, or keys and shapes of another model.
        """
        with file_named(path):
            return cls.from_state_dict(read_hubert(path, read_file), **options)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, np.ndarray], **options: Any) -> Hubert:
        """Build from Hugging Face's keys mapped to arrays. ``options``: dtype, device, optimize."""
        return cls(state, **options)

    def features(
        self,
        audio: np.ndarray,
        version: str = "v2",
        profile: str = "applio",
        watch: Callable[[str, np.ndarray], None] | None = None,
    ) -> np.ndarray:
        """``[n]`` or ``[B, n]`` at 16 kHz to ``[H, C]`` or ``[B, H, C]``, H = (n - 400) // 320 + 1.

        C is 768 for v2 voices and 256, through ``final_proj``, for v1. ``watch(path, array)`` is
        called after every stage, arrays in PyTorch's layouts.
        """
        with on_device(self.device, self, "features"):
            extracted = self._extract(check_content_audio(audio), watch)
            result = self._encode(extracted, version, profile, watch)
        return result if np.ndim(audio) == 2 else result[0]

    def width(self, version: str, profile: str) -> int | None:
        """Values per frame that ``features`` gives.

        Raises:
            ValueError: no such version or profile, or this model lacks what the version needs.
        """
        _, projects = last_stage(self.config, version, profile)
        return self.config.projected if projects else self.config.channels

    def extract(self, audio: np.ndarray) -> np.ndarray:
        """The seven convolutions alone: ``[n]`` or ``[B, n]`` to ``[H, 512]`` or ``[B, H, 512]``."""
        with on_device(self.device, self, "extract"):
            result = np.array(self._extract(check_content_audio(audio), None).astype(mx.float32))
        return result if np.ndim(audio) == 2 else result[0]

    def encode(self, extracted: np.ndarray, version: str = "v2", profile: str = "applio") -> np.ndarray:
        """What follows ``extract``: ``[H, 512]`` or ``[B, H, 512]`` to ``[.., H, 768 or 256]``."""
        with on_device(self.device, self, "encode"):
            batch = mx.array(extracted.reshape(-1, *extracted.shape[-2:])).astype(self.dtype)
            result = self._encode(batch, version, profile, None)
        return result if np.ndim(extracted) == 3 else result[0]

    def resident(self, audio: np.ndarray, version: str = "v2", profile: str = "applio") -> Resident:
        """``features`` with its input on the device already."""
        stages = (*self.network.extracting, *self.network.encoding(*last_stage(self.config, version, profile)))
        with mx.stream(self.device):
            start = self._entered(check_content_audio(audio))
            mx.eval(start)

        def work() -> dict[str, mx.array]:
            carry = dict(start)
            run(stages, carry)
            return {"features": carry["x"] if np.ndim(audio) == 2 else carry["x"][0]}

        return Resident(work, self.device)

    def walk(self, audio: np.ndarray, version: str = "v2", profile: str = "applio") -> Iterator[Event]:
        """``features`` stage by stage; see ``stages.walk``."""
        return stepped(self._walk(audio, version, profile), LAYOUT, self.device)

    def _walk(self, audio: np.ndarray, version: str, profile: str) -> Iterator[Event]:
        carry = self._entered(check_content_audio(audio))
        encoding = self.network.encoding(*last_stage(self.config, version, profile))
        yield from walk((*self.network.extracting, *encoding), carry)
        carry["features"] = np.array(carry["x"].astype(mx.float32))
        yield Event("features", carry, "features", axes=FEATURES)

    def _entered(self, audio: np.ndarray) -> Carry:
        batch = mx.array(audio.astype(np.float32)).astype(self.dtype)
        return {"x": batch.reshape(-1, batch.shape[-1], 1)}

    def _extract(self, audio: np.ndarray, watch: Callable[[str, np.ndarray], None] | None) -> mx.array:
        carry = self._entered(audio)
        run(self.network.extracting, carry, _converted(watch))
        return carry["x"]

    def _encode(
        self, extracted: mx.array, version: str, profile: str, watch: Callable[[str, np.ndarray], None] | None
    ) -> np.ndarray:
        carry: Carry = {"x": extracted}
        layers, project = last_stage(self.config, version, profile)
        run(self.network.encoding(layers, project), carry, _converted(watch))
        return np.array(carry["x"].astype(mx.float32))


# only the convolutions have channels in the middle in PyTorch
LAYOUT = ChannelsLast(lambda event, name: not event.path.startswith("feature_extractor"))


def _converted(watch: Callable[[str, np.ndarray], None] | None) -> Watch | None:
    if watch is None:
        return None

    def told(path: str, value: mx.array) -> None:
        array = LAYOUT.public(Event(path, {"x": value}, "x"), "x")
        assert array is not None
        watch(path, array)

    return told


def last_stage(config: HubertConfig, version: str, profile: str) -> tuple[int, bool]:
    """How many layers a voice of this version and profile wants, and whether ``final_proj`` follows."""
    if version not in ("v1", "v2") or profile not in ("applio", "webui"):
        raise ValueError(f"unknown version or profile: {version!r}, {profile!r}; v1 or v2, applio or webui")
    if version == "v2":
        return config.layers, False
    if config.projected is None:
        raise ValueError("this HuBERT has no final_proj, which v1 voices need")
    if profile == "webui" and config.layers < WEBUI_V1_LAYERS:
        raise ValueError(f"this HuBERT has {config.layers} layers; the WebUI's v1 voices need {WEBUI_V1_LAYERS}")
    return (WEBUI_V1_LAYERS if profile == "webui" else config.layers), True
