"""HuBERT / ContentVec content features in PyTorch: the plain reference.

Method: Hsu et al., "HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction
of Hidden Units" (2021), base size; keys as in Hugging Face's ``HubertModel`` with upstream's
``final_proj``. Shapes: B = batch, N = samples at 16 kHz, H = 20 ms frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from rvc_common.checkpoint import file_named, read_hubert
from rvc_common.checks import check_content_audio
from rvc_common.config import HEAD_CHANNELS, HubertConfig
from rvc_common.keys import normalise_keys
from rvc_common.stages import FEATURES, SAMPLES, Carry, Event, Stage, Watch, group, leaf, run, walk

from .files import read_file
from .layers import DTYPES, TensorLayout, check_device, load_weights, stepped, weight_normed
from .resident import Resident

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
POSITION_KERNEL, POSITION_GROUPS = 128, 16
NORM_EPS = 1e-5
# v1 voices of the WebUI were trained on the output of the ninth layer
WEBUI_V1_LAYERS = 9


class ConvLayer(nn.Module):
    """Strided convolution without bias, on the first layer a norm per channel over time, GELU."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(c_in, c_out, kernel, stride, bias=False)
        self.layer_norm = nn.GroupNorm(c_out, c_out, NORM_EPS) if c_in == 1 else None

    def stages(self) -> tuple[Stage, ...]:
        norm = () if self.layer_norm is None else (leaf("layer_norm", self.layer_norm),)
        return (leaf("conv", self.conv), *norm, leaf("gelu", gelu))


class FeatureExtractor(nn.Module):
    """``[B, 1, N] -> [B, 512, H]``."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        c = config.conv_channels
        self.conv_layers = nn.ModuleList(
            ConvLayer(1 if i == 0 else c, c, kernel, stride)
            for i, (kernel, stride) in enumerate(zip(KERNELS, STRIDES, strict=True))
        )

    def stages(self) -> tuple[Stage, ...]:
        return tuple(group(f"conv_layers.{i}", layer.stages()) for i, layer in enumerate(self.conv_layers))


class FeatureProjection(nn.Module):
    """``[B, H, 512] -> [B, H, 768]``."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.conv_channels, NORM_EPS)
        self.projection = nn.Linear(config.conv_channels, config.channels)

    def stages(self) -> tuple[Stage, ...]:
        return (leaf("layer_norm", self.layer_norm), leaf("projection", self.projection))


class PositionalConvolution(nn.Module):
    """Grouped convolution over 128 frames, the one frame too many dropped, GELU: ``[B, H, C] -> [B, H, C]``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv1d(channels, channels, POSITION_KERNEL, padding=POSITION_KERNEL // 2, groups=POSITION_GROUPS)
        self.conv = weight_normed(conv, kept_axis=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return gelu(self.conv(x.transpose(1, 2))[:, :, :-1]).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(channels, channels) for _ in range(4))
        self.heads = channels // HEAD_CHANNELS

    def stages(self) -> tuple[Stage, ...]:
        def project(name: str) -> Stage:
            layer = getattr(self, f"{name}_proj")

            def apply(carry: Carry) -> None:
                carry[name] = layer(carry["x"])

            return Stage(f"{name}_proj", apply, product=name)

        def attend(carry: Carry) -> None:
            q, k, v = (carry.pop(name).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in "qkv")
            carry["x"] = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

        return (*(project(name) for name in "qkv"), Stage(":attended", attend), leaf("out_proj", self.out_proj))


class FeedForward(nn.Module):
    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.channels, config.filter_channels)
        self.output_dense = nn.Linear(config.filter_channels, config.channels)

    def stages(self) -> tuple[Stage, ...]:
        dense = leaf("intermediate_dense", self.intermediate_dense)
        return (dense, leaf("gelu", gelu), leaf("output_dense", self.output_dense))


class EncoderLayer(nn.Module):
    """Attention, add, norm, feed-forward, add, norm."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.attention = Attention(config.channels)
        self.layer_norm = nn.LayerNorm(config.channels, NORM_EPS)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.channels, NORM_EPS)

    def stages(self) -> tuple[Stage, ...]:
        return (
            *residual("attention", self.attention.stages()),
            leaf("layer_norm", self.layer_norm),
            *residual("feed_forward", self.feed_forward.stages()),
            leaf("final_layer_norm", self.final_layer_norm),
        )


def residual(name: str, parts: tuple[Stage, ...]) -> tuple[Stage, Stage]:
    """A group of stages, then the sum of its result and its input."""

    def remember(carry: Carry) -> None:
        carry["residual"] = carry["x"]

    def add(carry: Carry) -> None:
        carry["x"] = carry["x"] + carry.pop("residual")

    return group(name, (Stage(":input", remember), *parts)), Stage(f"{name}:sum", add)


class Encoder(nn.Module):
    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.pos_conv_embed = PositionalConvolution(config.channels)
        self.layer_norm = nn.LayerNorm(config.channels, NORM_EPS)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))

    def stages(self, layers: int) -> tuple[Stage, ...]:
        def position(carry: Carry) -> None:
            carry["position"] = self.pos_conv_embed(carry["x"])

        def add(carry: Carry) -> None:
            carry["x"] = carry["x"] + carry.pop("position")

        return (
            Stage("pos_conv_embed", position, product="position"),
            Stage("pos_conv_embed:sum", add),
            leaf("layer_norm", self.layer_norm),
            *(group(f"layers.{i}", layer.stages()) for i, layer in enumerate(self.layers[:layers])),
        )


class Network(nn.Module):
    """``[B, 1, N] -> [B, H, 768]``, and ``final_proj`` to 256."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.feature_extractor = FeatureExtractor(config)
        self.feature_projection = FeatureProjection(config)
        self.encoder = Encoder(config)
        self.final_proj = None if config.projected is None else nn.Linear(config.channels, config.projected)

    def extracting(self) -> tuple[Stage, ...]:
        return (
            group("feature_extractor", self.feature_extractor.stages(), axes=SAMPLES),
            leaf("transpose", lambda x: x.transpose(1, 2), axes=FEATURES),
        )

    def encoding(self, layers: int, project: bool) -> tuple[Stage, ...]:
        last = (leaf("final_proj", self.final_proj, axes=FEATURES),) if project and self.final_proj is not None else ()
        projection = group("feature_projection", self.feature_projection.stages(), axes=FEATURES)
        return (projection, group("encoder", self.encoder.stages(layers), axes=FEATURES), *last)


class Hubert:
    """Content features of 16 kHz mono audio, 50 frames a second. NumPy in, NumPy out."""

    def __init__(self, config: HubertConfig, *, dtype: str = "float32", device: str = "cpu") -> None:
        if dtype not in DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}: one of {', '.join(DTYPES)}")
        self.config, self.device, self.dtype = config, check_device(device), DTYPES[dtype]
        self.out_dtype = torch.float64 if dtype == "float64" else torch.float32
        self.network = Network(config)
        self.layout = TensorLayout(self.out_dtype)

    @classmethod
    def from_checkpoint(cls, path: str | Path, **options: str) -> Hubert:
        """Load a Hugging Face folder or file, fairseq's ``hubert_base.pt``, or ``.safetensors``, strictly.

        Raises:
            CheckpointError: unreadable file, or keys and shapes of another model.
        """
        with file_named(path):
            return cls.from_state_dict(read_hubert(path, read_file), **options)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, np.ndarray], **options: str) -> Hubert:
        """Build from Hugging Face's keys mapped to arrays. ``options``: dtype, device."""
        state = normalise_keys(state)
        model = cls(HubertConfig.from_state_dict(state), **options)
        mask = {"masked_spec_embed": (model.config.channels,)} if "masked_spec_embed" in state else {}
        load_weights("HuBERT", model.network, state, model.dtype, model.device, mask)
        return model

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
        result = self._extract(check_content_audio(audio), None).to(self.out_dtype).cpu().numpy()
        return result if np.ndim(audio) == 2 else result[0]

    def encode(self, extracted: np.ndarray, version: str = "v2", profile: str = "applio") -> np.ndarray:
        """What follows ``extract``: ``[H, 512]`` or ``[B, H, 512]`` to ``[.., H, 768 or 256]``."""
        batch = torch.from_numpy(np.ascontiguousarray(extracted)).to(self.device, self.dtype)
        result = self._encode(batch.reshape(-1, *batch.shape[-2:]), version, profile, None)
        return result if np.ndim(extracted) == 3 else result[0]

    def resident(self, audio: np.ndarray, version: str = "v2", profile: str = "applio") -> Resident:
        """``features`` with its input on the device already."""
        stages = (*self.network.extracting(), *self.network.encoding(*last_stage(self.config, version, profile)))
        start = self._entered(check_content_audio(audio))

        def work() -> dict[str, torch.Tensor]:
            carry = dict(start)
            run(stages, carry)
            return {"features": carry["x"] if np.ndim(audio) == 2 else carry["x"][0]}

        return Resident(work, self.device)

    def walk(self, audio: np.ndarray, version: str = "v2", profile: str = "applio") -> Iterator[Event]:
        """``features`` stage by stage; see ``stages.walk``."""
        return stepped(self._walk(audio, version, profile), self.layout)

    def _walk(self, audio: np.ndarray, version: str, profile: str) -> Iterator[Event]:
        carry = self._entered(check_content_audio(audio))
        encoding = self.network.encoding(*last_stage(self.config, version, profile))
        yield from walk((*self.network.extracting(), *encoding), carry)
        carry["features"] = carry["x"].to(self.out_dtype).cpu().numpy()
        yield Event("features", carry, "features", axes=FEATURES)

    def _entered(self, audio: np.ndarray) -> Carry:
        batch = torch.from_numpy(np.ascontiguousarray(audio)).to(self.device, self.dtype)
        return {"x": batch.reshape(-1, 1, batch.shape[-1])}

    @torch.inference_mode()
    def _extract(self, audio: np.ndarray, watch: Callable[[str, np.ndarray], None] | None) -> torch.Tensor:
        carry = self._entered(audio)
        run(self.network.extracting(), carry, self._converted(watch))
        return carry["x"]

    @torch.inference_mode()
    def _encode(
        self, extracted: torch.Tensor, version: str, profile: str, watch: Callable[[str, np.ndarray], None] | None
    ) -> np.ndarray:
        carry: Carry = {"x": extracted}
        layers, project = last_stage(self.config, version, profile)
        run(self.network.encoding(layers, project), carry, self._converted(watch))
        return carry["x"].to(self.out_dtype).cpu().numpy()

    def _converted(self, watch: Callable[[str, np.ndarray], None] | None) -> Watch | None:
        if watch is None:
            return None
        return lambda path, value: watch(path, value.to(self.out_dtype).cpu().numpy())


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
