"""The parts that conversions spend their time in, each alone: from host to host, and with everything on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..inputs.recordings import Audio
from ..metrics.limits import Limits
from ..metrics.parity import Figures
from ..metrics.registry import MAX_ABS, RELATIVE, SNR_DB, Figure, columns, figures
from .base import Calls, OnDevice, Results, Settings, compared
from .config import VoiceOptions
from .stack import RMVPE, SYNTHESIZER, Loaded, Stack

ON_DEVICE = "_device"
# of the network's blocks: what the BiGRU is given is as long
FRAME_MULTIPLE, GRU_CHANNELS = 32, 384
# component: the figures that are judged, each by the limit of that name; the rest is ``mel``
JUDGED = {
    "gru": ("max_abs",),
    "hubert": ("max_abs",),
    "attention": ("max_abs",),
    "flow": ("max_abs",),
    "source": ("max_abs",),
    "decode": ("max_abs", "snr_db"),
}
# what a resident call's output is called in the plain one
OUTPUT = {"mel": "mel", "gru": "gru", "hubert": "features", "source": "source", "decode": "audio"}


class Components(Stack):
    name = "components"
    title = "Single parts"
    subject = "single parts"
    order = 5
    sections = ("time", "roofline", "parity")
    options = VoiceOptions
    counted = True
    shared = (("z_p", "latent"), ("z", "flow"))
    about_time = "Each part alone"
    about_components = (
        "Every part is given the same input on every backend. A plain name is the call from NumPy arrays to NumPy "
        f"arrays. A name that ends in `{ON_DEVICE}` is the same work with its input on the device before the clock "
        "starts, and every output computed, but not copied, when it stops; its noise was drawn before (F0, which the "
        "source sums on the host, is copied within the call)."
    )
    about_parity = "Every part is compared on the reference's own input; both sides draw the same noise."
    judged = (
        *figures(RELATIVE, "mel_relative"),
        *figures(MAX_ABS, "encode_max_abs", *(f"{name}_max_abs" for name in JUDGED)),
        *figures(SNR_DB, "decode_snr_db"),
    )
    details = (
        *columns("mel", MAX_ABS),
        *columns("gru_device", MAX_ABS, label="BiGRU"),
        *columns("hubert", MAX_ABS, label="features"),
        Figure("m_p_max_abs", MAX_ABS, "mean max abs", "encode"),
        *columns("attention", MAX_ABS),
        *columns("flow", MAX_ABS),
        *columns("source", MAX_ABS),
        *columns("decode", MAX_ABS, SNR_DB),
    )

    def calls(self, model: Any, given: Results, settings: Settings) -> Calls:
        voice = SYNTHESIZER.calls(model.synthesizer, given, settings)
        calls: Calls = {name: voice[name] for name in ("encode", "attention", "flow", "source", "decode", "latent")}
        calls["mel"] = lambda: model.rmvpe.mel(given["audio"])
        calls["hubert"] = lambda: model.hubert.features(given["audio"], settings["version"], settings["profile"])
        makers = _residents(model, given, settings)

        def on_device(name: str) -> Callable[[], OnDevice]:
            def call() -> OnDevice:
                resident = model.resident(name, given, makers[name])
                return OnDevice(resident, resident())

            return call

        return calls | {name + ON_DEVICE: on_device(name) for name in makers}

    def rounding(self, model: Any, exact: Any, given: Results, settings: Settings) -> Results:
        found = SYNTHESIZER.rounding(model.synthesizer, exact.synthesizer, given, settings)
        for kind, one in (("floor", model), ("exact", exact)):
            found[f"{kind}_hubert"] = one.hubert.features(given["audio"], settings["version"], settings["profile"])
            resident = one.rmvpe.resident("gru", given["gru"])
            found[f"{kind}_gru"] = resident.host(resident())["gru"]
        return found | {"exact_mel": exact.rmvpe.mel(given["audio"])}

    def components(self, configured: tuple[str, ...], facts: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(name for name in configured if facts["has_f0"] or not name.startswith("source"))

    def inputs(self, audio: Audio, settings: Settings, facts: Mapping[str, Any]) -> Results:
        found = SYNTHESIZER.inputs(audio, settings, facts)
        frames = -(-found["phone"].shape[1] // FRAME_MULTIPLE) * FRAME_MULTIPLE
        rng = np.random.default_rng([settings["seed"], 8])
        gru = rng.standard_normal((1, frames, GRU_CHANNELS), dtype=np.float32)
        return found | {"audio": audio.samples, "gru": gru}

    def figures(self, name: str, results: Results, reference: Results, limits: Limits, settings: Settings) -> Figures:
        part = name.removesuffix(ON_DEVICE)
        if name != part:
            floors = {name: array for name, array in reference.items() if name.startswith(("exact_", "floor_"))}
            results, reference = _as_host(part, results), _as_host(part, reference) | floors
        if part == "mel":
            return RMVPE.figures("mel", results, reference, limits, settings)
        if part == "encode":
            return SYNTHESIZER.figures("encode", results, reference, limits, settings)
        return compared(part, results, reference, limits, {name: f"{part}_{name}" for name in JUDGED[part]})


def _residents(model: Loaded, given: Results, settings: Settings) -> dict[str, Callable[[], Any]]:
    voice, seed = model.synthesizer, settings["seed"]
    f0 = given["f0"] if voice.has_f0 else None
    phone = (given["phone"], given["lengths"], given["pitch"] if voice.has_f0 else None)
    return {
        "mel": lambda: model.rmvpe.resident("mel", given["audio"]),
        "gru": lambda: model.rmvpe.resident("gru", given["gru"]),
        "hubert": lambda: model.hubert.resident(given["audio"], settings["version"], settings["profile"]),
        "encode": lambda: voice.resident("encode", *phone),
        "attention": lambda: voice.resident("attention", given["hidden"], given["hidden_lengths"]),
        "flow": lambda: voice.resident("flow", given["z_p"], given["mask"], given["speaker"]),
        "source": lambda: voice.resident("source", f0, seed),
        "decode": lambda: voice.resident("decode", given["z"], f0, given["speaker"], seed),
    }


def _as_host(part: str, found: Results) -> Results:
    """A resident call's outputs under the names that the plain call's have."""
    name = f"{part}{ON_DEVICE}"
    if part == "encode":
        return {f"encode.{x}": found[f"{name}.{x}"] for x in ("m_p", "logs_p")}
    return {part: found[f"{name}.{OUTPUT.get(part, 'x')}"]}
