"""Whatever is deleted, the report is built, tells it, and shows no other figure than before."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import made_suites
import pytest

from reports.data.frame import Book, load_book
from reports.documents import build
from reports.documents.build import Pictures, compose, notes
from reports.documents.sources import unfounded
from reports.render.document import Bullets, Cell, Document, Num, Paragraph, Table, inlines, numbers, words_of
from reports.render.markdown import render
from reports.tables import summary
from suites.base.errors import UserError
from suites.base.outcome import ERROR
from suites.base.records import key_of, read_lines

STORED = Path(__file__).parents[2] / "fixtures" / "run"
MEASURED = tuple(made_suites.COMPONENTS)
Line = dict[str, Any]
Place = tuple[str, Num]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = made_suites.make_everything(tmp_path_factory.mktemp("made"))
    shutil.copytree(STORED, folder / "stored", ignore=shutil.ignore_patterns("expected.md"))
    return folder


@pytest.fixture
def run(made, request, tmp_path) -> Path:
    """A copy of one of them, to be damaged."""
    return Path(shutil.copytree(made / request.param, tmp_path / request.param))


def each(*names: str) -> Any:
    return pytest.mark.parametrize("run", names, indirect=True)


def composed(*folders: Path) -> tuple[Book, Document]:
    book = load_book(folders)
    document = compose(book, Pictures())
    assert unfounded(document, book) == []
    return book, document


def names(number: Num, line: Line, file: str = "records.jsonl") -> bool:
    """Whether a figure says that it is from this record, among others."""
    parts = [source.partition("#") for source in number.sources]
    return any(path == file and _names(part, line) for path, _, part in parts)


def _names(part: str, line: Line) -> bool:
    if line["kind"] != "record":
        return not part or part.split(":")[0] == line["kind"]
    if not part:
        return True
    case, component, rest = part.split("/", 2)
    wanted = (case, component, rest.partition(".")[0])
    return all(fnmatchcase(own, wish) for own, wish in zip(key_of(line), wanted, strict=True))


def units(document: Document) -> Iterator[Place]:
    """What stands or falls together: a cell of a table, or a sentence, with all sources of its figures."""
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Table):
                for row in (*block.rows, (block.about,)):
                    name = ", ".join(words_of(inlines(cell)) for cell in row[: block.left])
                    yield from _units((f"{section.title}: {block.name}: {name}: {i}", c) for i, c in enumerate(row))
            elif isinstance(block, Paragraph | Bullets):
                texts = block.items if isinstance(block, Bullets) else (block.text,)
                yield from _units((section.title, text) for text in texts)


def _units(cells: Iterable[tuple[str, Cell]]) -> Iterator[Place]:
    for where, cell in cells:
        found = [i for i in inlines(cell) if isinstance(i, Num)]
        if found:
            yield where, Num(words_of(inlines(cell)), tuple(s for n in found for s in n.sources))


def strangers(before: Document, after: Document, line: Line, file: str = "records.jsonl") -> list[Place]:
    """What became other, although it is not from this record."""
    old, new = list(units(before)), list(units(after))
    counts = [Counter((where, n.text) for where, n in found) for found in (old, new)]
    gone, come = counts[0] - counts[1], counts[1] - counts[0]
    own = Counter((where, n.text) for where, n in old if names(n, line, file))
    # what takes a place is another figure of it: the next largest, a count of what is left
    places = {where for where, _ in own}
    found = [(where, n) for where, n in old if gone[where, n.text] > own[where, n.text]]
    return found + [
        (where, n) for where, n in new if come[where, n.text] and where not in places and not names(n, line, file)
    ]


def without(folder: Path, index: int) -> None:
    lines = (folder / "records.jsonl").read_text().splitlines(keepends=True)
    (folder / "records.jsonl").write_text("".join(text for i, text in enumerate(lines) if i != index))


@each("stored", *MEASURED)
def test_any_record(run):
    book, before = composed(run)
    lines, text = list(read_lines(run / "records.jsonl")), (run / "records.jsonl").read_text()
    for index, line in enumerate(lines):
        if line["kind"] != "record":
            continue
        without(run, index)
        now, after = composed(run)
        assert strangers(before, after, line) == [], key_of(line)
        if line["status"] != "skipped":
            told = f"{', '.join(key_of(line))}: planned, no record"
            assert told in render(after)
            assert summary.exit_code(now) == ERROR
            assert any("without a record: 1" in note for note in notes(now, after))
        (run / "records.jsonl").write_text(text)
    assert summary.exit_code(book) < ERROR


def test_any_line_of_a_trace(made, tmp_path):
    """Nothing plans them; the report is of what was walked."""
    run = Path(shutil.copytree(made / "trace-rmvpe", tmp_path / "trace"))
    _, before = composed(run)
    lines, text = list(read_lines(run / "records.jsonl")), (run / "records.jsonl").read_text()
    for index, line in enumerate(lines):
        without(run, index)
        _, after = composed(run)
        assert strangers(before, after, line) == []
        (run / "records.jsonl").write_text(text)


def test_one_of_several_runs(made):
    """A record that goes missing in one run leaves all others' figures alone."""
    book, before = composed(made)
    text = (made / "pipeline" / "records.jsonl").read_text()
    lines = list(read_lines(made / "pipeline" / "records.jsonl"))
    index = next(i for i, line in enumerate(lines) if line["kind"] == "record" and line["component"] == "content")
    without(made / "pipeline", index)
    _, after = composed(made)
    (made / "pipeline" / "records.jsonl").write_text(text)
    assert strangers(before, after, lines[index], "pipeline/records.jsonl") == []
    assert len(book.runs) == len(MEASURED) + 1


@each("rmvpe", "memory", "ablation")
def test_samples_as_they_were_taken_are_repeated_in_the_records(run):
    """They are there to go on from; a report needs the records alone."""
    before = render(composed(run)[1])
    lines = list(read_lines(run / "records.jsonl"))
    made_suites.write_lines(run, [line for line in lines if line["kind"] == "record"])
    assert render(composed(run)[1]) == before


@each("pipeline", "ablation")
@pytest.mark.parametrize("fields", [("samples_s",), ("rounds",), ("launches",), ("samples_s", "rounds", "launches")])
def test_any_sample_of_a_record(run, fields):
    """A record that has lost one with its round is another record; one that contradicts itself gives no times."""
    _, before = composed(run)
    lines = list(read_lines(run / "records.jsonl"))
    own = next(line for line in lines if line.get("samples_s") and line["backend"] == made_suites.OURS)
    for field in fields:
        own[field].pop()
    made_suites.write_lines(run, lines)
    book, after = composed(run)
    assert strangers(before, after, own) == []
    assert ("do not fit together" in render(after)) == (len(fields) == 1)
    assert (summary.exit_code(book) == ERROR) == (len(fields) == 1)


def paths(value: Any, head: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every entry of nested dictionaries."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield (*head, name)
        yield from paths(inner, (*head, name))


def drop(value: Any, path: tuple[Any, ...]) -> Any:
    """A copy without that entry."""
    if len(path) == 1:
        return {k: v for k, v in value.items() if k != path[0]}
    return value | {path[0]: drop(value[path[0]], path[1:])}


@each("stored", "components", "trace-rmvpe")
def test_any_fact_of_the_environment(run):
    stored = json.loads((run / "environment.json").read_text())
    _, before = composed(run)
    for path in paths(stored):
        (run / "environment.json").write_text(json.dumps(drop(stored, path)))
        _, after = composed(run)
        now = Counter((where, n.text) for where, n in numbers(after))
        for where, n in numbers(before):
            kept = (where, n.text) in now
            assert kept or any("environment.json" in source for source in n.sources), (path, where, n)
    (run / "environment.json").unlink()
    composed(run)


@each("stored", "rmvpe", "components", "memory")
def test_any_field_that_other_versions_lack(run):
    """What a record need not have, by its schema, or did not have in earlier ones."""
    lines = list(read_lines(run / "records.jsonl"))
    index, own = next(
        (i, x) for i, x in reversed(list(enumerate(lines))) if (x["kind"] == "record" and x["cold"]) or x.get("work")
    )
    for field in (
        "work",
        "output",
        "launches",
        "calls",
        "warmup",
        "others_share",
        "parent_cpu_share",
        "warnings",
        "time",
    ):
        made_suites.write_lines(run, [*lines[:index], drop(own, (field,)), *lines[index + 1 :]])
        composed(run)


@each("rmvpe")
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PK\x03\x04"), Path.touch])
def test_contours_that_are_not_there(run, damage, monkeypatch):
    """Figures need them, numbers do not."""
    _, before = composed(run)
    path = run / "contours" / "synthetic-1s.npz"
    path.write_bytes(b"") if damage is Path.touch else damage(path)
    monkeypatch.setattr(build, "draw", lambda book, out: Pictures())
    built = build.write_report(run)
    assert built.exit_code == 0
    assert "synthetic-1s: F0 is not drawn, contours/synthetic-1s.npz is not there or damaged" in built.path.read_text()
    assert [n for _, n in numbers(built.document)] == [n for _, n in numbers(before)]


@each("pipeline")
def test_spectra_that_are_not_there(run):
    (run / "spectra" / "synthetic-2s.npz").unlink()
    text = render(composed(run)[1])
    assert "synthetic-2s: spectrograms are not drawn, spectra/synthetic-2s.npz is not there or damaged" in text


@each("rmvpe")
@pytest.mark.parametrize("name", ["plan.json", "records.jsonl", "config.yaml"])
def test_a_file_of_the_run(run, name):
    """Without its plan a run is incomplete; without the others it is no run, in one line."""
    (run / name).unlink()
    if name == "plan.json":
        book, after = composed(run)
        assert summary.exit_code(book) == ERROR
        assert "plan.json is not there" in render(after)
    else:
        with pytest.raises(UserError, match=r"^[^\n]+$"):
            load_book([run])
