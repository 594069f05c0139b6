"""The figures of runs: each with its alternative text and the sections that it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from suites.definitions.base import SECTIONS

from ..data.frame import RunData
from . import ablation, accuracy, breakdown, formats, phases, roofline, samples, sound, times
from .words import some

Draw = Callable[[], Figure | None]


@dataclass(frozen=True)
class Plot:
    """A kind of figure. ``alt``: the alternative text, before the run's name.

    ``sections``: runs whose suite has any of them have the figure. ``per_case``: ``draw`` takes a case as well.
    """

    name: str
    alt: str
    sections: tuple[str, ...]
    draw: Callable[..., Figure | None]
    per_case: bool = False

    def __post_init__(self) -> None:
        """Refuse an incomplete declaration.

        Raises ``ValueError``: no name, no alternative text, or no section that exists."""
        if not self.name or "-" in self.name or not self.alt.strip():
            raise ValueError(f"figure {self.name!r}: needs a name without hyphens, and an alternative text")
        if not self.sections or not set(self.sections) <= set(SECTIONS):
            raise ValueError(f"figure {self.name!r}: sections {self.sections}; known: {', '.join(SECTIONS)}")

    def of(self, run: RunData) -> Iterator[tuple[str, str, Draw]]:
        """Name, alternative text and call of each figure that the run can have; none if its suite has other sections.

        The call gives None where the records lack what the figure shows. The text ends with the case, the suite, and
        the machine where a document holds several.
        """
        if not set(self.sections) & set(run.suite.sections):
            return
        where = f"{run.name}, machine {run.setting}" if run.setting else run.name
        if not self.per_case:
            yield self.name, f"{self.alt}: {where}", partial(self.draw, run)
            return
        for case in some(run.cases):
            yield f"{self.name}-{case}", f"{self.alt} {case}: {where}", partial(self.draw, run, case)


# in the order in which they are drawn: a document may not have room for all
PLOTS = (
    Plot("time", "Time of one call against duration", ("time",), times.time),
    Plot("speedup", "Speed-up per case and component, with intervals", ("time",), times.speedup),
    Plot("roofline", "Achieved rate against what the machine could do at best", ("roofline",), roofline.roofline),
    Plot("waterfall", "From nothing to everything, optimisation by optimisation", ("ablation",), ablation.waterfall),
    Plot("ablation", "Gain of each optimisation, with intervals", ("ablation",), ablation.ablation),
    Plot("formats", "Error against time of every number format", ("precision",), formats.formats),
    Plot("growth", "Memory over many lengths in one process", ("memory",), phases.growth),
    Plot("first", "The first run in its phases", ("first_run",), phases.first),
    Plot(
        "accuracy",
        "Accuracy of pitch against the signal-to-noise ratio, of RMVPE and of other estimators",
        ("accuracy",),
        accuracy.accuracy,
    ),
    Plot(
        "voicing",
        "Voicing recall against voicing false alarms, of RMVPE and of other estimators",
        ("accuracy",),
        accuracy.voicing,
    ),
    Plot("breakdown", "What the time of one call is made of, on both sides", ("time",), breakdown.breakdown),
    Plot("memory", "Peak memory against duration", ("time", "memory"), phases.memory),
    Plot("f0", "F0 of all backends, and their difference in cents, on", ("time",), sound.f0, per_case=True),
    Plot("spectra", "Spectrograms of both sides and of their difference, on", ("time",), sound.spectra, per_case=True),
    Plot("samples", "Distribution of the samples", ("time",), samples.samples),
)
