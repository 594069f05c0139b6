"""How the results of a conversion are compared with the reference's. Pure functions of arrays."""

from __future__ import annotations

import numpy as np

from ..metrics import parity
from ..metrics.limits import Check, Limits
from ..metrics.parity import Figures, NotComparable
from ..metrics.registry import COMPARED
from . import rmvpe
from .base import Results, Settings, compared, floor_of, sound_figures

# an undecided frame that moved by more than this fell the other way
FLIPPED_CENTS = 1.0


def joined(results: Results, path: str) -> Results:
    """A step of the conversion with given F0, over all its segments."""
    if path == "audio":
        return {path: results["given_f0.audio"]}
    name = "audio" if path == "segments" else path
    pieces: list[np.ndarray] = []
    while f"given_f0.segment.{len(pieces)}.{name}" in results:
        pieces.append(results[f"given_f0.segment.{len(pieces)}.{name}"])
    if not pieces:
        raise NotComparable(f"the conversion reported no {name}")
    return {path: np.concatenate(pieces, axis=pieces[0].ndim - 1 if name == "audio" else -2)}


def with_knobs(figures: Figures, results: Results, reference: Results, limits: Limits) -> Figures:
    """Retrieval and protection do something only where they are switched on."""
    name = "knobs.segment.0.phone"
    mixed = parity.compare(results[name], reference[name])["max_abs"]
    check = limits.check("knobs_blend_max_abs", mixed, floor_of(reference, "phone", "max_abs"), "blend_max_abs")
    return figures | {"knobs_max_abs": mixed, "limits": figures["limits"] | check}


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    largest, level = parity.compare(ours, theirs)["max_abs"], float(np.abs(theirs).max())
    return largest / level if level > 0 else (0.0 if largest == 0 else np.inf)


def filter_figures(results: Results, reference: Results, limits: Limits, settings: Settings) -> Figures:
    ours, theirs = results["given_f0.filtered"], reference["given_f0.filtered"]
    figures = parity.compare(ours, theirs) | {"filtered_relative": relative(ours, theirs)}
    figures["padded_relative"] = relative(results["given_f0.padded"], reference["given_f0.padded"])
    cuts = (np.asarray(found["given_f0.cuts"]).ravel() for found in (results, reference))
    figures["cut_mismatches"] = len(set(next(cuts).tolist()) ^ set(next(cuts).tolist()))
    checks = limits.check("cut_mismatches", figures["cut_mismatches"], 0)
    for name in ("filtered_relative", "padded_relative"):
        checks |= limits.check(name, figures[name], limit="filtered_relative")
    return figures | {"limits": checks}


def f0_view(found: Results) -> Results:
    """The names that ``rmvpe.f0_figures`` knows, at the frames that the pipeline reports."""
    frames = found["convert.f0"].size
    kept = ("moved_salience", "exact_network", "floor_network", "moved_f0", "exact_f0", "floor_f0")
    view = {name: found[name][:frames] for name in kept if name in found}
    return view | {"f0": found["convert.f0"], "own_salience": found["salience.salience"][:frames]}


def f0_figures(results: Results, reference: Results, limits: Limits, settings: Settings) -> Figures:
    ours, theirs = f0_view(results), f0_view(reference)
    figures = rmvpe.f0_figures(ours, theirs, limits, settings["threshold"])
    return figures | {"flipped_frames": flipped(ours, theirs, settings["threshold"])}


def flipped(ours: Results, theirs: Results, threshold: float) -> int:
    """Undecided frames that fell the other way; F0 of another length is reported by the component ``f0``."""
    if ours["f0"].shape != theirs["f0"].shape:
        return 0
    error = parity.compare(ours["own_salience"], theirs["own_salience"])["max_abs"]
    undecided = parity.undecided_frames(theirs["own_salience"], threshold, error)
    a, b = ours["f0"][undecided], theirs["f0"][undecided]
    both = (a > 0) & (b > 0)
    cents = np.abs(1200.0 * np.log2(a[both] / b[both]))
    return int(np.count_nonzero((a > 0) != (b > 0)) + np.count_nonzero(cents > FLIPPED_CENTS))


def convert_figures(results: Results, reference: Results, limits: Limits, settings: Settings) -> Figures:
    if results["convert.sample_rate"] != reference["convert.sample_rate"]:
        raise NotComparable("the sample rates differ")
    # a port may offer the plain conversion alone
    figures: Figures = {"limits": {}}
    rate = int(reference["convert.sample_rate"])
    if "given_f0.audio" in results:
        figures = compared("given_f0.audio", results, reference, limits, {"snr_db": "given_f0_snr_db"}, "audio")
        figures |= sound_figures("given_f0.audio", results, reference, rate)
    own = parity.compare(results["convert.audio"], reference["convert.audio"])
    audible = sound_figures("convert.audio", results, reference, rate)
    figures |= {f"own_{name}": value for name, value in audible.items()}
    figures |= {f"own_{metric.name}": own[metric.name] for metric in COMPARED}
    checks: dict[str, Check] = {}
    if "knobs.audio" in results:
        knobs = parity.compare(results["knobs.audio"], reference["knobs.audio"])
        figures |= {f"knobs_{metric.name}": knobs[metric.name] for metric in COMPARED}
        checks = limits.check("knobs_snr_db", parity.level(knobs, "snr_db"), floor_of(reference, "audio", "snr_db"))
    both_have_f0 = "convert.f0" in reference and "convert.f0" in results
    if not both_have_f0 or not flipped(f0_view(results), f0_view(reference), settings["threshold"]):
        for name in ("snr_db", "corr"):
            checks |= limits.check(f"own_{name}", parity.level(own, name), floor_of(reference, "audio", name))
    return figures | {"limits": figures["limits"] | checks}
