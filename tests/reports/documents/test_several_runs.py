"""Several runs in one document: no figure of one machine, precision or run stands unlabelled beside another's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import made_suites
import pytest

from reports.data.frame import Book, load_book
from reports.documents import build
from reports.documents.build import Pictures, compose
from reports.documents.sources import unfounded
from reports.render.document import Bullets, Document, Num, Paragraph, Picture, inlines, words_of

SUITES = ("rmvpe", "components", "memory")


def book_of(folder: Path, options: dict[str, dict], suites: tuple[str, ...] = SUITES) -> tuple[Book, Document]:
    """A folder per name, each with a run of each suite, as one document."""
    for name, chosen in options.items():
        for suite in suites:
            made_suites.make_suite(folder / name / suite, suite, **chosen)
        made_suites.make_trace(folder / name / "trace-rmvpe", **chosen)
    book = load_book([folder / name for name in options])
    document = compose(book, Pictures())
    assert unfounded(document, book) == []
    return book, document


def owners(book: Book, numbers: list[Num]) -> set[str]:
    """The settings whose records these figures are from."""
    known = {member.label: member.setting for member in (*book.runs, *book.traces)}
    return {known[source.partition("#")[0].rpartition("/")[0]] for number in numbers for source in number.sources}


def figures(text) -> list[Num]:
    return [i for i in inlines(text) if isinstance(i, Num)]


def texts(document: Document) -> Iterator[tuple]:
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Bullets):
                yield from block.items
            elif isinstance(block, Paragraph):
                yield block.text


def check_labels(book: Book, document: Document) -> None:
    for table in document.tables():
        for row in table.rows:
            for head, cell in zip(table.header, row, strict=True):
                found = owners(book, figures(cell))
                labelled = row[0] if table.header[0] == "machine" else head.partition(":")[0]
                assert found <= {labelled}, (table.name, head, found)
    for text in texts(document):
        found = owners(book, figures(text))
        # what is of one of them says so; what is of all of them is no figure of one
        told = words_of(text)
        assert len(found) != 1 or f"({next(iter(found))})" in told or told.startswith(next(iter(found))), told


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> tuple[Book, Document]:
    options = {"here": {}, "there": {"cpu": "Other CPU", "factor": 2.0, "seed": 1}}
    return book_of(tmp_path_factory.mktemp("machines"), options)


@pytest.fixture(scope="module")
def precisions(tmp_path_factory) -> tuple[Book, Document]:
    options = {"plain": {}, "half": {"precision": "bf16", "factor": 0.5, "seed": 1}}
    return book_of(tmp_path_factory.mktemp("precisions"), options)


@pytest.fixture(scope="module")
def again(tmp_path_factory) -> tuple[Book, Document]:
    return book_of(tmp_path_factory.mktemp("again"), {"base": {}, "new": {"factor": 1.1, "seed": 1}})


EACH = pytest.mark.parametrize("which", ["machines", "precisions", "again"])


@EACH
def test_every_figure_is_labelled(which, request):
    check_labels(*request.getfixturevalue(which))


@EACH
def test_facets_have_short_names(which, request):
    book, _ = request.getfixturevalue(which)
    names = {"machines": {"A", "B"}, "precisions": {"fp32", "bf16"}, "again": {"base", "new"}}[which]
    assert {setting.name for setting in book.settings} == names


@EACH
def test_whole_calls_stand_side_by_side(which, request):
    book, document = request.getfixturevalue(which)
    table = next(t for t in document.tables() if t.name == "machines-rmvpe")
    assert len(table.header) == 1 + len(book.settings) * len(made_suites.BACKENDS)
    environment = next(t for t in document.tables() if t.name == "environment")
    assert list(environment.header[1:]) == [setting.name for setting in book.settings]


def test_the_other_machine_is_described(machines):
    _, document = machines
    table = next(t for t in document.tables() if t.name == "environment")
    cpu = next(row for row in table.rows if row[0] == "CPU")
    assert ["Test CPU" in words_of(inlines(cpu[1])), "Other CPU" in words_of(inlines(cpu[2]))] == [True, True]


def test_no_ratio_is_formed_across_precisions(precisions):
    book, document = precisions
    for table in document.tables():
        for row in table.rows:
            for cell in row:
                for number in figures(cell):
                    if number.text.endswith("×") or "× [" in number.text:
                        assert len({s.partition("/")[0] for s in number.sources}) == 1
    assert len(book.settings) == 2


def test_figures_are_bounded_and_the_rest_is_told(machines, tmp_path, monkeypatch):
    """What is compared first is drawn first, of every machine; files carry the run's name."""
    book, _ = machines
    drawn: list[str] = []

    def noted(make, path, alt, sources, name=""):
        drawn.append(path.name)
        return Picture(name or path.stem, alt, f"plots/{path.name}", "<svg></svg>", sources)

    monkeypatch.setattr(build, "drawn", noted)
    monkeypatch.setattr(build, "MOST_FIGURES", 5)
    pictures = build.draw(book, tmp_path)
    assert drawn[:5] == [
        "answer.png",
        "here-rmvpe-time.png",
        "here-components-time.png",
        "there-rmvpe-time.png",
        "there-components-time.png",
    ]
    assert pictures.count == 5 + len(book.traces)
    absent = dict(compose(book, pictures).absent)
    assert absent["Further figures"] == (
        "a document holds 5; those of one run are in its own report: python -m suites report RUN",
    )


def test_suites_of_one_machine_need_no_label(tmp_path):
    book = load_book([made_suites.make_everything(tmp_path / "all")])
    assert [setting.name for setting in book.settings] == [""]
    assert [run.name for run in book.runs] == list(made_suites.COMPONENTS)  # in the order of `run all`
    document = compose(book, Pictures())
    assert not any("machine" in table.header for table in document.tables())


def test_a_run_that_was_broken_off_is_no_machine_of_its_own(tmp_path):
    for suite in ("rmvpe", "hubert"):
        made_suites.make_suite(tmp_path / suite, suite)
    for name in ("environment.json", "plan.json"):
        (tmp_path / "hubert" / name).unlink()
    (tmp_path / "hubert" / "records.jsonl").write_text("")
    book = load_book([tmp_path])
    assert [setting.name for setting in book.settings] == [""]


def test_the_same_folder_twice_is_one_run(tmp_path):
    run = made_suites.make_suite(tmp_path / "run", "hubert")
    assert len(load_book([run, tmp_path / ".." / tmp_path.name / "run"]).runs) == 1


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    for name in ("a", "b"):
        made_suites.make_suite(tmp_path / name / "run", "hubert")
    book = load_book([tmp_path / name / "run" for name in ("a", "b")])
    assert [run.label for run in book.runs] == ["a/run", "b/run"]
    assert [setting.name for setting in book.settings] == ["a", "b"]


def test_two_gpus_are_two_machines(tmp_path):
    for name in ("a", "b"):
        run = made_suites.make_suite(tmp_path / name, "hubert")
        facts = json.loads((run / "environment.json").read_text())
        facts["backends"]["torch_cpu"]["gpu_name"] = f"GPU {name}"
        (run / "environment.json").write_text(json.dumps(facts))
    assert [setting.name for setting in load_book([tmp_path / "a", tmp_path / "b"]).settings] == ["A", "B"]


def test_a_folder_within_a_folder_of_runs_is_found(tmp_path):
    made_suites.make_suite(tmp_path / "all" / "rmvpe", "rmvpe")
    shutil.copytree(tmp_path / "all" / "rmvpe", tmp_path / "all" / "mine")
    book = load_book([tmp_path / "all"])
    assert [run.label for run in book.runs] == ["rmvpe", "mine"]
    check_labels(book, compose(book, Pictures()))
