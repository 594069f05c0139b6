"""A document's tables as files: numbers stay numbers, words stay words, and the same document gives the same bytes."""

from __future__ import annotations

import importlib.util

import pandas as pd
import pytest

from reports.render.document import Absent, Code, Document, Num, Section, Table, say
from reports.render.export import tidy, write_tables
from suites.base.errors import UserError

TIMES = Table(
    "times of rmvpe",
    ("case", "backend", "time (ms)", "speed-up", "state"),
    (
        ("a", Code("mlx_cpu"), Num("1.5 [1, 2]", ("r",), 1.5, 1.0, 2.0), Num("2.00×", ("r",), 2.0), "passed"),
        ("b", Code("mlx_cpu"), Absent("no record"), say("{} of {}", Num("3.00×", ("r",), 3.0), Code("torch_cpu")), ""),
    ),
    2,
)


def document(*tables: Table) -> Document:
    return Document("title", [Section("one", list(tables))])


def test_a_column_of_figures_becomes_numbers_with_bounds_and_notes():
    rows = tidy(TIMES)
    assert list(rows.columns) == [
        "case",
        "backend",
        "time (ms)",
        "time (ms) low",
        "time (ms) high",
        "time (ms) note",
        "speed-up",
        "speed-up note",
        "state",
    ]
    assert rows["time (ms)"].tolist()[0] == 1.5
    assert rows["time (ms)"].isna().tolist() == [False, True]
    assert (rows["time (ms) low"][0], rows["time (ms) high"][0]) == (1.0, 2.0)
    assert rows["time (ms) note"].tolist()[1] == "no record"
    assert rows["speed-up"].tolist() == [2.0, 3.0]
    assert rows["speed-up note"].tolist()[1] == "of torch_cpu"
    assert rows["backend"].tolist() == ["mlx_cpu", "mlx_cpu"]


def test_words_with_figures_in_them_are_words():
    table = Table("t", ("what",), ((say("from {} to {}", Num("1", (), 1.0), Num("2", (), 2.0)),), (Num("nan", ()),)))
    assert tidy(table)["what"].tolist() == ["from 1 to 2", "nan"]


def test_csv_has_these_bytes(tmp_path):
    paths = write_tables(document(TIMES), tmp_path / "tables", "csv")
    assert [path.name for path in paths] == ["times-of-rmvpe.csv"]
    assert paths[0].read_bytes() == (
        b"case,backend,time (ms),time (ms) low,time (ms) high,time (ms) note,speed-up,speed-up note,state\n"
        b"a,mlx_cpu,1.5,1.0,2.0,,2.0,,passed\n"
        b"b,mlx_cpu,,,,no record,3.0,of torch_cpu,\n"
    )


def test_every_table_has_a_file_and_every_column_a_name_of_its_own(tmp_path):
    empty = Table("Times of rmvpe", ("p", "p"), ())
    paths = write_tables(document(TIMES, empty, TIMES), tmp_path, "csv")
    assert [path.name for path in paths] == ["times-of-rmvpe.csv", "Times-of-rmvpe-2.csv", "times-of-rmvpe-3.csv"]
    assert paths[1].read_text() == "p,p (2)\n"


def test_parquet_keeps_types(tmp_path):
    pytest.importorskip("pyarrow")
    paths = write_tables(document(TIMES), tmp_path, "parquet")
    first = paths[0].read_bytes()
    rows = pd.read_parquet(paths[0])
    assert rows["time (ms)"].dtype == "float64"
    assert rows["backend"].tolist() == ["mlx_cpu", "mlx_cpu"]
    assert write_tables(document(TIMES), tmp_path, "parquet")[0].read_bytes() == first


def test_what_is_missing_is_told_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="did you mean 'parquet'"):
        write_tables(document(TIMES), tmp_path, "parkett")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[parquet\]'"):
        write_tables(document(TIMES), tmp_path, "parquet")
