"""Figures of the output: F0 contours with their difference in cents, and spectrograms of both sides."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..data.frame import RunData
from .style import INK, STYLES, WIDTH, mark, plain_numbers
from .words import audio_of, titled

# contours may fill the axes: the legend is above them
ABOVE: Any = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.1, "ncols": 6, "fontsize": 8}
CONTOUR_SECONDS = 10.0
F0_LOW_HZ, F0_HIGH_HZ = 30.0, 2100.0
FRAMES_PER_S = 100
# of the marks along a contour, and of those in a spectrogram, in frames
MARK_EVERY, SPECTRUM_MARK_EVERY = 25, 50
# colours of a spectrogram: no visible steps, and small files
LEVELS = 48
# without interpolation, which keeps the SVG small
PIXELS: Any = {"aspect": "auto", "origin": "lower", "interpolation": "none"}
# dB: the range of a spectrogram below its maximum; the level of zero power
SHOWN_DB, FLOOR_DB = 70.0, -160.0
# ln of amplitude: of a mel that is drawn, below its highest value
MEL_RANGE = 10.0


def f0(data: RunData, case: str) -> Figure | None:
    """The mel spectrogram, F0 of all backends, and the differences in cents."""
    arrays = data.files.contours(case)
    backends = [b for b in data.backends if f"f0.{b}" in arrays]
    if not backends or "mel" not in arrays:
        return None
    frames = min(int(CONTOUR_SECONDS * FRAMES_PER_S), arrays["mel"].shape[1])
    reference = next(r["reference"] for r in data.records if r["case"] == case and "workload" in r)
    if reference not in backends:  # written before the run was resumed, when this backend was missing
        return None
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(WIDTH, 6.4), sharex=True, height_ratios=(1.3, 2, 1), layout="constrained"
    )
    _mel(top, arrays["mel"][:, :frames].astype(np.float32))
    found = {b: arrays[f"f0.{b}"][:frames] for b in backends}
    if "f0.truth" in arrays:
        truth = _gaps(arrays["f0.truth"][:frames])
        middle.plot(_seconds(truth), truth, color=INK, lw=3, alpha=0.25, label="truth")
    for backend, contour in found.items():
        _contour(middle, backend, contour, backend == reference)
        if backend != reference:
            _cents(bottom, backend, contour, found[reference])
    middle.set(yscale="log", ylim=(F0_LOW_HZ, F0_HIGH_HZ), ylabel="F0 (Hz)")
    plain_numbers(middle.yaxis, [50, 100, 200, 500, 1000, 2000])
    middle.legend(**ABOVE)
    bottom.set(xlabel="time (s)", ylabel=f"F0, from\n{reference} (cents)", xlim=(0, frames / FRAMES_PER_S))
    if bottom.get_legend_handles_labels()[1]:
        bottom.legend(**ABOVE)
    part = f", first {CONTOUR_SECONDS:g} s" if data.duration_s(case) > CONTOUR_SECONDS else ""
    untrained = "" if data.finds_pitch else " of untrained weights"
    figure.suptitle(titled(data, f"F0{untrained}, {audio_of(data, case)}{part}"))
    return figure


def _mel(axis: Axes, mel: np.ndarray) -> None:
    extent = (0, mel.shape[1] / FRAMES_PER_S, 0, mel.shape[0])
    low = max(mel.min(), mel.max() - MEL_RANGE)
    image = axis.imshow(mel, cmap=colormaps["magma"].resampled(LEVELS), vmin=low, extent=extent, **PIXELS)
    axis.set(ylabel="mel band (number)")
    axis.grid(visible=False)
    axis.figure.colorbar(image, ax=axis, label="amplitude (ln)", pad=0.01)


def _seconds(values: np.ndarray) -> np.ndarray:
    return np.arange(values.size) / FRAMES_PER_S


def _gaps(contour: np.ndarray) -> np.ndarray:
    return np.where(contour > 0, contour, np.nan)


def _alone(there: np.ndarray) -> list[int]:
    """Frames without a neighbour, which a line plot would not show."""
    padded = np.pad(there, 1)
    return np.flatnonzero(there & ~padded[:-2] & ~padded[2:]).tolist()


def _contour(axis: Axes, backend: str, contour: np.ndarray, is_reference: bool) -> None:
    colour, _ = STYLES[backend]
    broad: Any = {"lw": 2.6, "alpha": 0.6, "marker": ".", "ms": 5}
    narrow: Any = {"lw": 1.1, "ls": "--", "marker": ".", "ms": 2}
    t, shown = _seconds(contour), _gaps(contour)
    look = (broad if is_reference else narrow) | {"markevery": _alone(contour > 0)}
    axis.plot(t, shown, color=colour, label=backend, **look)
    for i in range(MARK_EVERY // 2, contour.size, MARK_EVERY):
        if contour[i] > 0:
            mark(axis, t[i], contour[i], f"{backend}, at {t[i]:.2f} s: {contour[i]:.5g} Hz")


def _cents(axis: Axes, backend: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    colour, marker = STYLES[backend]
    t, both = _seconds(ours), (ours > 0) & (theirs > 0)
    cents = np.full(ours.size, np.nan)
    cents[both] = 1200 * np.log2(ours[both] / theirs[both])
    # a line and some markers: one for every frame would be most of the page
    some = sorted({*_alone(both), *np.flatnonzero(both)[:: MARK_EVERY // 5].tolist()})
    axis.plot(t, cents, color=colour, marker=marker, mew=0, lw=0.8, ms=3, markevery=some, label=backend)
    for i in range(MARK_EVERY // 2, ours.size, MARK_EVERY):
        if both[i]:
            mark(axis, t[i], cents[i], f"{backend}, at {t[i]:.2f} s: {cents[i]:.2g} cents from the reference")
    differs = (ours > 0) != (theirs > 0)
    if differs.any():
        where = np.zeros(differs.sum())
        axis.plot(t[differs], where, color=colour, marker="x", ls="", label=f"{backend}: voicing differs")
        for second in t[differs][:MARK_EVERY]:
            mark(axis, second, 0.0, f"{backend}, at {second:.2f} s: voiced on one side only")


# ---------------------------------------------------------------------- spectrograms
def spectra(data: RunData, case: str) -> Figure | None:
    """Spectrograms of all backends on one scale, and of the waveform differences on their own."""
    arrays = data.files.spectra(case)
    sides = {b: arrays[f"spectrum.{b}"].astype(np.float32) for b in data.backends if f"spectrum.{b}" in arrays}
    if not sides:
        return None
    residuals = {b: arrays[f"residual.{b}"].astype(np.float32) for b in sides if f"residual.{b}" in arrays}
    count, half = len(sides) + len(residuals), int(arrays["sample_rate"]) / 2000
    size = (WIDTH, 1.7 * count + 0.8)
    figure, axes = plt.subplots(count, 1, figsize=size, sharex=True, squeeze=False, layout="constrained")
    high = max(float(s.max()) for s in sides.values())
    own = list(axes[: len(sides), 0])
    for axis, (backend, spectrum) in zip(own, sides.items(), strict=True):
        image = _spectrogram(axis, spectrum, half, (max(high - SHOWN_DB, _low(sides)), high), "magma")
        axis.set_title(backend, fontsize=9.5)
        _mark_levels(axis, spectrum, half, f"{backend}")
    figure.colorbar(image, ax=own, label="level (dB, sine of amplitude 1)", pad=0.01)
    others = list(axes[len(sides) :, 0])
    for axis, (backend, residual) in zip(others, residuals.items(), strict=True):
        limits = (_low({backend: residual}), max(float(residual.max()), FLOOR_DB + 1))
        image = _spectrogram(axis, residual, half, limits, "viridis")
        reference = next(name for name in sides if name not in residuals)
        axis.set_title(f"{backend} less {reference}", fontsize=9.5)
        figure.colorbar(image, ax=axis, label="level (dB)", pad=0.01)
        _mark_levels(axis, residual, half, f"{backend} less {reference}")
    axes[-1, 0].set_xlabel("time (s)")
    frames = next(iter(sides.values())).shape[1]
    part = f", first {frames / FRAMES_PER_S:.2g} s" if data.duration_s(case) > 1.05 * frames / FRAMES_PER_S else ""
    figure.suptitle(titled(data, f"Spectra of the output, {audio_of(data, case)}{part}"))
    return figure


def _low(found: dict[str, np.ndarray]) -> float:
    """The first percentile of the level, of all values above the floor."""
    values = np.concatenate([spectrum[spectrum > FLOOR_DB].ravel() for spectrum in found.values()])
    return float(np.quantile(values, 0.01)) if values.size else FLOOR_DB


def _spectrogram(axis: Axes, spectrum: np.ndarray, half: float, limits: tuple[float, float], colours: str) -> Any:
    extent = (0, spectrum.shape[1] / FRAMES_PER_S, 0, half)
    axis.set_ylabel("frequency (kHz)")
    axis.grid(visible=False)
    shown = colormaps[colours].resampled(LEVELS)
    return axis.imshow(spectrum, cmap=shown, vmin=limits[0], vmax=limits[1], extent=extent, **PIXELS)


def _mark_levels(axis: Axes, spectrum: np.ndarray, half: float, name: str) -> None:
    """Tooltips with the level over all bands, along the middle of the picture."""
    for start in range(0, spectrum.shape[1], SPECTRUM_MARK_EVERY):
        window = spectrum[:, start : start + SPECTRUM_MARK_EVERY]
        first, last = start / FRAMES_PER_S, (start + window.shape[1]) / FRAMES_PER_S
        band = half * (int(window.mean(axis=1).argmax()) + 0.5) / spectrum.shape[0]
        levels = f"mean {window.mean():.4g} dB, most {window.max():.4g} dB, strongest about {band:.2g} kHz"
        mark(axis, (first + last) / 2, half / 2, f"{name}, {first:.3g} to {last:.3g} s: {levels}")
