"""Axis names, counts, factors and index ranges in English."""

from __future__ import annotations

import math


def noun(axis: str, count: int = 1) -> str:
    name = "batch item" if axis == "batch" else axis
    if count == 1:
        return name
    return "queries" if axis == "query" else f"{name}s"


def amount(n: int, axis: str) -> str:
    return f"{n} {noun(axis, n)}"


def ordinal(n: int) -> str:
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def factor(x: float) -> str:
    """The factor and its level in dB. Near one with more digits: a misplaced epsilon changes the fifth."""
    digits = f"{x:.4g}" if abs(x - 1) >= 1e-3 else f"{x:.7g}"
    if not x:
        return digits
    level = 20 * math.log10(abs(x))
    return f"{digits} ({level:+.1f} dB)" if abs(level) >= 0.1 or level == 0 else f"{digits} ({level:+.1g} dB)"


def correlation(x: float) -> str:
    """Close to one by its distance from one: 0.99999 would be rounded to 1."""
    return f"{x:.3g}" if x < 0.999 else f"1 - {1 - x:.1g}" if x < 1 else "1"


def edges_text(sides: list[tuple[str, int, int]]) -> str:
    """From (axis, positions at the start, positions at the end): "first 2 rows and last column"."""
    groups: dict[tuple[int, int], list[str]] = {}
    for axis, first, last in sides:
        groups.setdefault((first, last), []).append(axis)
    parts = []
    for (first, last), axes in groups.items():
        nouns = join([noun(axis, max(first, last)) for axis in axes])
        if first and last:
            how_many = "" if first == last == 1 else f" {last}"
            parts.append(f"first{'' if first == last else f' {first}'} and last{how_many} {nouns}")
        else:
            k = first or last
            parts.append(f"{'first' if first else 'last'}{f' {k}' if k > 1 else ''} {nouns}")
    return join(parts)
