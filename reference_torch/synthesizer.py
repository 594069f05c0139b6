"""The voice synthesizer in PyTorch: text encoder, flow, source and decoder; the plain reference.

Method: VITS (Kim et al., 2021) as used by RVC; behaviour and state-dict keys as in
IAHispano/Applio, revision b9c0ccb. Shapes: B = batch, T = 10 ms frames, N = samples, D = width of
the content features, C = channels; layouts are PyTorch's (channels first).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rvc_common.checkpoint import file_named, read_voice
from rvc_common.checks import check_f0, check_lengths, check_phone, check_speaker
from rvc_common.config import REFINEGAN, SynthesizerConfig, VoiceFacts
from rvc_common.keys import normalise_keys
from rvc_common.noise import Draw, Draws, kept
from rvc_common.stages import FRAMES, SAMPLES, Carry, Event, Stage, Watch, group, run, walk

from .files import read_file
from .flow import Flow
from .layers import DTYPES, TensorLayout, check_device, load_weights, stepped
from .refinegan import RefineGAN
from .resident import Outputs, Resident
from .text_encoder import TextEncoder, apply_mask
from .vocoder import HiFiGAN

# upstream writes five digits, not two thirds
LATENT_DEVIATION = 0.66666

Watcher = Callable[[str, np.ndarray], None]
# the carry that a call begins with, and what it then does
Begun = tuple[Carry, Callable[[Carry], Outputs]]


class Network(nn.Module):
    def __init__(self, config: SynthesizerConfig, profile: str) -> None:
        super().__init__()
        self.enc_p = TextEncoder(config)
        self.flow = Flow(config)
        self.dec = RefineGAN(config) if config.vocoder == REFINEGAN else HiFiGAN(config, profile)
        self.emb_g = nn.Embedding(config.spk_embed_dim, config.gin_channels)


class Synthesizer(VoiceFacts):
    """Content features and pitch to audio in a voice. NumPy in, NumPy out."""

    def __init__(
        self, config: SynthesizerConfig, *, dtype: str = "float32", device: str = "cpu", profile: str = "applio"
    ) -> None:
        if profile not in ("applio", "webui"):
            raise ValueError(f"unknown profile {profile!r}: applio or webui")
        if dtype not in DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}: one of {', '.join(DTYPES)}")
        config.check_upsampling(profile)
        self.config, self.device, self.profile, self.dtype = config, check_device(device), profile, DTYPES[dtype]
        # the source's phase needs more than half precision whatever the network's type
        self.wide_dtype = torch.float64 if dtype == "float64" else torch.float32
        self.network = Network(config, profile)
        self.layout = TensorLayout(self.wide_dtype)
        self.prior, self.latent, self.decoding = self._stages()

    def _stages(self) -> tuple[tuple[Stage, ...], ...]:
        """To the prior's mean and deviation, from there to ``z``, and on to audio."""
        net = self.network
        prior = (
            group("enc_p", net.enc_p.stages(), axes=FRAMES),
            Stage("m_p", _split_stats, product="m_p", axes=FRAMES),
            Stage("logs_p", lambda carry: None, product="logs_p", axes=FRAMES),
        )
        latent = (
            Stage("z_p", self._sample, axes=FRAMES),
            Stage("x_mask", _show_mask, product="x_mask"),
            Stage("emb_g", self._embed_speaker, product="speaker", axes=FRAMES),
            group("flow", net.flow.stages(), axes=FRAMES),
            Stage("z", apply_mask, axes=FRAMES),
        )
        return prior, latent, (group("dec", (*net.dec.source(), *net.dec.stages()), axes=SAMPLES),)

    @classmethod
    def from_checkpoint(cls, path: str | Path, **options: str) -> Synthesizer:
        """Load a voice ``.pth`` of either upstream or a converted ``.safetensors``, strictly.

        Raises:
            CheckpointError: unreadable file, or keys and shapes that do not fit its configuration.
        """
        with file_named(path):
            voice = read_voice(path, read_file)
            return cls.from_state_dict(voice.state, voice.config, voice.version, voice.f0, voice.vocoder, **options)

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, np.ndarray],
        config: Mapping[str, Any] | Sequence[Any],
        version: str = "v2",
        f0: bool = True,
        vocoder: str = "HiFi-GAN",
        **options: str,
    ) -> Synthesizer:
        """Build from upstream's keys and its 18 configuration values. ``options``: dtype, device, profile.

        Raises:
            CheckpointError: missing, unexpected or misshapen keys, or an impossible configuration.
        """
        state = normalise_keys(state)
        model = cls(SynthesizerConfig.make(config, state, version, f0, vocoder), **options)
        posterior = model.config.posterior_shapes() if any(k.startswith("enc_q.") for k in state) else {}
        load_weights("synthesizer", model.network, state, model.dtype, model.device, posterior)
        return model

    # ------------------------------------------------------------------ parts
    @torch.inference_mode()
    def encode(
        self, phone: np.ndarray, lengths: np.ndarray, pitch: np.ndarray | None = None, watch: Watcher | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """``phone [B, T, D]``, ``lengths [B]``, ``pitch [B, T]`` (codes 1 to 255) to mean and log deviation.

        Both are ``[B, 192, T]``, zero beyond an item's length. ``pitch`` is None for voices without.
        """
        carry = self._phone(phone, lengths, pitch)
        run((*self.prior, Stage("x_mask", _show_mask, product="x_mask")), carry, self._converted(watch))
        return self._numpy(carry["m_p"]), self._numpy(carry["logs_p"])

    @torch.inference_mode()
    def attention(self, x: np.ndarray, lengths: np.ndarray, layer: int = 0, watch: Watcher | None = None) -> np.ndarray:
        """One layer of the text encoder's attention alone: ``[B, C, T] -> [B, C, T]``."""
        stages = self.network.enc_p.encoder.attn_layers[layer].stages()
        carry = self._attended(x, lengths)
        run(stages, carry, self._converted(watch))
        return self._numpy(carry["x"])

    @torch.inference_mode()
    def flow(self, z_p: np.ndarray, mask: np.ndarray, speaker: np.ndarray, watch: Watcher | None = None) -> np.ndarray:
        """Reverse flow: ``z_p [B, 192, T]``, ``mask [B, 1, T]``, ``speaker [B]`` to ``z [B, 192, T]``."""
        carry = self._flowing(z_p, mask, speaker)
        run(self.latent[2:4], carry, self._converted(watch))
        return self._numpy(carry["x"])

    @torch.inference_mode()
    def source(self, f0: np.ndarray, noise: int | Draw | Draws, watch: Watcher | None = None) -> np.ndarray:
        """The harmonic source: ``f0 [B, T]`` in Hz, 0 where unvoiced, to ``[B, N, 1]`` after tanh.

        Raises:
            ValueError: the voice has no pitch.
        """
        if not self.has_f0:
            raise ValueError("this voice has no pitch, hence no source")
        carry = self._random(Draws.of(noise)) | {"f0": check_f0(f0)}
        run(self.network.dec.source(), carry, self._converted(watch), "dec.")
        return self._numpy(carry["source"])

    @torch.inference_mode()
    def decode(
        self,
        z: np.ndarray,
        f0: np.ndarray | None,
        speaker: np.ndarray,
        noise: int | Draw | Draws,
        watch: Watcher | None = None,
    ) -> np.ndarray:
        """``z [B, 192, T]``, ``f0 [B, T]`` in Hz (None without pitch), ``speaker [B]`` to audio ``[B, N]``."""
        carry = self._random(Draws.of(noise)) | {"x": self._tensor(z), "f0": f0, "speaker": speaker}
        self._check_pitch(f0, (z.shape[0], z.shape[2]))
        self._embed_speaker(carry)
        run(self.decoding, carry, self._converted(watch))
        return self._numpy(carry["x"][:, 0])

    @torch.inference_mode()
    def infer(
        self,
        phone: np.ndarray,
        lengths: np.ndarray,
        pitch: np.ndarray | None,
        f0: np.ndarray | None,
        speaker: np.ndarray,
        noise: int | Draw | Draws,
        rate: float | None = None,
        watch: Watcher | None = None,
    ) -> np.ndarray:
        """Encode, sample, flow and decode: audio ``[B, N]``, N = T * hop_samples.

        ``rate`` drops the leading ``int(T * (1 - rate))`` frames after the encoder has seen them.
        ``watch(path, array)`` is called after every stage, arrays in PyTorch's layouts.
        """
        carry = self._entered(phone, lengths, pitch, f0, speaker, noise, rate)
        run((*self.prior, *self.latent, *self.decoding), carry, self._converted(watch))
        return self._numpy(carry["x"][:, 0])

    @torch.inference_mode()
    def resident(self, call: str, *arguments: Any) -> Resident:
        """``encode``, ``attention``, ``flow``, ``source`` or ``decode``, its arrays on the device already.

        Arguments are those of the call. F0 stays on the host until the source takes it.
        """
        begin, run_on = getattr(self, f"_resident_{call}")(*arguments)
        return Resident(lambda: run_on(dict(begin)), self.device)

    def _resident_encode(self, phone: np.ndarray, lengths: np.ndarray, pitch: np.ndarray | None = None) -> Begun:
        def work(carry: Carry) -> Outputs:
            run(self.prior, carry)
            return {name: carry[name] for name in ("m_p", "logs_p")}

        return self._phone(phone, lengths, pitch), work

    def _resident_attention(self, x: np.ndarray, lengths: np.ndarray, layer: int = 0) -> Begun:
        stages = self.network.enc_p.encoder.attn_layers[layer].stages()
        return self._attended(x, lengths), _main_value(stages)

    def _resident_flow(self, z_p: np.ndarray, mask: np.ndarray, speaker: np.ndarray) -> Begun:
        return self._flowing(z_p, mask, speaker), _main_value(self.latent[2:4])

    def _resident_source(self, f0: np.ndarray, noise: int | Draw) -> Begun:
        def work(carry: Carry) -> Outputs:
            run(self.network.dec.source(), carry)
            return {"source": carry["source"]}

        return {"f0": check_f0(f0)}, self._drawing(noise, work)

    def _resident_decode(self, z: np.ndarray, f0: np.ndarray | None, speaker: np.ndarray, noise: int | Draw) -> Begun:
        carry: Carry = {"x": self._tensor(z), "f0": f0, "speaker": speaker}
        self._check_pitch(f0, (z.shape[0], z.shape[2]))
        self._embed_speaker(carry)

        def work(carry: Carry) -> Outputs:
            run(self.decoding, carry)
            return {"audio": carry["x"][:, 0]}

        return carry, self._drawing(noise, work)

    def _drawing(self, noise: int | Draw, work: Callable[[Carry], Outputs]) -> Callable[[Carry], Outputs]:
        """With the same noise from its beginning each time, drawn once."""
        draw = kept(noise)
        return lambda carry: work(carry | self._random(Draws(draw)))

    def walk(
        self,
        phone: np.ndarray,
        lengths: np.ndarray,
        pitch: np.ndarray | None,
        f0: np.ndarray | None,
        speaker: np.ndarray,
        noise: int | Draw | Draws,
        rate: float | None = None,
    ) -> Iterator[Event]:
        """``infer`` stage by stage; see ``stages.walk``."""
        return stepped(self._walk(phone, lengths, pitch, f0, speaker, noise, rate), self.layout)

    def _walk(self, *arguments: Any) -> Iterator[Event]:
        carry = self._entered(*arguments)
        yield from walk((*self.prior, *self.latent, *self.decoding), carry)
        carry["audio"] = self._numpy(carry["x"][:, 0])
        yield Event("audio", carry, "audio", axes=("batch", "sample"))

    # ------------------------------------------------------------------ on tensors
    def _entered(
        self,
        phone: np.ndarray,
        lengths: np.ndarray,
        pitch: np.ndarray | None,
        f0: np.ndarray | None,
        speaker: np.ndarray,
        noise: int | Draw | Draws,
        rate: float | None,
    ) -> Carry:
        """What ``infer`` begins with."""
        batch, frames = phone.shape[:2]
        check_lengths(lengths, frames, rate)
        self._check_pitch(f0, (batch, frames))
        check_speaker(self.config, speaker, batch)
        given = {"f0": f0, "speaker": speaker, "rate": rate}
        return self._phone(phone, lengths, pitch) | self._random(Draws.of(noise)) | given

    def _phone(self, phone: np.ndarray, lengths: np.ndarray, pitch: np.ndarray | None) -> Carry:
        check_phone(self.config, phone, pitch)
        carry: Carry = {"x": self._tensor(phone), "mask": self._mask(lengths, phone.shape[1])}
        if pitch is not None:
            carry["pitch"] = torch.from_numpy(np.ascontiguousarray(pitch, np.int64)).to(self.device)
        return carry

    def _attended(self, x: np.ndarray, lengths: np.ndarray) -> Carry:
        return {"x": self._tensor(x), "mask": self._mask(lengths, x.shape[2])}

    def _flowing(self, z_p: np.ndarray, mask: np.ndarray, speaker: np.ndarray) -> Carry:
        return {"x": self._tensor(z_p), "mask": self._tensor(mask), "speaker": speaker}

    def _check_pitch(self, f0: np.ndarray | None, shape: tuple[int, int]) -> None:
        if self.has_f0:
            if f0 is None or f0.shape != shape:
                raise ValueError(f"this voice needs f0 {list(shape)}")
            check_f0(f0)

    def _sample(self, carry: Carry) -> None:
        """The latent, and the leading frames dropped that ``rate`` says."""
        mean, mask, rate = carry["m_p"], carry["mask"], carry["rate"]
        latent = self._tensor(carry["draws"]("normal", tuple(mean.shape)))
        z_p = (mean + torch.exp(carry["logs_p"]) * latent * LATENT_DEVIATION) * mask
        head = 0 if rate is None else int(mean.shape[2] * (1.0 - float(np.float32(rate))))
        carry |= {"x": z_p[:, :, head:], "mask": mask[:, :, head:]}
        carry["f0"] = None if carry["f0"] is None else carry["f0"][:, head:]

    def _embed_speaker(self, carry: Carry) -> None:
        """``[B] -> [B, G, 1]``."""
        numbers = check_speaker(self.config, carry["speaker"], len(carry["x"]))
        carry["speaker"] = self.network.emb_g(torch.from_numpy(numbers).to(self.device)).unsqueeze(-1)

    def _random(self, draws: Draws) -> Carry:
        def convert(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, self.wide_dtype)

        return {"draws": draws, "convert": convert}

    def _mask(self, lengths: np.ndarray, frames: int) -> torch.Tensor:
        inside = np.arange(frames) < np.asarray(lengths).reshape(-1, 1)
        return self._tensor(inside[:, None].astype(np.float32))

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, self.dtype)

    def _numpy(self, tensor: torch.Tensor) -> np.ndarray:
        return tensor.to(self.wide_dtype).cpu().numpy()

    def _converted(self, watch: Watcher | None) -> Watch | None:
        if watch is None:
            return None
        return lambda path, value: watch(path, self._numpy(value))


def _main_value(stages: tuple[Stage, ...]) -> Callable[[Carry], Outputs]:
    def work(carry: Carry) -> Outputs:
        run(stages, carry)
        return {"x": carry["x"]}

    return work


def _split_stats(carry: Carry) -> None:
    carry["m_p"], carry["logs_p"] = carry.pop("x").chunk(2, dim=1)


def _show_mask(carry: Carry) -> None:
    carry["x_mask"] = carry["mask"]
