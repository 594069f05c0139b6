"""A document's tables as CSV or Parquet, a file per table."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from rvc_common.outputs import whole
from suites.base.errors import UserError, nearest

from .document import Absent, Document, Num, Table, Text, distinct, inlines, words_of

KINDS = ("csv", "parquet")


def check_kind(kind: str) -> None:
    """Check that tables can be written in this format.

    Raises ``UserError``: another kind, or Parquet without the package that writes it."""
    if kind not in KINDS:
        raise UserError(f"unknown kind of table {kind!r}{nearest(kind, KINDS)}")
    if kind == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError("Parquet files need pyarrow: pip install -e '.[parquet]'; csv needs nothing more")


def write_tables(document: Document, folder: Path, kind: str = "csv") -> list[Path]:
    """One file per table, named as it is; the same document gives the same bytes.

    Raises ``UserError``: another kind, or Parquet without the package that writes it."""
    check_kind(kind)
    tables = list(document.tables())
    names = distinct([re.sub(r"[^\w.-]+", "-", table.name) or "table" for table in tables], "-{}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for table, name in zip(tables, names, strict=True):
        path, rows = folder / f"{name}.{kind}", tidy(table)
        with whole(path) as part:
            if kind == "csv":
                rows.to_csv(part, index=False, lineterminator="\n", encoding="utf-8")
            else:
                rows.to_parquet(part, engine="pyarrow", index=False)
        paths.append(path)
    return paths


def tidy(table: Table) -> pd.DataFrame:
    """A row per row. A column of figures becomes numbers in the header's unit, followed by ``low`` and ``high`` where
    any of them has an interval, and ``note`` where a cell says more than its figure or why there is none."""
    columns: dict[str, pd.Series] = {}
    for index, head in enumerate(distinct(table.header, " ({})")):
        cells = [inlines(row[index]) for row in table.rows]
        figures = [_figure(cell) for cell in cells]
        if any(figure is not None for figure in figures):
            columns |= _numbers(head, cells, figures)
        else:
            columns[head] = _words(None if _is_absent(cell) else words_of(cell) for cell in cells)
    return pd.DataFrame(columns)


def _numbers(head: str, cells: Sequence[Text], figures: Sequence[Num | None]) -> dict[str, pd.Series]:
    found = {}
    for name, field in ((head, "value"), (f"{head} low", "low"), (f"{head} high", "high")):
        values = [None if figure is None else getattr(figure, field) for figure in figures]
        if field == "value" or any(value is not None for value in values):
            found[name] = pd.Series(values, dtype="float64")
    notes = [_note(cell, figure) for cell, figure in zip(cells, figures, strict=True)]
    if any(notes):
        found[f"{head} note"] = _words(note or None for note in notes)
    return found


def _figure(cell: Text) -> Num | None:
    """The cell's number, where it has exactly one, at its start."""
    values = [i for i in cell if isinstance(i, Num) and i.value is not None]
    return values[0] if len(values) == 1 and cell[0] is values[0] else None


def _note(cell: Text, figure: Num | None) -> str:
    if figure is not None:
        return words_of(cell[1:]).strip(" ,;")
    if _is_absent(cell):
        return next(i.reason for i in cell if isinstance(i, Absent))
    return words_of(cell).strip()


def _is_absent(cell: Text) -> bool:
    return len(cell) == 1 and isinstance(cell[0], Absent)


def _words(values: Iterable[str | None]) -> pd.Series:
    return pd.Series(list(values), dtype="string")
