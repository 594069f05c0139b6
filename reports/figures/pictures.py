"""Figures as pictures of a document: drawn in the one style, written to ``plots``, with their alternative texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ..render.document import Picture
from .style import RC, save

T = TypeVar("T")


def drawn(
    make: Callable[[], Figure | None], path: Path, alt: str, sources: tuple[str, ...], name: str = ""
) -> Picture | None:
    """Draw one figure into ``path``, a PNG in a folder ``plots``; None where the records lack what it shows.

    Args:
        name: By which the document knows the picture; the file's where it is empty.

    Raises ``ValueError``: the figure has no title, or no alternative text."""
    with plt.rc_context(RC):
        figure = make()
        if figure is None:
            return None
        if not figure.get_suptitle():
            raise ValueError(f"{path.stem}: the figure has no title")
        return Picture(name or path.stem, alt, f"plots/{path.name}", save(figure, path), sources)


def in_parts(
    rows: Sequence[T],
    most: int,
    make: Callable[[Sequence[T], str], Figure],
    folder: Path,
    name: str,
    alt: str,
    sources: tuple[str, ...],
) -> Iterator[Picture]:
    """One figure in ``folder``, or several with at most ``most`` rows each.

    ``make`` takes rows and the end of the title, which names the part where there are several.
    """
    parts = split(rows, most)
    for number, part in enumerate(parts, 1):
        which = f", part {number} of {len(parts)}" if len(parts) > 1 else ""
        stem = re.sub(r"[^\w.-]", "-", name + (f"-{number}" if which else ""))
        picture = drawn(partial(make, part, which), folder / f"{stem}.png", alt + which, sources)
        if picture is not None:
            yield picture


def split(rows: Sequence[T], most: int) -> list[Sequence[T]]:
    """As few parts as hold no more than ``most``, of about the same length."""
    count = -(-len(rows) // most)
    size = -(-len(rows) // count) if count else 0
    return [rows[i * size : (i + 1) * size] for i in range(count)]
