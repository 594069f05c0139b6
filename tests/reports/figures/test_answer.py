"""The figure on a report's first screen."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from reports.data.frame import load_book
from reports.figures import style
from reports.figures.answer import answer

STORED = Path(__file__).parents[2] / "fixtures" / "run"


@pytest.fixture(autouse=True)
def _in_style():
    with plt.rc_context(style.RC):
        yield
    plt.close("all")


def labels(figure):
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def test_a_single_run_has_a_row_for_each_component():
    book = load_book([STORED])
    (run,) = book.runs
    figure = answer(book)
    assert labels(figure) == run.components
    gain = run.speedup(run.cases[-1], "f0", "mlx_cpu")
    (text,) = (text for *_, text in figure.named_marks if ", f0, " in text)
    assert f"{gain.value:.3g} ×" in text
    assert text.startswith("mlx_cpu over torch_cpu, f0, ")


def test_several_runs_have_a_row_each(tmp_path):
    for name in ("one", "two"):
        shutil.copytree(STORED, tmp_path / name)
    figure = answer(load_book([tmp_path / "one", tmp_path / "two"]))
    assert labels(figure) == ["rmvpe one", "rmvpe two"]
    assert "s of audio" not in figure.get_suptitle()


def test_nothing_to_compare_has_no_figure(tmp_path):
    shutil.copytree(STORED, tmp_path / "run")
    path = tmp_path / "run" / "records.jsonl"
    path.write_text("".join(line for line in path.open() if '"mlx_cpu"' not in line))
    assert answer(load_book([tmp_path / "run"])) is None
