"""The record file: nothing lost, nothing doubled, nothing half-read."""

from __future__ import annotations

import errno
import json
import lzma
import os

import made_suites
import pytest
from command import strict
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.errors import UserError
from suites.record import RecordFile, read_lines, records, records_file, samples, write_whole


def sample(number: int, seconds: float = 0.1) -> dict:
    return {
        "schema": 1,
        "kind": "sample",
        "case": "c",
        "component": "f0",
        "backend": "mlx_cpu",
        "round": number,
        "seconds": seconds,
    }


def record(status: str) -> dict:
    return {"schema": 1, "kind": "record", "case": "c", "component": "f0", "backend": "mlx_cpu", "status": status}


def test_lines_come_back(tmp_path):
    file = RecordFile(tmp_path / "r.jsonl")
    for i in range(3):
        file.append(sample(i))
    assert list(read_lines(tmp_path / "r.jsonl")) == [sample(i) for i in range(3)]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 400))
def test_any_cut_loses_at_most_the_last_line(tmp_path_factory, cut):
    """A process killed in the middle of a write, at any byte; the continuation appends whole lines."""
    path = tmp_path_factory.mktemp("cut") / "r.jsonl"
    file = RecordFile(path)
    for i in range(3):
        file.append(sample(i))
    file.close()
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    whole = data.count(b"\n")
    assert list(read_lines(path)) == [sample(i) for i in range(whole)]
    RecordFile(path).append(sample(9))
    assert list(read_lines(path)) == [*(sample(i) for i in range(whole)), sample(9)]


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    file = RecordFile(path)
    file.append(sample(0))
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
    with pytest.raises(OSError, match="No space left") as caught:
        file.append(sample(1))
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    file.append(sample(2))
    assert list(read_lines(path)) == [sample(0), sample(2)]


def test_compressed_records_are_read_and_take_no_more_lines(tmp_path):
    file = RecordFile(records_file(tmp_path))
    file.append(sample(0))
    plain = tmp_path / "records.jsonl"
    assert records_file(tmp_path) == plain
    packed = tmp_path / "records.jsonl.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes() + b'{"cut'))
    assert records_file(tmp_path) == plain  # where both are there, the one that grows counts
    plain.unlink()
    assert records_file(tmp_path) == packed
    assert list(read_lines(packed)) == [sample(0)]
    with pytest.raises(UserError, match="unpack them first"):
        RecordFile(packed)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be decompressed"):
        list(read_lines(packed))


def test_nan_is_never_written_as_a_number(tmp_path):
    file = RecordFile(tmp_path / "r.jsonl")
    file.append(record("failed") | {"parity": {"max_abs": float("nan"), "more": [float("inf")]}})
    (line,) = read_lines(tmp_path / "r.jsonl")
    assert line["parity"] == {"max_abs": "nan", "more": ["inf"]}


def test_the_last_record_of_a_key_counts():
    assert records([record("error"), sample(0), record("passed")]) == [record("passed")]


def test_samples_by_round():
    """Older ones came from one launch, a call each."""
    found = samples([sample(0, 0.1), sample(1, 0.2) | {"launch": 3}, record("passed")])[("c", "f0", "mlx_cpu")]
    assert {number: line["seconds"] for number, line in found.items()} == {0: 0.1, 1: 0.2}
    assert [(line["launch"], line["calls"]) for line in found.values()] == [(0, 1), (3, 1)]


def test_a_backend_that_started_after_all_is_no_error():
    broken = record("error") | {"case": "all", "component": "all"}
    assert records([broken]) == [broken]
    assert records([broken, record("passed")]) == [record("passed")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 1}\nrubbish\n', ":2: not a record"),
        ("[]\n", ":1: not a record"),
        (json.dumps(sample(0) | {"schema": 99}) + "\n", "schema 99 is newer"),
    ],
)
def test_damage_is_told(tmp_path, text, message):
    (tmp_path / "r.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        list(read_lines(tmp_path / "r.jsonl"))


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="is this a run folder"):
        list(read_lines(tmp_path / "r.jsonl"))


def test_made_records_are_like_real_ones(tmp_path):
    """What tests of reports are made from has the fields of records, and no others."""
    made_suites.make_everything(tmp_path / "all")
    schema = strict()
    for path in (tmp_path / "all").glob("*/records.jsonl"):
        for line in read_lines(path):
            schema.validate(line)


@pytest.mark.parametrize("field", ["work", "output"])
def test_the_schema_knows_the_parts_of_a_field(tmp_path, field):
    made_suites.make_suite(tmp_path / "run", "components")
    line = records(read_lines(tmp_path / "run" / "records.jsonl"))[-1]
    parts = {"work": ("flops_products", "flops_other", "bytes"), "output": ("samples", "sample_rate")}[field]
    strict().validate(line | {field: dict.fromkeys(parts, 7)})
    for wrong in ({}, dict.fromkeys(parts, 0.5), dict.fromkeys((*parts, "more"), 7)):
        assert not strict().is_valid(line | {field: wrong})
    assert not strict().is_valid(line | {"unheard": 1})


def test_a_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    write_whole(path, "old")

    def cut(self, text):
        with self.open("w") as file:
            file.write(text[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr(type(path), "write_text", cut)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "new one")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
