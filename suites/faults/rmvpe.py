"""Faults in RMVPE: mel, U-Net, BiGRU, decoding."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Fault, Patches, State, randomised

DECODER = r"unet\.decoder\.layers\.0\.conv1"


def _zero_last(x: Any, rows: int, columns: int, mx: Any) -> Any:
    """``[.., rows, columns, C]`` with the last row and column zero."""
    keep = np.ones((rows, columns, 1), np.float32)
    keep[-1], keep[:, -1] = 0, 0
    return x * mx.array(keep)


def zero_padded_transposed(p: Patches) -> None:
    """Packed: what the missing output padding would have made is zero; the norm is folded in already."""

    def around(original: Any, self: Any, up: Any, size: tuple[int, int]) -> Any:
        stage = original(self, up, size)
        rows, columns = size

        def apply(carry: dict[str, Any]) -> None:
            stage.apply(carry)
            image = carry["x"].reshape(rows, columns + 1, -1)
            kept = _zero_last(image[:, :columns], rows, columns, p.mx)
            carry["x"] = p.mx.pad(kept, [(0, 0), (0, 1), (0, 0)]).reshape(rows * (columns + 1), -1)

        return stage._replace(apply=apply)

    p.wrap(p.module("packed").PackedUNet, "_up_stage", around)


def zero_padded_before_norm(p: Patches) -> None:
    """Plain: the transposed convolution makes one row and column too few; zeros are appended."""

    def around(original: Any, self: Any, name: str, scale: Any) -> Any:
        kernel = self._up_kernel(name, scale)

        def upsample(x: Any) -> Any:
            y = p.mx.conv_transpose2d(x, kernel, stride=2, padding=1)
            return p.mx.pad(y, [(0, 0), (0, 1), (0, 1), (0, 0)])

        return upsample

    p.wrap(p.module("unet").NativeUNet, "_upsampler", around)


def padded_after_relu(p: Patches) -> None:
    """The same, the zeros appended behind norm and ReLU: the inner values are one row and column short."""

    def upsampler(original: Any, self: Any, name: str, scale: Any) -> Any:
        kernel = self._up_kernel(name, scale)
        return lambda x: p.mx.conv_transpose2d(x, kernel, stride=2, padding=1)

    def pad(carry: dict[str, Any]) -> None:
        carry["x"] = p.mx.pad(carry["x"], [(0, 0), (0, 1), (0, 1), (0, 0)])

    unet = p.module("unet").NativeUNet
    p.wrap(unet, "_upsampler", upsampler)
    p.stage("unet.NativeUNet", "_up", "conv1/2", pad)


def _mel_window(p: Patches) -> None:
    audio = p.module("audio")

    def around(original: Any, self: Any) -> None:
        original(self)
        self.window = p.mx.array(np.hanning(audio.N_FFT).astype(np.float32))

    p.wrap(audio.LogMel, "__init__", around)


def _mel_power(p: Patches) -> None:
    mx, audio = p.mx, p.module("audio")

    def block(self: Any, padded: Any, start: int, count: int) -> Any:
        frames = mx.as_strided(padded, (count, audio.N_FFT), (audio.HOP_SAMPLES, 1), start * audio.HOP_SAMPLES)
        spectrum = mx.fft.rfft(frames * self.window, axis=-1)
        power = mx.square(mx.real(spectrum)) + mx.square(mx.imag(spectrum))
        return mx.log(mx.maximum(power @ self.basis, audio.LOG_FLOOR))

    p.set(audio.LogMel, "_block", block)


def _mel_unnormalised(p: Patches) -> None:
    def around(original: Any) -> Any:
        basis = original()
        return basis / basis.max(axis=1, keepdims=True)

    p.wrap(p.module("audio"), "mel_basis", around)


def _pad(mode: str) -> Any:
    def inject(p: Patches) -> None:
        def pad_frames(self: Any, mel: Any) -> Any:
            extra = -mel.shape[1] % 32
            if mode == "zeros":
                return p.mx.pad(mel, [(0, 0), (0, extra), (0, 0)])
            return p.mx.concatenate([mel, mel[:, : -extra - 1 : -1]], axis=1) if extra else mel

        p.set(p.module("rmvpe").RMVPE, "_pad_frames", pad_frames)

    return inject


def _batch_statistics(p: Patches) -> None:
    """A model left in training mode: norms by the batch's own mean and variance."""

    def norm(self: Any, name: str, norm: str) -> Any:
        weight, bias = (self._array(self.state[f"{norm}.{x}"]) for x in ("weight", "bias"))

        def apply(x: Any) -> Any:
            mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
            return (x - mean) * p.mx.rsqrt(var + 1e-5) * weight + bias

        return p.module("stages").leaf(name, apply)

    p.set(p.module("unet").NativeUNet, "_norm", norm)


def _norm_in_shortcut(p: Patches) -> None:
    def around(original: Any, self: Any, name: str, prefix: str) -> Any:
        block = original(self, name, prefix)
        norm = self._norm("extra", f"{prefix}.conv.4")

        def change(carry: dict[str, Any]) -> None:
            inner = {"x": carry["residual"]}
            norm.apply(inner)
            carry["residual"] = inner["x"]

        names = [stage.name for stage in block.parts]
        return p._changed(block, [block.name, "shortcut"], change) if "shortcut" in names else block

    p.wrap(p.module("unet").NativeUNet, "_plain_block", around)


def _max_pool(p: Patches) -> None:
    mx = p.mx

    def pool(self: Any, carry: dict[str, Any], skip: str, size: tuple[int, int]) -> None:
        rows, bands = size
        x = carry[skip] = carry["x"]
        image = x.reshape(rows, bands + 1, -1)[:, :bands].reshape(rows // 2, 2, bands // 2, 2, -1).max(axis=(1, 3))
        carry["x"] = mx.pad(image, [(0, 0), (0, 1), (0, 0)]).reshape(-1, x.shape[1])

    p.set(p.module("packed").PackedUNet, "_pool", pool)


def _skip_first(p: Patches) -> None:
    """Concatenated as (skip, upsampled)."""

    def concat(self: Any, carry: dict[str, Any], skip: str) -> None:
        carry["concat"], carry["x"] = carry["x"], carry.pop(skip)

    p.set(p.module("packed").PackedUNet, "_concat", concat)


def _dirty_border(p: Patches) -> None:
    """The shortcut's bias also outside the image: right inside it, and wrong for the next convolution."""

    def around(original: Any, state: Any, name: str, inputs: Any = None) -> Any:
        block = original(state, name, inputs)
        if block.shortcut is None:
            return block
        start = block.shortcut.start
        return block._replace(shortcut=block.shortcut._replace(start=p.mx.concatenate([start[:1], start[:1]])))

    p.wrap(p.module("packed"), "_block", around)


def _relu_after_sum(p: Patches) -> None:
    def around(original: Any, *arguments: Any) -> Any:
        return p.mx.maximum(original(*arguments), 0.0)

    p.wrap(p.module("packed").PackedUNet, "_residual", around)


def _flatten_bands_first(p: Patches) -> None:
    def change(carry: dict[str, Any]) -> None:
        x = carry["x"]
        carry["x"] = x.reshape(*x.shape[:2], 3, -1).swapaxes(2, 3).reshape(x.shape)

    p.stage("packed.PackedUNet", "stages", "flatten", change)


def _drop_hidden_biases(state: State) -> None:
    for end in ("", "_reverse"):
        bias = state[f"fc.0.gru.bias_hh_l0{end}"]
        bias[: 2 * len(bias) // 3] = 0


def _gates_zr(state: State) -> None:
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        for end in ("", "_reverse"):
            value = state[f"fc.0.gru.{kind}_l0{end}"]
            n = len(value) // 3
            value[: 2 * n] = np.concatenate([value[n : 2 * n], value[:n]])


def _swap_directions(state: State) -> None:
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        a, b = (f"fc.0.gru.{kind}_l0{end}" for end in ("", "_reverse"))
        state[a], state[b] = state[b], state[a]


def _bias_outside_reset(p: Patches) -> None:
    mx = p.mx

    def step(self: Any, inputs: Any, h: Any) -> Any:
        n = self.hidden
        gates = h @ self.hidden_weight
        r = mx.sigmoid(inputs[..., :n] + gates[..., :n])
        z = mx.sigmoid(inputs[..., n : 2 * n] + gates[..., n : 2 * n])
        new = mx.tanh(inputs[..., 2 * n :] + r * gates[..., 2 * n :] + self.hidden_bias)
        return new + z * (h - new)

    p.set(p.module("gru").BiGRU, "_step", step)


def _backward_not_reversed(p: Patches) -> None:
    """The backward direction's results are left in the order in which they were made."""

    def around(original: Any, self: Any, inputs: Any) -> Any:
        y = original(self, inputs)
        n = self.hidden
        return p.mx.concatenate([y[..., :n], y[:, ::-1, n:]], axis=-1)

    p.wrap(p.module("gru").BiGRU, "_steps", around)


def _narrow_window(p: Patches) -> None:
    """Seven bins around the maximum instead of nine."""

    def around(original: Any, salience: Any, threshold: float) -> Any:
        mx = p.mx
        peak = mx.argmax(salience, axis=1)[:, None]
        far = mx.abs(mx.arange(salience.shape[1]) - peak) > 3
        return original(mx.where(far, 0.0, salience), threshold)

    p.wrap(p.module("rmvpe"), "_cents", around)


def _late_f0(p: Patches) -> None:
    p.wrap(p.module("rmvpe"), "cents_to_hz", lambda original, cents: np.roll(original(cents), 1))


def _short_tile(p: Patches) -> None:
    """Tiles with too little around them; only the call itself has tiles."""
    p.constant("rmvpe.TILE_FRAMES", 32)
    p.set(p.module("rmvpe").RMVPEConfig, "halo_frames", property(lambda self: 32))


def scaled(key: str, factor: float) -> Any:
    def change(state: State) -> None:
        state[key] = (state[key] * np.float32(factor)).astype(np.float32)

    return lambda p: p.weights("rmvpe", change)


def of_state(change: Any) -> Any:
    return lambda p: p.weights("rmvpe", change)


def _transposed_kernel(state: State) -> None:
    key = "unet.encoder.layers.1.conv.1.conv.0.weight"
    state[key] = state[key].transpose(0, 1, 3, 2).copy()


def _zero_channel(state: State) -> None:
    state["unet.intermediate.layers.2.conv.1.conv.3.weight"][5] = 0


def _half_precision(state: State) -> None:
    state["fc.1.weight"] = state["fc.1.weight"].astype(np.float16).astype(np.float32)


def _no_mean(state: State) -> None:
    state["unet.decoder.layers.3.conv1.1.running_mean"][:] = 0


def _no_shortcut_bias(state: State) -> None:
    state["unet.encoder.layers.0.conv.0.shortcut.bias"][:] = 0


def _fault(name: str, summary: str, inject: Any, expect: str, **more: Any) -> Fault:
    return Fault(name, "rmvpe", summary, inject, expect, **more)


FAULTS = (
    _fault(
        "transposed-zero-padded", "the transposed convolution's last row and column are zero instead of computed",
        zero_padded_transposed, DECODER, known=True,
    ),
    _fault(
        "transposed-zero-padded-plain", "the same on the plain path: zeros appended before batch norm and ReLU",
        zero_padded_before_norm, DECODER + r"\.0", optimize="none", known=True,
    ),
    _fault(
        "transposed-padded-after-relu", "the same, zeros appended after batch norm and ReLU",
        padded_after_relu, DECODER + r"\.0", optimize="none", known=True,
    ),
    _fault(
        "training-mode", "batch norms by the batch's own statistics: a model left in training mode",
        _batch_statistics, r"unet\.encoder\.bn", optimize="none", known=True,
    ),
    _fault(
        "random-head", "missing weights leave a random layer", of_state(lambda s: randomised(s, "fc.1.")), r"fc\.1",
        known=True,
    ),
    _fault(
        "norm-in-shortcut", "an extra batch norm in the shortcut", _norm_in_shortcut,
        r"unet\.encoder\.layers\.0\.conv\.0\.shortcut", optimize="none", known=True,
    ),
    _fault(
        "gru-hidden-biases", "the GRU's hidden biases of r and z are dropped", of_state(_drop_hidden_biases), r"fc\.0",
        known=True,
    ),
    _fault("gru-gate-order", "GRU gates read as z, r, n", of_state(_gates_zr), r"fc\.0"),
    _fault("gru-directions", "forward and backward weights exchanged", of_state(_swap_directions), r"fc\.0"),
    _fault("gru-reset-bias", "n's hidden bias outside the reset gate", _bias_outside_reset, r"fc\.0"),
    _fault("gru-backward-order", "backward half left in reversed time", _backward_not_reversed, r"fc\.0"),
    _fault("mel-window", "symmetric instead of periodic Hann window", _mel_window, "mel"),
    _fault("mel-power", "power instead of magnitude", _mel_power, "mel"),
    _fault("mel-area", "mel filters without area normalisation", _mel_unnormalised, "mel"),
    _fault("mel-floor", "logarithm's floor at 1e-8", lambda p: p.constant("audio.LOG_FLOOR", 1e-8), "mel"),
    _fault("frames-zero-padded", "frames padded with zeros instead of mirrored ones", _pad("zeros"), "padded_log_mel"),
    _fault("frames-edge-repeated", "mirror repeats the edge frame", _pad("symmetric"), "padded_log_mel"),
    _fault("norm-eps", "batch norm eps of 1e-3", lambda p: p.constant("packed.NORM_EPS", 1e-3), r"unet\.encoder\.bn"),
    _fault("max-pool", "maximum instead of average pooling", _max_pool, r"unet\.encoder\.layers\.0\.pool"),
    _fault("skip-first", "skip before the upsampled half", _skip_first, r"unet\.decoder\.layers\.0\.concat"),
    _fault("relu-after-sum", "a ReLU after the residual sum", _relu_after_sum, r"unet\.encoder\.layers\.0\.conv\.0"),
    _fault("dirty-border", "a border that should be zero is not: seen on own values only", _dirty_border,
           r"unet\.encoder\.layers\.0\.conv\.1"),
    _fault("shortcut-bias", "shortcut's bias dropped", of_state(_no_shortcut_bias), r"unet\.encoder\.layers\.0\.conv\.0"),
    _fault("kernel-transposed", "time and band of one kernel exchanged", of_state(_transposed_kernel),
           r"unet\.encoder\.layers\.1\.conv\.1"),
    _fault("kernel-transposed-plain", "the same on the plain path", of_state(_transposed_kernel),
           r"unet\.encoder\.layers\.1\.conv\.1\.conv\.0", optimize="none"),
    _fault("channel-zero", "one output channel of one kernel zero", of_state(_zero_channel),
           r"unet\.intermediate\.layers\.2\.conv\.1"),
    _fault("running-mean", "one norm's running mean ignored", of_state(_no_mean), r"unet\.decoder\.layers\.3\.conv1"),
    _fault("flatten-order", "flattened band-major", _flatten_bands_first, "flatten"),
    _fault("half-precision-layer", "one layer's weights through float16", of_state(_half_precision), r"fc\.1"),
    _fault("gain-of-one-layer", "the cnn's kernel 0.01 % too large", scaled("cnn.weight", 1.0001), "cnn"),
    _fault("decode-window", "seven instead of nine bins around the maximum", _narrow_window, "cents"),
    _fault("decode-offset", "first bin at 2000 cents", lambda p: p.constant("rmvpe.CENTS_FIRST_BIN", 2000.0), "cents"),
    _fault("f0-late", "F0 one frame late", _late_f0, "f0"),
    _fault("tile-halo", "tiles of the U-Net with too little around them", _short_tile, r"\(whole call\)"),
)  # fmt: skip
