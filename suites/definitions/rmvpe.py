"""RMVPE: audio to log-mel, log-mel to salience, salience to F0, and the whole call."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from rvc_common.rmvpe import N_MELS
from rvc_common.stages import BINS, CONTOUR, Event
from rvc_common.steps import HOP_SAMPLES

from ..inputs.recordings import Audio
from ..metrics import parity
from ..metrics.audio import compare_pitch
from ..metrics.limits import Limits
from ..metrics.parity import Figures
from ..metrics.registry import CENTS, COUNT, MAX_ABS, MISMATCHES, RELATIVE, SNR_DB, Figure, figures, prefixed
from . import probes
from .base import Calls, Probe, Results, Settings, Suite, Validated, floor_of, of_trained
from .config import PitchOptions

# the network's rounding floor is measured on the first 32 s: float64 is slow
FLOOR_FRAMES = 3200
CONTOUR_FRAMES = 1500
# 18 frames, padded to 32
SHORT_SAMPLES = 2800
# an odd number, and three blocks of 32 frames without any padding
BLOCK_FRAMES, BLOCKS_SAMPLES = 32, 95 * 160 + 81
# mels that are given: of a batch, and of so many frames that the network takes them in tiles once these are small
BATCH_FRAMES, TILED_FRAMES = 40, 2650

# 10 ms frames of calls that are compared alone, each with other samples than its frames need, and its peak: the fewest,
# whole blocks of 32, one more and one less, and remainders of other sorts
OTHER_FRAMES = {17: 1.0, 31: 1e-3, 32: 1.3, 33: 0.1, 49: 0.5, 64: 1e-5, 70: 1.0, 81: 0.0}
# of a batch, its mels' frames; and another threshold than the suite's
OTHER_BATCHES, OTHER_THRESHOLD = {1: 18, 2: 64, 4: 33}, 0.4
# of the WebUI's profile, which pads with zeros
WEBUI_FRAMES, WEBUI_BATCHES = {5: 0.5, 6: 1.0}, {1: 5, 2: 45}

prefixed("salience")

# judged between two backends, on each side's own values
CHAIN = figures(MAX_ABS, "salience_max_abs")
CHAIN += figures(CENTS, "f0_max_cents")
CHAIN += figures(MISMATCHES, "voicing_mismatches")


class Rmvpe(Suite):
    name = "rmvpe"
    title = "Pitch: RMVPE"
    subject = "RMVPE"
    order = 1
    sections = ("time", "parity", "pitch")
    options = PitchOptions
    whole = "f0"
    checkpoints = ("rmvpe",)
    shared = (("mel", "mel"), ("salience", "network"))
    extras = ("own_salience",)
    trained_calls = ("f0", "own_salience")
    parts: ClassVar[tuple[str, ...]] = ("mel", "network", "decode")
    pipeline_step: ClassVar[str | None] = "f0"
    validated: ClassVar[tuple[Validated, ...]] = (
        Validated("Mel spectrogram", r"mel$"),
        Validated("Conv2d", r"unet\..*\.conv\.[03]$"),
        Validated("BatchNorm", r"unet\.(encoder\.bn|.*\.conv\.[14]|.*\.conv1\.1)$"),
        Validated("AvgPool2d", r"unet\..*\.pool$"),
        Validated("Shortcut convolution", r"unet\..*\.shortcut$"),
        Validated("Transposed convolution", r"unet\..*\.conv1(\.0)?$"),
        Validated("U-Net encoder", r"unet\.encoder\."),
        Validated("U-Net intermediate", r"unet\.intermediate\."),
        Validated("U-Net decoder", r"unet\.decoder\."),
        Validated("CNN output", r"cnn$"),
        Validated("BiGRU", r"fc\.0$"),
        Validated("Linear", r"fc\.1$"),
        Validated("Salience", r"sigmoid$"),
        Validated("F0 decoding", r"(cents|f0)$"),
    )
    about_time = "From audio in host memory to F0 in host memory"
    about_parity = (
        "`mel`, `network` and `decode` are compared on the reference's own input, `f0` on each side's own values from "
        "the audio on. Where the timed network is synthetic, `f0` is that of the shipped one, which finds pitch. "
        "*Undecided* frames are closer to the voicing threshold, or to a tie of two bins, than the salience error: "
        "they are counted, and not judged."
    )
    judged = (*figures(RELATIVE, "mel_relative"), *CHAIN)
    details: ClassVar[tuple[Figure, ...]] = (
        Figure("max_abs", MAX_ABS, "mel max abs", "mel"),
        Figure("floor_max_abs", MAX_ABS, "its floor", "mel"),
        Figure("snr_db", SNR_DB, "mel SNR dB", "mel"),
        Figure("max_abs", MAX_ABS, "salience max abs", "network"),
        Figure("snr_db", SNR_DB, "salience SNR dB", "network"),
        Figure("salience_max_abs", MAX_ABS, "salience max abs, chained", "f0"),
        Figure("frames", COUNT, "frames", "f0"),
        Figure("voiced_frames", COUNT, "voiced", "f0"),
        Figure("undecided_frames", COUNT, "undecided", "f0"),
        Figure("voicing_mismatches", MISMATCHES, "voicing mismatches", "f0"),
        Figure("max_cents", CENTS, "max cents", "f0"),
        Figure("mean_cents", CENTS, "mean cents", "f0"),
        Figure("p95_cents", CENTS, "95th percentile cents", "f0"),
        Figure("octave_errors", MISMATCHES, "octave errors", "f0"),
    )

    model: ClassVar[str | None] = "rmvpe"
    takes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "mel": ("audio",),
        "network": ("mel",),
        "decode": ("salience", "threshold"),
        "f0": ("audio", "threshold"),
    }
    composed: ClassVar[Mapping[str, tuple[tuple[str, str], ...]]] = {
        "own_salience": (("mel", "mel"), ("network", "salience"))
    }

    def load(self, package: ModuleType, paths: Mapping[str, str], options: dict[str, Any], settings: Settings) -> Any:
        return package.RMVPE.from_checkpoint(paths["rmvpe"], profile=settings["profile"], **options)

    def calls(self, model: Any, given: Results, settings: Settings) -> Calls:
        return {
            "mel": lambda: model.mel(given["audio"]),
            "network": lambda: model.salience(given["mel"]),
            "decode": lambda: model.decode(given["salience"], settings["threshold"]),
            "f0": lambda: model.f0(given["audio"], settings["threshold"]),
            "own_salience": lambda: model.salience(model.mel(given["audio"])),
        }

    def rounding(self, model: Any, exact: Any, given: Results, settings: Settings) -> Results:
        return rounding(model, exact, given["audio"], given["mel"], settings["threshold"])

    def walk(self, model: Any, given: Results, settings: Settings) -> Iterator[Any]:
        if "audio" not in given:
            return self._walk_part(model, given, settings)
        return _in_blocks(model, settings).walk(given["audio"], settings["threshold"])

    def _walk_part(self, model: Any, given: Results, settings: Settings) -> Iterator[Any]:
        """One call that is no part of ``f0`` in this form: a batch of mels, or salience that no network makes."""
        if "chunk" in given:
            yield Event("(blocks)", {"chunk": np.array([model.chunk])}, "chunk", axes=CONTOUR)
            return
        if "mel" in given:
            count, _, frames = given["mel"].shape
            if count == 1 and frames <= BLOCK_FRAMES:  # of more, each side has parts of its own
                yield from _in_blocks(model, settings).walk_network(given["mel"])
            yield Event("(salience)", {"x": self.call(model, given, settings)}, "x", axes=BINS)
            return
        cents = model.cents(given["salience"], settings["threshold"])
        yield Event("cents", {"cents": cents}, "cents", axes=CONTOUR, decides=True)
        yield Event("f0", {"f0": self.call(model, given, settings)}, "f0", axes=CONTOUR, decides=True)

    def call(self, model: Any, given: Results, settings: Settings) -> np.ndarray:
        if "chunk" in given:
            return np.array([model.chunk])
        if "mel" in given:
            return _in_blocks(model, settings).salience(given["mel"], settings.get("block_frames"))
        if "salience" in given:
            return model.decode(given["salience"], settings["threshold"])
        return _in_blocks(model, settings).f0(given["audio"], settings["threshold"])

    def probes(self, audio: Audio, settings: Settings, facts: Mapping[str, Any]) -> tuple[Probe, ...]:
        """The clip with digital silence in it; so little that nearly half of the frames are mirrored; three blocks
        that need no padding, and other audio of that length; salience at the ends of all ranges, and in another order;
        a batch of mels; a long one."""
        clip, n = audio.samples.copy(), audio.samples.size
        clip[n * 6 // 10 : n * 7 // 10] = 0
        blocks = probes.fitted(audio.samples, 2 * BLOCKS_SAMPLES).reshape(2, -1)
        rng = np.random.default_rng([settings["seed"], 7])
        salience = probes.extreme_salience(rng, settings["threshold"])

        def mels(count: int, frames: int) -> Results:
            return {"mel": rng.normal(-5, 2, (count, N_MELS, frames)).astype(np.float32)}

        return (
            Probe("clip", {"audio": clip}),
            Probe("short", {"audio": audio.samples[:SHORT_SAMPLES]}),
            Probe("blocks", {"audio": blocks[0]}, {"block_frames": BLOCK_FRAMES}),
            Probe("same length", {"audio": probes.loudest(blocks[1], 0.02)}, {"block_frames": BLOCK_FRAMES}),
            Probe("salience", {"salience": salience}),
            Probe("same frames", {"salience": salience[::-1].copy()}),
            Probe(
                "threshold",
                {"salience": probes.extreme_salience(rng, OTHER_THRESHOLD)},
                {"threshold": OTHER_THRESHOLD},
            ),
            Probe("batch", mels(3, BATCH_FRAMES)),
            Probe("long", mels(1, TILED_FRAMES), plain=False),
            # in how long blocks a recording of several minutes is taken
            Probe("blocks of its own", {"chunk": np.zeros(1)}),
            *_calls(audio, settings, mels),
        )

    def figures(self, name: str, results: Results, reference: Results, limits: Limits, settings: Settings) -> Figures:
        if name == "mel":
            return _mel_figures(results, reference, limits)
        if name == "network":
            figures = parity.compare(results["network"], reference["network"])
            floor = floor_of(reference, "network", "max_abs") or 0.0
            return figures | {"limits": limits.check("salience_max_abs", figures["max_abs"], floor)}
        if name == "decode":
            figures = parity.compare_f0(results["decode"], reference["decode"])
            checks = limits.check("voicing_mismatches", figures["voicing_mismatches"], 0)
            return figures | {"limits": checks | limits.check("f0_max_cents", figures["max_cents"], 0.0)}
        return f0_figures(of_trained(results), of_trained(reference), limits, settings["threshold"])

    def contours(self, results: Mapping[str, Results], reference: str, audio: Audio) -> Results:
        found = {backend: of_trained(one) for backend, one in results.items()}
        arrays = {f"f0.{backend}": one["f0"][:CONTOUR_FRAMES] for backend, one in found.items() if "f0" in one}
        arrays["mel"] = results[reference]["mel"][:, :CONTOUR_FRAMES].astype(np.float16)
        if audio.f0_hz is not None:
            arrays["f0.truth"] = audio.f0_hz[:CONTOUR_FRAMES]
        return arrays


def _calls(audio: Audio, settings: Settings, mels: Callable[[int, int], Results]) -> Iterator[Probe]:
    """Of which the results are compared: a length and a level, or a size of a batch each."""
    below = {} if settings["profile"] == "applio" else WEBUI_FRAMES
    thresholds: tuple[dict[str, Any], ...] = {"threshold": settings["threshold"] + 0.01}, {}, {"threshold": 0.0}
    for number, (frames, peak) in enumerate((OTHER_FRAMES | below).items()):
        count = HOP_SAMPLES * (frames - 1) + 37 * (number + 1) % HOP_SAMPLES
        samples = probes.loudest(np.roll(probes.fitted(audio.samples, count), 1000 * number), peak)
        samples = samples.astype((np.float32, np.float64, np.float16)[number % 3])
        yield Probe(f"{frames} frames", {"audio": samples}, thresholds[number % 3], walked=False)
    for profile, batches in (("applio", OTHER_BATCHES), ("webui", WEBUI_BATCHES)):
        for count, frames in batches.items():
            blocks = {"block_frames": BLOCK_FRAMES} if frames > BLOCK_FRAMES else {}
            yield Probe(f"{count} mels, {profile}", mels(count, frames), {"profile": profile, **blocks}, walked=False)
    yield Probe("one mel", {"mel": mels(1, BATCH_FRAMES)["mel"][0]}, walked=False)
    salience = probes.extreme_salience(np.random.default_rng([settings["seed"], 8]), 0.0)
    yield Probe("no threshold", {"salience": salience}, {"threshold": 0.0}, walked=False)


def _in_blocks(model: Any, settings: Settings) -> Any:
    """The model as it is, or one that takes shorter independent blocks, as it takes long audio at its own length, or
    mels as the other profile does."""
    if "block_frames" not in settings and settings["profile"] == model.profile:
        return model
    shorter = copy.copy(model)
    shorter.chunk, shorter.profile = settings.get("block_frames", 0), settings["profile"]
    return shorter


def rounding(model: Any, exact: Any, audio: np.ndarray, mel: np.ndarray, threshold: float) -> Results:
    """What float32 rounding does to RMVPE on this audio.
    ``exact_*`` against ``floor_*``: the network alone, on the same mel. ``moved_*``: the chain when only its mel is
    computed in float64."""
    head = mel[:, :FLOOR_FRAMES]
    exact_mel = exact.mel(audio)
    found = {
        "exact_mel": exact_mel,
        "moved_salience": model.salience(exact_mel.astype(np.float32)),
        "exact_network": exact.salience(head),
        "floor_network": model.salience(head),
    }
    for name, salience in (("moved", "moved_salience"), ("exact", "exact_network"), ("floor", "floor_network")):
        found[f"{name}_f0"] = model.decode(found[salience], threshold)
    return found


def _mel_figures(results: Results, reference: Results, limits: Limits) -> Figures:
    figures = parity.compare_mel(results["mel"], reference["mel"])
    floor = 0.0
    if "exact_mel" in reference:
        exact = parity.compare_mel(reference["mel"], reference["exact_mel"])
        floor, figures["floor_max_abs"] = exact["relative_max"], exact["max_abs"]
    return figures | {"limits": limits.check("mel_relative", figures["relative_max"], floor)}


def f0_figures(results: Results, reference: Results, limits: Limits, threshold: float) -> Figures:
    """The chain: ``f0`` and ``own_salience`` of both. Frames whose decision is closer to flipping
    than the salience error are counted on their own: they say nothing about the implementation."""
    figures = compare_pitch(results["f0"], reference["f0"])
    error = floor_of(reference, "network", "max_abs") or 0.0
    values: dict[str, float] = {}
    if "own_salience" in results:  # a port may have F0 alone: then its salience counts as right
        salience = parity.compare(results["own_salience"], reference["own_salience"])
        figures |= {f"salience_{name}": salience[name] for name in ("max_abs", "rmse", "snr_db", "corr")}
        error = values["salience_max_abs"] = salience["max_abs"]
    open_frames = parity.undecided_frames(reference["own_salience"], threshold, error)
    figures["undecided_frames"] = int(np.count_nonzero(open_frames))
    floors = _chain_floors(reference, open_frames)
    if not open_frames.all():  # else the salience is so wrong that it alone is judged
        decided = parity.compare_f0(results["f0"][~open_frames], reference["f0"][~open_frames])
        values |= {"voicing_mismatches": decided["voicing_mismatches"], "f0_max_cents": decided["max_cents"]}
    checks = [limits.check(name, value, floors.get(name, 0)) for name, value in values.items()]
    return figures | {"limits": {name: check for found in checks for name, check in found.items()}}


def _chain_floors(reference: Results, open_frames: np.ndarray) -> dict[str, float]:
    """The network's own rounding, plus what the mel's rounding does to the chain."""
    if "moved_salience" not in reference:
        return {}
    moved = parity.compare(reference["moved_salience"], reference["own_salience"])["max_abs"]
    if open_frames.all():
        return {"salience_max_abs": (floor_of(reference, "network", "max_abs") or 0.0) + moved}
    decided = ~open_frames
    moved_f0 = parity.compare_f0(reference["moved_f0"][decided], reference["f0"][decided])
    decided = decided[: reference["exact_f0"].size]
    exact_f0 = parity.compare_f0(reference["floor_f0"][decided], reference["exact_f0"][decided])
    return {
        "salience_max_abs": (floor_of(reference, "network", "max_abs") or 0.0) + moved,
        "voicing_mismatches": exact_f0["voicing_mismatches"] + moved_f0["voicing_mismatches"],
        "f0_max_cents": exact_f0["max_cents"] + moved_f0["max_cents"],
    }
