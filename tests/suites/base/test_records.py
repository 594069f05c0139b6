"""The record file: nothing lost, nothing doubled, nothing half-read."""

from __future__ import annotations

import errno
import functools
import json
import lzma
import os
from pathlib import Path
from typing import Any

import made_suites
import msgspec
import numpy as np
import pytest
from command import strict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from suites.base import lines as types
from suites.base.errors import UserError
from suites.base.files import write_whole
from suites.base.lines import FIGURES, SCHEMA, SCHEMA_FILE, json_schema, typed
from suites.base.records import RecordFile, read_lines, read_records, records_file, results, samples_of, stored

ROOT = Path(__file__).parents[3]
STORED = [*ROOT.glob("reports/benchmarks/*/*/records.jsonl*"), *ROOT.glob("tests/fixtures/**/records.jsonl*")]


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


def unmeasured(status: str, **key: str) -> dict:
    base = {"schema": 2, "kind": "record", "case": "c", "component": "f0", "backend": "mlx_cpu", **key}
    own = {"run": "r", "suite": "rmvpe", "device": "cpu", "precision": "fp32", "profile": "applio"}
    return base | own | {"status": status, "reason": "why", "time": "t"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of every suite and a trace."""
    return made_suites.make_everything(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def record(made) -> dict[str, Any]:
    """A closing record with every field."""
    lines = list(read_lines(made / "accuracy" / "records.jsonl"))
    work, output = ({"flops_products": 7, "flops_other": 7, "bytes": 7}, {"samples": 7, "sample_rate": 7})
    found = next(line for line in lines if "estimator" in line)
    return found | {"work": work, "output": output}


def test_lines_come_back(tmp_path):
    file = RecordFile(tmp_path / "r.jsonl")
    for i in range(3):
        file.write_line(sample(i))
    assert list(read_lines(tmp_path / "r.jsonl")) == [sample(i) for i in range(3)]


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 400))
def test_any_cut_loses_at_most_the_last_line(tmp_path_factory, cut):
    """A process killed in the middle of a write, at any byte; the continuation appends whole lines."""
    path = tmp_path_factory.mktemp("cut") / "r.jsonl"
    file = RecordFile(path)
    for i in range(3):
        file.write_line(sample(i))
    file.close()
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    whole = data.count(b"\n")
    assert list(read_lines(path)) == [sample(i) for i in range(whole)]
    RecordFile(path).write_line(sample(9))
    assert list(read_lines(path)) == [*(sample(i) for i in range(whole)), sample(9)]


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    file = RecordFile(path)
    file.write_line(sample(0))
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
    with pytest.raises(OSError, match="No space left") as caught:
        file.write_line(sample(1))
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    file.write_line(sample(2))
    assert list(read_lines(path)) == [sample(0), sample(2)]


def test_compressed_records_are_read_and_take_no_more_lines(tmp_path):
    file = RecordFile(records_file(tmp_path))
    file.write_line(sample(0))
    plain = tmp_path / "records.jsonl"
    assert records_file(tmp_path) == plain
    packed = tmp_path / "records.jsonl.xz"
    packed.write_bytes(lzma.compress(plain.read_bytes() + b'{"cut'))
    assert records_file(tmp_path) == plain  # where both are there, the one that grows counts
    plain.unlink()
    assert records_file(tmp_path) == packed
    assert list(read_lines(packed)) == [sample(0)]
    assert list(read_records(packed)) == [typed(sample(0))]
    with pytest.raises(UserError, match="unpack them first"):
        RecordFile(packed)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be decompressed"):
        list(read_lines(packed))


def test_nan_is_never_written_as_a_number(tmp_path, record):
    file = RecordFile(tmp_path / "r.jsonl")
    parity = {"max_abs": float("nan"), "more": [float("inf")], "limits": {"x": {"value": float("-inf")}}}
    file.write_line(typed(record | {"parity": parity}))
    (line,) = read_lines(tmp_path / "r.jsonl")
    assert line["parity"] == {"max_abs": "nan", "more": ["inf"], "limits": {"x": {"value": "-inf"}}}
    (back,) = read_records(tmp_path / "r.jsonl")
    assert repr(back.parity) == repr(parity)


def test_figures_of_numpy_are_numbers(tmp_path, record):
    file = RecordFile(tmp_path / "r.jsonl")
    file.write_line(typed(record | {"parity": {"max_abs": np.float64(0.5), "rmse": np.float32(0.5)}}))
    (line,) = read_lines(tmp_path / "r.jsonl")
    assert line["parity"] == {"max_abs": 0.5, "rmse": 0.5}


def test_the_last_record_of_a_key_counts(record):
    broken = record | {"status": "error", "reason": "killed"}
    assert results(map(typed, [broken, sample(0), record])) == [typed(record)]


def test_samples_by_round(record):
    """Older ones came from one launch, a call each."""
    lines = [sample(0, 0.1), sample(1, 0.2) | {"launch": 3}, record]
    found = samples_of(map(typed, lines))[("c", "f0", "mlx_cpu")]
    assert {number: line.seconds for number, line in found.items()} == {0: 0.1, 1: 0.2}
    assert [(line.launch, line.calls, line.others) for line in found.values()] == [(0, 1, 0.0), (3, 1, 0.0)]


def test_of_a_round_that_was_timed_again_the_least_disturbed_sample_counts(record):
    key = ("c", "f0", "mlx_cpu")
    lines = [sample(0, s) | {"others": share} for s, share in ((0.3, 0.2), (0.2, 0.01), (0.1, 0.3), (0.4, 0.01))]
    assert [line.seconds for line in samples_of(map(typed, lines))[key].values()] == [0.2]


def test_a_backend_that_started_after_all_is_no_error(record):
    broken = typed(unmeasured("error", case="all", component="all", backend=record["backend"]))
    assert results([broken]) == [broken]
    assert results([broken, typed(record)]) == [typed(record)]


DAMAGE = [
    (json.dumps(sample(0)) + "\nrubbish\n", ":2: not a record"),
    ("[]\n", ":1: not a record"),
    ("[" * 100_000 + "\n", ":1: not a record"),
    (json.dumps(sample(0) | {"schema": 99}) + "\n", "schema 99 is newer than this program's 2; update it"),
]
WRONG = [
    (sample(0) | {"kind": "other"}, "its kind is 'other'"),
    (sample(0) | {"seconds": "fast"}, r"Expected `float`, got `str` - at `\$.seconds`"),
    (sample(0) | {"seconds": 0.0}, r"Expected `float` > 0.0 - at `\$.seconds`"),
    ({k: v for k, v in sample(0).items() if k != "round"}, "missing required field `round`"),
    (unmeasured("fine"), "Invalid enum value 'fine'"),
    ({"schema": 2}, "its kind is 'None'"),
]


@pytest.mark.parametrize(("text", "message"), DAMAGE)
@pytest.mark.parametrize("read", [read_lines, read_records])
def test_a_damaged_line_is_named(tmp_path, read, text, message):
    (tmp_path / "r.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        list(read(tmp_path / "r.jsonl"))


@pytest.mark.parametrize(("line", "message"), WRONG)
def test_a_line_that_does_not_fit_its_type_is_named(tmp_path, line, message):
    (tmp_path / "r.jsonl").write_text(json.dumps(sample(0)) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(UserError, match=rf"r.jsonl:2: not a record \(.*{message}"):
        list(read_records(tmp_path / "r.jsonl"))


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="is this a run folder"):
        list(read_lines(tmp_path / "r.jsonl"))


# ---------------------------------------------------------------------- the types and their schema
def test_the_stored_schema_is_the_generated_one():
    """To write it: python -m suites.base.lines."""
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema()


@pytest.mark.parametrize("path", STORED, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_stored_records_fit_their_types(path):
    """Those of older versions as well; what is written again is what the schema asks for, and says the same."""
    schema, lines = strict(), list(read_lines(path))
    found = list(read_records(path))
    assert len(lines) == len(found) > 0
    for raw, line in list(zip(lines, found, strict=True))[:: max(1, len(lines) // 15)]:
        again = json.loads(json.dumps(stored(line)))
        schema.validate(again | {"schema": SCHEMA})
        assert typed(again) == line
        if raw["schema"] == SCHEMA:
            schema.validate(raw)
        given = {name: value for name, value in raw.items() if value is not None and name != "accuracy"}
        assert given.items() <= again.items()


def test_made_records_are_like_real_ones(made):
    """What tests of reports are made from has the fields of records, and no others."""
    schema = strict()
    for path in made.glob("*/records.jsonl"):
        for line in read_lines(path):
            schema.validate(line)


REQUIRED = {
    "sample": "round seconds launch calls rest_s",
    "record": "run suite device precision profile time optimize blas threads warnings reference workload samples_s "
    "rounds launches calls warmup_s warmup parent_cpu_share load_s first_call_s peak_rss_bytes peak_device_bytes cold "
    "parity status reason",
    "trace": "suite reference precision profile variant entry shape added chained floor limit status where",
    "spread": "suite seeds spread",
}


@pytest.mark.parametrize("kind", REQUIRED)
def test_the_schema_requires_what_readers_need(made, kind):
    folder = made / ("trace-rmvpe" if kind in ("trace", "spread") else "rmvpe")
    line = [line for line in read_lines(folder / "records.jsonl") if line["kind"] == kind][-1]
    schema = strict()
    schema.validate(line)
    for name in ("schema", "kind", "case", "component", "backend", *REQUIRED[kind].split()):
        assert not schema.is_valid({k: v for k, v in line.items() if k != name}), name


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("threads", 0),
        ("samples_s", [0.0]),
        ("rounds", [1, 1]),
        ("launches", [-1]),
        ("calls", 0),
        ("status", "skipped"),
        ("device", "tpu"),
        ("precision", "fp8"),
        ("profile", "other"),
        ("backend", 7),
        ("workload", {}),
        ("warmup", [{}]),
        ("accuracy", {}),
        ("accuracy", {"truth": None, "rpa": 1.1}),
        ("accuracy", {"truth": None, "frames": -1}),
        ("accuracy", {"truth": None, "limits": {"rpa": {}}}),
        ("estimator", {}),
        ("cold", [1]),
        ("unknown", 1),
    ],
)
def test_the_schema_refuses(record, field, wrong):
    strict().validate(record)
    assert not strict().is_valid(record | {field: wrong})


@pytest.mark.parametrize("field", ["work", "output"])
def test_the_schema_knows_the_parts_of_a_field(record, field):
    parts = record[field]
    for wrong in ({}, dict.fromkeys(parts, 0.5), dict.fromkeys((*parts, "more"), 7)):
        assert not strict().is_valid(record | {field: wrong})


@functools.cache
def lines_of(kind: type) -> st.SearchStrategy:
    """Any line of this kind: what its type allows, with figures as deep and as infinite as they get."""
    plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats()
    plain |= st.text().filter(lambda text: text not in ("nan", "inf", "-inf"))
    nested = st.recursive(plain, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=3))
    figures = st.dictionaries(st.text(), nested, max_size=3)
    finite = {"allow_nan": False, "allow_infinity": False}

    def of(info: Any) -> st.SearchStrategy:
        match info:
            case msgspec.inspect.Metadata():
                return of(info.type)
            case msgspec.inspect.StrType():
                return st.text()
            case msgspec.inspect.BoolType():
                return st.booleans()
            case msgspec.inspect.IntType():
                return st.integers(-(2**53) if info.ge is None else info.ge, 2**53)
            case msgspec.inspect.FloatType():
                least = info.ge if info.ge is not None else info.gt
                return st.floats(least, info.le, exclude_min=info.gt is not None, **finite)
            case msgspec.inspect.NoneType():
                return st.none()
            case msgspec.inspect.LiteralType():
                return st.sampled_from(info.values)
            case msgspec.inspect.UnionType():
                return st.one_of(map(of, info.types))
            case msgspec.inspect.ListType():
                return st.lists(of(info.item_type), max_size=3)
            case msgspec.inspect.DictType() if isinstance(info.value_type, msgspec.inspect.AnyType):
                return figures
            case msgspec.inspect.DictType():
                return st.dictionaries(st.text(), of(info.value_type), max_size=3)
            case msgspec.inspect.StructType():
                return st.builds(info.cls, **{field.name: of(field.type) for field in info.fields})
        raise AssertionError(info)

    return of(msgspec.inspect.type_info(kind))


@pytest.mark.parametrize("kind", [types.Sample, types.Unmeasured, types.Record, types.Stage, types.Spread])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_record_survives(tmp_path_factory, kind, data):
    line = data.draw(lines_of(kind))
    line.schema = SCHEMA
    if isinstance(line, types.Record):  # a record without any is one of a version that had a single launch
        line.launches = [0] * len(line.samples_s)
    path = tmp_path_factory.mktemp("any") / "r.jsonl"
    file = RecordFile(path)
    file.write_line(line)
    file.close()
    (back,) = read_records(path)
    assert type(back) is kind
    assert repr(back) == repr(line)  # NaN is not equal to itself


def test_figures_are_restored_where_they_may_be_infinite():
    """The list of fields is that of the types."""
    infos = [msgspec.inspect.type_info(kind) for kind in (types.Record, types.Stage, types.Spread)]
    found = {field.name for info in infos for field in info.fields if "dict[str, typing.Any]" in str(field.type)}
    assert set(FIGURES) >= found


def test_a_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    write_whole(path, "old")

    def cut(self, text, **_):
        with self.open("w") as file:
            file.write(text[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr(type(path), "write_text", cut)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "new one")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
