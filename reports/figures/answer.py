"""The figure on a report's first screen: speed-ups of whole calls, or of one run's parts."""

from __future__ import annotations

from matplotlib.figure import Figure

from suites.base.speed import Estimate

from ..data.frame import Book
from .times import RATIO, in_rows, over, sweep
from .words import audio_of, times

TITLE = "Speed-up over PyTorch on the same device (above 1: faster)"


def answer(book: Book) -> Figure | None:
    """A row per component of a single run, or per run's whole call; on the longest synthetic case."""
    single, runs = len(book.runs) == 1, book.having("time")
    names: list[str] = []
    found: dict[str, list[tuple[str, Estimate]]] = {}
    labels: dict[str, str] = {}
    for run in runs:
        for component in run.components if single else [run.suite.whole or ""]:
            name = component if single else " ".join(filter(None, [run.name, run.setting]))
            for backend in run.backends:
                if gain := run.speedup(sweep(run)[-1], component, backend):
                    names += [name] if name not in names else []
                    found.setdefault(backend, []).append((name, gain))
                    labels[backend] = over(run, backend)
    if not found:
        return None
    audio = audio_of(runs[0], sweep(runs[0])[-1]) if single else ""
    return in_rows(names, found, labels, ", ".join(filter(None, [TITLE, audio])), RATIO, times, audio)
