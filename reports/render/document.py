"""The model of a document: sections of text, tables and pictures, in which every number has its sources.

A document is built once from records and rendered three ways: as markdown, as an HTML page, and as a list of its
numbers with their sources. Plain strings are fixed text; whatever was measured or configured is a ``Num``.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from suites.base.speed import Estimate

DASH = "–"


@dataclass(frozen=True)
class Num:
    """A printed figure. ``sources``: its records, as ``RUN/records.jsonl#case/component/backend.field``.

    ``value``: the number itself in the table's unit, to sort and to export by; None where the text is no number.
    ``low``, ``high``: its interval.
    """

    text: str
    sources: tuple[str, ...]
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Absent:
    """An absent figure, with the reason."""

    reason: str = ""


@dataclass(frozen=True)
class Code:
    """Monospaced text: names of backends, commands."""

    text: str


@dataclass(frozen=True)
class Link:
    text: str
    target: str


Inline = str | Num | Absent | Code | Link
Text = tuple[Inline, ...]
Cell = Inline | Text


@dataclass(frozen=True)
class Paragraph:
    text: Text


@dataclass(frozen=True)
class Bullets:
    items: tuple[Text, ...]


@dataclass(frozen=True)
class Command:
    """A block to copy into a terminal."""

    text: str


@dataclass(frozen=True)
class Table:
    """``name``: of its file when exported. ``left``: the number of leading columns of text."""

    name: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    left: int = 1
    about: Text = ()

    def absences(self) -> list[str]:
        found = [i.reason for row in self.rows for cell in row for i in inlines(cell) if isinstance(i, Absent)]
        return list(dict.fromkeys(reason for reason in found if reason))


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    ``alt``: the alternative text. ``path``: of the PNG, relative to the document. ``svg``: the same, with a tooltip at
    every mark.

    Raises ``ValueError``: no alternative text."""

    name: str
    alt: str
    path: str
    svg: str = ""
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.alt.strip():
            raise ValueError(f"picture {self.name!r}: no alternative text")


Block = Paragraph | Bullets | Command | Table | Picture


@dataclass
class Section:
    """``level``: 2 for a section of its own, 3 within the one before."""

    title: str
    blocks: list[Block] = field(default_factory=list)
    level: int = 2


@dataclass
class Document:
    title: str
    sections: list[Section]
    # titles of sections that could not be made, with the reason
    absent: list[tuple[str, Text]] = field(default_factory=list)

    def tables(self) -> Iterator[Table]:
        for section in self.sections:
            yield from (block for block in section.blocks if isinstance(block, Table))


def inlines(cell: Cell | Text) -> Text:
    return cell if isinstance(cell, tuple) else (cell,)


def say(words: str, *values: Cell, **named: Cell) -> Text:
    """Format ``"{} ran in {time}"`` with cells: the numbers keep their sources."""
    found: list[Inline] = []
    index = iter(values)
    for literal, name, _, _ in string.Formatter().parse(words):
        if literal:
            found.append(literal)
        if name is not None:
            found += inlines(named[name] if name else next(index))
    return tuple(found)


def joined(parts: Sequence[Cell], between: str = ", ") -> Text:
    return tuple(inline for part in parts for inline in (between, *inlines(part)))[1:]


# ---------------------------------------------------------------------- printed forms
def significant(value: float, digits: int = 3) -> str:
    """Rounded to ``digits`` significant ones, without an exponent from 0.001 to a million."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text else text


def estimate_of(e: Estimate, sources: tuple[str, ...], scale: float = 1.0, unit: str = "") -> Num:
    """A value with its interval; one sample has none."""
    value, low, high = (scale * x for x in (e.value, e.low, e.high))
    if unit == "×":
        text = f"{ratio(value)}×" + ("" if e.rounds == 1 else f" [{ratio(low)}, {ratio(high)}]")
    else:
        text = significant(value) + ("" if e.rounds == 1 else f" [{significant(low)}, {significant(high)}]")
    return Num(text, sources, value, *((None, None) if e.rounds == 1 else (low, high)))


def ratio(value: float) -> str:
    """Two decimals, or three significant digits from 10 on."""
    return f"{value:.2f}" if value < 10 else significant(value)


def plain(
    value: float | int | str, sources: tuple[str, ...], form: str = "", scale: float = 1.0, unit: str = ""
) -> Num:
    """A number in the given format, or with three significant digits."""
    if isinstance(value, str):
        return Num(value, sources)
    scaled = value * scale
    text = format(scaled, form) if form else str(scaled) if isinstance(scaled, int) else significant(scaled)
    return Num(text + unit, sources, float(scaled))


def counted(number: int, noun: str, sources: tuple[str, ...]) -> Text:
    """``1 launch``, ``6 rounds``."""
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return (plain(number, sources), f" {noun if number == 1 else plural}")


def words_of(text: Text) -> str:
    return "".join(i if isinstance(i, str) else DASH if isinstance(i, Absent) else i.text for i in text)


def distinct(names: Sequence[str], form: str) -> list[str]:
    """Each name once: a second one of the same name, whatever its case, gets a number."""
    found: list[str] = []
    for name in names:
        candidates = (name, *(name + form.format(i) for i in range(2, len(names) + 2)))
        taken = {other.lower() for other in found}
        found.append(next(candidate for candidate in candidates if candidate.lower() not in taken))
    return found


def numbers(document: Document) -> Iterator[tuple[str, Num]]:
    """Every number of the document with its place."""
    for section in document.sections:
        for block in section.blocks:
            for where, cell in cells_of(block):
                for inline in inlines(cell):
                    if isinstance(inline, Num):
                        yield f"{section.title}: {where}", inline


def cells_of(block: Block) -> Iterator[tuple[str, Any]]:
    """The texts and cells of a block, each with its place."""
    if isinstance(block, Paragraph):
        yield "text", block.text
    elif isinstance(block, Bullets):
        yield from (("list", item) for item in block.items)
    elif isinstance(block, Table):
        yield "about the table", block.about
        for row in block.rows:
            name = ", ".join(words_of(inlines(cell)) for cell in row[: block.left])
            yield from ((f"{name}: {head}", cell) for head, cell in zip(block.header, row, strict=True))
