"""Faults in the synthesizer: text encoder, flow, source, vocoders."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..inputs.weights import ODD_RATES
from .base import Fault, Patches, State, randomised

ENCODER, COUPLING = r"enc_p\.encoder\.", r"flow\.flows\.6\."
ATTENTION = ENCODER + r"attn_layers\.0"


def of_state(change: Any) -> Any:
    return lambda p: p.weights("synthesizer", change)


def constant(where: str, value: Any) -> Any:
    return lambda p: p.constant(where, value)


def replaced(where: str, value: Any) -> Any:
    """A function of a module, made from MLX."""

    def inject(p: Patches) -> None:
        module, _, name = where.rpartition(".")
        p.set(p.module(module), name, value(p.mx))

    return inject


def _odd_zero_padded(p: Patches) -> None:
    """A transposed convolution whose output padding is zeros."""

    def around(original: Any, self: Any, name: str, *, stride: int, padding: int, output_padding: int) -> Any:
        layer = original(self, name, stride=stride, padding=padding, output_padding=0)
        return lambda x: p.mx.pad(layer(x), [(0, 0), (0, output_padding), (0, 0)])

    p.wrap(p.module("layers").Weights, "conv_transpose", around)


def _transposed_table(name: str) -> Any:
    def change(state: State) -> None:
        for key in [key for key in state if key.endswith(name)]:
            value = state[key]
            state[key] = value.transpose(0, 2, 1).reshape(value.shape).copy()

    return of_state(change)


def _identity_norms(state: State) -> None:
    for key in state:
        if key.endswith((".gamma", ".beta")):
            state[key][:] = float(key.endswith(".gamma"))


def _flip_after(p: Patches) -> None:
    """Coupling before flip in the reverse direction."""

    def around(original: Any, *arguments: Any) -> Any:
        found = original(*arguments)
        names = [stage.name for stage in found]
        swapped = [stage for i in range(0, len(found), 2) for stage in (found[i + 1], found[i])]
        # under the names of the right order, as a port would have them
        return tuple(stage._replace(name=name) for stage, name in zip(swapped, names, strict=True))

    p.wrap(p.module("flow"), "flow_stages", around)
    p.set(p.module("synthesizer"), "flow_stages", p.module("flow").flow_stages)


def _flip_after_named(p: Patches) -> None:
    """The same, each under its own name: the order of stages differs."""

    def around(original: Any, *arguments: Any) -> Any:
        found = original(*arguments)
        return tuple(stage for i in range(0, len(found), 2) for stage in (found[i + 1], found[i]))

    p.wrap(p.module("flow"), "flow_stages", around)
    p.set(p.module("synthesizer"), "flow_stages", p.module("flow").flow_stages)


def _no_flips(p: Patches) -> None:
    stages = p.module("stages")

    def around(original: Any, *arguments: Any) -> Any:
        return tuple(stages.leaf(s.name, lambda x: x) if not s.parts else s for s in original(*arguments))

    p.wrap(p.module("flow"), "flow_stages", around)
    p.set(p.module("synthesizer"), "flow_stages", p.module("flow").flow_stages)


def _added_shift(p: Patches) -> None:
    """Forward instead of reverse: the shift is added."""

    def change(carry: dict[str, Any]) -> None:
        x = carry["x"]
        half = x.shape[-1] // 2
        # from z - m to z + m, where z is what the reference's stage had before
        carry["x"] = p.mx.concatenate([x[..., :half], 2 * carry["kept"] - x[..., half:]], axis=-1)

    def around(original: Any, *arguments: Any) -> Any:
        parts = original(*arguments)
        last = parts[-1]

        def apply(carry: dict[str, Any]) -> None:
            half = carry["z"].shape[-1] // 2
            carry["kept"] = carry["z"][..., half:]
            last.apply(carry)
            change(carry)
            del carry["kept"]

        return (*parts[:-1], last._replace(apply=apply))

    p.wrap(p.module("flow"), "_coupling", around)


def _first_flows_random(state: State) -> None:
    for i in (2, 6):
        randomised(state, f"flow.flows.{i}.")


def _half_the_flows(state: State) -> None:
    for i in (0, 2):
        randomised(state, f"flow.flows.{i}.")


def _swapped_gate(mx: Any) -> Any:
    return lambda first, second, offset, other: mx.sigmoid(first + offset) * mx.tanh(second + other)


def _clipped_offsets(p: Patches) -> None:
    """Offsets beyond the window take the end rows of the table."""
    mx = p.mx

    def spread(by_offset: Any) -> Any:
        batch, heads, frames, _ = by_offset.shape
        offset = mx.clip(mx.arange(frames)[None] - mx.arange(frames)[:, None], -10, 10) + 10
        return mx.take_along_axis(by_offset, mx.broadcast_to(offset, (batch, heads, frames, frames)), axis=3)

    p.set(p.module("text_encoder"), "offsets_to_keys", spread)


def _no_relative_values(mx: Any) -> Any:
    return lambda weights: mx.zeros((*weights.shape[:3], 21))


def _keys_masked_only(p: Patches) -> None:
    mx = p.mx

    def scores(self: Any, carry: dict[str, Any]) -> None:
        found = carry.pop("q") @ self._split(carry.pop("k")).transpose(0, 1, 3, 2) + carry.pop("relative_scores")
        mask = carry["mask"]
        if mask is not None:
            found = mx.where(mask.transpose(0, 2, 1)[:, None] == 0, mx.array(-1e4), found)
        carry["scores"] = found

    p.set(p.module("text_encoder").RelativeAttention, "_scores", scores)


def _unscaled(p: Patches) -> None:
    def around(original: Any, self: Any, name: str, heads: int, weights: Any) -> None:
        original(self, name, heads, weights)
        self.scale = 1.0

    p.wrap(p.module("text_encoder").RelativeAttention, "__init__", around)


def _unmasked_feed_forward(p: Patches) -> None:
    def around(original: Any, *arguments: Any) -> Any:
        parts = original(*arguments)

        def without(stage: Any) -> Any:
            def apply(carry: dict[str, Any]) -> None:
                mask, carry["mask"] = carry["mask"], None
                stage.apply(carry)
                carry["mask"] = mask

            return stage._replace(apply=apply)

        return tuple(without(stage) for stage in parts)

    p.wrap(p.module("text_encoder"), "_feed_forward", around)


def _swapped_stats(mx: Any) -> Any:
    def split(carry: dict[str, Any]) -> None:
        carry["logs_p"], carry["m_p"] = mx.split(carry.pop("x"), 2, axis=-1)

    return split


def _half_deviation(p: Patches) -> None:
    """exp(log deviation / 2): as of a variance."""

    def around(original: Any, self: Any, carry: dict[str, Any]) -> None:
        carry["logs_p"] = carry["logs_p"] * 0.5
        original(self, carry)

    p.wrap(p.module("synthesizer").Synthesizer, "_sample", around)


def _first_speaker(p: Patches) -> None:
    def around(original: Any, self: Any, carry: dict[str, Any]) -> None:
        carry["speaker"] = np.zeros_like(carry["speaker"])
        original(self, carry)

    p.wrap(p.module("synthesizer").Synthesizer, "_embed_speaker", around)


def _direction_without_norm(p: Patches) -> None:
    """Weight norm ignored: the direction is taken for the weight."""

    def around(original: Any, self: Any, name: str) -> Any:
        return np.asarray(self.state[f"{name}_v"], np.float64) if f"{name}_g" in self.state else original(self, name)

    p.wrap(p.module("layers").Weights, "raw", around)


def _kernel_backwards(state: State) -> None:
    state["dec.ups.1.weight_v"] = state["dec.ups.1.weight_v"][:, :, ::-1].copy()


def _float32_phase(p: Patches) -> None:
    """The phase summed over the clip in float32."""
    mx = p.mx

    def sine(f0: Any, sample_rate: int, hop: int, start: Any) -> Any:
        step = np.repeat((f0 / sample_rate).astype(np.float32)[..., None], hop, axis=1)
        step = step * np.arange(1, start.shape[-1] + 1, dtype=np.float32)
        phase = np.cumsum(step, axis=1, dtype=np.float32) + start[:, None].astype(np.float32)
        return mx.sin(2 * np.pi * mx.array((phase % 1).astype(np.float32)))

    p.set(p.module("source"), "sine", sine)


def _late_phase(p: Patches) -> None:
    """The first sample has no increment yet: all sines are one sample late."""

    def around(original: Any, f0: Any, sample_rate: int, hop: int, start: Any) -> Any:
        y = original(f0, sample_rate, hop, start)
        return p.mx.concatenate(
            [p.mx.sin(2 * np.pi * p.mx.array(start, dtype=p.mx.float32))[:, None] + 0 * y[:, :1], y[:, :-1]], axis=1
        )

    p.wrap(p.module("source"), "sine", around)


def _always_voiced(p: Patches) -> None:
    def voiced(self: Any, carry: dict[str, Any]) -> None:
        carry["voiced"] = p.mx.ones((*carry["f0"].shape[:1], carry["f0"].shape[1] * self.hop, 1))

    p.set(p.module("source").HarmonicSource, "_voiced", voiced)


def _no_dilation(p: Patches) -> None:
    def around(original: Any, self: Any, name: str, **options: Any) -> Any:
        if ".convs1." in name:
            options |= {"dilation": 1, "padding": (self.raw(f"{name}.weight").shape[2] - 1) // 2}
        return original(self, name, **options)

    p.wrap(p.module("layers").Weights, "conv", around)


def _sum_of_branches(p: Patches) -> None:
    def around(original: Any, names: Any, blocks: Any, weights: Any) -> Any:
        stages = original(names, blocks, weights)
        last = stages[-1]

        def apply(carry: dict[str, Any]) -> None:
            last.apply(carry)
            carry["x"] = carry["x"] * float(len(blocks))

        return (*stages[:-1], last._replace(apply=apply))

    p.wrap(p.module("vocoder"), "branches", around)


def level(change: Any) -> Any:
    """After the vocoder's tanh."""

    def inject(p: Patches) -> None:
        def around(original: Any, self: Any, *arguments: Any) -> None:
            original(self, *arguments)
            last = self.fine[-1]

            def apply(carry: dict[str, Any]) -> None:
                last.apply(carry)
                carry["x"] = change(p.mx, carry["x"])

            changed = last._replace(apply=apply)
            self.fine, self.stages = (*self.fine[:-1], changed), (*self.stages[:-1], changed)

        p.wrap(p.module("vocoder").HiFiGAN, "__init__", around)

    return inject


def _late(mx: Any, x: Any) -> Any:
    return mx.concatenate([mx.zeros((x.shape[0], 400, 1)), x[:, :-400]], axis=1)


def _no_condition(p: Patches) -> None:
    stages = p.module("stages")
    p.wrap(
        p.module("vocoder"),
        "condition",
        lambda original, layer: (
            original(layer)[0],
            stages.Stage("cond:sum", lambda carry: carry.pop("offset") is None),
        ),
    )


def _noise_not_added(p: Patches) -> None:
    stages = p.module("stages")

    def around(original: Any, self: Any, i: int, weights: Any) -> Any:
        inject, add = original(self, i, weights)
        return (
            (inject, stages.Stage(add.name, lambda carry: carry.pop("injected") is None)) if i == 2 else (inject, add)
        )

    p.wrap(p.module("vocoder").HiFiGAN, "_noise", around)


def _noise_late(p: Patches) -> None:
    """The source's convolution one output late."""

    def around(original: Any, self: Any, i: int, weights: Any) -> Any:
        inject, add = original(self, i, weights)

        def apply(carry: dict[str, Any]) -> None:
            inject.apply(carry)
            y = carry["injected"]
            carry["injected"] = p.mx.concatenate([y[:, :1] * 0, y[:, :-1]], axis=1)

        return inject._replace(apply=apply), add

    p.wrap(p.module("vocoder").HiFiGAN, "_noise", around)


def _short_halo(p: Patches) -> None:
    """Tiles of the decoder with too little around them; only the call itself has tiles."""

    def around(original: Any, self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        self.fine_halo = self.fine_halo // 4

    p.wrap(p.module("vocoder").HiFiGAN, "__init__", around)


def _aligned_corners(p: Patches) -> None:
    mx = p.mx

    def stretch(x: Any, rate: int) -> Any:
        frames = x.shape[1]
        at = np.linspace(0, frames - 1, frames * rate)
        left = np.floor(at).astype(np.int32)
        weight = mx.array((at - left).astype(np.float32))[:, None]
        return x[:, mx.array(left)] * (1 - weight) + x[:, mx.array(np.minimum(left + 1, frames - 1))] * weight

    p.set(p.module("refinegan"), "stretch", stretch)


def _plain_decimation(p: Patches) -> None:
    p.set(p.module("refinegan"), "decimate", lambda x, kernel, rate: x[:, ::rate])


def _no_last_harmonic(p: Patches) -> None:
    def around(original: Any, f0: Any, sample_rate: int, hop: int, start: Any) -> Any:
        y = original(f0, sample_rate, hop, start)
        return p.mx.concatenate([y[..., :-1], y[..., -1:] * 0], axis=-1)

    p.wrap(p.module("source"), "sine", around)


def _fault(name: str, summary: str, inject: Any, expect: str, **more: Any) -> Fault:
    return Fault(name, "synthesizer", summary, inject, expect, **more)


FAULTS = (
    _fault("odd-rate-padding", "odd upsampling rate: transposed convolution zero-padded at the end", _odd_zero_padded,
           r"dec\.ups\.0", voice=ODD_RATES, known=True),
    _fault("odd-rate-padding-plain", "the same on the plain path", _odd_zero_padded, r"dec\.ups\.0", voice=ODD_RATES,
           optimize="none", known=True),
    _fault("no-latent-noise", "latent noise multiplied by 0", constant("synthesizer.LATENT_DEVIATION", 0.0), "z_p", known=True),
    _fault("flows-random", "list entries registered twice: half the flows random",
           of_state(_half_the_flows), r"flow\.flows\.2\.pre", known=True),
    _fault("flow-index", "flow index not halved: flows 1 and 3 random", of_state(_first_flows_random), r"flow\.flows\.6\.pre",
           known=True),
    _fault("flip-after", "flip after instead of before the coupling layer", _flip_after, r"flow\.flows\.7(\.pre)?", known=True),
    _fault("flip-after-named", "the same, visible in the order of the stages", _flip_after_named, r"flow\.flows\.7", known=True),
    _fault("relative-keys-layout", "emb_rel_k transposed as if it were a kernel", _transposed_table("emb_rel_k"),
           ATTENTION + ":relative_scores", known=True),
    _fault("relative-values-layout", "emb_rel_v transposed as if it were a kernel", _transposed_table("emb_rel_v"),
           ATTENTION + ":relative_output", known=True),
    _fault("identity-norms", "gamma and beta not mapped", of_state(_identity_norms), ENCODER + r"norm_layers_1\.0", known=True),
    _fault("last-slope", "final leaky ReLU slope 0.1", constant("vocoder.LAST_SLOPE", 0.1), "dec:last_relu", known=True),
    _fault("embedding-slope", "leaky ReLU slope 0.2 after the embeddings", constant("text_encoder.SLOPE", 0.2), "enc_p:embedded"),
    _fault("relative-clipped", "far offsets take the table's end rows", _clipped_offsets, ATTENTION + ":relative_scores"),
    _fault("relative-values", "relative values left out", replaced("text_encoder.keys_to_offsets", _no_relative_values),
           ATTENTION + ":relative_output"),
    _fault("masked-score", "masked logits 0", constant("text_encoder.MASKED_SCORE", 0.0), ATTENTION + ":scores"),
    _fault("mask-keys-only", "only keys are masked", _keys_masked_only, ATTENTION + ":scores"),
    _fault("attention-unscaled", "queries not scaled", _unscaled, ATTENTION + ":relative_scores"),
    _fault("feed-forward-mask", "feed-forward without masks", _unmasked_feed_forward, ENCODER + r"ffn_layers\.0.*"),
    _fault("norm-eps", "norms with eps 1e-3", constant("text_encoder.NORM_EPS", 1e-3), ENCODER + r"norm_layers_1\.0"),
    _fault("stats-swapped", "mean and log deviation exchanged", replaced("synthesizer._split_stats", _swapped_stats), "m_p"),
    _fault("two-thirds", "2/3 for upstream's 0.66666", constant("synthesizer.LATENT_DEVIATION", 2 / 3), "z_p"),
    _fault("half-deviation", "exp of half the log deviation", _half_deviation, "z_p"),
    _fault("no-flips", "channel flips left out", _no_flips, r"flow\.flows\.7"),
    _fault("shift-added", "coupling adds instead of subtracting", _added_shift, COUPLING[:-2] + ":coupled"),
    _fault("gate-swapped", "tanh and sigmoid exchanged", replaced("flow._gate", _swapped_gate), COUPLING + r"enc\.in_layers\.0:gated"),
    _fault("speaker-ignored", "always the first speaker", _first_speaker, "emb_g"),
    _fault("weight-norm-ignored", "weight norm's length ignored", _direction_without_norm, COUPLING + r"enc\.cond_layer"),
    _fault("kernel-backwards", "one upsampling kernel reversed", of_state(_kernel_backwards), r"dec\.ups\.1"),
    _fault("sine-amplitude", "sine amplitude 0.1001", constant("source.SINE_AMPLITUDE", 0.1001), r"dec\.m_source\.l_sin_gen"),
    _fault("source-noise", "source noise of deviation 0.00303", constant("source.NOISE_DEVIATION", 0.00303), r"dec\.m_source\.l_sin_gen"),
    _fault("phase-float32", "phase summed in float32", _float32_phase, r"dec\.m_source\.l_sin_gen"),
    _fault("phase-late", "sines one sample late", _late_phase, r"dec\.m_source\.l_sin_gen"),
    _fault("always-voiced", "source always voiced", _always_voiced, r"dec\.m_source\.l_sin_gen:voiced"),
    _fault("no-dilation", "dilations ignored", _no_dilation, r"dec\.resblocks\.0\.convs1\.1"),
    _fault("branches-summed", "branches summed instead of averaged", _sum_of_branches, r"dec\.resblocks\.2:mean"),
    _fault("slope", "leaky ReLU slope 0.2 in the vocoder", constant("vocoder.SLOPE", 0.2), r"dec\.ups\.0"),
    _fault("level", "audio 0.5 dB louder", level(lambda mx, x: x * 10 ** (0.5 / 20)), r"dec\.tanh"),
    _fault("delay", "audio one frame late", level(_late), r"dec\.tanh"),
    _fault("speaker-condition", "vocoder without the speaker's offset", _no_condition, "dec.cond:sum"),
    _fault("noise-not-added", "one level's source convolution not added", _noise_not_added, r"dec\.noise_convs\.2:sum"),
    _fault("noise-late", "source convolutions one output late", _noise_late, r"dec\.noise_convs\.0"),
    _fault("tile-halo", "tiles of the decoder with too little around them", _short_halo, r"\(whole call\)"),
    _fault("mrf-harmonic", "MRF's last harmonic missing", _no_last_harmonic, r"dec\.m_source\.l_sin_gen", voice="synth_v2_32k_f0_mrf"),
    _fault("refinegan-corners", "RefineGAN stretches with aligned corners", _aligned_corners, r"dec\.upsample_blocks\.0",
           voice="synth_v2_24k_f0_refinegan"),
    _fault("refinegan-decimation", "RefineGAN drops samples without a filter", _plain_decimation, r"dec\.downsample_blocks\.0:input",
           voice="synth_v2_24k_f0_refinegan"),
    _fault("no-f0-slope", "final slope in a voice without pitch", constant("vocoder.LAST_SLOPE", 0.1), "dec:last_relu",
           voice="synth_v2_48k_nof0"),
    _fault("v1-kernel", "one kernel of a v1 voice scaled by 1.001",
           of_state(lambda s: s.__setitem__("enc_p.emb_phone.weight", s["enc_p.emb_phone.weight"] * np.float32(1.001))),
           r"enc_p\.emb_phone", voice="synth_v1_40k_f0"),
)  # fmt: skip
