"""Every number is from a record: it can be looked up, it changes with the record, and none is typed."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import made_suites
import pytest

from reports.data.frame import Book, load_book
from reports.documents.build import Pictures, compose
from reports.documents.sources import check, unfounded
from reports.render.document import Code, Document, Num, Paragraph, Section, cells_of, inlines, numbers
from suites.base.records import key_of

ROOT = Path(__file__).parents[3]
STORED = ROOT / "tests" / "fixtures" / "run"
# what a figure of these fields is by itself, whatever was measured
COUNTS = (
    "launches", "rounds", "calls a sample", "warm-up calls", "settled", "durations", "lengths", "records passed",
    "begun", "passed", "failed", "not measured", "values", "of size", "highest over lowest",
)  # fmt: skip
KEPT = ("schema", "round", "rounds", "launch", "launches", "calls", "seeds", "shape", "matmul_size", "values")
# what digits are part of
NAMES = ("f0", "fp32", "snr10", "synthetic-1s", "synthetic-1.5s", "synthetic-2s")


def book_of(folder: Path) -> tuple[Book, Document]:
    book = load_book([folder])
    return book, compose(book, Pictures())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = made_suites.make_everything(tmp_path_factory.mktemp("made"))
    shutil.copytree(STORED, folder / "stored", ignore=shutil.ignore_patterns("expected.md"))
    return folder


# ---------------------------------------------------------------------- every number has one
def test_every_number_of_every_run_is_founded(made):
    for folder in (made, *sorted(path for path in made.iterdir() if path.is_dir())):
        book, document = book_of(folder)
        assert unfounded(document, book) == []
        assert len(list(numbers(document))) > 10


def test_the_command_prints_a_line_per_number(made):
    text, code = check([made / "rmvpe"])
    *lines, last = text.splitlines()
    assert code == 0
    assert last == f"{len(lines)} numbers, 0 without a record"
    where, number, sources = next(line for line in lines if line.startswith("Pitch: RMVPE: synthetic-1s, mlx")).split(
        "\t"
    )
    assert re.fullmatch(r"Pitch: RMVPE: synthetic-1s, mlx_cpu: audio s", where)
    assert number == "1.0"
    assert sources == "records.jsonl#synthetic-1s/mel/torch_cpu.workload"


@pytest.mark.parametrize(
    "sources",
    [
        (),
        ("records.jsonl#synthetic-1s/mel/mlx_cpu.nothing",),
        ("records.jsonl#synthetic-9s/mel/mlx_cpu.samples_s",),
        ("records.jsonl#*/*/torch_mps.samples_s",),
        ("environment.json#cpus",),
        ("config.yaml#suite.nothing",),
        ("other/records.jsonl",),
        ("nothing.json",),
    ],
)
def test_a_number_without_a_record_is_found(made, sources):
    book, _ = book_of(made / "rmvpe")
    document = Document("t", [Section("s", [Paragraph((Num("1", sources),))])])
    assert unfounded(document, book) == ["s: text: 1"]


# ---------------------------------------------------------------------- and changes with it
def changed(value: Any, path: str = "") -> Any:
    """A copy of a record in which every number that was measured is another one, each by a factor of its own."""
    if isinstance(value, dict):
        return {key: inner if key in KEPT else changed(inner, f"{path}.{key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [changed(inner, f"{path}.{i}") for i, inner in enumerate(value)]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    factor = Random(path).uniform(1.3, 2.3)
    if isinstance(value, int):
        return 1 + int(value * factor)
    return 1 - (1 - value) * factor if 0.99 < value < 1 else value * factor


def change_run(folder: Path) -> None:
    lines = [json.loads(text) for text in (folder / "records.jsonl").read_text().splitlines()]
    # a case's audio is as long for all of its records
    found = [
        changed(line, "/".join(key_of(line))) | ({"workload": workload(line)} if "workload" in line else {})
        for line in lines
    ]
    made_suites.write_lines(folder, found)
    facts = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps(changed(facts)))


def workload(line: dict[str, Any]) -> dict[str, Any]:
    return line["workload"] | {"duration_s": 3.7 * line["workload"]["duration_s"]}


def said(number: Num) -> tuple[str, float | None]:
    """With its value, which is not rounded."""
    return number.text, number.value


def places(document: Document) -> dict[str, set[tuple[str, float | None]]]:
    found: dict[str, set[tuple[str, float | None]]] = {}
    for where, number in numbers(document):
        found.setdefault(where, set()).add(said(number))
    return found


@pytest.mark.parametrize("name", ["stored", *made_suites.COMPONENTS, "trace-rmvpe"])
def test_every_number_follows_its_record(made, name, tmp_path):
    """Other records, other numbers: what stays is a count, a zero, or from what stayed."""
    _, before = book_of(made / name)
    run = Path(shutil.copytree(made / name, tmp_path / name))
    change_run(run)
    after = places(book_of(run)[1])
    stayed = [(where, n) for where, n in numbers(before) if said(n) in after.get(where, ())]
    assert [place for place in stayed if not may_stay(*place)] == []
    assert sum(where in after for where, _ in numbers(before)) > len(stayed)


def may_stay(where: str, number: Num) -> bool:
    if where.rpartition(": ")[2] in COUNTS or number.value == 0 or not re.search(r"\d", number.text):
        return True
    files = {re.split("[/#]", source)[0] for source in number.sources}
    if "config.yaml" in files or ("environment.json" in files and number.value is None):  # words, such as versions
        return True
    return where.endswith((": list", ": text", ": about the table")) and number.text.isdigit()  # how many records


def fixed_words(document: Document) -> Iterator[str]:
    """Text that does not depend on the records."""
    for section in document.sections:
        yield section.title
        for block in section.blocks:
            for _, cell in cells_of(block):
                yield from (i if isinstance(i, str) else i.text for i in inlines(cell) if isinstance(i, str | Code))


def test_no_number_is_typed_into_the_words(made, tmp_path):
    """Words of the document stay while every record changes, but for names and what the records say in words."""
    run = Path(shutil.copytree(made, tmp_path / "made"))
    for folder in (path for path in run.iterdir() if path.is_dir()):
        change_run(folder)
    old, new = (Counter(fixed_words(book_of(folder)[1])) for folder in (made, run))
    names = re.compile("|".join(sorted(map(re.escape, NAMES), key=len, reverse=True)))
    for text in (old - new) + (new - old):
        assert not re.search(r"\d", names.sub("", text)), text
