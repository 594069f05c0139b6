"""Every metric, declared once: its unit, which direction is better, and what a value means as an amount of error.

A *metric* is a kind of number, a *figure* a named number in a record: ``own_snr_db`` and ``knobs_snr_db`` are figures
of the metric ``SNR_DB``. Suites declare their figures. A name that nobody declared is an error where something is
judged by it, and is shown without a direction where an old record has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from ..base.errors import nearest

LOWER, HIGHER = "lower", "higher"


class UnknownFigure(LookupError):
    """A figure that nobody declared; the message names the nearest one."""


class Metric(NamedTuple):
    """``better``: LOWER, HIGHER, or None where neither is. ``scale``: from the stored unit to the one displayed."""

    name: str
    unit: str
    better: str | None = LOWER
    is_count: bool = False
    format: str = ".3g"
    scale: float = 1.0

    def to_error(self, value: float) -> float:
        """The value as an amount of error, 0 or more.

        Of SNR and correlation this is the amplitude of the difference over that of the signal; 1 - correlation is half
        its square. A share of correct answers becomes the share of wrong ones.
        """
        if self.name == "snr_db":
            return float(10.0 ** (-value / 20.0))
        if self.name == "corr":
            distance = 1.0 - value
            return 0.0 if distance < 0 else math.sqrt(2.0 * distance)  # NaN stays NaN
        return 1.0 - value if self.better == HIGHER else value

    def from_error(self, error: float) -> float:
        """The inverse of ``to_error``."""
        if self.name == "snr_db":
            return -20.0 * math.log10(error) if error > 0 else math.inf
        if self.name == "corr":
            return 1.0 - 0.5 * error * error
        return 1.0 - error if self.better == HIGHER else error

    def text(self, value: float) -> str:
        """In few digits; a correlation close to one by its distance from one: 0.999999998 would be 1."""
        if self.name == "corr" and 0.999 < value < 1:
            return f"1 - {1 - value:.2g}"
        return f"{value:{self.format}}"


class Figure(NamedTuple):
    """A named number of a record. ``label``: its column's heading, where a report has one; ``of``: the component."""

    name: str
    metric: Metric
    label: str = ""
    of: str = ""


MAX_ABS = Metric("max_abs", "")
RMSE = Metric("rmse", "")
RELATIVE = Metric("relative", "")
SNR_DB = Metric("snr_db", "dB", HIGHER)
CORR = Metric("corr", "", HIGHER)
COSINE = Metric("cosine", "", HIGHER)
MISMATCHES = Metric("mismatches", "", is_count=True)
COUNT = Metric("count", "", None, is_count=True)
CENTS = Metric("cents", "cents")
SHARE_RIGHT = Metric("share_right", "%", HIGHER, format=".2f", scale=100.0)
SHARE_WRONG = Metric("share_wrong", "%", format=".2f", scale=100.0)
LEVEL_DB = Metric("level_db", "dB", None)
DELAY = Metric("delay_samples", "samples", None)
SPECTRAL = Metric("spectral_distance", "")
SECONDS = Metric("seconds", "ms", scale=1e3)
TIME_RATIO = Metric("time_ratio", "of the reference's time")
BYTES = Metric("bytes", "MiB", format=".0f", scale=2.0**-20)
# of a figure in an old record that no suite declares any more
UNDECLARED = Metric("undeclared", "", None)

METRICS = {metric.name: metric for metric in list(globals().values()) if isinstance(metric, Metric)}
_FIGURES: dict[str, Metric] = {}


def declare(figures: Iterable[Figure]) -> tuple[Figure, ...]:
    """Make figures known.

    Raises ``ValueError``: one is known already, by another metric, or its metric is not one of this module's."""
    found = tuple(figures)
    for figure in found:
        metric = figure.metric.name
        if METRICS.get(metric) != figure.metric:
            raise ValueError(f"{figure.name}: {metric!r} is no metric{nearest(metric, METRICS)}")
        if _FIGURES.setdefault(figure.name, figure.metric) != figure.metric:
            raise ValueError(f"{figure.name} is declared twice: {_FIGURES[figure.name].name} and {metric}")
    return found


# headings of the columns of ``columns``
HEADINGS = {"max_abs": "max abs", "rmse": "RMSE", "snr_db": "SNR dB", "corr": "correlation"}
HEADINGS |= {"level_db": "level dB", "delay_samples": "delay, samples"}


def columns(component: str, *metrics: Metric, label: str = "") -> tuple[Figure, ...]:
    """Plain figures of one component for a table; their headings begin with ``label``, or the component's name."""
    return tuple(Figure(m.name, m, f"{label or component} {HEADINGS[m.name]}", component) for m in metrics)


def figures(metric: Metric, *names: str) -> tuple[Figure, ...]:
    """Figures of one metric, declared."""
    return declare(Figure(name, metric) for name in names)


def metric_of(name: str) -> Metric:
    """The metric of a declared figure.

    Raises ``UnknownFigure``: nobody declared it."""
    if name not in _FIGURES:
        raise UnknownFigure(f"{name!r} is no declared figure{nearest(name, _FIGURES)}")
    return _FIGURES[name]


def recorded_metric(name: str) -> Metric:
    """The metric of a figure of a record, perhaps an old one; ``UNDECLARED`` where no suite declares it."""
    return _FIGURES.get(name, UNDECLARED)


# what ``parity.compare`` returns, and the same with a prefix
COMPARED = (MAX_ABS, RMSE, SNR_DB, CORR)
declare(Figure(metric.name, metric) for metric in (*COMPARED, RELATIVE, COSINE))
# of pitch, between two backends
figures(MISMATCHES, "voicing_mismatches", "edge_start_voicing_mismatches", "edge_end_voicing_mismatches")
figures(MISMATCHES, "octave_errors", "voicing_false_alarms", "voicing_misses")
figures(COUNT, "values", "frames", "voiced_frames", "both_voiced_frames", "undecided_frames")
figures(CENTS, "max_cents", "mean_cents", "rms_cents", "p95_cents", "edge_start_max_cents", "edge_end_max_cents")
figures(SHARE_WRONG, "voicing_error_rate")
# of audio
figures(SNR_DB, "edge_start_snr_db", "edge_end_snr_db", "inner_snr_db")
figures(LEVEL_DB, "level_db")
figures(DELAY, "delay_samples")
figures(SPECTRAL, "mr_stft", "lsd_db")
# of time and memory, as gates judge them
figures(TIME_RATIO, "time", "typical")
figures(SECONDS, "seconds")
figures(BYTES, "base_rss_bytes", "peak_rss_load_bytes", "peak_rss_call_bytes", "peak_rss_steady_bytes")
figures(BYTES, "peak_rss_bytes", "peak_device_bytes")

# of pitch against the truth: in a record's ``accuracy``, where names mean shares that are counts elsewhere
ACCURACY = (
    Figure("rpa", SHARE_RIGHT, "RPA %"),
    Figure("rca", SHARE_RIGHT, "RCA %"),
    Figure("octave_errors", SHARE_WRONG, "octave errors %"),
    Figure("voicing_recall", SHARE_RIGHT, "recall %"),
    Figure("voicing_false_alarm", SHARE_WRONG, "false alarm %"),
    Figure("overall_accuracy", SHARE_RIGHT, "overall %"),
    Figure("mean_cents", CENTS, "mean cents"),
    Figure("p95_cents", CENTS, "95th percentile cents"),
)


def prefixed(prefix: str) -> tuple[Figure, ...]:
    """The figures of ``parity.compare`` whose names have a prefix."""
    return declare(Figure(f"{prefix}_{metric.name}", metric) for metric in COMPARED)
