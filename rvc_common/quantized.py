"""Weights in fewer bits, in a ``.safetensors`` file: made from floating-point ones, and widened to them again.

Affine, in groups: of ``group`` values that follow each other in a row, each is ``scale * code + bias`` with a code of
``bits`` bits. The packing of codes is that of MLX's ``mx.quantize`` (0.32), whose kernels can take them as they are. A
row is an output of the layer. A tensor ``name`` becomes ``name.codes``, ``name.scales`` and ``name.biases``; its shape
and how it was made are in the file's metadata.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from . import CheckpointError

BITS, GROUPS = (4, 6, 8), (32, 64, 128)
DEFAULT_GROUP = 64
# of a convolution: so many bits, and one group for each output channel
CONVOLUTION_BITS = 8
# smaller tensors cost nothing, and embeddings are looked up, not multiplied
FEWEST_VALUES = 4096
FLOATING = ("emb_g.weight", "emb_pitch.weight")
PARTS = ("codes", "scales", "biases")
METADATA = "quantization"
_WORD_BITS = 32
_LEAST_SCALE = 1e-7
# of a scale or a bias as float16
_ROUNDING = 2.0**-10


class Form(NamedTuple):
    """How one tensor is stored: bits of a code, values of a group, and the shape that it is widened to."""

    bits: int
    group: int
    shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def groups(self) -> int:
        """Of a row."""
        return -(-math.prod(self.shape[1:]) // self.group)

    @property
    def is_matrix(self) -> bool:
        return math.prod(self.shape[1:]) == self.shape[1]

    @property
    def words(self) -> int:
        """Of a row; the last group is filled up with zeros."""
        return -(-self.groups * self.group * self.bits // _WORD_BITS)


def forms(
    state: Mapping[str, np.ndarray], bits: int, group: int, own: Mapping[str, int | None] | None = None
) -> dict[str, Form]:
    """The tensors that are stored in fewer bits: matrices in ``bits`` and groups, convolutions in 8 bits by channel.
    ``own``: other bits of single tensors, None for one that stays as it is."""
    found = {}
    for name, value in state.items():
        if value.ndim < 2 or value.size < FEWEST_VALUES or value.shape[0] == 1 or name.endswith(FLOATING):
            continue
        wanted = (own or {}).get(name, bits)
        if wanted is None:
            continue
        form = Form(wanted, group, value.shape)
        found[name] = form if form.is_matrix else Form(CONVOLUTION_BITS, math.prod(value.shape[1:]), value.shape)
    return found


def quantize(
    state: Mapping[str, np.ndarray], bits: int, group: int, own: Mapping[str, int | None] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata to write; ``state``: PyTorch's layouts, ``bits``: one of ``BITS``, ``group``: of ``GROUPS``.
    ``own``: as in ``forms``.

    What is not stored in fewer bits stays as it is."""
    chosen = forms(state, bits, group, own)
    tensors = {name: value for name, value in state.items() if name not in chosen}
    for name, form in chosen.items():
        parts = _quantized(np.asarray(state[name], np.float32), form)
        tensors |= {f"{name}.{part}": value for part, value in zip(PARTS, parts, strict=True)}
    about = {
        "bits": bits,
        "group": group,
        "mixed": own is not None,
        "tensors": {name: list(form) for name, form in chosen.items()},
    }
    return tensors, {METADATA: json.dumps(about)}


def widen(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The tensors that a file's are made of, those in fewer bits as float32; all as they are in a file without any.

    Raises ``CheckpointError``: parts are missing, of another size or type, or the metadata makes no sense."""
    if METADATA not in metadata:
        return dict(tensors)
    chosen = stored_forms(metadata)
    parts = {f"{name}.{part}" for name in chosen for part in PARTS}
    missing = sorted(parts - tensors.keys())
    if missing:
        raise CheckpointError(f"a damaged quantised checkpoint: {len(missing)} parts are missing, first {missing[0]}")
    found = {name: value for name, value in tensors.items() if name not in parts}
    for name, form in chosen.items():
        found[name] = _widened(name, form, *(tensors[f"{name}.{part}"] for part in PARTS))
    return found


def faults(
    state: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> list[str]:
    """What a quantised file's ``tensors`` have that the weights in ``state`` do not explain, a sentence a tensor.

    Of each value half a step of its group is explained, and what float16 rounds off the scale and the bias; of a
    tensor that should be in fewer bits, that it is.

    Raises ``CheckpointError``: as ``widen``."""
    about = json.loads(metadata[METADATA])
    stored = stored_forms(metadata)
    chosen = {} if about.get("mixed") else forms(state, about["bits"], about["group"])
    found = [f"{name} is not in fewer bits, as its kind is" for name in chosen.keys() - stored.keys()]
    wide = widen(tensors, metadata)
    for name, form in stored.items():
        if name not in state or state[name].shape != wide[name].shape:
            found.append(f"{name} is another model's")
            continue
        steps = np.abs(wide[name] - np.asarray(state[name], np.float32)).reshape(form.rows, -1)
        scales, biases = (tensors[f"{name}.{part}"].astype(np.float32) for part in PARTS[1:])
        most = (1 << form.bits) - 1
        allowed = 0.5 * scales + _ROUNDING * (most * scales + np.abs(biases))
        over = steps - np.repeat(allowed, form.group, axis=1)[:, : steps.shape[1]]
        if over.max() > 0:
            row, column = np.unravel_index(np.argmax(over), over.shape)
            group, count = column // form.group, np.unique(np.argwhere(over > 0) // [1, form.group], axis=0).shape[0]
            size = steps[row, column] / max(scales[row, group], _LEAST_SCALE)
            found.append(
                f"{name}: {count} of {scales.size} groups are off by more than half a step, first of all group {group}"
                f" of row {row}, by {size:.2g} steps"
            )
    return sorted(found)


def stored_forms(metadata: Mapping[str, str]) -> dict[str, Form]:
    """How the tensors of a quantised file are stored. Raises ``CheckpointError``: its metadata makes no sense."""
    try:
        about = json.loads(metadata[METADATA])["tensors"]
        found = {
            name: Form(int(bits), int(group), tuple(map(int, shape))) for name, (bits, group, shape) in about.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CheckpointError("a damaged quantised checkpoint: its metadata does not say how it was made") from None
    for name, form in found.items():
        if form.bits not in BITS or form.group < 1 or len(form.shape) < 2 or min(form.shape) < 1:
            raise CheckpointError(
                f"a quantised checkpoint that is not supported: {name} has {form.bits} bits in groups of {form.group}"
                f" and the shape {list(form.shape)}; codes of {', '.join(map(str, BITS))} bits are read"
            )
    return found


# ---------------------------------------------------------------------- one tensor
def _quantized(value: np.ndarray, form: Form) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes ``[rows, words]`` uint32, scales and biases ``[rows, groups]``."""
    steps = (1 << form.bits) - 1
    padded = np.zeros((form.rows, form.groups * form.group), np.float32)
    padded[:, : value[0].size] = value.reshape(form.rows, -1)
    grouped = padded.reshape(form.rows, form.groups, form.group)
    low, high = grouped.min(axis=2), grouped.max(axis=2)
    # MLX has the zero among the codes; from the least to the largest value of a group, the largest error is smaller
    scales, biases = (_in_half(array) for array in (np.maximum((high - low) / steps, _LEAST_SCALE), low))
    wide_scales, wide_biases = (array.astype(np.float32)[..., None] for array in (scales, biases))
    codes = np.clip(np.round((grouped - wide_biases) / wide_scales), 0, steps).astype(np.uint8)
    return _packed(codes.reshape(form.rows, -1), form), scales, biases


def _in_half(array: np.ndarray) -> np.ndarray:
    """As float16, where that holds every value to its full precision."""
    small, large = np.finfo(np.float16).smallest_normal, np.finfo(np.float16).max
    size = np.abs(array[array != 0])
    return array.astype(np.float16) if size.size and small <= size.min() and size.max() <= large else array


def _widened(name: str, form: Form, codes: np.ndarray, scales: np.ndarray, biases: np.ndarray) -> np.ndarray:
    shapes = [codes.shape, scales.shape, biases.shape]
    expected = [(form.rows, form.words), *[(form.rows, form.groups)] * 2]
    if shapes != expected or codes.dtype != np.uint32 or {scales.dtype.kind, biases.dtype.kind} != {"f"}:
        raise CheckpointError(
            f"a damaged quantised checkpoint: the parts of {name} do not fit {form.bits} bits in groups of {form.group}"
        )
    values = _unpacked(codes, form).reshape(form.rows, form.groups, form.group).astype(np.float32)
    values *= scales.astype(np.float32)[..., None]
    values += biases.astype(np.float32)[..., None]
    return values.reshape(form.rows, -1)[:, : math.prod(form.shape[1:])].reshape(form.shape)


def _packed(codes: np.ndarray, form: Form) -> np.ndarray:
    """Codes ``[rows, n]`` as a stream of bits, the lowest first."""
    bits = np.unpackbits(codes[:, :, None], axis=2, count=form.bits, bitorder="little").reshape(form.rows, -1)
    packed = np.zeros((form.rows, 4 * form.words), np.uint8)
    stream = np.packbits(bits, axis=1, bitorder="little")
    packed[:, : stream.shape[1]] = stream
    return packed.view("<u4")


def _unpacked(words: np.ndarray, form: Form) -> np.ndarray:
    count = form.groups * form.group
    stream = np.ascontiguousarray(words, "<u4").view(np.uint8)
    if form.bits == 8:
        return stream[:, :count]
    if form.bits == 4:
        return np.stack([stream & 15, stream >> 4], axis=2).reshape(form.rows, -1)[:, :count]
    a, b, c = (stream[:, : -(-count // 4) * 3].reshape(form.rows, -1, 3)[..., i] for i in range(3))
    codes = np.stack([a & 63, a >> 6 | (b & 15) << 2, b >> 4 | (c & 3) << 4, c >> 2], axis=2)
    return codes.reshape(form.rows, -1)[:, :count]
