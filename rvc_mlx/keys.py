"""Every key of the three models' checkpoints and its shape, in PyTorch's layouts, and the sizes that no file tells.

The strict load compares a file with these lists; the reference takes the same from its modules. Needs no MLX, so
that a file can be checked where no model can run.
"""

from __future__ import annotations

import itertools
import math

from rvc_common.config import HARMONICS_MRF, HIFIGAN, MRF, REFINEGAN, HubertConfig, RMVPEConfig, SynthesizerConfig
from rvc_common.rmvpe import N_BINS, N_MELS

# HuBERT's convolutions, and the one that tells its transformer the position
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
POSITION_KERNEL, POSITION_GROUPS = 128, 16
# the voice's attention, its flow, its source and RefineGAN's branches
WINDOW = 10
PITCH_CODES = 256
FLOWS, FLOW_LAYERS, FLOW_KERNEL = 4, 3, 5
REFINEGAN_KERNELS, REFINEGAN_DILATIONS = (3, 7, 11), (1, 3, 5)


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


def rmvpe_shapes(config: RMVPEConfig) -> dict[str, tuple[int, ...]]:
    """Every key of the state dict and its shape (PyTorch's layouts), counters left out."""
    shapes = Shapes()

    def norm(name: str, c: int) -> None:
        shapes.update({f"{name}.{x}": (c,) for x in ("weight", "bias", "running_mean", "running_var")})

    def blocks(name: str, c_in: int, c_out: int) -> None:
        for j in range(config.blocks):
            a = c_in if j == 0 else c_out
            shapes.layer(f"{name}.{j}.conv.0", c_out, a, 3, 3, bias=0)
            norm(f"{name}.{j}.conv.1", c_out)
            shapes.layer(f"{name}.{j}.conv.3", c_out, c_out, 3, 3, bias=0)
            norm(f"{name}.{j}.conv.4", c_out)
            if a != c_out:
                shapes.layer(f"{name}.{j}.shortcut", c_out, a, 1, 1)

    widths = [config.width * 2**i for i in range(config.levels + 1)]
    norm("unet.encoder.bn", 1)
    for i, (a, b) in enumerate(zip([1, *widths], widths[:-1], strict=False)):
        blocks(f"unet.encoder.layers.{i}.conv", a, b)
    for i in range(config.inter_layers):
        blocks(f"unet.intermediate.layers.{i}.conv", widths[-2] if i == 0 else widths[-1], widths[-1])
    for i, (a, b) in enumerate(zip(widths[::-1], widths[-2::-1], strict=False)):
        shapes.layer(f"unet.decoder.layers.{i}.conv1.0", a, b, 3, 3, bias=0)
        norm(f"unet.decoder.layers.{i}.conv1.1", b)
        blocks(f"unet.decoder.layers.{i}.conv2", 2 * b, b)
    shapes.layer("cnn", 3, config.width, 3, 3)
    gates = 3 * config.hidden
    for end in ("", "_reverse"):
        shapes[f"fc.0.gru.weight_ih_l0{end}"] = (gates, 3 * N_MELS)
        shapes[f"fc.0.gru.weight_hh_l0{end}"] = (gates, config.hidden)
        shapes[f"fc.0.gru.bias_ih_l0{end}"] = shapes[f"fc.0.gru.bias_hh_l0{end}"] = (gates,)
    shapes.layer("fc.1", N_BINS, 2 * config.hidden)
    return dict(shapes)


def hubert_shapes(config: HubertConfig) -> dict[str, tuple[int, ...]]:
    """Every key of the checkpoint and its shape (PyTorch's layouts)."""
    shapes, c, first = Shapes(), config.channels, config.conv_channels
    for i, kernel in enumerate(KERNELS):
        shapes.layer(f"feature_extractor.conv_layers.{i}.conv", first, 1 if i == 0 else first, kernel, bias=0)
    shapes.layer("feature_extractor.conv_layers.0.layer_norm", first)
    shapes.layer("feature_projection.layer_norm", first)
    shapes.layer("feature_projection.projection", c, first)
    position = "encoder.pos_conv_embed.conv"
    shapes |= {f"{position}.bias": (c,), f"{position}.weight_g": (1, 1, POSITION_KERNEL)}
    shapes[f"{position}.weight_v"] = (c, c // POSITION_GROUPS, POSITION_KERNEL)
    shapes.layer("encoder.layer_norm", c)
    for i in range(config.layers):
        layer = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes.layer(f"{layer}.attention.{name}", c, c)
        shapes.layer(f"{layer}.layer_norm", c)
        shapes.layer(f"{layer}.feed_forward.intermediate_dense", config.filter_channels, c)
        shapes.layer(f"{layer}.feed_forward.output_dense", c, config.filter_channels)
        shapes.layer(f"{layer}.final_layer_norm", c)
    if config.projected is not None:
        shapes.layer("final_proj", config.projected, c)
    return dict(shapes)


def noise_convolution(config: SynthesizerConfig, i: int, profile: str) -> tuple[int, int, int]:
    """Kernel, stride and padding that bring the source to the rate after the i-th level.

    The stride is what later levels upsample by. The padding is half of it, rounded down; Applio's
    kernel is the stride plus both paddings, the WebUI's is two strides. The last level needs neither.
    """
    stride = math.prod(config.upsample_rates[i + 1 :])
    padding = stride // 2
    kernel = 2 * stride if profile == "webui" and stride > 1 else stride + 2 * padding
    return kernel, stride, padding


def state_shapes(config: SynthesizerConfig, profile: str) -> dict[str, tuple[int, ...]]:
    """All keys of a voice but the posterior encoder's."""
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
        shapes.layer("enc_p.emb_pitch", PITCH_CODES, c, bias=0)
    for i in range(config.n_layers):
        attention = f"enc_p.encoder.attn_layers.{i}"
        for part in "qkvo":
            shapes.layer(f"{attention}.conv_{part}", c, c, 1)
        for part in "kv":
            shapes[f"{attention}.emb_rel_{part}"] = (1, 2 * WINDOW + 1, c // config.n_heads)
        shapes.layer(f"enc_p.encoder.ffn_layers.{i}.conv_1", wide, c, kernel)
        shapes.layer(f"enc_p.encoder.ffn_layers.{i}.conv_2", c, wide, kernel)
        for norm in ("norm_layers_1", "norm_layers_2"):
            shapes |= {f"enc_p.encoder.{norm}.{i}.{part}": (c,) for part in ("gamma", "beta")}
    shapes.layer("enc_p.proj", 2 * config.inter_channels, c, 1)


def _flow(shapes: Shapes, config: SynthesizerConfig) -> None:
    c, half, last = config.hidden_channels, config.inter_channels // 2, FLOW_LAYERS - 1
    for i in range(0, 2 * FLOWS, 2):
        name = f"flow.flows.{i}"
        shapes.layer(f"{name}.pre", c, half, 1)
        shapes.layer(f"{name}.post", half, c, 1)
        shapes.layer(f"{name}.enc.cond_layer", 2 * c * FLOW_LAYERS, config.gin_channels, 1, normed=True)
        for j in range(FLOW_LAYERS):
            shapes.layer(f"{name}.enc.in_layers.{j}", 2 * c, c, FLOW_KERNEL, normed=True)
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
            shapes.layer(f"dec.noise_convs.{i}", c, 1, noise_convolution(config, i, profile)[0])
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
        for j, kernel in enumerate(REFINEGAN_KERNELS):
            block = f"{name}.blocks.{j}"
            shapes |= {f"{block}.{k}.weight": (c,) for k in (0, 2)}
            for k in range(len(REFINEGAN_DILATIONS)):
                for part in ("convs1", "convs2"):
                    shapes.layer(f"{block}.1.{part}.{k}", c, c, kernel, normed=True)
    shapes.layer("dec.conv_post", 1, config.channels[-1], 7, bias=0, normed=True)
