"""Texts of figures: titles, cases and measured values."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from suites.base.speed import Estimate

from ..data.frame import RunData

SYNTHETIC = "synthetic-"
# characters of a title's line
TITLE_CHARACTERS = 84
# most cases with a panel, or a figure, of their own
MOST_CASES = 6


def titled(data: Any, text: str) -> str:
    """The text with the precision, and the machine where a document holds several; ``data``: a run or a trace."""
    parts = [text, str(data.config["precision"]), *filter(None, [getattr(data, "setting", "")])]
    title = ", ".join(parts)
    lines = -(-len(title) // TITLE_CHARACTERS)  # lines of about the same length
    return textwrap.fill(title, TITLE_CHARACTERS if lines == 1 else min(TITLE_CHARACTERS, len(title) // lines + 8))


def some(cases: Sequence[str], most: int = MOST_CASES) -> list[str]:
    """At most ``most`` cases, evenly spaced from the first to the last; tables list all."""
    if len(cases) <= most:
        return list(cases)
    return [cases[round(i * (len(cases) - 1) / (most - 1))] for i in range(most)]


def shown_of(shown: Sequence[str], cases: Sequence[str]) -> str:
    """The end of a title where not all cases are shown."""
    return "" if len(shown) == len(cases) else f", {len(shown)} of {len(cases)} cases"


def short(case: str) -> str:
    """A case as ticks and titles name it: ``5 s``, ``speech``."""
    length = case.removeprefix(SYNTHETIC)
    return f"{length.removesuffix('s')} s" if length != case else case


def audio_of(data: RunData, case: str) -> str:
    """A case in a sentence."""
    seconds = f"{data.duration_s(case):.3g} s"
    return f"{seconds} of audio" if case.startswith(SYNTHETIC) else f"{case}, {seconds} of audio"


def three_digits(value: float) -> str:
    """Three digits, without an exponent from 0.0001 to a million."""
    return f"{float(f'{value:.3g}'):.6g}"


def factor(value: float) -> str:
    return f"{value:.2f} ×" if value < 10 else f"{three_digits(value)} ×"


def seconds(value: float) -> str:
    return f"{1e3 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def interval(found: Estimate) -> str:
    """``120 ms [118, 123]``; of a single sample there is no interval."""
    scale, unit = (1e3, "ms") if found.value < 1 else (1.0, "s")
    bounds = f" [{scale * found.low:.3g}, {scale * found.high:.3g}]" if found.rounds > 1 else ""
    return f"{scale * found.value:.3g} {unit}{bounds}"


def times(found: Estimate) -> str:
    """A ratio: ``1.23 × [1.20, 1.26]``."""
    bounds = f" [{found.low:.3g}, {found.high:.3g}]" if found.rounds > 1 else ""
    return f"{found.value:.3g} ×{bounds}"
