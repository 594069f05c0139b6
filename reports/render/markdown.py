"""A document as markdown."""

from __future__ import annotations

from collections.abc import Sequence

from .document import (
    DASH,
    Absent,
    Block,
    Bullets,
    Cell,
    Code,
    Command,
    Document,
    Inline,
    Link,
    Num,
    Paragraph,
    Picture,
    Table,
    inlines,
)


def render(document: Document) -> str:
    parts = [f"# {document.title}"]
    for section in document.sections:
        parts += [f"{'#' * section.level} {section.title}", *(_block(block) for block in section.blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return text(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {text(item)}" for item in block.items)
    if isinstance(block, Command):
        return f"```\n{block.text}\n```"
    if isinstance(block, Picture):
        return f"![{block.alt}]({block.path})"
    return _table(block)


def _table(table: Table) -> str:
    rows = [[text(cell).replace("|", "\\|") for cell in row] for row in table.rows]
    parts = [text(table.about), grid(table.header, rows, table.left)]
    absences = table.absences()
    if absences:
        parts.append(f"{DASH}: {'; '.join(absences)}.")
    return "\n\n".join(part for part in parts if part)


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """The first ``left`` columns to the left, the others to the right."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * left + "---:|" * (len(header) - left)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def text(cell: Cell) -> str:
    return "".join(_inline(inline) for inline in inlines(cell))


def _inline(inline: Inline) -> str:
    if isinstance(inline, Num):
        return inline.text
    if isinstance(inline, Absent):
        return DASH
    if isinstance(inline, Code):
        return f"`{inline.text}`"
    if isinstance(inline, Link):
        return f"[{inline.text}]({inline.target})"
    return inline
