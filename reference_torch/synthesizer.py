"""The voice synthesizer in PyTorch: text encoder, flow, source and decoder; the plain reference.

Method: VITS (Kim et al., 2021) as used by RVC; behaviour and state-dict keys as in
IAHispano/Applio, revision b9c0ccb. Shapes: B = batch, T = 10 ms frames, N = samples, D = width of
the content features, C = channels; layouts are PyTorch's (channels first).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from rvc_common import synthesizer
from rvc_common.config import REFINEGAN, SynthesizerConfig
from rvc_common.stages import Carry, Stage

from .files import read_file
from .flow import Flow
from .layers import Undrawn, load_weights
from .model import Model
from .refinegan import RefineGAN
from .text_encoder import TextEncoder, apply_mask
from .vocoder import HiFiGAN

# upstream writes five digits, not two thirds
LATENT_DEVIATION = 0.66666


class Network(nn.Module):
    def __init__(self, config: SynthesizerConfig, profile: str) -> None:
        super().__init__()
        self.enc_p = TextEncoder(config)
        self.flow = Flow(config)
        self.dec = RefineGAN(config) if config.vocoder == REFINEGAN else HiFiGAN(config, profile)
        self.emb_g = nn.Embedding(config.spk_embed_dim, config.gin_channels)


class Synthesizer(Model, synthesizer.Synthesizer):
    __doc__ = synthesizer.Synthesizer.__doc__
    read_file = staticmethod(read_file)
    _frames = Model.to_device

    def __init__(
        self,
        state: Mapping[str, np.ndarray],
        config: SynthesizerConfig,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        profile: str = "applio",
    ) -> None:
        self._configure(config, profile)
        self._place(dtype, device)
        with Undrawn():
            self.network = Network(config, profile)
        load_weights("synthesizer", self.network, state, self.dtype, self.device, config.unused_shapes(state))
        net = self.network
        parts = (net.enc_p.stages(), net.flow.stages(), net.dec.source(), net.dec.stages())
        self._arrange(*parts, _split_stats, apply_mask)

    def _attention_stages(self, layer: int) -> tuple[Stage, ...]:
        return self.network.enc_p.encoder.attn_layers[layer].stages()

    def _phone(self, phone: np.ndarray, lengths: np.ndarray, pitch: np.ndarray | None) -> Carry:
        carry: Carry = {"x": self.to_device(phone), "mask": self._mask(lengths, phone.shape[1])}
        if pitch is not None:
            carry["pitch"] = torch.from_numpy(np.ascontiguousarray(pitch, np.int64)).to(self.device)
        return carry

    def _hidden(self, x: np.ndarray, lengths: np.ndarray) -> Carry:
        return {"x": self.to_device(x), "mask": self._mask(lengths, x.shape[2])}

    def _noisy(self, z_p: np.ndarray, mask: np.ndarray) -> Carry:
        return {"x": self.to_device(z_p), "mask": self.to_device(mask)}

    def _embedded(self, numbers: np.ndarray) -> torch.Tensor:
        """``[B] -> [B, G, 1]``."""
        return self.network.emb_g(torch.from_numpy(numbers).to(self.device)).unsqueeze(-1)

    def _channels_second(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def _mono(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0]

    def _drawing(self, carry: Carry, noise: synthesizer.Noise | None) -> Carry:
        return super()._drawing(carry, noise) | {"convert": self.to_wide}

    def _show_mask(self, carry: Carry) -> None:
        carry["x_mask"] = carry["mask"]

    def _sample(self, carry: Carry) -> None:
        """The latent, without the leading frames that ``rate`` drops."""
        mean, mask, rate = carry["m_p"], carry["mask"], carry["rate"]
        latent = self.to_device(carry["draws"]("normal", tuple(mean.shape)))
        z_p = (mean + torch.exp(carry["logs_p"]) * latent * LATENT_DEVIATION) * mask
        head = 0 if rate is None else int(mean.shape[2] * (1.0 - float(np.float32(rate))))
        carry |= {"x": z_p[:, :, head:], "mask": mask[:, :, head:]}
        carry["f0"] = None if carry["f0"] is None else carry["f0"][:, head:]

    def _mask(self, lengths: np.ndarray, frames: int) -> torch.Tensor:
        inside = np.arange(frames) < np.asarray(lengths).reshape(-1, 1)
        return self.to_device(inside[:, None].astype(np.float32))


def _split_stats(carry: Carry) -> None:
    carry["m_p"], carry["logs_p"] = carry.pop("x").chunk(2, dim=1)
