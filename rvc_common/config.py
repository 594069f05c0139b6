"""Sizes of the three networks: a voice's from its checkpoint's entries, the others' from their weights' shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from . import CheckpointError

VOCODERS = ("HiFi-GAN", "MRF HiFi-GAN", "RefineGAN")
HIFIGAN, MRF, REFINEGAN = VOCODERS
# sines in an MRF voice's source; the other vocoders' have the fundamental alone
HARMONICS_MRF = 9
CONFIG_NAMES = (
    "spec_channels", "segment_size", "inter_channels", "hidden_channels", "filter_channels", "n_heads", "n_layers",
    "kernel_size", "p_dropout", "resblock", "resblock_kernel_sizes", "resblock_dilation_sizes", "upsample_rates",
    "upsample_initial_channel", "upsample_kernel_sizes", "spk_embed_dim", "gin_channels", "sr",
)  # fmt: skip
# ddPn08's fork has one more, the width of the content features (lib/rvc/checkpoints.py, revision 282fb68)
FEATURES_NAME = "emb_channels"
_WITH_FEATURES = (*CONFIG_NAMES[:-1], FEATURES_NAME, CONFIG_NAMES[-1])
# far above any voice's: a damaged value must not make a network that fills the memory before it is compared
_MOST_LAYERS, _MOST_STAGES, _LONGEST_KERNEL = 128, 32, 4096
_LISTS = ("resblock_kernel_sizes", "upsample_rates", "upsample_kernel_sizes")
# sizes, the tensors that tell them by their number of rows, and how many rows there are for each
_TOLD = (
    ("hidden_channels", "enc_p.emb_phone.weight", 1),
    ("filter_channels", "enc_p.encoder.ffn_layers.0.conv_1.weight", 1),
    ("inter_channels", "enc_p.proj.weight", 2),
    ("upsample_initial_channel", "dec.conv_pre.weight", 1),
    ("upsample_initial_channel", "dec.conv_pre.weight_v", 1),
    ("upsample_initial_channel", "dec.mel_conv.weight_v", 0.5),
)
POSTERIOR_LAYERS, POSTERIOR_KERNEL = 16, 5
# HuBERT's width is a multiple of it, whatever the size
HEAD_CHANNELS = 64


@dataclass(frozen=True)
class SynthesizerConfig:
    """Upstream's names; rates, kernels and dilations are per upsampling stage or per residual branch."""

    inter_channels: int
    hidden_channels: int
    filter_channels: int
    n_heads: int
    n_layers: int
    kernel_size: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    upsample_rates: tuple[int, ...]
    upsample_initial_channel: int
    upsample_kernel_sizes: tuple[int, ...]
    spk_embed_dim: int
    gin_channels: int
    spec_channels: int
    sample_rate: int
    phone_channels: int
    version: str
    has_f0: bool
    vocoder: str

    @property
    def hop_samples(self) -> int:
        """Samples of audio per frame."""
        return math.prod(self.upsample_rates)

    @classmethod
    def make(
        cls,
        config: Mapping[str, Any] | Sequence[Any],
        state: Mapping[str, np.ndarray],
        version: str,
        f0: bool,
        vocoder: str,
    ) -> SynthesizerConfig:
        """From upstream's 18 values (a list or a dict), the file's other entries, and the weights.

        The number of speakers and the width of the content features are read off the weights.

        Raises ``CheckpointError``: values that make no synthesizer."""
        named = named_config(config)
        if version not in ("v1", "v2") or vocoder not in VOCODERS:
            raise CheckpointError(f"unknown version or vocoder: {version!r}, {vocoder!r}")
        if not f0 and vocoder != HIFIGAN:
            raise CheckpointError(f"the vocoder {vocoder} exists only with pitch")
        if str(named["resblock"]) != "1":
            raise CheckpointError(f"resblock {named['resblock']!r} is not supported, only '1'")
        speakers = matrix_shape(state, "emb_g.weight")
        if speakers is not None and speakers[1] != named["gin_channels"]:
            raise CheckpointError(
                f"config: gin_channels is {named['gin_channels']}, but emb_g.weight has {speakers[1]}"
            )
        _, width = matrix_shape(state, "enc_p.emb_phone.weight") or (0, 768 if version == "v2" else 256)
        if width == (256 if version == "v2" else 768):
            raise CheckpointError(f"version {version}, but the weights take features of {width} values")
        numbers = [name for name, kind in cls.__annotations__.items() if kind == "int" and name in named]
        sizes = {name: int(named[name]) for name in numbers}
        for name, key, share in _TOLD:
            rows = state[key].shape[:1] if key in state else ()
            if rows and rows[0] != sizes[name] * share:
                raise CheckpointError(
                    f"config: {name} is {sizes[name]}, which does not fit {key} {list(state[key].shape)}"
                )
        return cls(
            **sizes | {"spk_embed_dim": named["spk_embed_dim"] if speakers is None else speakers[0]},
            resblock_kernel_sizes=tuple(named["resblock_kernel_sizes"]),
            resblock_dilation_sizes=tuple(tuple(d) for d in named["resblock_dilation_sizes"]),
            upsample_rates=tuple(named["upsample_rates"]),
            upsample_kernel_sizes=tuple(named["upsample_kernel_sizes"]),
            sample_rate=int(named["sr"]),
            phone_channels=width,
            version=version,
            has_f0=bool(f0),
            vocoder=vocoder,
        )

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels after each upsampling stage."""
        return tuple(self.upsample_initial_channel >> (i + 1) for i in range(len(self.upsample_rates)))

    @property
    def reduced_channels(self) -> tuple[int, ...]:
        """Of RefineGAN's filtered source, before and after each reduction; 16 at first in upstream's only size."""
        return tuple(self.upsample_initial_channel // 32 << i for i in range(len(self.upsample_rates) + 1))

    def check_upsampling(self, profile: str) -> None:
        """Refuse a HiFi-GAN that the project named by ``profile`` cannot run either.

        With pitch, each level and the source that is added to it must have the same length: exactly its rate times
        the length before. Without pitch, a level may come out longer.

        Raises ``CheckpointError``: names the level, its rate and its kernel."""
        levels = () if self.vocoder == REFINEGAN else zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True)
        for i, (rate, kernel) in enumerate(levels):
            runs, rule = kernel >= rate, "a kernel of at least the rate"
            if self.has_f0 and profile == "applio" and rate % 2:
                runs, rule = kernel == 2 * rate > 2, "a rate above 1, and where it is odd, a kernel of twice the rate"
            elif self.has_f0:
                runs, rule = runs and (kernel - rate) % 2 == 0, "a kernel above the rate by an even number"
            if runs and self.has_f0 and profile == "webui" and i + 1 < len(self.upsample_rates):
                runs, rule = math.prod(self.upsample_rates[i + 1 :]) % 2 == 0, "an even product of the later rates"
            if not runs:
                voice = f"a voice {'with' if self.has_f0 else 'without'} pitch under profile {profile}"
                raise CheckpointError(
                    f"upsampling level {i} with rate {rate} and kernel {kernel}: {voice} needs {rule}"
                )

    def posterior_shapes(self) -> dict[str, tuple[int, ...]]:
        """The posterior encoder's keys: training needs it, conversion does not, some files have it."""
        c, g, out = self.hidden_channels, self.gin_channels, self.inter_channels
        shapes: dict[str, tuple[int, ...]] = {
            "pre.weight": (c, self.spec_channels, 1),
            "pre.bias": (c,),
            "proj.weight": (2 * out, c, 1),
            "proj.bias": (2 * out,),
        }

        def normed(name: str, c_out: int, c_in: int, kernel: int) -> None:
            shapes.update({f"{name}.bias": (c_out,), f"{name}.weight_g": (c_out, 1, 1)})
            shapes[f"{name}.weight_v"] = (c_out, c_in, kernel)

        normed("enc.cond_layer", 2 * c * POSTERIOR_LAYERS, g, 1)
        for i in range(POSTERIOR_LAYERS):
            normed(f"enc.in_layers.{i}", 2 * c, c, POSTERIOR_KERNEL)
            normed(f"enc.res_skip_layers.{i}", c if i == POSTERIOR_LAYERS - 1 else 2 * c, c, 1)
        return {f"enc_q.{name}": shape for name, shape in shapes.items()}

    def unused_shapes(self, state: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        """Keys of a checkpoint that conversion does not use; they must still have these shapes."""
        return self.posterior_shapes() if any(key.startswith("enc_q.") for key in state) else {}


@dataclass(frozen=True)
class RMVPEConfig:
    """Sizes of the pitch network; the defaults are upstream's."""

    width: int = 16
    levels: int = 5
    blocks: int = 4
    inter_layers: int = 4
    hidden: int = 256

    @classmethod
    def from_state_dict(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Read the two sizes that may be reduced (width, hidden) from a state dict's shapes."""
        first = state.get("unet.encoder.layers.0.conv.0.conv.0.weight")
        recurrent = matrix_shape(state, "fc.0.gru.weight_hh_l0")
        if first is None or first.ndim != 4 or not first.size or recurrent is None:
            return cls()
        return cls(width=first.shape[0], hidden=recurrent[1])


@dataclass(frozen=True)
class HubertConfig:
    """Sizes of the content network; the defaults are those of the base model."""

    conv_channels: int = 512
    channels: int = 768
    filter_channels: int = 3072
    layers: int = 12
    projected: int | None = 256

    @classmethod
    def from_state_dict(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Read the sizes from a state dict's shapes; ``projected`` is None where ``final_proj`` is absent."""
        projection = matrix_shape(state, "feature_projection.projection.weight")
        dense = matrix_shape(state, "encoder.layers.0.feed_forward.intermediate_dense.weight")
        final, has_final = matrix_shape(state, "final_proj.weight"), any(key.startswith("final_proj.") for key in state)
        projected = final[0] if final else (cls.projected if has_final else None)
        if projection is None or dense is None or projection[0] % HEAD_CHANNELS:
            return cls(projected=projected)
        numbers = {key.split(".")[2] for key in state if re.match(r"encoder\.layers\.[0-9]+\.", key)}
        return cls(projection[1], projection[0], dense[0], len(numbers), projected)

    def unused_shapes(self, state: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        """The training mask, where a checkpoint has it."""
        return {"masked_spec_embed": (self.channels,)} if "masked_spec_embed" in state else {}


def matrix_shape(state: Mapping[str, np.ndarray], key: str) -> tuple[int, int] | None:
    """Of a tensor that tells a size; None where it is absent, empty or no matrix."""
    value = state.get(key)
    return (value.shape[0], value.shape[1]) if value is not None and value.ndim == 2 and value.size else None


def named_config(config: object) -> dict[str, Any]:
    """The 18 values that a voice's network is built from, by name, from a list or a mapping.

    Raises ``CheckpointError``: wrong names or number of values, or an impossible value."""
    if isinstance(config, Mapping):
        wrong = [f"{n} is missing" for n in CONFIG_NAMES if n not in config]
        wrong += [f"{n!r} is unknown" for n in config if n not in (*CONFIG_NAMES, FEATURES_NAME)]
        if wrong:
            raise CheckpointError("config: " + ", ".join(wrong))
        values = {name: config[name] for name in CONFIG_NAMES}
    elif isinstance(config, list | tuple):
        names = CONFIG_NAMES if len(config) != len(_WITH_FEATURES) else _WITH_FEATURES
        if len(config) != len(names):
            raise CheckpointError(f"config has {len(config)} values instead of {len(CONFIG_NAMES)}")
        given = dict(zip(names, config, strict=True))
        values = {name: given[name] for name in CONFIG_NAMES}
    else:
        raise CheckpointError(f"config must be a list or a mapping, not {type(config).__name__}")
    wrong = [f"{name} cannot be {value!r:.60}" for name, value in values.items() if not _plausible(name, value)]
    for kernels, others in (_LISTS[0], "resblock_dilation_sizes"), (_LISTS[1], _LISTS[2]):
        if not wrong and len(values[kernels]) != len(values[others]):
            wrong = [f"{kernels} and {others} differ in length"]
    if wrong:
        raise CheckpointError("config: " + ", ".join(wrong))
    return {name: _as_list(value) for name, value in values.items()}


def features_of(config: object) -> Any:
    """The width of the content features, where a configuration tells it; else None."""
    if isinstance(config, Mapping):
        return config.get(FEATURES_NAME)
    known = isinstance(config, list | tuple) and len(config) == len(_WITH_FEATURES)
    return config[_WITH_FEATURES.index(FEATURES_NAME)] if known else None  # type: ignore[index]


def _plausible(name: str, value: object) -> bool:
    if name in _LISTS:
        few = isinstance(value, list | tuple) and 0 < len(value) <= _MOST_STAGES
        return few and all(_is_count(n, _LONGEST_KERNEL) for n in value)  # type: ignore[attr-defined]
    if name == "resblock_dilation_sizes":
        return isinstance(value, list | tuple) and all(_plausible(_LISTS[0], row) for row in value)
    if name in ("n_layers", "kernel_size"):
        return _is_count(value, _MOST_LAYERS)
    if name == "resblock":
        return str(value) in ("1", "2")
    if name == "p_dropout":
        return isinstance(value, int | float) and 0 <= value <= 1
    return _is_count(value)


def _is_count(value: object, most: int = 2**31 - 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _as_list(value: Any) -> Any:
    return [_as_list(v) for v in value] if isinstance(value, list | tuple) else value
