"""Two runs side by side: the table, the forest plot, and what could not be compared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from made_runs import BACKENDS, CASES, COMPONENTS, make_run

from reports.documents import comparison
from reports.documents.comparison import document, draw, pair_of, write_comparison
from reports.figures import changes
from reports.figures.pictures import split
from reports.render.document import Num, Picture, Table, numbers, words_of
from reports.render.document import inlines as inlines_of
from suites.__main__ import main
from suites.gate.baseline import Baseline, baseline_of
from suites.gate.judge import Outcome, judge, read_policy
from suites.gate.stored import read_baseline, write_baseline

POLICY = read_policy("default")
SLOWED = {("network", "mlx_cpu"): 1.3}


class Compared(NamedTuple):
    before: Baseline
    after: Baseline
    outcome: Outcome


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Compared:
    folder = tmp_path_factory.mktemp("pair")
    before, after = make_run(folder / "before", 1), make_run(folder / "after", 2, slow=SLOWED)
    sheets = [baseline_of([path]) for path in (before, after)]
    return Compared(*sheets, judge(*sheets, POLICY))


class Written(NamedTuple):
    folder: Path
    pictures: list[Picture]


@pytest.fixture(scope="module")
def written(compared, tmp_path_factory) -> Written:
    """With the pictures that were drawn for it."""
    folder, drawn = tmp_path_factory.mktemp("written") / "out", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "draw", lambda *given: drawn.append(draw(*given)) or drawn[-1])
        write_comparison(*compared, folder)
    return Written(folder, drawn[0])


def table(found: Compared, name: str) -> Table:
    return next(t for t in document(*found).tables() if t.name == name)


def test_verdicts_have_the_interval_and_the_limit(compared):
    times = {v.key: v for v in compared.outcome.verdicts if v.metric == "time"}
    slowed = times["synthetic-1s", "network", "mlx_cpu"]
    assert slowed.low < slowed.change < slowed.high
    assert slowed.low > POLICY["time"]["smallest"] == slowed.limit
    assert all(v.low <= 0 <= v.high for key, v in times.items() if key[1] != "network")


def test_the_interval_covers_the_injected_change(compared):
    seconds = [v for v in compared.outcome.verdicts if v.metric == "seconds" and v.key[1:] == ("network", "mlx_cpu")]
    assert all(v.low < 0.3 < v.high for v in seconds)


def test_too_few_launches_still_have_figures(tmp_path):
    sheets = [baseline_of([make_run(tmp_path / str(n), seed=n, launches=n)]) for n in (1, 2)]
    one = [v for v in judge(sheets[0], sheets[1], POLICY).verdicts if v.kind == "too few"]
    two = [v for v in judge(sheets[1], sheets[1], POLICY).verdicts if v.kind == "too few"]
    assert all(v.change is not None and v.low is None and v.p is None for v in one)
    assert all(v.low < v.change == 0 < v.high and v.p is None for v in two)


def test_the_table_has_a_row_per_figure(compared):
    rows = table(compared, "time").rows
    assert [tuple(map(words_of, map(inlines_of, row[:4]))) for row in rows] == [
        ("mlx_cpu", component, case, "slower" if component == "network" else words_of(inlines_of(row[3])))
        for component in COMPONENTS
        for case, row in zip(CASES, rows[2 * COMPONENTS.index(component) :], strict=False)
    ]
    ratio = rows[2][6]
    assert isinstance(ratio, Num)
    assert re.fullmatch(r"1\.\d{3}× \[1\.\d{3}, 1\.\d{3}\]", ratio.text)
    assert ratio.low < ratio.value < ratio.high
    assert len(table(compared, "seconds").rows) == len(CASES) * len(COMPONENTS) * len(BACKENDS)


def test_every_number_names_records_of_both_runs(compared):
    found = document(*compared)
    assert all(number.sources for _, number in numbers(found))
    ratio = table(compared, "time").rows[2][6]
    assert ratio.sources == tuple(
        f"{run}/records.jsonl#synthetic-1s/network/{backend}.samples_s"
        for run in ("before", "after")
        for backend in ("mlx_cpu", "torch_cpu")
    )


def test_a_baseline_is_named_as_one_file(compared, tmp_path):
    path = tmp_path / "base.json"
    write_baseline(compared.before, path)
    baseline = read_baseline(path)
    outcome = judge(baseline, compared.after, POLICY)
    found = Compared(baseline, compared.after, outcome)
    assert table(found, "time").rows[0][4].sources == ("base.json#synthetic-1s/mel/mlx_cpu.slowness",)
    assert table(found, "memory").rows[0][5].sources == ("base.json#synthetic-1s/f0/torch_cpu.memory",)


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    paths = [make_run(tmp_path / name / "run", 1) for name in ("a", "b")]
    pair = pair_of(*(baseline_of([path]) for path in paths))
    assert [side.name for side in pair] == ["a/run", "b/run"]


def test_called_rows_are_filled_and_every_row_can_be_hovered_over(written):
    pictures = {picture.name: picture for picture in written.pictures}
    assert set(pictures) == {"forest-time", "forest-typical", "forest-seconds", "forest-memory", "forest-parity"}
    marks = re.findall(r'aria-label="([^"]+)"', pictures["forest-time"].svg)
    assert len(marks) == len(CASES) * len(COMPONENTS)
    assert sum("slower" in text for text in marks) == 2
    assert all((written.folder / picture.path).is_file() for picture in pictures.values())


def test_many_rows_become_parts_of_one_axis():
    rows = [changes.Ratio("mlx_cpu", str(i), 1.0, 0.9, 1.1, (), False, "passed", "") for i in range(80)]
    parts = split(rows, changes.MOST_ROWS)
    assert [len(part) for part in parts] == [27, 27, 26]
    assert [row for part in parts for row in part] == rows
    wide = rows[0]._replace(low=1e-9, high=1e9)
    low, high = changes.span_of([wide])
    assert 0.1 < low < 0.9
    assert 1.1 < high < 10


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command_prints_and_writes_the_same_bytes(compared, written, tmp_path, capsys):
    runs = [compared.before.name, compared.after.name]
    assert main(["compare", *runs, "--out", str(tmp_path / "out")]) == 0
    assert "slower" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.md", "report.html", "plots"}
    assert contents(tmp_path / "out") == contents(written.folder)
    assert main(["compare", *runs]) == 0


def test_what_cannot_be_compared_is_told(compared, tmp_path):
    other = baseline_of([make_run(tmp_path / "other", 1, precision="tf32")])
    found = Compared(compared.before, other, judge(compared.before, other, POLICY))
    assert [t.name for t in document(*found).tables()] == ["sides", "rest"]
    assert "precision: fp32 there, tf32 here" in words_of(inlines_of(table(found, "rest").rows[0][5]))
    assert draw(*found, tmp_path) == []
