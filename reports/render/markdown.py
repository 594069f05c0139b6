"""A document as markdown."""

from __future__ import annotations

from . import document as doc


def render(document: doc.Document) -> str:
    parts = [f"# {document.title}"]
    for section in document.sections:
        parts += [f"{'#' * section.level} {section.title}", *(_block(block) for block in section.blocks)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: doc.Block) -> str:
    if isinstance(block, doc.Paragraph):
        return text(block.text)
    if isinstance(block, doc.Bullets):
        return "\n".join(f"- {text(item)}" for item in block.items)
    if isinstance(block, doc.Command):
        return f"```\n{block.text}\n```"
    if isinstance(block, doc.Picture):
        return f"![{block.alt}]({block.path})"
    return _table(block)


def _table(table: doc.Table) -> str:
    rows = [[text(cell).replace("|", "\\|") for cell in row] for row in table.rows]
    lines = ["| " + " | ".join(row) + " |" for row in [table.header, *rows]]
    lines.insert(1, "|" + "---|" * table.left + "---:|" * (len(table.header) - table.left))
    absences = table.absences()
    note = f"{doc.DASH}: {'; '.join(absences)}." if absences else ""
    return "\n\n".join(filter(None, [text(table.about), "\n".join(lines), note]))


def text(cell: doc.Cell) -> str:
    return "".join(_inline(inline) for inline in doc.inlines(cell))


def _inline(inline: doc.Inline) -> str:
    if isinstance(inline, doc.Code):
        return f"`{inline.text}`"
    if isinstance(inline, doc.Link):
        return f"[{inline.text}]({inline.target})"
    return doc.words_of((inline,))
