"""The voice synthesizer in MLX: text encoder, flow, source and decoder.

Method: VITS (Kim et al., 2021) as used by RVC; behaviour and state-dict keys as in
IAHispano/Applio, revision b9c0ccb. Shapes: B = batch, T = 10 ms frames, N = samples, D = width of
the content features, C = channels; inside arrays are channels last, at the boundary PyTorch's.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping

import numpy as np

from rvc_common import synthesizer
from rvc_common.config import REFINEGAN, SynthesizerConfig
from rvc_common.keys import check_keys
from rvc_common.model import Outputs, Watcher
from rvc_common.stages import Carry, Event, Stage, run

from . import streams
from .files import read_file
from .flow import flow_stages
from .keys import state_shapes
from .layers import Weights
from .layouts import ChannelsLast
from .model import Model
from .refinegan import RefineGAN
from .runtime import mx
from .text_encoder import TextEncoder, apply_mask
from .vocoder import HiFiGAN

# upstream writes five digits, not two thirds
LATENT_DEVIATION = 0.66666
# frames that the decoder makes at a time with ``tile``: up to its first level, and from there on;
# small enough for a CPU's caches, large enough to keep a GPU busy
TILE_FRAMES, FINE_FRAMES = 384, 32
GPU_TILE_FRAMES = 512
# there tiles of a recording have one shape, a multiple of so many frames: few shapes to record and to keep memory for
BUCKET_FRAMES = 16


def _keeps_axes(event: Event, name: str) -> bool:
    """Which entries have PyTorch's axis order already."""
    features = event.path in ("enc_p.emb_phone", "enc_p.emb_pitch") and name in ("x", "pitch")
    return features or event.carry[name].ndim != 3 or name in ("source", "voiced")


class Synthesizer(Model, synthesizer.Synthesizer):
    __doc__ = synthesizer.Synthesizer.__doc__
    read_file = staticmethod(read_file)
    layout = ChannelsLast(_keeps_axes)

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
        self._configure(config, profile)
        check_keys("synthesizer", state_shapes(config, profile) | config.unused_shapes(state), state)
        self._place("synthesizer", dtype, device, optimize)
        with self.on_device(None):
            self._build(Weights(state, self.dtype, self.optimize))

    def _build(self, weights: Weights) -> None:
        config = self.config
        self.text_encoder = TextEncoder(config, weights)
        self.decoder: HiFiGAN | RefineGAN
        if config.vocoder == REFINEGAN:
            self.decoder = RefineGAN(config, weights)
            self.optimize -= {"polyphase"}  # it stretches linearly
        else:
            self.decoder = HiFiGAN(config, self.profile, weights)
        self.emb_g = weights.array(weights.state["emb_g.weight"])
        parts = (self.text_encoder.stages, flow_stages(config, weights), self.decoder.source, self.decoder.stages)
        self._arrange(*parts, _split_stats, apply_mask)
        if "compile_network" in self.optimize:
            encoder, *split = self.prior
            self.prior = (self.alone(encoder, ("x", "mask", "pitch")), *split)
            *before, flow, after = self.latent
            self.latent = (*before, self.alone(flow, ("x", "mask", "speaker")), after)

    def _attention_stages(self, layer: int) -> tuple[Stage, ...]:
        return self.text_encoder.attentions[layer].stages()

    def _phone(self, phone: np.ndarray, lengths: np.ndarray, pitch: np.ndarray | None) -> Carry:
        inside = _mask(lengths, phone.shape[1])
        carry: Carry = {"x": self.to_device(phone), "inside": inside, "mask": self._mask_array(inside)}
        return carry if pitch is None else carry | {"pitch": mx.array(pitch.astype(np.int32))}

    def _hidden(self, x: np.ndarray, lengths: np.ndarray) -> Carry:
        return {"x": self._frames(x), "mask": self._mask_array(_mask(lengths, x.shape[2]))}

    def _noisy(self, z_p: np.ndarray, mask: np.ndarray) -> Carry:
        return {"x": self._frames(z_p), "mask": self._mask_array(np.asarray(mask))}

    def _embedded(self, numbers: np.ndarray) -> mx.array:
        """``[B] -> [B, 1, G]``."""
        return self.emb_g[mx.array(numbers)][:, None]

    def _frames(self, array: np.ndarray) -> mx.array:
        """``[B, C, T]`` to MLX's ``[B, T, C]``."""
        return mx.array(np.asarray(array, np.float32)).transpose(0, 2, 1).astype(self.dtype)

    def _channels_second(self, x: mx.array) -> mx.array:
        return x.transpose(0, 2, 1)

    def _mono(self, x: mx.array) -> mx.array:
        return x[..., 0].astype(mx.float32)

    def _sample(self, carry: Carry) -> None:
        """The latent, without the leading frames that ``rate`` drops."""
        mean, rate = carry["m_p"], carry["rate"]
        batch, frames, channels = mean.shape
        latent = self._frames(carry["draws"]("normal", (batch, channels, frames)))
        z_p = mean + mx.exp(carry["logs_p"]) * latent * LATENT_DEVIATION
        head = 0 if rate is None else int(frames * (1.0 - float(np.float32(rate))))
        carry |= {"x": z_p[:, head:], "inside": carry["inside"][:, :, head:]}
        carry["mask"] = self._mask_array(carry["inside"])
        carry["f0"] = None if carry["f0"] is None else carry["f0"][:, head:]
        apply_mask(carry)

    def _show_mask(self, carry: Carry) -> None:
        carry["x_mask"] = self._frames(carry["inside"])

    def _audio(self, carry: Carry, watch: Watcher | None = None) -> Outputs:
        """Pieces of a tiled decoder are evaluated already."""
        # RefineGAN's noise is drawn for the whole length
        if isinstance(self.decoder, HiFiGAN) and "tile" in self.optimize and watch is None:
            run(self.source_stages, carry)
            return {"audio": self._tiles(carry, self.decoder)}
        return super()._audio(carry, watch)

    def _tiles(self, whole: Carry, decoder: HiFiGAN) -> list[mx.array]:
        """The decoder on overlapping stretches of time: convolutions reach no farther than the halo."""
        frames, parts = whole["x"].shape[1], []
        reach, two = decoder.coarse_halo + decoder.fine_halo, "two_streams" in self.optimize
        tiles, fine, width = spans(0, frames, TILE_FRAMES), FINE_FRAMES, 0
        if self.on_gpu:
            tiles = equal_tiles(frames, GPU_TILE_FRAMES)
            fine = width = tiles[0][1]
        for start, stop in tiles:
            first, last = around(start, stop, reach, 0, frames, width)
            carry = {"x": whole["x"][:, first:last], "speaker": whole["speaker"]}
            carry |= self._source_part(whole, first, last)
            self.run(decoder.coarse, carry)
            works = []
            for a, b in spans(start, stop, fine, 2 if two else 1):
                window = around(a, b, decoder.fine_halo, first, last, width)
                works.append(
                    functools.partial(self._fine_tile, decoder, whole, carry["x"], (first, last), (a, b), window)
                )
            if two:
                self.settle(whole | carry)
                parts += streams.in_turns(works)
                continue
            for work in works:
                parts.append(work())
                mx.eval(parts[-1])  # one tile's activations at a time
        return parts

    def _fine_tile(
        self,
        decoder: HiFiGAN,
        whole: Carry,
        x: mx.array,
        inside: tuple[int, int],
        tile: tuple[int, int],
        window: tuple[int, int],
    ) -> mx.array:
        """Audio of the frames ``tile`` by way of those of ``window``; ``x``: of the frames ``inside``, one level up."""
        (first, last), (low, high), (start, stop) = inside, window, tile
        rate, hop, frames = self.config.upsample_rates[0], self.hop_samples, whole["x"].shape[1]
        carry = {"x": x[:, (low - first) * rate : None if high == last else (high - first) * rate]}
        carry |= self._source_part(whole, low, high)
        self.run(decoder.fine, carry)
        audio = self._mono(carry["x"])
        return mx.contiguous(audio[:, (start - low) * hop : None if stop == frames else (stop - low) * hop])

    def _source_part(self, whole: Carry, first: int, last: int) -> Carry:
        hop = self.hop_samples
        return {"source": whole["source"][:, first * hop : last * hop]} if "source" in whole else {}

    def _mask_array(self, mask: np.ndarray) -> mx.array | None:
        """``[B, 1, T] -> [B, T, 1]``; None where nothing is masked, so that nothing is multiplied."""
        return None if mask.all() else self._frames(mask)


def spans(start: int, stop: int, longest: int, multiple: int = 1) -> list[tuple[int, int]]:
    """``start`` to ``stop`` in nearly equal pieces of at most ``longest``; their number is one of ``multiple``."""
    count = max(1, -(-(stop - start) // longest))
    count = min(stop - start, -(-count // multiple) * multiple)
    edges = [start + (stop - start) * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))


def equal_tiles(frames: int, longest: int) -> list[tuple[int, int]]:
    """0 to ``frames`` in tiles of one size, a multiple of ``BUCKET_FRAMES`` where there are several; the last may be
    shorter."""
    count = max(1, -(-frames // longest))
    size = -(-frames // (count * BUCKET_FRAMES)) * BUCKET_FRAMES if count > 1 else frames
    return [(start, min(start + size, frames)) for start in range(0, frames, size)]


def around(start: int, stop: int, halo: int, first: int, last: int, width: int) -> tuple[int, int]:
    """``start`` to ``stop`` and a halo on both sides, between ``first`` and ``last``. ``width``: of a whole tile
    without its halo: so many frames and two halos, where there are as many; 0: no more than asked."""
    low, high = max(first, start - halo), min(last, stop + halo)
    if width:
        low = max(first, min(low, last - width - 2 * halo))
        high = min(last, low + width + 2 * halo)
    return low, high


def _mask(lengths: np.ndarray, frames: int) -> np.ndarray:
    return (np.arange(frames) < np.asarray(lengths).reshape(-1, 1))[:, None].astype(np.float32)


def _split_stats(carry: Carry) -> None:
    carry["m_p"], carry["logs_p"] = mx.split(carry.pop("x"), 2, axis=-1)
