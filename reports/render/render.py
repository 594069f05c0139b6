"""Write a document as markdown and HTML."""

from __future__ import annotations

from pathlib import Path

from .document import Document
from .html import render as as_html
from .markdown import render as as_markdown


def write(document: Document, folder: Path, name: str = "report") -> Path:
    """``name``.md and ``name``.html in the folder that holds the document's pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.md"
    # undecodable bytes in file names and messages must not prevent the report
    path.write_text(as_markdown(document), encoding="utf-8", errors="replace")
    (folder / f"{name}.html").write_text(as_html(document, folder), encoding="utf-8", errors="replace")
    return path
