"""Several implementations in one table: time, speed-up, memory and parity of each."""

from pathlib import Path

from reports.data.frame import load_book
from reports.render.document import words_of
from reports.tables.times import by_backend

STORED = Path(__file__).parents[2] / "fixtures" / "run"


def test_memory_stands_beside_time_and_parity():
    """Of what was called first in a process; the rest has none."""
    book = load_book([STORED])
    table = by_backend(book, book.runs, book.runs[0].components)
    assert table.header[3:6] == ("time ms", "speed-up", "memory MiB")
    held = {(row[1], row[2]): words_of((row[5],)) for row in table.rows if row[1] in ("f0", "mel")}
    assert all(float(held["f0", backend]) > 100 for backend in ("torch_cpu", "mlx_cpu"))
    assert not any(held["mel", backend].isdigit() for backend in ("torch_cpu", "mlx_cpu"))


def test_without_memory_there_is_no_column(monkeypatch):
    book = load_book([STORED])
    monkeypatch.setattr(type(book.runs[0]), "cold", lambda self: [])
    assert "memory MiB" not in by_backend(book, book.runs, book.runs[0].components).header
