"""External pitch estimators, all on the same audio and over the same range.

Each is imported only where it is called, and none is needed: one that is not installed is skipped, with a reason.
Settings are the packages' documented defaults, but for the range and the step of 10 ms.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from rvc_common.contour import on_frames

from ..metrics.pitch import FRAMES_PER_S

RATE, HOP = 16000, 160
# C1 to B6: what RMVPE was made for (Wei et al., 2023)
LOW_HZ, HIGH_HZ = 32.7, 1975.5
# as torchcrepe's own example has them: smoothing of periodicity, and the periodicity from which a frame is voiced
CREPE_VOICING = {"median_frames": 3, "voiced_from": 0.21}

Settings = dict[str, Any]


class Estimator(NamedTuple):
    """``find``: audio ``[n]`` at 16 kHz to F0 ``[1 + n // 160]`` in Hz, 0 where unvoiced."""

    title: str
    module: str
    package: str
    neural: bool
    settings: Settings
    find: Callable[[np.ndarray, Settings], np.ndarray]

    def missing(self) -> str | None:
        """Why it cannot be used, as far as is known without importing it."""
        if importlib.util.find_spec(self.module) is None:
            return f"{self.package} is not installed: pip install -e '.[pitch]'"
        return None

    def load(self) -> None:
        """Import its package. Raises whatever that raises."""
        if self.neural:
            _without_torchaudio()
        importlib.import_module(self.module)

    def facts(self) -> dict[str, Any]:
        """For the record; ``package`` with its version, where pip knows it by this name."""
        package = self.package
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # another build of the same module
            package += f" {importlib.metadata.version(self.package)}"
        return {"title": self.title, "package": package, "neural": self.neural, "settings": self.settings}


def _frames(audio: np.ndarray) -> int:
    return 1 + audio.size // HOP


def _pyin(audio: np.ndarray, settings: Settings) -> np.ndarray:
    import librosa

    f0, voiced, _ = librosa.pyin(audio, sr=RATE, **settings)
    return np.where(voiced, np.nan_to_num(f0), 0.0)


def _praat(audio: np.ndarray, settings: Settings) -> np.ndarray:
    import parselmouth

    pitch = parselmouth.Sound(audio.astype(np.float64), RATE).to_pitch_ac(**settings)
    return on_frames(pitch.xs(), pitch.selected_array["frequency"], _frames(audio))


def _harvest(audio: np.ndarray, settings: Settings) -> np.ndarray:
    import pyworld

    f0, times = pyworld.harvest(audio.astype(np.float64), RATE, **settings)
    return on_frames(times, f0, _frames(audio))


def _dio(audio: np.ndarray, settings: Settings) -> np.ndarray:
    import pyworld

    f0, times = pyworld.dio(audio.astype(np.float64), RATE, **settings)
    return on_frames(times, pyworld.stonemask(audio.astype(np.float64), f0, times, RATE), _frames(audio))


def _crepe(audio: np.ndarray, settings: Settings) -> np.ndarray:
    _without_torchaudio()
    import torch
    import torchcrepe

    network = {name: value for name, value in settings.items() if name not in CREPE_VOICING}
    given = torch.from_numpy(audio)[None]
    pitch, periodicity = torchcrepe.predict(given, RATE, return_periodicity=True, device="cpu", **network)
    periodicity = torchcrepe.filter.median(periodicity, settings["median_frames"])
    voiced = torchcrepe.threshold.At(settings["voiced_from"])(pitch, periodicity)
    return np.nan_to_num(voiced[0].double().numpy())


def _fcpe(audio: np.ndarray, settings: Settings) -> np.ndarray:
    _without_torchaudio()
    import torch
    import torchfcpe

    model = torchfcpe.spawn_bundled_infer_model("cpu")
    given = torch.from_numpy(audio)[None, :, None]
    return model.infer(given, sr=RATE, output_interp_target_length=_frames(audio), **settings)[0, :, 0].double().numpy()


def _swift(audio: np.ndarray, settings: Settings) -> np.ndarray:
    import swift_f0

    found = swift_f0.SwiftF0().detect(audio, RATE, settings["fmin"], settings["fmax"])
    voiced = found.confidence >= settings["voiced_from"]
    return on_frames(found.timestamps, np.where(voiced, found.pitch_hz, 0.0), _frames(audio))


def _pesto(audio: np.ndarray, settings: Settings) -> np.ndarray:
    _without_torchaudio()
    import pesto
    import torch

    given = torch.from_numpy(audio)
    times, f0, confidence, _ = pesto.predict(given, RATE, step_size=1000 * STEP_S, model_name=settings["model"])
    voiced = confidence.double().numpy() >= settings["voiced_from"]
    return on_frames(times.double().numpy() / 1000, np.where(voiced, f0.double().numpy(), 0.0), _frames(audio))


def _without_torchaudio() -> None:
    """CREPE, FCPE and PESTO import torchaudio to read and resample files, which nothing here asks for; the build that
    pip finds may not fit a PyTorch without CUDA. An empty module takes its place then."""
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError):
        for name in [key for key in sys.modules if key.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        empty, transforms = ModuleType("torchaudio"), ModuleType("torchaudio.transforms")
        transforms.Resample = None  # type: ignore[attr-defined]
        sys.modules |= {"torchaudio": empty, "torchaudio.transforms": transforms}


RANGE, STEP_S = {"fmin": LOW_HZ, "fmax": HIGH_HZ}, 1 / FRAMES_PER_S
PRAAT = {"time_step": STEP_S, "pitch_floor": LOW_HZ, "pitch_ceiling": HIGH_HZ}
WORLD = {"f0_floor": LOW_HZ, "f0_ceil": HIGH_HZ, "frame_period": 1000 * STEP_S}
CREPE = RANGE | {"hop_length": HOP, "batch_size": 512, **CREPE_VOICING}
SWIFT = RANGE | {"voiced_from": 0.5}
PESTO = {"model": "mir-1k_g7", "voiced_from": 0.5}
FCPE = {"f0_min": LOW_HZ, "f0_max": HIGH_HZ, "decoder_mode": "local_argmax", "threshold": 0.006}
ESTIMATORS = {
    "pyin": Estimator("pYIN", "librosa", "librosa", False, RANGE | {"hop_length": HOP}, _pyin),
    "praat": Estimator("Praat (autocorrelation)", "parselmouth", "praat-parselmouth", False, PRAAT, _praat),
    "harvest": Estimator("Harvest (WORLD)", "pyworld", "pyworld-prebuilt", False, WORLD, _harvest),
    "dio": Estimator("DIO with StoneMask (WORLD)", "pyworld", "pyworld-prebuilt", False, WORLD, _dio),
    "crepe_tiny": Estimator("CREPE tiny", "torchcrepe", "torchcrepe", True, CREPE | {"model": "tiny"}, _crepe),
    "crepe": Estimator("CREPE full", "torchcrepe", "torchcrepe", True, CREPE | {"model": "full"}, _crepe),
    "swift_f0": Estimator("SwiftF0", "swift_f0", "swift-f0", True, SWIFT, _swift),
    "pesto": Estimator("PESTO", "pesto", "pesto-pitch", True, PESTO, _pesto),
    "fcpe": Estimator("FCPE", "torchfcpe", "torchfcpe", True, FCPE, _fcpe),
}
# takes the place of the truth where there is none: two methods that have little in common, and no network
CONSENSUS = ("praat", "harvest")
