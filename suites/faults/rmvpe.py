"""Faults in RMVPE: mel, U-Net, BiGRU, decoding."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .base import Fault, Patches, after, after_stage, around, both, constant, instead
from .weights import State, exchanged, filled, of_weights, randomised, weight

DECODER = r"unet\.decoder\.layers\.0\.conv1"
GRU_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@around("packed.PackedUNet._up_stage")
def _zero_padded(p: Patches, original: Any, self: Any, up: Any, size: tuple[int, int]) -> Any:
    """Packed: what the missing output padding would have made is zero; the norm is folded in already."""
    rows, columns = size
    keep = np.ones((rows, columns, 1), np.float32)
    keep[-1], keep[:, -1] = 0, 0

    def change(carry: dict[str, Any]) -> None:
        image = carry["x"].reshape(rows, columns + 1, -1)
        kept = image[:, :columns] * p.mx.array(keep)
        carry["x"] = p.mx.pad(kept, [(0, 0), (0, 1), (0, 0)]).reshape(rows * (columns + 1), -1)

    return after(original(self, up, size), change)


def _padded(p: Patches, x: Any) -> Any:
    return p.mx.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])


def _short(p: Patches, self: Any, name: str, scale: Any) -> Any:
    """The transposed convolution makes one row and column too few."""
    kernel = self._up_kernel(name, scale)
    return lambda x: p.mx.conv_transpose2d(x, kernel, stride=2, padding=1)


@instead("unet.NativeUNet._upsampler")
def _padded_before_norm(p: Patches, *arguments: Any) -> Any:
    upsample = _short(p, *arguments)
    return lambda x: _padded(p, upsample(x))


@after_stage("unet.NativeUNet._up", "conv1/2")
def _padded_block(p: Patches, carry: dict[str, Any]) -> None:
    carry["x"] = _padded(p, carry["x"])


@around("audio.LogMel.__init__")
def _mel_window(p: Patches, original: Any, self: Any) -> None:
    original(self)
    self.window = p.mx.array(np.hanning(p.module("audio").N_FFT).astype(np.float32))


@instead("audio.LogMel._block")
def _mel_power(p: Patches, self: Any, padded: Any, start: int, count: int) -> Any:
    mx, audio = p.mx, p.module("audio")
    frames = mx.as_strided(padded, (count, audio.N_FFT), (audio.HOP_SAMPLES, 1), start * audio.HOP_SAMPLES)
    spectrum = mx.fft.rfft(frames * self.window, axis=-1)
    power = mx.square(mx.real(spectrum)) + mx.square(mx.imag(spectrum))
    return mx.log(mx.maximum(power @ self.basis, audio.LOG_FLOOR))


@instead("rmvpe.RMVPE._pad_frames")
def _repeated_edge(p: Patches, self: Any, mel: Any) -> Any:
    extra = -mel.shape[1] % 32
    return p.mx.concatenate([mel, mel[:, : -extra - 1 : -1]], axis=1) if extra else mel


@instead("unet.NativeUNet._norm")
def _batch_statistics(p: Patches, self: Any, name: str, norm: str) -> Any:
    weight, bias = (self._array(self.state[f"{norm}.{x}"]) for x in ("weight", "bias"))

    def apply(x: Any) -> Any:
        mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        return (x - mean) * p.mx.rsqrt(var + 1e-5) * weight + bias

    return p.module("stages").leaf(name, apply)


@around("unet.NativeUNet._plain_block")
def _norm_in_shortcut(p: Patches, original: Any, self: Any, name: str, prefix: str) -> Any:
    block = original(self, name, prefix)
    norm = self._norm("extra", f"{prefix}.conv.4")

    def change(carry: dict[str, Any]) -> None:
        inner = {"x": carry["residual"]}
        norm.apply(inner)
        carry["residual"] = inner["x"]

    return p.changed(block, f"{block.name}/shortcut", change)


@instead("packed.PackedUNet._pool")
def _max_pool(p: Patches, self: Any, carry: dict[str, Any], skip: str, size: tuple[int, int]) -> None:
    rows, bands = size
    x = carry[skip] = carry["x"]
    image = x.reshape(rows, bands + 1, -1)[:, :bands].reshape(rows // 2, 2, bands // 2, 2, -1).max(axis=(1, 3))
    carry["x"] = p.mx.pad(image, [(0, 0), (0, 1), (0, 0)]).reshape(-1, x.shape[1])


@instead("packed.PackedUNet._concat")
def _skip_first(p: Patches, self: Any, carry: dict[str, Any], skip: str) -> None:
    carry["concat"], carry["x"] = carry["x"], carry.pop(skip)


@around("packed._block")
def _dirty_border(p: Patches, original: Any, state: Any, name: str, inputs: Any = None) -> Any:
    """The shortcut's bias also outside the image."""
    block = original(state, name, inputs)
    if block.shortcut is None:
        return block
    start = block.shortcut.start
    return block._replace(shortcut=block.shortcut._replace(start=p.mx.concatenate([start[:1], start[:1]])))


@after_stage("packed.PackedUNet.stages", "flatten")
def _flatten_bands_first(p: Patches, carry: dict[str, Any]) -> None:
    x = carry["x"]
    carry["x"] = x.reshape(*x.shape[:2], 3, -1).swapaxes(2, 3).reshape(x.shape)


@of_weights("rmvpe")
def _drop_hidden_biases(state: State) -> None:
    for end in ("", "_reverse"):
        bias = state[f"fc.0.gru.bias_hh_l0{end}"]
        bias[: 2 * len(bias) // 3] = 0


@of_weights("rmvpe")
def _gates_zr(state: State) -> None:
    for kind in GRU_WEIGHTS:
        for end in ("", "_reverse"):
            value = state[f"fc.0.gru.{kind}_l0{end}"]
            n = len(value) // 3
            value[: 2 * n] = np.concatenate([value[n : 2 * n], value[:n]])


@instead("gru.BiGRU._step")
def _bias_outside_reset(p: Patches, self: Any, inputs: Any, h: Any) -> Any:
    mx, n = p.mx, self.hidden
    gates = h @ self.hidden_weight
    r = mx.sigmoid(inputs[..., :n] + gates[..., :n])
    z = mx.sigmoid(inputs[..., n : 2 * n] + gates[..., n : 2 * n])
    new = mx.tanh(inputs[..., 2 * n :] + r * gates[..., 2 * n :] + self.hidden_bias)
    return new + z * (h - new)


@around("gru.BiGRU._steps")
def _backward_not_reversed(p: Patches, original: Any, self: Any, inputs: Any) -> Any:
    y = original(self, inputs)
    n = self.hidden
    return p.mx.concatenate([y[..., :n], y[:, ::-1, n:]], axis=-1)


@around("rmvpe.RMVPE._cents")
def _narrow_window(p: Patches, original: Any, self: Any, salience: Any, threshold: float) -> Any:
    mx = p.mx
    peak = mx.argmax(salience, axis=1)[:, None]
    far = mx.abs(mx.arange(salience.shape[1]) - peak) > 3
    return original(self, mx.where(far, 0.0, salience), threshold)


# only the call itself has tiles
_short_tile = both(
    constant("rmvpe.TILE_FRAMES", 32), constant("rmvpe.RMVPEConfig.halo_frames", property(lambda self: 32))
)
_scaled = weight("rmvpe", "cnn.weight", lambda kernel: kernel * np.float32(1.0001))
_transposed_kernel = weight(
    "rmvpe", "unet.encoder.layers.1.conv.1.conv.0.weight", lambda kernel: kernel.transpose(0, 1, 3, 2).copy()
)
_half_precision = weight("rmvpe", "fc.1.weight", lambda rows: rows.astype(np.float16).astype(np.float32))
_mel_unnormalised = around("audio.mel_basis")(lambda p, original: original() / original().max(axis=1, keepdims=True))
_zero_frames = instead("rmvpe.RMVPE._pad_frames")(
    lambda p, self, mel: p.mx.pad(mel, [(0, 0), (0, -mel.shape[1] % 32), (0, 0)])
)
_swap_directions = exchanged("rmvpe", *((f"fc.0.gru.{kind}_l0_reverse", f"fc.0.gru.{kind}_l0") for kind in GRU_WEIGHTS))
_late_f0 = around("rmvpe.RMVPE._hertz")(lambda p, original, self, cents: np.roll(original(self, cents), 1))
_relu_after_sum = around("packed.PackedUNet._residual")(lambda p, original, *given: p.mx.maximum(original(*given), 0.0))
_fault = partial(Fault, "rmvpe")


FAULTS = (
    _fault("transposed-zero-padded", "the transposed convolution's last row and column are zero instead of computed",
           _zero_padded, DECODER, known=True),
    _fault("transposed-zero-padded-plain", "the same on the plain path: zeros appended before batch norm and ReLU",
           _padded_before_norm, DECODER + r"\.0", optimize="none", known=True),
    _fault("transposed-padded-after-relu", "the same, zeros appended after batch norm and ReLU",
           both(instead("unet.NativeUNet._upsampler")(_short), _padded_block), DECODER + r"\.0", optimize="none", known=True),
    _fault("training-mode", "batch norms by the batch's own statistics: a model left in training mode",
           _batch_statistics, r"unet\.encoder\.bn", optimize="none", known=True),
    _fault("random-head", "missing weights leave a random layer", randomised("rmvpe", "fc.1."), r"fc\.1", known=True),
    _fault("norm-in-shortcut", "an extra batch norm in the shortcut",
           _norm_in_shortcut, r"unet\.encoder\.layers\.0\.conv\.0\.shortcut", optimize="none", known=True),
    _fault("gru-hidden-biases", "the GRU's hidden biases of r and z are dropped", _drop_hidden_biases, r"fc\.0", known=True),
    _fault("gru-gate-order", "GRU gates read as z, r, n", _gates_zr, r"fc\.0"),
    _fault("gru-directions", "forward and backward weights exchanged", _swap_directions, r"fc\.0"),
    _fault("gru-reset-bias", "n's hidden bias outside the reset gate", _bias_outside_reset, r"fc\.0"),
    _fault("gru-backward-order", "backward half left in reversed time", _backward_not_reversed, r"fc\.0"),
    _fault("mel-window", "symmetric instead of periodic Hann window", _mel_window, "mel"),
    _fault("mel-power", "power instead of magnitude", _mel_power, "mel"),
    _fault("mel-area", "mel filters without area normalisation", _mel_unnormalised, "mel"),
    _fault("mel-floor", "logarithm's floor at 1e-8", constant("audio.LOG_FLOOR", 1e-8), "mel"),
    _fault("frames-zero-padded", "frames padded with zeros instead of mirrored ones", _zero_frames, "padded_log_mel"),
    _fault("frames-edge-repeated", "mirror repeats the edge frame", _repeated_edge, "padded_log_mel"),
    _fault("norm-eps", "batch norm eps of 1e-3", constant("packed.NORM_EPS", 1e-3), r"unet\.encoder\.bn"),
    _fault("max-pool", "maximum instead of average pooling", _max_pool, r"unet\.encoder\.layers\.0\.pool"),
    _fault("skip-first", "skip before the upsampled half", _skip_first, r"unet\.decoder\.layers\.0\.concat"),
    _fault("relu-after-sum", "a ReLU after the residual sum", _relu_after_sum, r"unet\.encoder\.layers\.0\.conv\.0"),
    _fault("dirty-border", "a border that should be zero is not: seen on own values only", _dirty_border,
           r"unet\.encoder\.layers\.0\.conv\.1"),
    _fault("shortcut-bias", "shortcut's bias dropped",
           filled("rmvpe", "unet.encoder.layers.0.conv.0.shortcut.bias", 0), r"unet\.encoder\.layers\.0\.conv\.0"),
    _fault("kernel-transposed", "time and band of one kernel exchanged", _transposed_kernel,
           r"unet\.encoder\.layers\.1\.conv\.1"),
    _fault("kernel-transposed-plain", "the same on the plain path", _transposed_kernel,
           r"unet\.encoder\.layers\.1\.conv\.1\.conv\.0", optimize="none"),
    _fault("channel-zero", "one output channel of one kernel zero",
           filled("rmvpe", "unet.intermediate.layers.2.conv.1.conv.3.weight", 0, 5),
           r"unet\.intermediate\.layers\.2\.conv\.1"),
    _fault("running-mean", "one norm's running mean ignored",
           filled("rmvpe", "unet.decoder.layers.3.conv1.1.running_mean", 0), r"unet\.decoder\.layers\.3\.conv1"),
    _fault("flatten-order", "flattened band-major", _flatten_bands_first, "flatten"),
    _fault("half-precision-layer", "one layer's weights through float16", _half_precision, r"fc\.1"),
    _fault("gain-of-one-layer", "the cnn's kernel 0.01 % too large", _scaled, "cnn"),
    _fault("decode-window", "seven instead of nine bins around the maximum", _narrow_window, "cents"),
    _fault("decode-offset", "first bin at 2000 cents", constant("rmvpe.CENTS_FIRST_BIN", 2000.0), "cents"),
    _fault("f0-late", "F0 one frame late", _late_f0, "f0"),
    _fault("tile-halo", "tiles of the U-Net with too little around them", _short_tile, r"\(whole call\)"),
)  # fmt: skip
