"""HuBERT: the seven convolutions, the transformer after them, and the whole call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

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
# of one frame each: products of only a few rows are more exact in PyTorch than a floor of other sizes allows for
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

    def walk(self, model: Any, given: Results, settings: Settings) -> Iterator[Any]:
        return model.walk(given["audio"], settings["version"], settings["profile"])

    def call(self, model: Any, given: Results, settings: Settings) -> np.ndarray:
        found = model.features(given["audio"], settings["version"], settings["profile"])
        return found if found.ndim == 3 else found[None]

    def probes(self, audio: Audio, settings: Settings, facts: Mapping[str, Any]) -> tuple[Probe, ...]:
        """The clip; three short ones as a batch, ordinary, all but silent and louder than 1; a batch of the same shape
        with other content, digital silence in it; and items of as little audio as gives one frame."""
        part = fitted(audio.samples, 2 * EVEN_SAMPLES).reshape(2, -1)
        batch = np.stack([part[0], loudest(part[1], 1e-3), loudest(part[0][::-1], 1.5)])
        other = np.stack([0 * part[0], part[1], part[1][::-1]])
        return (
            Probe("clip", {"audio": audio.samples}),
            Probe("batch", {"audio": batch}),
            Probe("same shape", {"audio": other}),
            Probe(
                "one frame", {"audio": fitted(audio.samples, SHORT_ITEMS * RECEPTIVE_SAMPLES).reshape(SHORT_ITEMS, -1)}
            ),
        )

    def frames(self, samples: int) -> int:
        return (samples - RECEPTIVE_SAMPLES) // HOP_SAMPLES + 1

    def figures(self, name: str, results: Results, reference: Results, limits: Limits, settings: Settings) -> Figures:
        return compared(name, results, reference, limits, {"max_abs": f"{name}_max_abs"})
