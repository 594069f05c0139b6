"""The voice synthesizer in MLX: text encoder, flow, source and decoder.

Method: VITS (Kim et al., 2021) as used by RVC; behaviour and state-dict keys as in
IAHispano/Applio, revision b9c0ccb. Shapes: B = batch, T = 10 ms frames, N = samples, D = width of
the content features, C = channels; inside arrays are channels last, at the boundary PyTorch's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rvc_common.checkpoint import file_named, read_voice
from rvc_common.checks import check_f0, check_lengths, check_phone, check_speaker
from rvc_common.config import REFINEGAN, SynthesizerConfig, VoiceFacts
from rvc_common.keys import check_keys, normalise_keys
from rvc_common.noise import Draw, Draws, kept
from rvc_common.stages import FRAMES, SAMPLES, Carry, Event, Stage, Watch, group, run, walk

from .buffers import on_device
from .files import read_file
from .flow import flow_stages
from .keys import state_shapes
from .layers import DTYPES, Weights
from .layouts import ChannelsLast, stepped
from .optimize import resolve
from .refinegan import RefineGAN
from .resident import Outputs, Resident
from .runtime import mx, resolve_device, warn_if_slow
from .text_encoder import TextEncoder, apply_mask
from .vocoder import HiFiGAN

# upstream writes five digits, not two thirds
LATENT_DEVIATION = 0.66666
# frames that the decoder makes at a time with ``tile``: up to its first level, and from there on;
# small enough for a CPU's caches, large enough to keep a GPU busy
TILE_FRAMES, FINE_FRAMES = 384, 32
GPU_TILE_FRAMES = 1536

Watcher = Callable[[str, np.ndarray], None]
# the carry that a call begins with, and what it then does
Begun = tuple[Carry, Callable[[Carry], Outputs]]


class Synthesizer(VoiceFacts):
    """Content features and pitch to audio in a voice. NumPy in, NumPy out."""

    def __init__(
        self,
        state: Mapping[str, np.ndarray],
        config: SynthesizerConfig,
        *,
        dtype: str = "float32",
        device: str | None = None,
        profile: str = "applio",
        optimize: Iterable[str] | str = "all",
    ) -> None:
        if profile not in ("applio", "webui"):
            raise ValueError(f"unknown profile {profile!r}: applio or webui")
        if dtype not in DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}: one of {', '.join(DTYPES)}")
        config.check_upsampling(profile)
        self.config, self.profile = config, profile
        self.device, self.dtype = resolve_device(device), DTYPES[dtype]
        self.optimize = resolve(optimize, "synthesizer", gpu=self.device == mx.Device(mx.gpu), dtype=dtype)
        posterior = config.posterior_shapes() if any(k.startswith("enc_q.") for k in state) else {}
        check_keys("synthesizer", state_shapes(config, profile) | posterior, state)
        warn_if_slow(self.device)
        with mx.stream(self.device):
            self._build(Weights(state, self.dtype, self.optimize))

    def _build(self, weights: Weights) -> None:
        self.text_encoder = TextEncoder(self.config, weights)
        self.flow_stages = flow_stages(self.config, weights)
        self.decoder: HiFiGAN | RefineGAN
        if self.config.vocoder == REFINEGAN:
            self.decoder = RefineGAN(self.config, weights)
            self.optimize -= {"polyphase"}  # it stretches linearly
        else:
            self.decoder = HiFiGAN(self.config, self.profile, weights)
        self.emb_g = weights.array(weights.state["emb_g.weight"])
        self.layout = ChannelsLast(_keeps_axes)
        self.prior, self.latent, self.decoding = self._stages()

    def _stages(self) -> tuple[tuple[Stage, ...], ...]:
        """To the prior's mean and deviation, from there to ``z``, and on to audio."""
        prior = (
            group("enc_p", self.text_encoder.stages, axes=FRAMES),
            Stage("m_p", _split_stats, product="m_p", axes=FRAMES),
            Stage("logs_p", lambda carry: None, product="logs_p", axes=FRAMES),
        )
        latent = (
            Stage("z_p", self._sample, axes=FRAMES),
            Stage("x_mask", self._show_mask, product="x_mask"),
            Stage("emb_g", self._embed_speaker, product="speaker", axes=FRAMES),
            group("flow", self.flow_stages, axes=FRAMES),
            Stage("z", apply_mask, axes=FRAMES),
        )
        source = self.decoder.source if self.has_f0 else ()
        return prior, latent, (group("dec", (*source, *self.decoder.stages), axes=SAMPLES),)

    @classmethod
    def from_checkpoint(cls, path: str | Path, **options: Any) -> Synthesizer:
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
        **options: Any,
    ) -> Synthesizer:
        """Build from upstream's keys and its 18 configuration values. ``options``: dtype, device, profile, optimize.

        Raises:
            CheckpointError: missing, unexpected or misshapen keys, or an impossible configuration.
        """
        state = normalise_keys(state)
        return cls(state, SynthesizerConfig.make(config, state, version, f0, vocoder), **options)

    # ------------------------------------------------------------------ parts
    def encode(
        self, phone: np.ndarray, lengths: np.ndarray, pitch: np.ndarray | None = None, watch: Watcher | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """``phone [B, T, D]``, ``lengths [B]``, ``pitch [B, T]`` (codes 1 to 255) to mean and log deviation.

        Both are ``[B, 192, T]``, zero beyond an item's length. ``pitch`` is None for voices without.
        """
        with on_device(self.device, self, "encode"):
            carry = self._phone(phone, lengths, pitch)
            run((*self.prior, Stage("x_mask", self._show_mask, product="x_mask")), carry, self._converted(watch))
            return _numpy(carry["m_p"]), _numpy(carry["logs_p"])

    def attention(self, x: np.ndarray, lengths: np.ndarray, layer: int = 0, watch: Watcher | None = None) -> np.ndarray:
        """One layer of the text encoder's attention alone: ``[B, C, T] -> [B, C, T]``."""
        with on_device(self.device, self, "attention"):
            carry = self._attended(x, lengths)
            run(self.text_encoder.attentions[layer].stages(), carry, self._converted(watch))
            return _numpy(carry["x"])

    def flow(self, z_p: np.ndarray, mask: np.ndarray, speaker: np.ndarray, watch: Watcher | None = None) -> np.ndarray:
        """Reverse flow: ``z_p [B, 192, T]``, ``mask [B, 1, T]``, ``speaker [B]`` to ``z [B, 192, T]``."""
        with on_device(self.device, self, "flow"):
            carry = self._flowing(z_p, mask, speaker)
            run(self.latent[2:4], carry, self._converted(watch))
            return _numpy(carry["x"])

    def source(self, f0: np.ndarray, noise: int | Draw | Draws, watch: Watcher | None = None) -> np.ndarray:
        """The harmonic source: ``f0 [B, T]`` in Hz, 0 where unvoiced, to ``[B, N, 1]`` after tanh.

        Raises:
            ValueError: the voice has no pitch.
        """
        if not self.has_f0:
            raise ValueError("this voice has no pitch, hence no source")
        with on_device(self.device, self, "source"):
            carry: Carry = {"draws": Draws.of(noise), "f0": check_f0(f0)}
            run(self.decoder.source, carry, self._converted(watch), "dec.")
            return np.array(carry["source"].astype(mx.float32))

    def decode(
        self,
        z: np.ndarray,
        f0: np.ndarray | None,
        speaker: np.ndarray,
        noise: int | Draw | Draws,
        watch: Watcher | None = None,
    ) -> np.ndarray:
        """``z [B, 192, T]``, ``f0 [B, T]`` in Hz (None without pitch), ``speaker [B]`` to audio ``[B, N]``."""
        with on_device(self.device, self, "decode"):
            carry: Carry = {"x": self._array(z), "f0": f0, "speaker": speaker, "draws": Draws.of(noise)}
            self._check_pitch(f0, (z.shape[0], z.shape[2]))
            self._embed_speaker(carry)
            return self._decode(carry, self._converted(watch))

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
        with on_device(self.device, self, "infer"):
            carry, told = self._entered(phone, lengths, pitch, f0, speaker, noise, rate), self._converted(watch)
            run((*self.prior, *self.latent), carry, told)
            return self._decode(carry, told)

    def resident(self, call: str, *arguments: Any) -> Resident:
        """``encode``, ``attention``, ``flow``, ``source`` or ``decode``, its arrays on the device already.

        Arguments are those of the call. F0 stays on the host, where the source's phase is summed.
        """
        with mx.stream(self.device):
            begin, run_on = getattr(self, f"_resident_{call}")(*arguments)
            mx.eval([value for value in begin.values() if isinstance(value, mx.array)])
        return Resident(lambda: run_on(dict(begin)), self.device)

    def _resident_encode(self, phone: np.ndarray, lengths: np.ndarray, pitch: np.ndarray | None = None) -> Begun:
        def work(carry: Carry) -> Outputs:
            run(self.prior, carry)
            return {name: carry[name].transpose(0, 2, 1) for name in ("m_p", "logs_p")}

        return self._phone(phone, lengths, pitch), work

    def _resident_attention(self, x: np.ndarray, lengths: np.ndarray, layer: int = 0) -> Begun:
        stages = self.text_encoder.attentions[layer].stages()
        return self._attended(x, lengths), _main_value(stages)

    def _resident_flow(self, z_p: np.ndarray, mask: np.ndarray, speaker: np.ndarray) -> Begun:
        return self._flowing(z_p, mask, speaker), _main_value(self.latent[2:4])

    def _resident_source(self, f0: np.ndarray, noise: int | Draw) -> Begun:
        def work(carry: Carry) -> Outputs:
            run(self.decoder.source, carry)
            return {"source": carry["source"]}

        return {"f0": check_f0(f0)}, _drawing(noise, work)

    def _resident_decode(self, z: np.ndarray, f0: np.ndarray | None, speaker: np.ndarray, noise: int | Draw) -> Begun:
        carry: Carry = {"x": self._array(z), "f0": f0, "speaker": speaker}
        self._check_pitch(f0, (z.shape[0], z.shape[2]))
        self._embed_speaker(carry)
        return carry, _drawing(noise, lambda carry: {"audio": self._audio(carry)})

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
        """``infer`` stage by stage, the decoder in one piece; see ``stages.walk``."""
        return stepped(self._walk(phone, lengths, pitch, f0, speaker, noise, rate), self.layout, self.device)

    def _walk(self, *arguments: Any) -> Iterator[Event]:
        carry = self._entered(*arguments)
        yield from walk((*self.prior, *self.latent, *self.decoding), carry)
        carry["audio"] = np.array(carry["x"][..., 0].astype(mx.float32))
        yield Event("audio", carry, "audio", axes=("batch", "sample"))

    # ------------------------------------------------------------------ on arrays, [B, T, C]
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
        given = {"f0": f0, "speaker": speaker, "rate": rate, "draws": Draws.of(noise)}
        return self._phone(phone, lengths, pitch) | given

    def _phone(self, phone: np.ndarray, lengths: np.ndarray, pitch: np.ndarray | None) -> Carry:
        check_phone(self.config, phone, pitch)
        inside = _mask(lengths, phone.shape[1])
        carry: Carry = {"x": mx.array(phone.astype(np.float32)).astype(self.dtype), "inside": inside}
        carry["mask"] = self._mask_array(inside)
        if pitch is not None:
            carry["pitch"] = mx.array(pitch.astype(np.int32))
        return carry

    def _attended(self, x: np.ndarray, lengths: np.ndarray) -> Carry:
        return {"x": self._array(x), "mask": self._mask_array(_mask(lengths, x.shape[2]))}

    def _flowing(self, z_p: np.ndarray, mask: np.ndarray, speaker: np.ndarray) -> Carry:
        return {"x": self._array(z_p), "mask": self._mask_array(np.asarray(mask)), "speaker": speaker}

    def _check_pitch(self, f0: np.ndarray | None, shape: tuple[int, int]) -> None:
        if self.has_f0:
            if f0 is None or f0.shape != shape:
                raise ValueError(f"this voice needs f0 {list(shape)}")
            check_f0(f0)

    def _sample(self, carry: Carry) -> None:
        """The latent, and the leading frames dropped that ``rate`` says."""
        mean, rate = carry["m_p"], carry["rate"]
        batch, frames, channels = mean.shape
        latent = self._array(carry["draws"]("normal", (batch, channels, frames)))
        z_p = mean + mx.exp(carry["logs_p"]) * latent * LATENT_DEVIATION
        head = 0 if rate is None else int(frames * (1.0 - float(np.float32(rate))))
        carry |= {"x": z_p[:, head:], "inside": carry["inside"][:, :, head:]}
        carry["mask"] = self._mask_array(carry["inside"])
        carry["f0"] = None if carry["f0"] is None else carry["f0"][:, head:]
        apply_mask(carry)

    def _show_mask(self, carry: Carry) -> None:
        carry["x_mask"] = self._array(carry["inside"])

    def _embed_speaker(self, carry: Carry) -> None:
        """``[B] -> [B, 1, G]``."""
        numbers = check_speaker(self.config, carry["speaker"], len(carry["x"]))
        carry["speaker"] = self.emb_g[mx.array(numbers)][:, None]

    def _decode(self, carry: Carry, watch: Watch | None) -> np.ndarray:
        return np.concatenate([np.array(part) for part in self._audio(carry, watch)], axis=1)

    def _audio(self, carry: Carry, watch: Watch | None = None) -> list[mx.array]:
        """``[B, n]`` each, one after another; pieces of a tiled decoder are evaluated already."""
        # RefineGAN's noise is drawn for the whole length
        if isinstance(self.decoder, HiFiGAN) and "tile" in self.optimize and watch is None:
            run(self.decoder.source if self.has_f0 else (), carry)
            return self._tiles(carry, self.decoder)
        run(self.decoding, carry, watch)
        return [carry["x"][..., 0].astype(mx.float32)]

    def _tiles(self, whole: Carry, decoder: HiFiGAN) -> list[mx.array]:
        """The decoder on overlapping stretches of time: convolutions see no farther than the halo."""
        frames, parts = whole["x"].shape[1], []
        rate = self.config.upsample_rates[0]
        on_gpu = self.device == mx.Device(mx.gpu)
        coarse, fine = (GPU_TILE_FRAMES, GPU_TILE_FRAMES) if on_gpu else (TILE_FRAMES, FINE_FRAMES)
        for start, stop in spans(0, frames, coarse):
            reach = decoder.coarse_halo + decoder.fine_halo
            first, last = max(0, start - reach), min(frames, stop + reach)
            carry = whole | {"x": whole["x"][:, first:last]} | self._source_part(whole, first, last)
            run(decoder.coarse, carry)
            x = carry["x"]
            for a, b in spans(start, stop, fine):
                low, high = max(first, a - decoder.fine_halo), min(last, b + decoder.fine_halo)
                carry = {"x": x[:, (low - first) * rate : None if high == last else (high - first) * rate]}
                carry |= self._source_part(whole, low, high)
                run(decoder.fine, carry)
                audio, hop = carry["x"][..., 0].astype(mx.float32), self.hop_samples
                parts.append(mx.contiguous(audio[:, (a - low) * hop : None if b == frames else (b - low) * hop]))
                mx.eval(parts[-1])  # one tile's activations at a time
        return parts

    def _source_part(self, whole: Carry, first: int, last: int) -> Carry:
        hop = self.hop_samples
        return {"source": whole["source"][:, first * hop : last * hop]} if "source" in whole else {}

    def _converted(self, watch: Watcher | None) -> Watch | None:
        """Calls ``watch`` with arrays in PyTorch's layouts."""
        if watch is None:
            return None
        names = {"enc_p.emb_pitch": "pitch", "dec.m_source.l_sin_gen:voiced": "voiced"}

        def told(path: str, value: mx.array) -> None:
            name = names.get(path, "source" if path.startswith("dec.m_source") else "x")
            array = self.layout.public(Event(path, {name: value}, name), name)
            assert array is not None
            watch(path, array)

        return told

    def _array(self, array: np.ndarray) -> mx.array:
        """``[B, C, T]`` to MLX's ``[B, T, C]``."""
        return mx.array(np.asarray(array, np.float32)).transpose(0, 2, 1).astype(self.dtype)

    def _mask_array(self, mask: np.ndarray) -> mx.array | None:
        """``[B, 1, T] -> [B, T, 1]``; None where nothing is masked, so that nothing is multiplied."""
        return None if mask.all() else self._array(mask)


def _main_value(stages: tuple[Stage, ...]) -> Callable[[Carry], Outputs]:
    def work(carry: Carry) -> Outputs:
        run(stages, carry)
        return {"x": carry["x"].transpose(0, 2, 1)}

    return work


def _drawing(noise: int | Draw, work: Callable[[Carry], Outputs]) -> Callable[[Carry], Outputs]:
    """With the same noise from its beginning each time, drawn once."""
    draw = kept(noise)
    return lambda carry: work(carry | {"draws": Draws(draw)})


def spans(start: int, stop: int, longest: int) -> list[tuple[int, int]]:
    """``start`` to ``stop`` in nearly equal pieces of at most ``longest``."""
    count = max(1, -(-(stop - start) // longest))
    edges = [start + (stop - start) * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))


def _mask(lengths: np.ndarray, frames: int) -> np.ndarray:
    return (np.arange(frames) < np.asarray(lengths).reshape(-1, 1))[:, None].astype(np.float32)


def _numpy(x: mx.array) -> np.ndarray:
    """``[B, T, C]`` to PyTorch's ``[B, C, T]``."""
    return np.array(mx.contiguous(x.transpose(0, 2, 1).astype(mx.float32)))


def _keeps_axes(event: Event, name: str) -> bool:
    """Which entries have PyTorch's axis order already."""
    features = event.path in ("enc_p.emb_phone", "enc_p.emb_pitch") and name in ("x", "pitch")
    return features or event.carry[name].ndim != 3 or name in ("source", "voiced")


def _split_stats(carry: Carry) -> None:
    carry["m_p"], carry["logs_p"] = mx.split(carry.pop("x"), 2, axis=-1)
