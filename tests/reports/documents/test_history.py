"""Many runs over time: the run at which something changed is named, and only that one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_run

from reports.data.history_runs import Group, collect, grouped, judged
from reports.documents import history
from reports.documents.build import Built
from reports.documents.history import compose, draw, write_history
from reports.render.document import inlines as inlines_of
from reports.render.document import words_of
from suites.base.errors import UserError
from suites.gate.judge import read_policy

POLICY = read_policy("default")
SLOWED = {("network", "mlx_cpu"): 1.15}


def dated_run(folder: Path, day: int, **options) -> Path:
    """Measured on that day of January, at a commit of its own."""

    def dated(lines):
        time = f"2026-01-{day:02d}T03:04:05.678+00:00"
        return [line | {"time": time} if line["kind"] == "record" else line for line in change(lines)]

    change = options.pop("change", lambda lines: lines)
    environment = {"commit": f"{day:x}" * 40, "commit_clean": day != 5} | options.pop("environment", {})
    return make_run(folder, options.pop("seed", day), environment=environment, change=dated, **options)


def groups_of(folder: Path):
    members, unread = collect(folder)
    return [judged(group, POLICY) for group in grouped(members)], unread


def called(group: Group) -> set[tuple[str, str, str]]:
    """Run, component, verdict."""
    return {(group.members[c.at].label, c.verdict.key[1], c.verdict.kind) for c in group.changes}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Six runs, slower from the fourth on, whose folders' names are in another order; and one unlike them, deeper."""
    folder = tmp_path_factory.mktemp("runs")
    for day in range(1, 7):
        dated_run(folder / f"run-{9 - day}", day, slow=SLOWED if day >= 4 else {})
    dated_run(folder / "all" / "unlike", 3, precision="tf32")
    damaged = dated_run(folder / "damaged", 2)
    (damaged / "records.jsonl").write_text("{\n")
    (folder / "notes").mkdir()
    return folder


# of the figures, of which all cases and backends have the same
DRAWN = ("history-1-time-synthetic-1s-mlx_cpu", "history-1-memory-mlx_cpu")


@pytest.fixture(scope="module", autouse=True)
def _few_figures():
    parts = history.in_parts

    def few(rows, most, make, folder, name, alt, sources):
        return parts(rows, most, make, folder, name, alt, sources) if name in DRAWN else iter(())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "in_parts", few)
        yield


@pytest.fixture(scope="module")
def written(runs, tmp_path_factory) -> tuple[Built, Any]:
    """With the pictures that were drawn for it."""
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "draw", lambda *given: drawn.append(draw(*given)) or drawn[-1])
        return write_history(runs, tmp_path_factory.mktemp("history"), POLICY), drawn[0]


@pytest.fixture(scope="module")
def built(written) -> Built:
    return written[0]


@pytest.fixture(scope="module")
def found(runs):
    return groups_of(runs)


def test_a_slowdown_is_marked_at_its_run_and_only_there(found):
    assert called(found[0][0]) == {("run-5", "network", "slower")}


def test_runs_are_in_order_of_time_and_unlike_ones_apart(found):
    groups, unread = found
    assert [[m.label for m in group.members] for group in groups] == [
        [f"run-{i}" for i in range(8, 2, -1)],
        ["all/unlike"],
    ]
    assert unread == [("damaged", "records.jsonl:1: not a record")]


def test_the_report_names_the_commit(built):
    text = built.path.read_text()
    assert re.search(r"\| run-5 \| 2026-01-04 \| 4444444 \| synthetic-1s \| network .*slower \| run-6 \| 1\.1", text)
    assert "5555555*" in text
    assert "all/unlike, 2026-01-03, 3333333 (rmvpe, tf32, applio): closest to run-8, but precision" in text
    assert "| damaged | records.jsonl:1: not a record |" in text
    assert built.exit_code == 0
    assert any("commit 4444444" in note for note in built.notes)


def test_the_change_can_be_hovered_over(runs, found, written):
    (groups, unread), (_, pictures) = found, written
    document = compose(runs, groups, unread, pictures)
    svg = {p.name: p.svg for p in pictures[groups[0].name]}
    assert set(svg) == set(DRAWN)
    marks = re.findall(r'aria-label="([^"]+)"', svg["history-1-time-synthetic-1s-mlx_cpu"])
    assert len(marks) == 4 * 6
    changed = [text for text in marks if "slower" in text]
    assert len(changed) == 1
    assert "run-5, 2026-01-04, 4444444" in changed[0]
    assert "history-1-memory-mlx_cpu" in svg
    assert {t.name for t in document.tables()} == {"runs-1", "changes-1", "trends-1", "memory-1", "unread"}


def test_from_first_to_last_the_ratio_is_there(runs, found):
    groups, unread = found
    document = compose(runs, groups, unread, {})
    rows = next(t for t in document.tables() if t.name == "trends-1").rows
    texts = {tuple(words_of(inlines_of(cell)) for cell in row[:5]): row[7] for row in rows}
    ratio = texts["synthetic-1s", "network", "mlx_cpu", "time", "slower"]
    assert ratio.low < 1.15 < ratio.high


def test_a_slow_run_between_two_others_is_slower_and_then_faster(tmp_path):
    for day in (1, 2, 3):
        dated_run(tmp_path / str(day), day, slow={("decode", "mlx_cpu"): 1.3} if day == 2 else {})
    assert called(groups_of(tmp_path)[0][0]) == {("2", "decode", "slower"), ("3", "decode", "faster")}


def test_a_run_that_cannot_be_judged_by_is_stepped_over(tmp_path):
    """Two launches are too few: the run after it is compared with the one before it."""
    for day in (1, 2, 3):
        dated_run(tmp_path / str(day), day, launches=2 if day == 2 else 8, slow=SLOWED if day > 1 else {})
    group = groups_of(tmp_path)[0][0]
    assert {(c.at, c.against, c.verdict.key[1]) for c in group.changes} == {(2, 0, "network")}
    assert {(at, reason.split(":")[0]) for at, reason, _ in group.unjudged} == {(1, "too few")}


def test_what_fails_or_goes_missing_is_called_once(tmp_path):
    def failed(lines):
        def change(line):
            broken = line["kind"] == "record" and (line["component"], line["backend"]) == ("mel", "mlx_cpu")
            return line | {"status": "failed", "reason": "too far"} if broken else line

        return [change(line) for line in lines]

    for day in (1, 2, 3):
        dated_run(tmp_path / str(day), day, **({"change": failed} if day > 1 else {}))
    assert called(groups_of(tmp_path)[0][0]) == {("2", "mel", "failed")}


def test_other_software_is_told_and_another_processor_is_another_group(tmp_path):
    dated_run(tmp_path / "a", 1)
    dated_run(tmp_path / "b", 2, environment={"packages": {"mlx": "0.33.0", "torch": "2.13.0"}})
    dated_run(tmp_path / "c", 3, environment={"cpu": "Other CPU"})
    groups, unread = groups_of(tmp_path)
    assert [[m.label for m in group.members] for group in groups] == [["a", "b"], ["c"]]
    rows = next(t for t in compose(tmp_path, groups, unread, {}).tables() if t.name == "runs-1").rows
    assert words_of(inlines_of(rows[1][3])) == "packages.mlx: 0.32.4 to 0.33.0"


def test_another_processor_of_the_same_name_is_another_group(tmp_path):
    """A run that does not say which processor it was made on counts to the first of its name."""
    for day, family in enumerate((None, 26, 25, 26), 1):
        facts = {"processor": {"vendor": "AuthenticAMD", "family": family, "flags": ["avx2"]}} if family else {}
        dated_run(tmp_path / str(day), day, environment=facts)
    groups, _ = groups_of(tmp_path)
    assert [[m.label for m in group.members] for group in groups] == [["1", "2", "4"], ["3"]]


def test_one_run_is_told_that_it_is_alone(tmp_path):
    dated_run(tmp_path / "runs" / "only", 1)
    built = write_history(tmp_path / "runs", tmp_path / "out", POLICY)
    assert built.exit_code == 0
    assert "**Nothing to compare**" in built.path.read_text()


def test_nothing_readable(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        write_history(tmp_path / "none", tmp_path / "out", POLICY)
    with pytest.raises(UserError, match="no run folders"):
        write_history(tmp_path, tmp_path / "out", POLICY)
    run = dated_run(tmp_path / "runs" / "one", 1)
    with pytest.raises(UserError, match="is a run itself"):
        write_history(run, tmp_path / "out", POLICY)
    (run / "environment.json").write_text(json.dumps([1]))
    built = write_history(tmp_path / "runs", tmp_path / "out", POLICY)
    assert built.exit_code == 2
    assert built.notes[0].startswith("cannot be read: one: ")


@pytest.mark.parametrize("text", ["", "[", "\x00", "suite: 3", "suite: {name: nothing}"])
def test_a_damaged_configuration_is_listed(tmp_path, text):
    run = dated_run(tmp_path / "one", 1)
    (run / "config.yaml").write_text(text)
    members, unread = collect(tmp_path)
    assert not members
    assert [label for label, _ in unread] == ["one"]


def test_the_same_runs_give_the_same_bytes(runs, built, tmp_path):
    write_history(runs, tmp_path, POLICY)
    for path in (p for p in built.path.parent.rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / path.relative_to(built.path.parent)).read_bytes(), path.name
