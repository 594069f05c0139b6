"""Where both sides run the same code, a report says so and claims no agreement; an error there still shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_run
from reports.document import Table
from reports.frame import load_book
from reports.sections import parity

COMPONENT = "f0"


def verdicts(folder: Path, **check: Any) -> dict[str, set[str]]:
    """Per component what the tables say of mlx_cpu, once one component is marked as the same code."""
    path = folder / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "record" and line["component"] == COMPONENT and line["parity"]:
            line["parity"]["same_code"] = True
            line["parity"]["limits"]["salience_max_abs"] |= check
            line["status"] = "passed" if check.get("passed", True) else "failed"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    book = load_book([folder])
    found: dict[str, set[str]] = {}
    for section in (*parity.sections(book), *parity.validation(book)):
        for table in (block for block in section.blocks if isinstance(block, Table)):
            if table.header[-1] not in ("verdict", "status"):
                continue
            for row in table.rows:
                if row[table.header.index("backend")] == "mlx_cpu":
                    found.setdefault(str(row[table.header.index("component")]), set()).add(str(row[-1]))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", 1, launches=1, rounds=2)


def test_a_marked_component_is_the_same_code_in_every_table(folder):
    found = verdicts(folder)
    assert found.pop(COMPONENT) == {"same code"}
    assert set().union(*found.values()) <= {"passed", "no limit under this policy"}


def test_an_error_in_it_is_shown(folder):
    assert verdicts(folder, value=1.0, passed=False)[COMPONENT] == {"failed"}
