"""HuBERT: the seven convolutions, the transformer after them, and the whole call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from rvc_common.checks import PROFILES
from rvc_common.hubert import WEBUI_V1_LAYERS
from rvc_common.stages import FEATURES, Event

from ..inputs.recordings import SAMPLE_RATE, Audio
from ..metrics.limits import Limits
from ..metrics.parity import Figures
from ..metrics.registry import COMPARED, MAX_ABS, columns, figures
from .base import LONGEST_SEGMENT_S, Calls, Probe, Results, Settings, Suite, Validated, compared
from .config import HubertOptions
from .probes import fitted, loudest

# the rounding floor is measured on the first seconds: float64 is slow
FLOOR_SECONDS = 15
RECEPTIVE_SAMPLES, HOP_SAMPLES = 400, 320
# of a batch: an even number of frames after each of the seven convolutions, where the clip of a trace has odd ones
EVEN_SAMPLES = 8475
# frames of calls that are compared alone, each with other samples than its frames need and another level: below and
# at the lengths from which rvc_mlx takes other ways (its SHORTEST_...), and every remainder of its blocks of four
OTHER_FRAMES = {2: 1.0, 3: 1e-4, 6: 30.0, 9: 1.0, 13: 1e-2, 16: 0.5, 63: 1.0, 64: 0.1, 101: 1.0, 127: 0.3, 128: 1.0}
# from so many on a call takes long with every optimisation off
LONG_CALL_FRAMES = 60
# longer than any segment but those of quiet recordings; the transformer's first layer alone takes so many
LONG_FRAMES = 2200
# of one frame each, and frames of a short clip, which is repeated: products of only a few rows are more exact in
# PyTorch than a floor of other sizes allows for
SHORT_ITEMS = 16


class Hubert(Suite):
    name = "hubert"
    title = "Content features: HuBERT"
    subject = "HuBERT"
    order = 2
    sections = ("time", "parity")
    options = HubertOptions
    whole = "features"
    checkpoints = ("hubert",)
    shared = (("extracted", "extract"),)
    longest_traced_s = LONGEST_SEGMENT_S
    parts = ("extract", "encode")
    pipeline_step = "features"
    validated = (
        Validated("HuBERT feature extractor", r"feature_extractor\."),
        Validated("HuBERT feature projection", r"feature_projection\."),
        Validated("HuBERT position convolution", r"encoder\.pos_conv_embed"),
        Validated("HuBERT layers", r"encoder\.layers\."),
        Validated("HuBERT features", r"features$"),
    )
    about_time = "From audio in host memory to content features in host memory"
    about_parity = (
        "`encode` is compared on the reference's own input, `features` on each side's own values from the audio on."
    )
    judged = figures(MAX_ABS, "extract_max_abs", "encode_max_abs", "features_max_abs")
    details = (*columns("extract", *COMPARED), *columns("encode", *COMPARED), *columns("features", *COMPARED))

    takes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "extract": ("audio",),
        "encode": ("extracted", "version", "profile"),
        "features": ("audio", "version", "profile"),
    }

    def load(self, package: ModuleType, paths: Mapping[str, str], options: dict[str, Any], settings: Settings) -> Any:
        return package.Hubert.from_checkpoint(paths["hubert"], **options)

    def calls(self, model: Any, given: Results, settings: Settings) -> Calls:
        variant = (settings["version"], settings["profile"])
        return {
            "extract": lambda: model.extract(given["audio"]),
            "encode": lambda: model.encode(given["extracted"], *variant),
            "features": lambda: model.features(given["audio"], *variant),
        }

    def rounding(self, model: Any, exact: Any, given: Results, settings: Settings) -> Results:
        samples = FLOOR_SECONDS * SAMPLE_RATE
        head = {"audio": given["audio"][:samples], "extracted": given["extracted"][: self.frames(samples)]}
        found: dict[str, Any] = {}
        for kind, one in (("floor", model), ("exact", exact)):
            found |= {f"{kind}_{name}": call() for name, call in self.calls(one, head, settings).items()}
        return found

    def facts(self, model: Any) -> dict[str, Any]:
        own = {"conv_channels": model.config.conv_channels, "projected": model.config.projected is not None}
        return super().facts(model) | own | {"layers": model.config.layers}

    def walk(self, model: Any, given: Results, settings: Settings) -> Iterator[Any]:
        if settings.get("extract"):
            return iter([Event("(extract)", {"x": self.call(model, given, settings)}, "x", axes=FEATURES)])
        if "extracted" in given:
            return model.walk_layers(given["extracted"], 1)
        return model.walk(given["audio"], settings["version"], settings["profile"])

    def call(self, model: Any, given: Results, settings: Settings) -> np.ndarray:
        if settings.get("extract"):
            return model.extract(given["audio"])
        if "extracted" in given:
            return model.encode(given["extracted"], layers=1)
        found = model.features(given["audio"], settings["version"], settings["profile"])
        return found[None] if given["audio"].ndim == 1 else found

    def probes(self, audio: Audio, settings: Settings, facts: Mapping[str, Any]) -> tuple[Probe, ...]:
        """The clip; three short ones as a batch, ordinary, all but silent and louder than 1; a batch of the same shape
        with other content, digital silence in it; and items of as little audio as gives one frame. Of the call alone:
        other lengths and levels, batches of other sizes and types, other versions, and a long recording's first layer.
        """
        part = fitted(audio.samples, 2 * EVEN_SAMPLES).reshape(2, -1)
        batch = np.stack([part[0], loudest(part[1], 1e-3), loudest(part[0][::-1], 1.5)])
        other = np.stack([0 * part[0], part[1], part[1][::-1]])
        items = -(-SHORT_ITEMS // self.frames(audio.samples.size))
        return (
            Probe("clip", {"audio": audio.samples if items == 1 else np.tile(audio.samples, (items, 1))}),
            Probe("batch", {"audio": batch}),
            Probe("same shape", {"audio": other}),
            Probe(
                "one frame", {"audio": fitted(audio.samples, SHORT_ITEMS * RECEPTIVE_SAMPLES).reshape(SHORT_ITEMS, -1)}
            ),
            *self._calls(audio, batch, settings, facts),
        )

    def _calls(self, audio: Audio, batch: np.ndarray, settings: Settings, facts: Mapping[str, Any]) -> Iterator[Probe]:
        """Of which the results are compared: a length, a shape or an option each."""
        for number, (frames, peak) in enumerate(OTHER_FRAMES.items()):
            count = RECEPTIVE_SAMPLES + HOP_SAMPLES * (frames - 1) + 67 * number % HOP_SAMPLES
            samples = loudest(np.roll(fitted(audio.samples, count), 1000 * number), peak)
            yield Probe(f"{frames} frames", {"audio": samples}, plain=frames < LONG_CALL_FRAMES, walked=False)
        yield Probe("one item", {"audio": batch[2:, :4000].astype(np.float64)}, walked=False)
        yield Probe("clip alone", {"audio": audio.samples[: SHORT_ITEMS * HOP_SAMPLES]}, walked=False)
        yield Probe("float16", {"audio": batch[0].astype(np.float16)}, walked=False)
        yield Probe("convolutions", {"audio": batch[:2]}, {"extract": True}, plain=False, walked=False)
        several = np.concatenate([batch, 0.5 * batch[:, ::-1]])[:, :3000]
        yield Probe("six items", {"audio": np.asfortranarray(several)}, walked=False)
        for profile in PROFILES if facts["projected"] and facts["layers"] >= WEBUI_V1_LAYERS else ():
            v1 = {"version": "v1", "profile": profile}
            if any(settings[name] != value for name, value in v1.items()):
                yield Probe(f"v1 {profile}", {"audio": batch[0]}, v1, walked=False)
        rng = np.random.default_rng([settings["seed"], 8])
        long = rng.standard_normal((LONG_FRAMES, facts["conv_channels"]), dtype=np.float32)
        yield Probe("long", {"extracted": long}, plain=False, walked=False, pieces=False)

    def frames(self, samples: int) -> int:
        return (samples - RECEPTIVE_SAMPLES) // HOP_SAMPLES + 1

    def figures(self, name: str, results: Results, reference: Results, limits: Limits, settings: Settings) -> Figures:
        return compared(name, results, reference, limits, {"max_abs": f"{name}_max_abs"})
