"""The models as functions of tensors alone, for exporters: nothing is drawn, read or decided on the host inside.

Each module runs the stages that the model itself runs. Shapes: B = batch, n = samples at 16 kHz, F and T = 10 ms
frames, N = samples of the voice, D = width of the content features.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from rvc_common.rmvpe import FRAME_MULTIPLE
from rvc_common.stages import Carry, Stage, run

from .hubert import Hubert
from .refinegan import KERNELS, RefineGAN
from .rmvpe import RMVPE
from .synthesizer import LATENT_DEVIATION, Synthesizer
from .text_encoder import apply_mask


def result(stages: tuple[Stage, ...], carry: Carry) -> torch.Tensor:
    run(stages, carry)
    return carry["x"]


class Salience(nn.Module):
    """Mel ``[B, 128, F]`` to salience ``[B, F, 360]``, the padding to a multiple of 32 frames included.

    The whole clip is one block; as in the model, padding that mirrors needs at least 17 frames."""

    def __init__(self, model: RMVPE) -> None:
        super().__init__()
        self.network, self.stages, self.mirrors = model.network, model.stages, model.profile != "webui"

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        frames = mel.shape[-1]
        at = torch.arange((frames + FRAME_MULTIPLE - 1) // FRAME_MULTIPLE * FRAME_MULTIPLE)
        inside = at < frames
        # a gather, because an exporter takes no amount of padding that depends on the length
        padded = mel[..., torch.where(inside, at, 2 * (frames - 1) - at if self.mirrors else 0)]
        x = padded if self.mirrors else padded * inside
        return result(self.stages, {"x": x.transpose(1, 2).unsqueeze(1)})[:, :frames]


class Features(nn.Module):
    """Audio ``[B, n]`` to content features ``[B, H, C]``, as ``Hubert.features`` gives them."""

    def __init__(self, model: Hubert, version: str, profile: str) -> None:
        super().__init__()
        self.network, self.stages = model.network, (*model.extracting, *model._encoding(version, profile))

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        return result(self.stages, {"x": audio.unsqueeze(1)})


class _Voice(nn.Module):
    def __init__(self, model: Synthesizer) -> None:
        super().__init__()
        self.network, self.config = model.network, model.config
        self.encoder, self.reverse = model.network.enc_p.stages(), model.network.flow.stages()
        self.decoder = model.network.dec.stages()

    def speaker(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.network.emb_g(numbers).unsqueeze(-1)

    def encoded(self, phone: torch.Tensor, mask: torch.Tensor, pitch: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        return result(self.encoder, {"x": phone, "mask": mask, "pitch": pitch}).chunk(2, dim=1)

    def flowed(self, z_p: torch.Tensor, mask: torch.Tensor, speaker: torch.Tensor) -> torch.Tensor:
        carry = {"x": z_p, "mask": mask, "speaker": speaker}
        run(self.reverse, carry)
        apply_mask(carry)
        return carry["x"]

    def decoded(self, z: torch.Tensor, speaker: torch.Tensor, rest: Iterator[torch.Tensor]) -> torch.Tensor:
        carry: Carry = {"x": z, "speaker": speaker, "convert": lambda x: x, "draws": lambda kind, shape: next(rest)}
        if self.config.has_f0:
            carry["source"] = next(rest)
        return result(self.decoder, carry)[:, 0]


class TextEncoder(_Voice):
    """Phone ``[B, T, D]``, lengths ``[B]``, pitch ``[B, T]`` to mean and log deviation ``[B, C, T]``."""

    def forward(
        self, phone: torch.Tensor, lengths: torch.Tensor, pitch: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        return self.encoded(phone, mask_of(phone, lengths), pitch)


class Flow(_Voice):
    """``z_p [B, C, T]``, mask ``[B, 1, T]`` and speaker ``[B]`` to ``z``."""

    def forward(self, z_p: torch.Tensor, mask: torch.Tensor, speaker: torch.Tensor) -> torch.Tensor:
        return result(self.reverse, {"x": z_p, "mask": mask, "speaker": self.speaker(speaker)})


class Vocoder(_Voice):
    """``z [B, C, T]``, speaker ``[B]``, with pitch the source ``[B, N, 1]``, and the noise of a RefineGAN, to audio
    ``[B, N]``."""

    def forward(self, z: torch.Tensor, speaker: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return self.decoded(z, self.speaker(speaker), iter(rest))


class Whole(_Voice):
    """Phone, lengths, with pitch its codes, speaker, the latent's noise, and what ``Vocoder`` takes, to audio."""

    def forward(self, phone: torch.Tensor, lengths: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        left = iter(rest)
        pitch = next(left) if self.config.has_f0 else None
        speaker, noise = self.speaker(next(left)), next(left)
        mask = mask_of(phone, lengths)
        mean, deviation = self.encoded(phone, mask, pitch)
        z_p = (mean + torch.exp(deviation) * noise * LATENT_DEVIATION) * mask
        return self.decoded(self.flowed(z_p, mask, speaker), speaker, left)


def mask_of(phone: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """``[B, 1, T]``: 1 within an item's length."""
    return (torch.arange(phone.shape[1]) < lengths[:, None])[:, None].to(phone.dtype)


def noise_inputs(model: Synthesizer) -> int:
    """How many arrays of noise the vocoder adds besides that of its source."""
    return 2 * len(KERNELS) * len(model.config.upsample_rates) if isinstance(model.network.dec, RefineGAN) else 0
