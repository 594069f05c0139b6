"""Which of the known conventions an ONNX file of RVC has: what a loader of any such file asks first.

Nobody has standardised these files. The conventions below are those of the programs that write or read most of them;
names of inputs are theirs.

* RMVPE, ``mel``: one input ``[1, 128, F]`` (log-mel, F a multiple of 32: who calls pads and cuts), one output ``[1,
  F, 360]`` (salience, decoded by who calls). ``rmvpe.onnx`` of lj1995/VoiceConversionWebUI, as read by
  RVC-Project/Retrieval-based-Voice-Conversion-WebUI, ``infer/lib/rmvpe.py`` (by position, whatever its name).
* RMVPE, ``waveform``: ``waveform [1, n]`` at 16 kHz and ``threshold`` (a scalar, or ``[1]``) to ``f0`` and ``uv``,
  mel and decoding inside. Written by zstanecic/RMVPE, ``export.py``; ``rmvpe_20231006.onnx`` of wok000/weights_gpl as
  read by w-okada/voice-changer, ``RMVPOnnxEPitchExtractor.py``. Later versions of the latter
  (``RMVPEOnnxPitchExtractor.py``) read one output, ``pitchf``.
* ContentVec, ``vec``: one input ``[1, 1, n]`` and one output ``[1, C, H]``, C = 256 after layer 9 or 768 after layer
  12. ``vec-256-layer-9.onnx`` and ``vec-768-layer-12.onnx`` of NaruseMioShirakana/MoeSS-SUBModel, as read by the
  WebUI's ``infer/lib/infer_pack/onnx_inference.py`` (by position; it transposes the result). Other exports give ``[1,
  H, C]``.
* ContentVec, ``units``: ``audio [1, n]`` to ``units9`` (256), ``unit12`` (768) and ``unit12s``. ``contentvec-f.onnx``
  of wok000/weights_gpl, as read by w-okada/voice-changer, ``OnnxContentvec.py``.
* voice, ``webui``: ``phone``, ``phone_lengths``, ``pitch``, ``pitchf``, ``ds``, ``rnd`` to ``audio``; the latent's
  noise is an input, the source's is drawn inside. The WebUI's ``infer/modules/onnx/export.py``; no metadata.
* voice, ``voice-changer``: ``feats``, ``p_len``, with pitch ``pitch`` and ``pitchf``, and ``sid``; all noise inside;
  the metadata entry ``metadata`` is JSON with ``samplingRate``, ``f0``, ``embChannels``. w-okada/voice-changer,
  ``onnxExporter/export2onnx.py``; later versions (``OnnxRVCInferencer.py``) add ``skip_head``, ``return_length`` and
  ``formant_length``.
* voice, ``applio-like``: ``phone``, ``phone_lengths``, ``sid``, ``rate``, with pitch ``pitch`` and ``nsff0``; all
  noise inside; the metadata entry ``model_info`` is JSON with ``sr``, ``f0``, ``version``, ``vocoder``.
  PhamHuynhAnh16/Vietnamese-RVC.
* voice, ``mixed``: the roles under other pairs of these names, as many private exporters have them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rvc_common.rmvpe import N_BINS, N_MELS

from ..base.errors import UserError
from .make import FORMAT, check_needs, session_of

WIDTHS = (256, 768)
# an input's names, by its role
VOICE_NAMES: dict[str, tuple[str, ...]] = {
    "phone": ("phone", "feats"),
    "lengths": ("phone_lengths", "p_len"),
    "pitch": ("pitch",),
    "f0": ("pitchf", "nsff0"),
    "speaker": ("ds", "sid"),
    "latent_noise": ("rnd",),
    "rate": ("rate",),
    "skip_head": ("skip_head",),
    "return_length": ("return_length",),
    "formant_length": ("formant_length",),
}
NEEDED_ROLES = ("phone", "lengths", "speaker")
# convention: the names of its required inputs
VOICES: dict[str, frozenset[str]] = {
    "webui": frozenset({"phone", "phone_lengths", "pitch", "pitchf", "ds", "rnd"}),
    "voice-changer": frozenset({"feats", "p_len", "sid"}),
    "applio-like": frozenset({"phone", "phone_lengths", "sid", "rate"}),
}
# entry of the metadata: what its JSON calls the sample rate
RATES = {"metadata": "samplingRate", "model_info": "sr"}


class Value(NamedTuple):
    """An input or output; a dimension that may have any length is None."""

    shape: tuple[int | None, ...]
    type: str


class Known(NamedTuple):
    """``model``: ``rmvpe``, ``hubert`` or ``voice``; ``part``: of our own files their part, else empty. ``roles``: the
    file's input for each role. ``width``: values per content frame, ``width_axis``: where a ContentVec's output has
    them; None: the file does not say."""

    model: str
    convention: str
    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]
    roles: Mapping[str, str]
    metadata: Mapping[str, str]
    part: str = ""
    sample_rate: int | None = None
    width: int | None = None
    width_axis: int | None = None


def recognised(path: Path) -> Known:
    """What the file is.

    Raises ``UserError``: onnxruntime is missing or cannot load the file, or no convention fits; names the inputs."""
    check_needs("onnxruntime")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    session = session_of(path)
    inputs, outputs = _values(session.get_inputs()), _values(session.get_outputs())
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    known = _own(inputs, outputs, metadata) or _voice(inputs, outputs, metadata) or _front(inputs, outputs, metadata)
    if known is None:
        told = ", ".join(f"{name} {_shown(value)}" for name, value in inputs.items())
        raise UserError(f"{path}: no known ONNX file of RMVPE, ContentVec or a voice; its inputs: {told or 'none'}")
    return known


def _values(found: list[Any]) -> dict[str, Value]:
    return {one.name: Value(tuple(n if isinstance(n, int) else None for n in one.shape), one.type) for one in found}


def _shown(value: Value) -> str:
    return "[" + ", ".join("any" if n is None else str(n) for n in value.shape) + "]"


def _own(inputs: dict[str, Value], outputs: dict[str, Value], metadata: dict[str, str]) -> Known | None:
    if metadata.get("format") != FORMAT:
        return None
    roles = {name: name for name in inputs}
    rate, part = int(metadata["sample_rate"]), metadata["part"]
    content = {"hubert": outputs.get("features"), "encoder": inputs.get("phone"), "synthesizer": inputs.get("phone")}
    value = content.get(part)
    axis = 2 if part == "hubert" else None
    width = None if value is None else value.shape[2]
    return Known(metadata["model"], FORMAT, inputs, outputs, roles, metadata, part, rate, width, axis)


def _voice(inputs: dict[str, Value], outputs: dict[str, Value], metadata: dict[str, str]) -> Known | None:
    roles = {role: name for role, names in VOICE_NAMES.items() for name in names if name in inputs}
    if not all(role in roles for role in NEEDED_ROLES) or len(roles) < len(inputs):
        return None
    if ("pitch" in roles) != ("f0" in roles):
        return None
    names = set(inputs)
    convention = next((name for name, required in VOICES.items() if required <= names), "mixed")
    shape = inputs[roles["phone"]].shape
    width = shape[2] if len(shape) == 3 else None
    return Known("voice", convention, inputs, outputs, roles, metadata, "", _sample_rate(metadata), width)


def _sample_rate(metadata: Mapping[str, str]) -> int | None:
    """As the file itself tells it; the WebUI's files do not."""
    for entry, name in RATES.items():
        try:
            return int(json.loads(metadata[entry])[name])
        except (KeyError, TypeError, ValueError):  # no such entry, or none of that program's
            continue
    return None


def _front(inputs: dict[str, Value], outputs: dict[str, Value], metadata: dict[str, str]) -> Known | None:
    """RMVPE and ContentVec."""

    def known(model: str, convention: str, **roles: str) -> Known:
        return Known(model, convention, inputs, outputs, roles, metadata, sample_rate=16000)

    if set(inputs) == {"waveform", "threshold"} and outputs.keys() & {"f0", "pitchf"}:
        return known("rmvpe", "waveform", audio="waveform", threshold="threshold")
    if len(inputs) != 1 or not outputs:
        return None
    (name, value), result = next(iter(inputs.items())), next(iter(outputs.values()))
    if len(value.shape) == 2 and "unit12" in outputs:
        return known("hubert", "units", audio=name)
    if len(value.shape) != 3 or not value.type.startswith("tensor(float"):
        return None
    last = result.shape[2] if len(result.shape) == 3 else None
    if N_MELS in value.shape[1:2] or (value.shape[1] is None and last == N_BINS):
        return known("rmvpe", "mel", mel=name)
    axis = next((i for i, n in enumerate(result.shape) if i > 0 and n in WIDTHS), None)
    if value.shape[1] == 1 or (value.shape[1] is None and axis is not None):
        width = None if axis is None else result.shape[axis]
        return known("hubert", "vec", audio=name)._replace(width=width, width_axis=axis)
    return None
