"""Other estimators: those that are installed find a plain tone at the right time, those that are not say so."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from suites.inputs.estimators import CONSENSUS, ESTIMATORS
from suites.metrics.pitch import accuracy

INSTALLED = [name for name, found in ESTIMATORS.items() if found.missing() is None and name != "crepe"]


def test_praat_is_there():
    """The test set is validated with it."""
    assert "praat" in INSTALLED


@pytest.mark.parametrize("name", INSTALLED)
def test_a_tone_that_starts_and_stops(name):
    t = np.arange(32000) / 16000
    f0 = 220 * 2 ** (0.3 * np.sin(2 * np.pi * t))
    phase = 2 * np.pi * np.cumsum(f0) / 16000
    audio = sum(np.sin(k * phase) / k for k in range(1, 12)) * 0.1 * ((t > 0.5) & (t < 1.6))
    audio += 1e-4 * np.random.default_rng(0).standard_normal(t.size)
    found = ESTIMATORS[name].find(audio.astype(np.float32), ESTIMATORS[name].settings)
    assert found.shape == (201,)
    assert found.dtype == np.float64
    times = np.arange(201) / 100
    truth = np.where((times > 0.5) & (times < 1.6), 220 * 2 ** (0.3 * np.sin(2 * np.pi * times)), 0.0)
    near = (np.abs(times - 0.5) < 0.06) | (np.abs(times - 1.6) < 0.06)
    figures = accuracy(found, truth, ~near)
    assert figures["rpa"] > 0.97
    assert figures["mean_cents"] < 25
    assert ESTIMATORS[name].facts()["package"].split()[1][0].isdigit()


def test_one_that_is_not_installed_is_skipped(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "librosa" else find(name))
    assert ESTIMATORS["pyin"].missing() == "librosa is not installed: pip install -e '.[pitch]'"
    assert ESTIMATORS["praat"].missing() is None


def test_what_is_no_number_is_unvoiced_and_counted(tmp_path, monkeypatch):
    from suites.child.served import ServedModel

    f0 = np.array([100.0, np.nan, -5.0, np.inf, 0.0])
    broken = ESTIMATORS["praat"]._replace(find=lambda audio, settings: f0)
    monkeypatch.setitem(ESTIMATORS, "praat", broken)
    np.save(tmp_path / "audio.npy", np.zeros(640, np.float32))
    asked = {"name": "praat", "audio": str(tmp_path / "audio.npy"), "path": str(tmp_path / "f0.npy"), "warm": 160}
    answer = ServedModel("torch_cpu", "fp32").estimate(asked)
    assert answer["facts"]["voided_frames"] == 3
    assert np.load(tmp_path / "f0.npy").tolist() == [100, 0, 0, 0, 0]


def test_every_estimator_has_a_style_and_a_new_one_takes_a_spare_one():
    from reports.figures.style import OTHERS, SPARE, Styles

    assert set(OTHERS) == set(ESTIMATORS)
    spare = Styles(OTHERS)
    assert spare["first"] != spare["second"]
    assert {spare["first"], spare["second"]} <= set(SPARE)
    assert not any(ESTIMATORS[name].neural for name in CONSENSUS)


def test_none_is_imported_before_it_is_called():
    import subprocess

    code = "import sys, suites.inputs.estimators, suites.measure.accuracy; print([m for m in %r if m in sys.modules])"
    modules = sorted({found.module for found in ESTIMATORS.values()} | {"torch", "mir_eval", "scipy.signal"})
    done = subprocess.run([sys.executable, "-c", code % (modules,)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
