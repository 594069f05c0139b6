"""``report --sources``: every number of a report with its sources, each of them looked up."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from suites.base.records import key_of

from ..data.frame import Book, RunData, load_book
from ..render.document import Document, Num, numbers
from .build import Pictures, compose

PASSED, FAILED = 0, 1
MOST_SHOWN = 3


def check(folders: Sequence[Path]) -> tuple[str, int]:
    """A line per number: its place, text and sources; exit code 1 where a source is missing."""
    book = load_book(folders)
    known, lines, broken, count = Known(book), [], 0, 0
    for where, number in numbers(compose(book, Pictures())):
        count += 1
        missing = known.missing(number)
        broken += bool(missing)
        shown = ", ".join(number.sources[:MOST_SHOWN])
        more = f" and {len(number.sources) - MOST_SHOWN} more" if len(number.sources) > MOST_SHOWN else ""
        fault = f"  NOT FOUND: {', '.join(missing)}" if missing else ""
        lines.append(f"{where}\t{number.text}\t{shown}{more}{fault}")
    lines.append(f"{count} numbers, {broken} without a record")
    return "\n".join(lines), FAILED if broken or not count else PASSED


def unfounded(document: Document, book: Book) -> list[str]:
    known = Known(book)
    return [f"{where}: {number.text}" for where, number in numbers(document) if known.missing(number)]


class Known:
    """The runs and traces of a book, to look sources up in."""

    def __init__(self, book: Book) -> None:
        self.runs = {run.label: run for run in book.runs}
        self.traces = {walked.label: walked for walked in book.traces}
        self.exists = cache(self._exists)

    def missing(self, number: Num) -> list[str]:
        """The number's sources that do not exist, or a note that it names none."""
        if not number.sources:
            return ["no source is named"]
        return [source for source in number.sources if not self.exists(source)]

    def _exists(self, source: str) -> bool:
        path, _, part = source.partition("#")
        label, _, file = path.rpartition("/")
        if label in self.traces:
            walked = self.traces[label]
            return file in ("records.jsonl", "environment.json") and bool(walked.rows)
        run = self.runs.get(label)
        if run is None:
            return False
        if file == "records.jsonl":
            return not part or _recorded(run, part)
        if file == "plan.json":
            return bool(run.planned)
        stored = {"environment.json": run.environment, "config.yaml": run.config}.get(file)
        return stored is not None and (not part or _reaches(stored, part.split(".")))


def _recorded(run: RunData, part: str) -> bool:
    """Whether a record has this field: ``case/component/backend.field``, with ``*`` for any."""
    case, component, rest = part.split("/", 2)
    backend, _, field = rest.partition(".")
    names = (case, component, backend)
    if "*" not in part:
        line = run.find(*names)
        return line is not None and _reaches(line, field.split("."))
    lines = (line for line in run.records if all(map(fnmatchcase, key_of(line), names)))
    return any(_reaches(line, field.split(".")) for line in lines)


def _reaches(value: Any, path: Sequence[str]) -> bool:
    """Whether the nested value has this path; names may contain dots, and a list has the paths of its items."""
    if not path or value is None:
        return not path
    if isinstance(value, list):
        return any(_reaches(item, path) for item in value) if value and isinstance(value[0], dict) else False
    if not isinstance(value, dict):
        return False
    names = [".".join(path[:size]) for size in range(1, len(path) + 1)]
    return any(name in value and _reaches(value[name], path[size:]) for size, name in enumerate(names, 1))
