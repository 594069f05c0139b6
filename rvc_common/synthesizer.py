"""The calls of the voice synthesizer, for both implementations: checks, and the order of the network's parts.

Method: VITS (Kim et al., 2021) as used by RVC; behaviour and state-dict keys as in IAHispano/Applio, revision
b9c0ccb. Shapes: B = batch, T = 10 ms frames, N = samples, D = width of the content features, C = channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from .checkpoint import Voice, read_voice
from .checks import PROFILES, check_choice, check_f0, check_lengths, check_phone, check_speaker
from .config import HARMONICS_MRF, MRF, SynthesizerConfig
from .keys import normalise_keys
from .model import Model, Outputs, Resident, Watcher
from .noise import Draw, Draws, kept
from .stages import FRAMES, SAMPLES, Carry, Event, Stage, group, walk

Noise = int | Draw | Draws
Stages = tuple[Stage, ...]
Step = Callable[[Carry], None]


class Part(NamedTuple):
    """One part of the network: its inputs on the device, the work on them, and its noise."""

    inputs: Carry
    work: Callable[[Carry, Watcher | None], Outputs]
    noise: Any = None  # a ``Noise``; None: it draws none


class Synthesizer(Model):
    """Content features and pitch to audio in a voice. NumPy in, NumPy out."""

    title = "voice"
    config: SynthesizerConfig
    profile: str
    # the content model that it was trained with, where its file says so
    embedder: str | None = None
    # stages to the prior's mean and deviation, from there to ``z``, and on to audio
    prior: Stages
    latent: Stages
    decoding: Stages
    source_stages: Stages

    # an implementation's own
    _attention_stages: Callable[[int], tuple[Stage, ...]]
    _phone: Callable[[np.ndarray, np.ndarray, np.ndarray | None], Carry]  # text encoder's ``x``, ``mask``, ``pitch``
    _hidden: Callable[[np.ndarray, np.ndarray], Carry]  # ``[B, C, T]`` and lengths to its attention's ``x``, ``mask``
    _noisy: Callable[[np.ndarray, np.ndarray], Carry]  # ``z_p`` and its mask to the flow's ``x`` and ``mask``
    _embedded: Callable[[np.ndarray], Any]  # speaker numbers ``[B]``, int64, to their vectors
    _frames: Callable[[np.ndarray], Any]  # ``[B, C, T]`` to the network's axis order, on the device
    _channels_second: Callable[[Any], Any]  # and back
    _mono: Callable[[Any], Any]  # the decoder's last value to ``[B, N]``
    _sample: Callable[[Carry], None]  # the prior to the latent, without the leading frames that ``rate`` drops
    _show_mask: Callable[[Carry], None]

    @abstractmethod
    def __init__(self, state: Mapping[str, np.ndarray], config: SynthesizerConfig, **options: Any) -> None: ...

    def _configure(self, config: SynthesizerConfig, profile: str) -> None:
        check_choice("profile", profile, PROFILES)
        config.check_upsampling(profile)
        self.config, self.profile, self.version, self.has_f0 = config, profile, config.version, config.has_f0
        self.sample_rate, self.hop_samples = config.sample_rate, config.hop_samples
        self.phone_channels, self.vocoder = config.phone_channels, config.vocoder

    def _arrange(
        self, encoder: Stages, flow: Stages, source: Stages, decoder: Stages, split_stats: Step, apply_mask: Step
    ) -> None:
        """Puts the stages of the network's parts in order."""
        self.prior = (
            group("enc_p", encoder, axes=FRAMES),
            Stage("m_p", split_stats, product="m_p", axes=FRAMES),
            Stage("logs_p", lambda carry: None, product="logs_p", axes=FRAMES),
        )
        self.latent = (
            Stage("z_p", self._sample, axes=FRAMES),
            Stage("x_mask", self._show_mask, product="x_mask"),
            Stage("emb_g", self._embed_speaker, product="speaker", axes=FRAMES),
            group("flow", flow, axes=FRAMES),
            Stage("z", apply_mask, axes=FRAMES),
        )
        self.source_stages = source
        self.decoding = (group("dec", (*source, *decoder), axes=SAMPLES),)

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, np.ndarray],
        config: Mapping[str, Any] | Sequence[Any],
        version: str = "v2",
        f0: bool = True,
        vocoder: str = "HiFi-GAN",
        embedder: str | None = None,
        **options: Any,
    ) -> Self:
        """Build from upstream's keys and its 18 configuration values. ``options``: the constructor's.

        Raises ``CheckpointError``: missing, unexpected or misshapen keys, or an impossible configuration."""
        state = normalise_keys(state)
        model = cls(state, SynthesizerConfig.make(config, state, version, f0, vocoder), **options)
        model.embedder = embedder
        return model

    @classmethod
    def _read(cls, path: str | Path) -> Voice:
        return read_voice(path, cls.read_file)

    # ------------------------------------------------------------------ parts
    def encode(
        self, phone: np.ndarray, lengths: np.ndarray, pitch: np.ndarray | None = None, watch: Watcher | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """``phone [B, T, D]``, ``lengths [B]``, ``pitch [B, T]`` (codes 1 to 255) to mean and log deviation.

        Both are ``[B, 192, T]``, zero beyond an item's length. ``pitch`` is None for voices without.
        """
        found = self._call("encode", watch, phone, lengths, pitch)
        return found["m_p"], found["logs_p"]

    def attention(self, x: np.ndarray, lengths: np.ndarray, layer: int = 0, watch: Watcher | None = None) -> np.ndarray:
        """One layer of the text encoder's attention alone: ``[B, C, T] -> [B, C, T]``."""
        return self._call("attention", watch, x, lengths, layer)["x"]

    def flow(self, z_p: np.ndarray, mask: np.ndarray, speaker: np.ndarray, watch: Watcher | None = None) -> np.ndarray:
        """Reverse flow: ``z_p [B, 192, T]``, ``mask [B, 1, T]``, ``speaker [B]`` to ``z [B, 192, T]``."""
        return self._call("flow", watch, z_p, mask, speaker)["x"]

    def source(self, f0: np.ndarray, noise: Noise, watch: Watcher | None = None) -> np.ndarray:
        """The harmonic source: ``f0 [B, T]`` in Hz, 0 where unvoiced, to ``[B, N, 1]`` after tanh.

        Raises ``ValueError``: the voice has no pitch."""
        return self._call("source", watch, f0, noise)["source"]

    def decode(
        self, z: np.ndarray, f0: np.ndarray | None, speaker: np.ndarray, noise: Noise, watch: Watcher | None = None
    ) -> np.ndarray:
        """``z [B, 192, T]``, ``f0 [B, T]`` in Hz (None without pitch), ``speaker [B]`` to audio ``[B, N]``."""
        return self._call("decode", watch, z, f0, speaker, noise)["audio"]

    def resident(self, call: str, *arguments: Any) -> Resident:
        """``encode``, ``attention``, ``flow``, ``source`` or ``decode`` with its arguments, arrays on the device.

        F0 stays on the host, where the source's phase is summed. Noise is drawn once.
        """
        with self.on_device(None):
            part: Part = getattr(self, f"_{call}")(*arguments)
            inputs = self.settle(part.inputs)
        draw = None if part.noise is None else kept(part.noise)
        return Resident(self, lambda: part.work(self._drawing(inputs, draw), None))

    def _call(self, call: str, watch: Watcher | None, *arguments: Any) -> dict[str, np.ndarray]:
        with self.on_device(call):
            part: Part = getattr(self, f"_{call}")(*arguments)
            again = _repeated(part.noise)
            found = part.work(self._drawing(part.inputs, part.noise), watch)
            arrays = {name: self.to_host(value) for name, value in found.items()}
            for array in arrays.values() if watch is None else ():
                given = [one for one in arguments if isinstance(one, np.ndarray)]
                self.finite(array, lambda seen: part.work(self._drawing(part.inputs, again()), seen), *given)
        return arrays

    def _encode(self, phone: np.ndarray, lengths: np.ndarray, pitch: np.ndarray | None = None) -> Part:
        def work(carry: Carry, watch: Watcher | None) -> Outputs:
            _, show_mask, *_ = self.latent
            self.run(self.prior if watch is None else (*self.prior, show_mask), carry, watch)
            return {name: self._channels_second(carry[name]) for name in ("m_p", "logs_p")}

        check_phone(self.config, phone, pitch)
        return Part(self._phone(phone, lengths, pitch), work)

    def _attention(self, x: np.ndarray, lengths: np.ndarray, layer: int = 0) -> Part:
        return Part(self._hidden(x, lengths), self._main_value(self._attention_stages(layer)))

    def _flow(self, z_p: np.ndarray, mask: np.ndarray, speaker: np.ndarray) -> Part:
        _, _, embed, flow, _ = self.latent
        return Part(self._noisy(z_p, mask) | {"speaker": speaker}, self._main_value((embed, flow)))

    def _source(self, f0: np.ndarray, noise: Noise) -> Part:
        def work(carry: Carry, watch: Watcher | None) -> Outputs:
            self.run(self.source_stages, carry, watch, "dec.")
            return {"source": carry["source"]}

        if not self.has_f0:
            raise ValueError("this voice has no pitch, hence no source")
        return Part({"f0": check_f0(f0)}, work, noise)

    def _decode(self, z: np.ndarray, f0: np.ndarray | None, speaker: np.ndarray, noise: Noise) -> Part:
        self._check_pitch(f0, (z.shape[0], z.shape[2]))
        carry: Carry = {"x": self._frames(z), "f0": f0}
        carry["speaker"] = self._embedded(check_speaker(self.config, speaker, len(z)))
        return Part(carry, self._audio, noise)

    def _main_value(self, stages: tuple[Stage, ...]) -> Callable[[Carry, Watcher | None], Outputs]:
        def work(carry: Carry, watch: Watcher | None) -> Outputs:
            self.run(stages, carry, watch)
            return {"x": self._channels_second(carry["x"])}

        return work

    # ------------------------------------------------------------------ the whole
    def infer(
        self,
        phone: np.ndarray,
        lengths: np.ndarray,
        pitch: np.ndarray | None,
        f0: np.ndarray | None,
        speaker: np.ndarray,
        noise: Noise,
        rate: float | None = None,
        watch: Watcher | None = None,
    ) -> np.ndarray:
        """Encode, sample, flow and decode: audio ``[B, N]``, N = T * hop_samples.

        ``rate`` drops the leading ``int(T * (1 - rate))`` frames after the encoder has seen them.
        ``watch(path, array)`` is called after every stage, arrays in PyTorch's layouts.
        """
        with self.on_device("infer"):
            again = _repeated(noise)
            carry = self._entered(phone, lengths, pitch, f0, speaker, noise, rate)
            self.run((*self.prior, *self.latent), carry, watch)
            audio = self.to_host(self._audio(carry, watch)["audio"])
        if watch is None:
            rest = (phone, lengths, pitch, f0, speaker)
            self.finite(audio, lambda seen: self.infer(*rest, again(), rate, seen), phone)
        return audio

    def walk(self, *arguments: Any, **named: Any) -> Iterator[Event]:
        """``infer`` stage by stage, the decoder in one piece; see ``stages.walk``. Arguments: those of ``infer``."""
        return self.stepped(self._walk(*arguments, **named))

    def _walk(self, *arguments: Any, **named: Any) -> Iterator[Event]:
        carry = self._entered(*arguments, **named)
        yield from walk((*self.prior, *self.latent, *self.decoding), carry)
        carry["audio"] = self.to_host(self._mono(carry["x"]))
        yield Event("audio", carry, "audio", axes=("batch", "sample"))

    def _entered(
        self,
        phone: np.ndarray,
        lengths: np.ndarray,
        pitch: np.ndarray | None,
        f0: np.ndarray | None,
        speaker: np.ndarray,
        noise: Noise,
        rate: float | None = None,
    ) -> Carry:
        """The carry that ``infer`` begins with."""
        batch, frames = phone.shape[:2]
        check_lengths(lengths, frames, rate)
        self._check_pitch(f0, (batch, frames))
        check_speaker(self.config, speaker, batch)
        check_phone(self.config, phone, pitch)
        carry = self._phone(phone, lengths, pitch) | {"f0": f0, "speaker": speaker, "rate": rate}
        return self._drawing(carry, noise)

    def _check_pitch(self, f0: np.ndarray | None, shape: tuple[int, int]) -> None:
        if self.has_f0:
            if f0 is None or f0.shape != shape:
                raise ValueError(f"this voice needs f0 {list(shape)}")
            check_f0(f0)

    def noise_sizes(self, frames: int) -> list[tuple[str, int]]:
        """Kind and number of values of the arrays that a call of so many frames draws first."""
        latent = [("normal", self.config.inter_channels * frames)]
        if not self.has_f0:
            return latent
        components = HARMONICS_MRF if self.vocoder == MRF else 1
        return [*latent, ("uniform", components), ("normal", components * frames * self.hop_samples)]

    def _embed_speaker(self, carry: Carry) -> None:
        carry["speaker"] = self._embedded(check_speaker(self.config, carry["speaker"], len(carry["x"])))

    def _drawing(self, carry: Carry, noise: Noise | None) -> Carry:
        """A copy of the carry from which stages draw their noise."""
        if noise is None:
            return dict(carry)
        return carry | {"draws": noise if isinstance(noise, Draws) else Draws(noise)}

    def _audio(self, carry: Carry, watch: Watcher | None = None) -> Outputs:
        """The decoder: ``audio [B, N]``, or its pieces along N."""
        self.run(self.decoding, carry, watch)
        return {"audio": self._mono(carry["x"])}


def _repeated(noise: Noise | None) -> Callable[[], Any]:
    """Makes the noise that a call begins with now, for another call like it."""
    if not isinstance(noise, Draws):
        return lambda: noise
    return partial(Draws, noise.draw, noise.index)
