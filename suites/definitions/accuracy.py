"""RMVPE's pitch against the truth: what the audio is, what is true of it, and what is judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvc_common.contour import on_frames

from ..base.errors import UserError
from ..inputs import testset
from ..inputs.annotations import read_f0
from ..inputs.estimators import ESTIMATORS
from ..inputs.recordings import Audio, make_audio
from ..metrics.parity import Figures
from .base import Settings
from .config import AccuracyOptions, Config
from .plan import Case
from .rmvpe import CHAIN, Rmvpe


class Accuracy(Rmvpe):
    """The component ``f0`` of every backend, and other estimators under their own names."""

    name = "accuracy"
    title = "RMVPE accuracy"
    subject = "F0 on the test set"
    order = 9
    sections = ("accuracy", "parity", "pitch")
    pipeline_step = None
    validated = ()
    options = AccuracyOptions
    protocol = "accuracy"
    trained = True
    about_parity = (
        "Each backend on its own values from the audio on, against the reference's. *Undecided* frames are closer to "
        "the voicing threshold, or to a tie of two bins, than the salience error: they are counted, and not judged."
    )
    judged = CHAIN
    details = ()

    def audio(self, case: Case, config: Config) -> Audio:
        assert isinstance(config.suite, AccuracyOptions)
        if case.kind not in testset.CONDITIONS:
            found = make_audio(case.kind, case.seconds, case.path, config.seed, 0.0)
            return found._replace(f0_hz=_annotated(found, config.suite.f0))
        assert case.seconds is not None
        sung = testset.make(case.kind, case.seconds, config.seed)
        return Audio(sung.samples, sung.f0_hz, f"test set, {case.kind}, seed {config.seed}", sung.scored)

    def external(self, settings: Settings) -> dict[str, str | None]:
        return {name: ESTIMATORS[name].missing() for name in dict.fromkeys(settings["estimators"])}


def _annotated(audio: Audio, path: str | Path | None) -> Any:
    if path is None:
        return None
    times, f0 = read_f0(path)
    frames = 1 + audio.samples.size // testset.HOP
    found = on_frames(times, f0, frames)
    if not found.any():
        raise UserError(
            f"suite.f0={path}: no voiced time lies within the recording's {audio.samples.size / testset.RATE:.1f} s"
        )
    return found


def judged(figures: Figures, least: Mapping[str, float | None] | None) -> dict[str, Any]:
    """Figures that have a least value: with it, and whether they reach it."""
    checks = {}
    for name, limit in (least or {}).items():
        if limit is not None:
            value = figures[name]
            checks[name] = {"value": value, "limit": limit, "passed": value is not None and value >= limit}
    return checks
