"""Voice conversion as a whole: one timed call, cut into its steps by the pipeline's own reports of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from rvc_common.checkpoint import embedder_called

from ..inputs.recordings import SAMPLE_RATE, Audio
from ..metrics.limits import Limits
from ..metrics.parity import Figures
from ..metrics.registry import (
    CENTS,
    CORR,
    COUNT,
    DELAY,
    LEVEL_DB,
    MAX_ABS,
    MISMATCHES,
    RELATIVE,
    SNR_DB,
    Figure,
    figures,
    prefixed,
)
from . import probes, rmvpe, stand_ins
from .base import Calls, Probe, Results, Samples, Settings, Steps, Validated, compared
from .pipeline_figures import convert_figures, f0_figures, filter_figures, joined, with_knobs
from .stack import SYNTHESIZER, Loaded, Stack
from .synthesizer import drawing

HOP_SAMPLES = 160
# the other settings are compared on the first five seconds, float64 rounding on the first three
KNOBS = {"protect": 0.33, "index_rate": 0.75, "rms_mix": 0.25}
KNOB_SECONDS, FLOOR_SECONDS = 5, 3
INDEX_VECTORS = 256
# of the features that an index holds: as many from every recording, so that indexes of one shape differ
OWN_VECTORS = 16
# an undecided frame that moved by more than this fell the other way
FLIPPED_CENTS = 1.0
# which part of the call a reported step ends; those of segments are reported as segment.NUMBER.NAME
# of a conversion by a port: the audio at 16 kHz, and the settings of ``Pipeline.convert``
PORT_TAKES = ("audio", "transpose", "index", "index_rate", "protect", "rms_mix", "speaker", "threshold")
PARTS = {"filtered": "filter", "cuts": "filter", "padded": "filter", "f0": "f0", "pitch": "f0"}
PARTS |= {"joined": "finish", "audio": "finish"}
SEGMENT_PARTS = {"features": "content", "phone": "blend", "audio": "synthesis"}


figures(RELATIVE, "padded_relative")
figures(MAX_ABS, "knobs_blend_max_abs")
prefixed("own")
prefixed("knobs")


class Models(Loaded):
    def __init__(self, package: ModuleType, loaded: Loaded, settings: Settings) -> None:
        super().__init__(*loaded.parts)
        if settings.get("embedder"):
            self.hubert.embedder = embedder_called(settings["embedder"])
        self.pipeline = package.Pipeline(*self.parts, profile=settings["profile"])

    def pipeline_for(self, settings: Settings) -> Any:
        """The pipeline; where a probe asks for it, one that cuts long audio otherwise, with a fainter voice, or with
        stand-ins of its networks."""
        if "stand_ins" in settings:
            own = settings["profile"], settings["stand_ins"]
            models = stand_ins.in_place_of(self.hubert, self.synthesizer, *own)
            return type(self.pipeline)(*models, profile=own[0], windows=settings.get("windows"))
        if "windows" not in settings and "voice_level" not in settings:
            return self.pipeline
        voice = self.synthesizer
        if "voice_level" in settings:
            voice = probes.Levelled(voice, settings["voice_level"], settings["windows"]["x_pad"])
        models = (self.hubert, self.rmvpe, voice)
        return type(self.pipeline)(*models, profile=self.pipeline.profile, windows=settings.get("windows"))


class Reached(Exception):
    """Ends a conversion at the step that was wanted."""


class Recorder:
    """Keeps what a conversion reports, and how long each of its parts took."""

    def __init__(self, until: str | None = None) -> None:
        self.steps, self.until = Steps(), until
        self.last = time.perf_counter()

    def __call__(self, path: str, array: np.ndarray) -> None:
        now = time.perf_counter()
        self.steps[path] = array
        table, name = (SEGMENT_PARTS, path.split(".")[-1]) if path.startswith("segment.") else (PARTS, path)
        if name in table:  # the time of a step that is not listed goes to the next one that is
            part = table[name]
            self.steps.seconds[part] = self.steps.seconds.get(part, 0.0) + now - self.last
            self.last = now
        if path == self.until:
            raise Reached


class Pipeline(Stack):
    name = "pipeline"
    title = "Voice conversion: the whole pipeline"
    subject = "the pipeline"
    order = 4
    sections = ("time", "parity", "pitch")
    whole = "convert"
    takes_audio = True
    same_code = ("filter",)
    shared = (("padded", "front.padded"), ("f0", "front.f0"))
    extras = ("salience", "given_f0", "knobs")
    takes_index = True
    validated = (
        Validated("High-pass, cuts and padding", r"(filtered|cuts|padded)$"),
        Validated("Pitch and its codes", r"(f0|pitchf|pitch)$"),
        Validated("Content features", r"segment\.\d+\.features$"),
        Validated("Retrieval and protection", r"segment\.\d+\.(retrieved|phone)$"),
        Validated("Synthesis", r"segment\.\d+\.(audio|trimmed)$"),
        Validated("Joined and finished audio", r"(joined|audio)$"),
    )
    about_time = "From audio in host memory to converted audio in host memory"
    about_parity = (
        "Both sides draw the same noise. The steps are compared within a conversion that is handed the reference's F0, "
        "`f0` on each side's own. `convert` is judged three times: with the reference's F0 (`given_f0`), with its own "
        "(`own_f0`), and, on the first seconds, with protection, retrieval and the loudness mix switched on (`knobs`). "
        "*Undecided* frames are closer to the voicing threshold, or to a tie of two bins, than the salience error: "
        "they are counted, and not judged; where one was decided differently (*flipped*), the audio with own F0 is not "
        "judged either. *Same code*: both sides run one function, so its agreement proves nothing."
    )
    judged = (
        *figures(RELATIVE, "filtered_relative"),
        *figures(MISMATCHES, "cut_mismatches"),
        *rmvpe.CHAIN,
        *figures(MAX_ABS, "content_max_abs", "blend_max_abs"),
        *figures(SNR_DB, "synthesis_snr_db", "finish_snr_db", "given_f0_snr_db", "knobs_snr_db", "own_snr_db"),
        *figures(CORR, "own_corr"),
    )
    details = (
        Figure("filtered_relative", RELATIVE, "filtered, relative", "filter"),
        Figure("voicing_mismatches", MISMATCHES, "voicing mismatches", "f0"),
        Figure("max_cents", CENTS, "max cents", "f0"),
        Figure("undecided_frames", COUNT, "undecided", "f0"),
        Figure("flipped_frames", COUNT, "flipped", "f0"),
        Figure("max_abs", MAX_ABS, "features max abs", "content"),
        Figure("snr_db", SNR_DB, "features SNR dB", "content"),
        Figure("max_abs", MAX_ABS, "phone max abs", "blend"),
        Figure("snr_db", SNR_DB, "segments SNR dB", "synthesis"),
        Figure("max_abs", MAX_ABS, "audio max abs, F0 given", "convert"),
        Figure("snr_db", SNR_DB, "SNR dB", "convert"),
        Figure("own_snr_db", SNR_DB, "SNR dB, own F0", "convert"),
        Figure("own_corr", CORR, "correlation, own F0", "convert"),
        Figure("own_level_db", LEVEL_DB, "level dB, own F0", "convert"),
        Figure("own_delay_samples", DELAY, "delay in samples, own F0", "convert"),
        Figure("knobs_snr_db", SNR_DB, "SNR dB, knobs", "convert"),
    )

    takes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "convert": (*PORT_TAKES, "noise"),
        "given_f0": (*PORT_TAKES, "f0", "noise"),
    }

    def load(
        self, package: ModuleType, paths: Mapping[str, str], options: dict[str, Any], settings: Settings
    ) -> Models:
        return Models(package, super().load(package, paths, options, settings), settings)

    def calls(self, model: Any, given: Results, settings: Settings) -> Calls:
        return {
            "convert": lambda: conversion(model, given["audio"], settings),
            "front": lambda: _front(model, given["audio"], settings),
            "salience": lambda: _salience(model, given["padded"]),
            "given_f0": lambda: conversion(model, given["audio"], settings, given.get("f0")),
            "knobs": lambda: conversion(model, *_head(given, KNOB_SECONDS, {**settings, **KNOBS})),
        }

    def rounding(self, model: Any, exact: Any, given: Results, settings: Settings) -> Results:
        found: Results = {}
        audio, settings, f0 = _head(given, FLOOR_SECONDS, settings)
        for kind, one in (("floor", model), ("exact", exact)):
            steps = conversion(one, audio, settings, f0)
            found |= {f"{kind}_{name}": steps[path] for name, path in FLOORS.items()}
        if model.synthesizer.has_f0:
            padded = given["padded"].astype(np.float32)
            mel = model.rmvpe.mel(padded)
            found |= rmvpe.rounding(model.rmvpe, exact.rmvpe, padded, mel, settings["threshold"])
        return found

    def walk(self, model: Any, given: Results, settings: Settings) -> Iterator[Any]:
        pipeline = model.pipeline_for(settings)
        return pipeline.walk(given["audio"], settings.get("sample_rate", SAMPLE_RATE), **_knobs(model, settings, given))

    def call(self, model: Any, given: Results, settings: Settings) -> np.ndarray:
        pipeline = model.pipeline_for(settings)
        knobs = _knobs(model, settings, given)
        return pipeline.convert(given["audio"], settings.get("sample_rate", SAMPLE_RATE), **knobs)[0]

    def made_inputs(self, model: Any, given: Results, settings: Settings) -> Results:
        index = _knobs(model, settings, given)["index"]
        return {"index": index} if isinstance(index, np.ndarray) else {}

    def own_features(self, model: Any, given: Results, settings: Settings) -> np.ndarray:
        """Some of the very features of this input: a frame that is in the index has distance zero."""
        events = self.walk(model, given, settings)
        features = next(e.carry["features"] for e in events if e.whole_path == "segment.0.features")
        return features[np.linspace(0, len(features) - 1, OWN_VECTORS).astype(int)]

    def check(self, settings: Settings, facts: Mapping[str, Any]) -> None:
        SYNTHESIZER.check(settings, facts)
        if settings["index"] is not None:
            probes.check_index(settings["index"], facts["phone_channels"])

    def probes(self, audio: Audio, settings: Settings, facts: Mapping[str, Any]) -> tuple[Probe, ...]:
        short = stand_ins.conversions(audio, facts["speakers"], settings["seed"])
        return (*probes.of_conversion(audio, KNOBS, facts["speakers"]), *short)

    def frames(self, samples: int) -> int:
        return 1 + samples // HOP_SAMPLES

    def components(self, configured: tuple[str, ...], facts: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(name for name in configured if name != "f0" or facts["has_f0"])

    def timed(self, components: tuple[str, ...]) -> tuple[str, ...]:
        return ("convert",)

    def call_of(self, component: str) -> str:
        return "convert"

    def figures(self, name: str, results: Results, reference: Results, limits: Limits, settings: Settings) -> Figures:
        judges = {"filter": filter_figures, "f0": f0_figures, "convert": convert_figures}
        if name in judges:
            return judges[name](results, reference, limits, settings)
        path, figure, floor = STEPS[name]
        ours, theirs = joined(results, path), joined(reference, path)
        figures = compared(path, ours, reference | theirs, limits, {figure: f"{name}_{figure}"}, floor)
        return with_knobs(figures, results, reference, limits) if name == "blend" else figures

    def timing_fault(self, component: str, samples: Samples, settings: Settings) -> str | None:
        """Parts that do not add up to the whole were not parts of it, or something runs between them."""
        if component != self.whole:
            return None
        for number, whole in samples[self.whole].items():
            total = sum(taken.get(number, 0.0) for part, taken in samples.items() if part != self.whole)
            if total == 0:  # a port that is timed as a whole
                return None
            if abs(total / whole - 1.0) > settings["parts_tolerance"]:
                return f"the parts add up to {100 * total / whole:.1f} % of the whole in round {number}"
        return None

    def contours(self, results: Mapping[str, Results], reference: str, audio: Audio) -> Results:
        if "convert.f0" not in results[reference]:
            return {}
        # the clip was padded on both sides; what is drawn is the clip itself
        edge = (results[reference]["convert.padded"].size - audio.samples.size) // 2 // HOP_SAMPLES
        part = slice(edge, edge + min(audio.samples.size // HOP_SAMPLES, rmvpe.CONTOUR_FRAMES))
        arrays = {
            f"f0.{backend}": found["convert.f0"][part] for backend, found in results.items() if "convert.f0" in found
        }
        arrays["mel"] = results[reference]["salience.mel"][:, part].astype(np.float16)
        if audio.f0_hz is not None:
            arrays["f0.truth"] = audio.f0_hz[: part.stop - part.start]
        return arrays

    def sound(self, results: Results) -> tuple[np.ndarray, int] | None:
        if "convert.audio" not in results:
            return None
        return results["convert.audio"], int(results["convert.sample_rate"])


# component: the reported step that it is judged by, the figure, and its array of ``rounding``
STEPS = {
    "content": ("features", "max_abs", "features"),
    "blend": ("phone", "max_abs", "phone"),
    "synthesis": ("segments", "snr_db", "segment"),
    "finish": ("audio", "snr_db", "audio"),
}
# array of ``rounding``: the reported step that it is
FLOORS = {"features": "segment.0.features", "phone": "segment.0.phone", "segment": "segment.0.audio", "audio": "audio"}


# ---------------------------------------------------------------------- in the worker
def conversion(
    model: Models, audio: np.ndarray, settings: Settings, f0: np.ndarray | None = None, recorder: Recorder | None = None
) -> Steps:
    """A conversion and its steps; ``f0`` in Hz skips RMVPE."""
    recorder = recorder or Recorder()
    steps, knobs = recorder.steps, _knobs(model, settings)
    steps["audio"], rate = model.pipeline.convert(audio, SAMPLE_RATE, f0=f0, watch=recorder, **knobs)
    steps["sample_rate"] = np.array(rate)
    return steps


def _knobs(model: Models, settings: Settings, given: Results | None = None) -> dict[str, Any]:
    """The arguments of a conversion; where there is no index: seeded vectors and ``given["vectors"]``."""
    knobs = {name: settings[name] for name in ("transpose", "index_rate", "protect", "rms_mix", "speaker", "index")}
    if knobs["index"] is None and knobs["index_rate"] > 0:
        rng = np.random.default_rng([settings["seed"], 5])
        vectors = rng.standard_normal((INDEX_VECTORS, model.synthesizer.phone_channels), dtype=np.float32)
        own = None if given is None else given.get("vectors")
        vectors = vectors if own is None else np.concatenate([vectors, own])
        vectors = vectors[-settings.get("index_vectors", len(vectors)) :]
        knobs["index"] = probes.in_lists(vectors, own) if own is not None and settings.get("lists") else vectors
        if settings.get("loaded_index"):
            knobs["index"] = model.pipeline.load_index(knobs["index"])
    knobs |= {name: settings[name] for name in ("autotune", "propose_hz", "exhaustive") if name in settings}
    if given is not None and "own_f0" in given and model.synthesizer.has_f0:
        knobs["f0"] = given["own_f0"]
    return knobs | {"noise": settings.get("noise") or drawing(settings)}


def _front(model: Models, audio: np.ndarray, settings: Settings) -> dict[str, np.ndarray]:
    """A conversion that ends once it knows its F0: the padded clip, and F0 where the voice has pitch."""
    recorder = Recorder(until="f0" if model.synthesizer.has_f0 else "padded")
    with contextlib.suppress(Reached):
        conversion(model, audio, settings, None, recorder)
    return {name: recorder.steps[name] for name in ("padded", "f0") if name in recorder.steps}


def _salience(model: Models, padded: np.ndarray) -> dict[str, np.ndarray]:
    """What RMVPE makes of the padded clip, for the contours and the undecided frames."""
    if not model.synthesizer.has_f0:
        return {}
    mel = model.rmvpe.mel(padded.astype(np.float32))
    return {"mel": mel, "salience": model.rmvpe.salience(mel)}


def _head(given: Results, seconds: int, settings: Settings) -> tuple[np.ndarray, Settings, np.ndarray | None]:
    """The first seconds of the clip and of its F0, which belongs to the padded clip."""
    audio = given["audio"][: seconds * SAMPLE_RATE]
    padding = given["padded"].size - given["audio"].size
    f0 = given["f0"][: (audio.size + padding) // HOP_SAMPLES] if "f0" in given else None
    return audio, settings, f0
