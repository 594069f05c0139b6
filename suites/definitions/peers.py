"""Other implementations beside ours: the networks that conversions spend their time in, and a whole conversion."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from ..inputs.recordings import Audio
from ..metrics import parity
from ..metrics.limits import Limits
from ..metrics.parity import Figures
from ..metrics.registry import CORR, MAX_ABS, SNR_DB, columns, figures
from .base import Calls, Results, Settings, compared
from .config import PeersOptions
from .pipeline import PORT_TAKES, Models, Pipeline, conversion
from .stack import HUBERT, RMVPE, SYNTHESIZER, Stack

PIPELINE = Pipeline()
# component: its figures, and the limits of theirs, which are those of the suites that the networks are from
JUDGED = {
    "rmvpe": {"max_abs": "salience_max_abs"},
    "hubert": {"max_abs": "features_max_abs"},
    "vocoder": {"max_abs": "decode_max_abs", "snr_db": "decode_snr_db"},
}


class Peers(Stack):
    name = "peers"
    title = "Peers: other implementations beside ours"
    subject = "the peers"
    order = 10
    sections = ("time", "parity")
    options = PeersOptions
    takes_index = True
    headlines = ("rmvpe", "hubert", "vocoder", "pipeline")
    measures_headlines = True
    shared = (("mel", "mel"), ("z_p", "latent"), ("z", "flow"))
    about_time = "Each network alone and a whole conversion, from host memory to host memory"
    about_components = (
        "Every backend is given the same input and the same noise. *Memory*: the most that its process held during the "
        "first call of that component, with everything loaded that this backend has; on a GPU by the framework's own "
        "count."
    )
    about_parity = (
        "The networks are compared on the reference's own input, `pipeline` on each side's own values. The weights are "
        "synthetic: where one frame of F0 is decided differently, the audio of `pipeline` differs throughout, so its "
        "figures are shown and not judged."
    )
    judged = (
        *figures(MAX_ABS, "salience_max_abs", "features_max_abs", "decode_max_abs"),
        *figures(SNR_DB, "decode_snr_db"),
    )
    details = (
        *columns("rmvpe", MAX_ABS, label="salience"),
        *columns("hubert", MAX_ABS, label="features"),
        *columns("vocoder", MAX_ABS, SNR_DB),
        *columns("pipeline", SNR_DB, CORR),
    )
    others: ClassVar[Mapping[str, tuple[str, str]]] = {
        "rmvpe": ("rmvpe", "network"),
        "hubert": ("hubert", "features"),
        "vocoder": ("synthesizer", "decode"),
        "pipeline": ("pipeline", "convert"),
    }
    takes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "rmvpe": RMVPE.takes["network"],
        "hubert": HUBERT.takes["features"],
        "vocoder": SYNTHESIZER.takes["decode"],
        "pipeline": (*PORT_TAKES, "noise"),
    }

    def load(
        self, package: ModuleType, paths: Mapping[str, str], options: dict[str, Any], settings: Settings
    ) -> Models:
        return PIPELINE.load(package, paths, options, settings)

    def calls(self, model: Any, given: Results, settings: Settings) -> Calls:
        voice = SYNTHESIZER.calls(model.synthesizer, given, settings)
        return {
            "rmvpe": lambda: model.rmvpe.salience(given["mel"]),
            "hubert": lambda: model.hubert.features(given["audio"], settings["version"], settings["profile"]),
            "vocoder": voice["decode"],
            "pipeline": lambda: conversion(model, given["audio"], settings),
            "mel": lambda: model.rmvpe.mel(given["audio"]),
            "latent": voice["latent"],
            "flow": voice["flow"],
        }

    def rounding(self, model: Any, exact: Any, given: Results, settings: Settings) -> Results:
        found: Results = {}
        for kind, one in (("floor", model), ("exact", exact)):
            calls = self.calls(one, given, settings)
            found |= {f"{kind}_{name}": np.asarray(calls[name]()) for name in ("rmvpe", "hubert", "vocoder")}
        return found

    def inputs(self, audio: Audio, settings: Settings, facts: Mapping[str, Any]) -> Results:
        return SYNTHESIZER.inputs(audio, settings, facts) | {"audio": audio.samples}

    def figures(self, name: str, results: Results, reference: Results, limits: Limits, settings: Settings) -> Figures:
        if name == "pipeline":
            found = parity.compare(results["pipeline.audio"], reference["pipeline.audio"])
            return found | {"limits": {}}
        return compared(name, results, reference, limits, JUDGED[name])
