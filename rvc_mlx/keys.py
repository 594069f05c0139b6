"""Every key of a synthesizer's checkpoint and its shape, in PyTorch's layouts.

The strict load compares a file with this list; the reference takes the same from its modules.
"""

from __future__ import annotations

import itertools

from rvc_common.config import HIFIGAN, MRF, REFINEGAN, SynthesizerConfig

from . import flow, refinegan, text_encoder, vocoder
from .source import HARMONICS_MRF


class Shapes(dict[str, tuple[int, ...]]):
    """Keys of a checkpoint and the shapes that belong to them."""

    def layer(self, name: str, *shape: int, bias: int | None = None, normed: bool = False) -> None:
        """A weight and its bias, as long as the first axis; ``bias=0``: none. Normed: g along the first axis."""
        if normed:
            self[f"{name}.weight_g"] = (shape[0], *(1 for _ in shape[1:]))
            self[f"{name}.weight_v"] = shape
        else:
            self[f"{name}.weight"] = shape
        if bias != 0:
            self[f"{name}.bias"] = (shape[0] if bias is None else bias,)


def state_shapes(config: SynthesizerConfig, profile: str) -> dict[str, tuple[int, ...]]:
    """All keys but the posterior encoder's."""
    shapes = Shapes()
    _text_encoder(shapes, config)
    _flow(shapes, config)
    if config.vocoder == REFINEGAN:
        _refinegan(shapes, config)
    else:
        _hifigan(shapes, config, profile)
    shapes["emb_g.weight"] = (config.spk_embed_dim, config.gin_channels)
    return dict(shapes)


def _text_encoder(shapes: Shapes, config: SynthesizerConfig) -> None:
    c, wide, kernel = config.hidden_channels, config.filter_channels, config.kernel_size
    shapes.layer("enc_p.emb_phone", c, config.phone_channels)
    if config.has_f0:
        shapes.layer("enc_p.emb_pitch", text_encoder.PITCH_CODES, c, bias=0)
    for i in range(config.n_layers):
        attention = f"enc_p.encoder.attn_layers.{i}"
        for part in "qkvo":
            shapes.layer(f"{attention}.conv_{part}", c, c, 1)
        for part in "kv":
            shapes[f"{attention}.emb_rel_{part}"] = (1, 2 * text_encoder.WINDOW + 1, c // config.n_heads)
        shapes.layer(f"enc_p.encoder.ffn_layers.{i}.conv_1", wide, c, kernel)
        shapes.layer(f"enc_p.encoder.ffn_layers.{i}.conv_2", c, wide, kernel)
        for norm in ("norm_layers_1", "norm_layers_2"):
            shapes |= {f"enc_p.encoder.{norm}.{i}.{part}": (c,) for part in ("gamma", "beta")}
    shapes.layer("enc_p.proj", 2 * config.inter_channels, c, 1)


def _flow(shapes: Shapes, config: SynthesizerConfig) -> None:
    c, half, last = config.hidden_channels, config.inter_channels // 2, flow.LAYERS - 1
    for i in range(0, 2 * flow.FLOWS, 2):
        name = f"flow.flows.{i}"
        shapes.layer(f"{name}.pre", c, half, 1)
        shapes.layer(f"{name}.post", half, c, 1)
        shapes.layer(f"{name}.enc.cond_layer", 2 * c * flow.LAYERS, config.gin_channels, 1, normed=True)
        for j in range(flow.LAYERS):
            shapes.layer(f"{name}.enc.in_layers.{j}", 2 * c, c, flow.KERNEL, normed=True)
            shapes.layer(f"{name}.enc.res_skip_layers.{j}", c if j == last else 2 * c, c, 1, normed=True)


def _hifigan(shapes: Shapes, config: SynthesizerConfig, profile: str) -> None:
    mrf, first = config.vocoder == MRF, config.upsample_initial_channel
    if config.has_f0:
        shapes.layer("dec.m_source.l_linear", 1, HARMONICS_MRF if mrf else 1)
    shapes.layer("dec.conv_pre", first, config.inter_channels, 7, normed=mrf)
    shapes.layer("dec.cond", first, config.gin_channels, 1)
    pairs = list(zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True))
    for i, c in enumerate(config.channels):
        up = f"dec.upsamples.{i}" if mrf else f"dec.ups.{i}"
        shapes.layer(up, 2 * c, c, config.upsample_kernel_sizes[i], bias=c, normed=True)
        if config.has_f0:
            shapes.layer(f"dec.noise_convs.{i}", c, 1, vocoder.noise_convolution(config, i, profile)[0])
        for j, (kernel, dilations) in enumerate(pairs):
            block = f"dec.mrfs.{i}.{j}" if mrf else f"dec.resblocks.{i * len(pairs) + j}"
            for k in range(len(dilations)):
                names = (f"layers.{k}.conv1", f"layers.{k}.conv2") if mrf else (f"convs1.{k}", f"convs2.{k}")
                for name in names:
                    shapes.layer(f"{block}.{name}", c, c, kernel, normed=True)
    shapes.layer("dec.conv_post", 1, config.channels[-1], 7, bias=0 if config.vocoder == HIFIGAN else None, normed=mrf)


def _refinegan(shapes: Shapes, config: SynthesizerConfig) -> None:
    half = config.upsample_initial_channel // 2
    down = config.reduced_channels
    shapes.layer("dec.m_source.merge.0", 1, 1, bias=0)
    shapes.layer("dec.pre_conv", down[0], 1, 7, normed=True)
    for i, (a, b) in enumerate(itertools.pairwise(down)):
        shapes.layer(f"dec.downsample_blocks.{i}", b, a, 7, normed=True)
    shapes.layer("dec.mel_conv", half, config.inter_channels, 7, normed=True)
    shapes.layer("dec.cond", half, config.gin_channels, 1)
    for i, c in enumerate(config.channels):
        name = f"dec.upsample_conv_blocks.{i}"
        shapes.layer(f"{name}.input_conv", c, 2 * c + c // 2, 7)
        for j, kernel in enumerate(refinegan.KERNELS):
            block = f"{name}.blocks.{j}"
            shapes |= {f"{block}.{k}.weight": (c,) for k in (0, 2)}
            for k in range(len(refinegan.DILATIONS)):
                for part in ("convs1", "convs2"):
                    shapes.layer(f"{block}.1.{part}.{k}", c, c, kernel, normed=True)
    shapes.layer("dec.conv_post", 1, config.channels[-1], 7, bias=0, normed=True)
