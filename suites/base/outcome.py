"""The result of a run's records: an exit code and the reasons for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from .lines import Line
from .records import key_of

PASSED, FAILED, ERROR, INTERRUPTED = 0, 1, 2, 130


class Answer(NamedTuple):
    """What a command found: its exit code; the text that it prints, the last line being the result in a line; and the
    same as an object for ``--json``. ``line``: the result, where it is not the last line."""

    exit_code: int
    text: str
    found: dict[str, Any] = {}  # noqa: RUF012  (never written to)
    line: str = ""


class Outcome(NamedTuple):
    exit_code: int
    failed: list[Line]
    errors: list[Line]
    missing: list[tuple[str, str, str]]
    skipped: list[Line]

    @property
    def word(self) -> str:
        return ("passed", "failed", "incomplete")[self.exit_code]


def judge(planned: Iterable[tuple[str, str, str]], records: list[Line]) -> Outcome:
    """A planned key without a record is an error, as is a result that cannot be compared."""
    planned = list(planned)
    by_status: dict[str, list[Line]] = {}
    for line in records:
        by_status.setdefault(line["status"], []).append(line)
    have = {key_of(line) for line in records if line["status"] != "skipped"}
    missing = [key for key in planned if key not in have]
    failed = by_status.get("failed", [])
    unknown = [
        line for status, found in by_status.items() if status not in ("passed", "failed", "skipped") for line in found
    ]
    code = ERROR if unknown or missing or not planned else FAILED if failed else PASSED
    return Outcome(code, failed, unknown, missing, by_status.get("skipped", []))
