"""Faults in the synthesizer: text encoder, flow, source, vocoders."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..inputs.weights import ODD_RATES
from .base import Fault, Patches, after, around, constant, instead
from .weights import State, backwards, of_weights, randomised, weight

ENCODER, COUPLING = r"enc_p\.encoder\.", r"flow\.flows\.6\."
FLOW_STAGES = ("flow.flow_stages", "synthesizer.flow_stages")
ATTENTION = ENCODER + r"attn_layers\.0"


@around("layers.Weights.conv_transpose")
def _odd_zero_padded(p: Patches, original: Any, self: Any, name: str, *, output_padding: int, **more: int) -> Any:
    """A transposed convolution whose output padding is zeros."""
    layer = original(self, name, output_padding=0, **more)
    return lambda x: p.mx.pad(layer(x), [(0, 0), (0, output_padding), (0, 0)])


def _transposed_table(name: str) -> Any:
    @of_weights("synthesizer")
    def change(state: State) -> None:
        for key in [key for key in state if key.endswith(name)]:
            value = state[key]
            state[key] = value.transpose(0, 2, 1).reshape(value.shape).copy()

    return change


@of_weights("synthesizer")
def _identity_norms(state: State) -> None:
    for key in state:
        if key.endswith((".gamma", ".beta")):
            state[key][:] = float(key.endswith(".gamma"))


def _coupled_first(stages: Any) -> list[Any]:
    return [stage for i in range(0, len(stages), 2) for stage in (stages[i + 1], stages[i])]


@around(*FLOW_STAGES)
def _flip_after(p: Patches, original: Any, *arguments: Any) -> Any:
    """Under the names of the right order, as a port would have them."""
    found = original(*arguments)
    return tuple(b._replace(name=a.name) for a, b in zip(found, _coupled_first(found), strict=True))


@around(*FLOW_STAGES)
def _no_flips(p: Patches, original: Any, *arguments: Any) -> Any:
    leaf = p.module("stages").leaf
    return tuple(s if s.parts else leaf(s.name, lambda x: x) for s in original(*arguments))


@around("flow._coupling")
def _added_shift(p: Patches, original: Any, *arguments: Any) -> Any:
    *parts, last = original(*arguments)

    def apply(carry: dict[str, Any]) -> None:
        half = carry["z"].shape[-1] // 2
        kept = carry["z"][..., half:]
        last.apply(carry)
        # from z - m to z + m, where z is what the reference's stage had before
        x = carry["x"]
        carry["x"] = p.mx.concatenate([x[..., :half], 2 * kept - x[..., half:]], axis=-1)

    return (*parts, last._replace(apply=apply))


@instead("text_encoder.offsets_to_keys")
def _clipped_offsets(p: Patches, by_offset: Any) -> Any:
    mx = p.mx
    batch, heads, frames, _ = by_offset.shape
    offset = mx.clip(mx.arange(frames)[None] - mx.arange(frames)[:, None], -10, 10) + 10
    return mx.take_along_axis(by_offset, mx.broadcast_to(offset, (batch, heads, frames, frames)), axis=3)


@instead("text_encoder.RelativeAttention._scores")
def _keys_masked_only(p: Patches, self: Any, carry: dict[str, Any]) -> None:
    mx = p.mx
    found = carry.pop("q") @ self._split(carry.pop("k")).transpose(0, 1, 3, 2) + carry.pop("relative_scores")
    mask = carry["mask"]
    if mask is not None:
        found = mx.where(mask.transpose(0, 2, 1)[:, None] == 0, mx.array(-1e4), found)
    carry["scores"] = found


@around("text_encoder.RelativeAttention.__init__")
def _unscaled(p: Patches, original: Any, self: Any, name: str, heads: int, weights: Any) -> None:
    original(self, name, heads, weights)
    self.scale = 1.0


@around("text_encoder._feed_forward")
def _unmasked_feed_forward(p: Patches, original: Any, *arguments: Any) -> Any:
    def without(stage: Any) -> Any:
        def apply(carry: dict[str, Any]) -> None:
            mask, carry["mask"] = carry["mask"], None
            stage.apply(carry)
            carry["mask"] = mask

        return stage._replace(apply=apply)

    return tuple(map(without, original(*arguments)))


@instead("synthesizer._split_stats")
def _swapped_stats(p: Patches, carry: dict[str, Any]) -> None:
    carry["logs_p"], carry["m_p"] = p.mx.split(carry.pop("x"), 2, axis=-1)


@around("synthesizer.Synthesizer._sample")
def _half_deviation(p: Patches, original: Any, self: Any, carry: dict[str, Any]) -> None:
    """exp(log deviation / 2): as of a variance."""
    carry["logs_p"] = carry["logs_p"] * 0.5
    original(self, carry)


@around("synthesizer.Synthesizer._embed_speaker")
def _first_speaker(p: Patches, original: Any, self: Any, carry: dict[str, Any]) -> None:
    carry["speaker"] = np.zeros_like(carry["speaker"])
    original(self, carry)


@instead("source.sine")
def _float32_phase(p: Patches, f0: Any, sample_rate: int, hop: int, start: Any) -> Any:
    mx = p.mx
    step = np.repeat((f0 / sample_rate).astype(np.float32)[..., None], hop, axis=1)
    step = step * np.arange(1, start.shape[-1] + 1, dtype=np.float32)
    phase = np.cumsum(step, axis=1, dtype=np.float32) + start[:, None].astype(np.float32)
    return mx.sin(2 * np.pi * mx.array((phase % 1).astype(np.float32)))


@around("source.sine")
def _late_phase(p: Patches, original: Any, f0: Any, sample_rate: int, hop: int, start: Any) -> Any:
    """The first sample has no increment yet."""
    y = original(f0, sample_rate, hop, start)
    first = p.mx.sin(2 * np.pi * p.mx.array(start, dtype=p.mx.float32))[:, None] + 0 * y[:, :1]
    return p.mx.concatenate([first, y[:, :-1]], axis=1)


@around("layers.Weights.conv")
def _no_dilation(p: Patches, original: Any, self: Any, name: str, **options: Any) -> Any:
    if ".convs1." in name:
        options |= {"dilation": 1, "padding": (self.raw(f"{name}.weight").shape[2] - 1) // 2}
    return original(self, name, **options)


@around("vocoder.branches")
def _sum_of_branches(p: Patches, original: Any, names: Any, blocks: Any, weights: Any) -> Any:
    *parts, last = original(names, blocks, weights)
    return (*parts, after(last, lambda carry: carry.update(x=carry["x"] * float(len(blocks)))))


def level(change: Any) -> Any:
    """After the vocoder's tanh."""

    @around("vocoder.HiFiGAN.__init__")
    def inject(p: Patches, original: Any, self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        changed = after(self.fine[-1], lambda carry: carry.update(x=change(p.mx, carry["x"])))
        self.fine, self.stages = (*self.fine[:-1], changed), (*self.stages[:-1], changed)

    return inject


@around("vocoder.HiFiGAN._noise")
def _noise_not_added(p: Patches, original: Any, self: Any, i: int, weights: Any) -> Any:
    inject, add = original(self, i, weights)
    without = p.module("stages").Stage(add.name, lambda carry: carry.pop("injected") is None)
    return inject, without if i == 2 else add


@around("vocoder.HiFiGAN._noise")
def _noise_late(p: Patches, original: Any, self: Any, i: int, weights: Any) -> Any:
    inject, add = original(self, i, weights)

    def change(carry: dict[str, Any]) -> None:
        y = carry["injected"]
        carry["injected"] = p.mx.concatenate([y[:, :1] * 0, y[:, :-1]], axis=1)

    return after(inject, change), add


@around("vocoder.HiFiGAN.__init__")
def _short_halo(p: Patches, original: Any, self: Any, *arguments: Any) -> None:
    """Tiles of the decoder with too little around them; only the call itself has tiles."""
    original(self, *arguments)
    self.fine_halo = self.fine_halo // 4


@instead("refinegan.stretch")
def _aligned_corners(p: Patches, x: Any, rate: int) -> Any:
    mx = p.mx
    frames = x.shape[1]
    at = np.linspace(0, frames - 1, frames * rate)
    left = np.floor(at).astype(np.int32)
    weight = mx.array((at - left).astype(np.float32))[:, None]
    return x[:, mx.array(left)] * (1 - weight) + x[:, mx.array(np.minimum(left + 1, frames - 1))] * weight


@around("source.sine")
def _no_last_harmonic(p: Patches, original: Any, f0: Any, sample_rate: int, hop: int, start: Any) -> Any:
    y = original(f0, sample_rate, hop, start)
    return p.mx.concatenate([y[..., :-1], y[..., -1:] * 0], axis=-1)


_flip_after_named = around(*FLOW_STAGES)(lambda p, original, *given: tuple(_coupled_first(original(*given))))
_no_condition = around("vocoder.condition")(
    lambda p, original, layer: (
        original(layer)[0],
        p.module("stages").Stage("cond:sum", lambda carry: carry.pop("offset") is None),
    )
)
_direction_without_norm = around("layers.Weights.raw")(
    lambda p, original, self, name: (
        np.asarray(self.state[f"{name}_v"], np.float64) if f"{name}_g" in self.state else original(self, name)
    )
)
_always_voiced = instead("source.HarmonicSource._voiced")(
    lambda p, self, carry: carry.update(voiced=p.mx.ones((len(carry["f0"]), carry["f0"].shape[1] * self.hop, 1)))
)
_plain_decimation = instead("refinegan.decimate")(lambda p, x, kernel, rate: x[:, ::rate])
_no_relative_values = instead("text_encoder.keys_to_offsets")(lambda p, x: p.mx.zeros((*x.shape[:3], 21)))
_swapped_gate = instead("flow._gate")(lambda p, a, b, offset, other: p.mx.sigmoid(a + offset) * p.mx.tanh(b + other))
_fault = partial(Fault, "synthesizer")


FAULTS = (
    _fault("odd-rate-padding", "odd upsampling rate: transposed convolution zero-padded at the end", _odd_zero_padded,
           r"dec\.ups\.0", voice=ODD_RATES, known=True),
    _fault("odd-rate-padding-plain", "the same on the plain path", _odd_zero_padded, r"dec\.ups\.0", voice=ODD_RATES,
           optimize="none", known=True),
    _fault("no-latent-noise", "latent noise multiplied by 0", constant("synthesizer.LATENT_DEVIATION", 0.0), "z_p", known=True),
    _fault("flows-random", "list entries registered twice: half the flows random",
           randomised("synthesizer", "flow.flows.0.", "flow.flows.2."), r"flow\.flows\.2\.pre", known=True),
    _fault("flow-index", "flow index not halved: flows 1 and 3 random",
           randomised("synthesizer", "flow.flows.2.", "flow.flows.6."), r"flow\.flows\.6\.pre", known=True),
    _fault("flip-after", "flip after instead of before the coupling layer", _flip_after, r"flow\.flows\.7(\.pre)?", known=True),
    _fault("flip-after-named", "the same, visible in the order of the stages", _flip_after_named, r"flow\.flows\.7", known=True),
    _fault("relative-keys-layout", "emb_rel_k transposed as if it were a kernel", _transposed_table("emb_rel_k"),
           ATTENTION + ":relative_scores", known=True),
    _fault("relative-values-layout", "emb_rel_v transposed as if it were a kernel", _transposed_table("emb_rel_v"),
           ATTENTION + ":relative_output", known=True),
    _fault("identity-norms", "gamma and beta not mapped", _identity_norms, ENCODER + r"norm_layers_1\.0", known=True),
    _fault("last-slope", "final leaky ReLU slope 0.1", constant("vocoder.LAST_SLOPE", 0.1), "dec:last_relu", known=True),
    _fault("embedding-slope", "leaky ReLU slope 0.2 after the embeddings", constant("text_encoder.SLOPE", 0.2), "enc_p:embedded"),
    _fault("relative-clipped", "far offsets take the table's end rows", _clipped_offsets, ATTENTION + ":relative_scores"),
    _fault("relative-values", "relative values left out", _no_relative_values, ATTENTION + ":relative_output"),
    _fault("masked-score", "masked logits 0", constant("text_encoder.MASKED_SCORE", 0.0), ATTENTION + ":scores"),
    _fault("mask-keys-only", "only keys are masked", _keys_masked_only, ATTENTION + ":scores"),
    _fault("attention-unscaled", "queries not scaled", _unscaled, ATTENTION + ":relative_scores"),
    _fault("feed-forward-mask", "feed-forward without masks", _unmasked_feed_forward, ENCODER + r"ffn_layers\.0.*"),
    _fault("norm-eps", "norms with eps 1e-3", constant("text_encoder.NORM_EPS", 1e-3), ENCODER + r"norm_layers_1\.0"),
    _fault("stats-swapped", "mean and log deviation exchanged", _swapped_stats, "m_p"),
    _fault("two-thirds", "2/3 for upstream's 0.66666", constant("synthesizer.LATENT_DEVIATION", 2 / 3), "z_p"),
    _fault("half-deviation", "exp of half the log deviation", _half_deviation, "z_p"),
    _fault("no-flips", "channel flips left out", _no_flips, r"flow\.flows\.7"),
    _fault("shift-added", "coupling adds instead of subtracting", _added_shift, COUPLING[:-2] + ":coupled"),
    _fault("gate-swapped", "tanh and sigmoid exchanged", _swapped_gate, COUPLING + r"enc\.in_layers\.0:gated"),
    _fault("speaker-ignored", "always the first speaker", _first_speaker, "emb_g"),
    _fault("weight-norm-ignored", "weight norm's length ignored", _direction_without_norm, COUPLING + r"enc\.cond_layer"),
    _fault("kernel-backwards", "one upsampling kernel reversed",
           weight("synthesizer", "dec.ups.1.weight_v", backwards), r"dec\.ups\.1"),
    _fault("sine-amplitude", "sine amplitude 0.1001", constant("source.SINE_AMPLITUDE", 0.1001), r"dec\.m_source\.l_sin_gen"),
    _fault("source-noise", "source noise of deviation 0.00303",
           constant("source.NOISE_DEVIATION", 0.00303), r"dec\.m_source\.l_sin_gen"),
    _fault("phase-float32", "phase summed in float32", _float32_phase, r"dec\.m_source\.l_sin_gen"),
    _fault("phase-late", "sines one sample late", _late_phase, r"dec\.m_source\.l_sin_gen"),
    _fault("always-voiced", "source always voiced", _always_voiced, r"dec\.m_source\.l_sin_gen:voiced"),
    _fault("no-dilation", "dilations ignored", _no_dilation, r"dec\.resblocks\.0\.convs1\.1"),
    _fault("branches-summed", "branches summed instead of averaged", _sum_of_branches, r"dec\.resblocks\.2:mean"),
    _fault("slope", "leaky ReLU slope 0.2 in the vocoder", constant("vocoder.SLOPE", 0.2), r"dec\.ups\.0"),
    _fault("level", "audio 0.5 dB louder", level(lambda mx, x: x * 10 ** (0.5 / 20)), r"dec\.tanh"),
    _fault("delay", "audio one frame late",
           level(lambda mx, x: mx.concatenate([mx.zeros((x.shape[0], 400, 1)), x[:, :-400]], axis=1)), r"dec\.tanh"),
    _fault("speaker-condition", "vocoder without the speaker's offset", _no_condition, "dec.cond:sum"),
    _fault("noise-not-added", "one level's source convolution not added", _noise_not_added, r"dec\.noise_convs\.2:sum"),
    _fault("noise-late", "source convolutions one output late", _noise_late, r"dec\.noise_convs\.0"),
    _fault("tile-halo", "tiles of the decoder with too little around them", _short_halo, r"\(whole call\)"),
    _fault("mrf-harmonic", "MRF's last harmonic missing",
           _no_last_harmonic, r"dec\.m_source\.l_sin_gen", voice="synth_v2_32k_f0_mrf"),
    _fault("refinegan-corners", "RefineGAN stretches with aligned corners", _aligned_corners, r"dec\.upsample_blocks\.0",
           voice="synth_v2_24k_f0_refinegan"),
    _fault("refinegan-decimation", "RefineGAN drops samples without a filter",
           _plain_decimation, r"dec\.downsample_blocks\.0:input", voice="synth_v2_24k_f0_refinegan"),
    _fault("no-f0-slope", "final slope in a voice without pitch", constant("vocoder.LAST_SLOPE", 0.1), "dec:last_relu",
           voice="synth_v2_48k_nof0"),
    _fault("v1-kernel", "one kernel of a v1 voice scaled by 1.001",
           weight("synthesizer", "enc_p.emb_phone.weight", lambda w: w * np.float32(1.001)),
           r"enc_p\.emb_phone", voice="synth_v1_40k_f0"),
)  # fmt: skip
