"""The answer on a report's first screen: how fast, and whether it is equal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from reports.data.frame import load_book
from reports.render.document import words_of
from reports.tables.summary import _speed

STORED = Path(__file__).parents[2] / "fixtures" / "run"


@pytest.fixture
def answer(tmp_path):
    def of(change):
        folder = tmp_path / "run"
        shutil.copytree(STORED, folder)
        path = folder / "records.jsonl"
        lines = [json.loads(text) for text in path.read_text().splitlines()]
        for line in lines:
            if line["kind"] == "record" and line["component"] == "f0" and line.get("backend") == "mlx_cpu":
                change(line)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        (text,) = (words_of(found) for found in _speed(load_book([folder])))
        return text

    return of


def test_speed_and_equality_in_one_sentence(answer):
    text = answer(lambda line: None)
    assert text.startswith("RMVPE: mlx_cpu is 0.74× as fast as torch_cpu (0.63× to 0.86×), and equal to it within")


def test_a_limit_that_is_exceeded_is_not_equal(answer):
    def exceed(line):
        next(iter(line["parity"]["limits"].values()))["passed"] = False

    assert "not equal to it: see *Parity*" in answer(exceed)


def test_a_wide_interval_is_called_unknown(answer):
    def scatter(line):
        line["samples_s"] = [s * 4.0**i for i, s in enumerate(line["samples_s"])]

    text = answer(scatter)
    assert "'s speed is unknown: " in text
    assert "wider than a factor of two, and equal to it" in text


def test_what_was_not_compared_is_not_called_equal(answer):
    assert "not compared with it" in answer(lambda line: line.update(parity=None))
