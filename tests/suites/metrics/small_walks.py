"""Walks of small models of every kind, and an empty table of floors."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from small_models import hubert, inputs, pipeline, rmvpe, synthesizer

from suites.inputs.recordings import SAMPLE_RATE
from suites.inputs.voice import synthesize
from suites.metrics.floors import (
    SCHEMA,
)

MODELS = ("rmvpe", "hubert", "synthesizer", "pipeline")
# every vocoder, with and without pitch, both versions
VOICES = ("synth_v1_40k_f0", "synth_v2_32k_f0_mrf", "synth_v2_24k_f0_refinegan", "synth_v2_48k_nof0")
Events = Iterator[Any]


@functools.cache
def model_of(side: str, model: str) -> Any:
    if model == "pipeline":
        return pipeline(side, windows={"x_pad": 0.3})
    return {"rmvpe": rmvpe, "hubert": hubert}[model](side)


def walks(side: str, model: str) -> Iterator[Events]:
    """Of a small model on one side; the synthesizer's are of every kind of voice."""
    audio = synthesize(0.4, 3).audio
    if model == "synthesizer":
        for name in VOICES:
            voice = synthesizer(side, name)
            yield voice.walk(**inputs(voice, 4, batch=2), noise=0)
    elif model == "pipeline":
        vectors = inputs(model_of(side, model).synthesizer, 40)["phone"][0]
        yield model_of(side, model).walk(audio, SAMPLE_RATE, index=vectors, index_rate=0.5)
    else:
        yield model_of(side, model).walk(audio)


def stored(**parts: Any) -> dict[str, Any]:
    return {"schema": SCHEMA, "made": {}, "policies": {}, "components": {}} | parts
