"""The examples of docs/extending.md work: its files form a plugin that is run, its other blocks are executed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from reports.data.frame import load
from reports.figures.style import plt
from rvc_mlx.optimize import OPTIMIZATIONS
from suites.base import plugins
from suites.base.errors import UserError
from suites.base.run_folder import RunFolder
from suites.definitions import SUITES
from suites.inputs.estimators import ESTIMATORS
from suites.measure.config import compose_config

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r"^```(\w+)\n# (file|example): (\S+)\n(.*?)^```", (ROOT / "docs/extending.md").read_text(), re.M | re.S
)
FILES = {name: text for _, kind, name, text in BLOCKS if kind == "file"}
QUICK = ("measure=smoke", "measure.first_calls=0", "measure.warmup_seconds=0")
EXAMPLES = {name: text for _, kind, name, text in BLOCKS if kind == "example"}


# no figures; of backends and estimators only those of the plugin are tried
WITHOUT = """
import sys
from reports.documents import build
from suites.measure import probe
build.PLOTS, build.answer = (), lambda book: None
possible = probe.impossible
probe.impossible = lambda name: possible(name) if name.startswith("toy") else "left out"
probe.estimators = lambda timeout_s: dict.fromkeys(probe.ESTIMATORS, "left out")
from suites.__main__ import main
code = main(sys.argv[1:])
print("LISTED")
sys.exit(code or main(["list"]))
"""


def suites(plugin_folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(plugin_folder), plugins.VARIABLE: "toy"} | variables
    start = ["-m", "suites"] if variables else ["-c", WITHOUT]
    command = [sys.executable, *start, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT, env=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the plugin of the page lies."""
    found = tmp_path_factory.mktemp("plugin folder")
    for name, text in FILES.items():
        (found / name).parent.mkdir(parents=True, exist_ok=True)
        (found / name).write_text(text)
    return found


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    """A run of the plugin's suite on both of its backends, and what ``list`` tells then."""
    backends = "backends=[toy_reference,toy_port]"
    found = suites(folder, "run", "loudness", *QUICK, "durations=[1,2]", backends, f"out={folder / 'run'}")
    assert found.returncode == 0, found.stdout + found.stderr
    return found


@pytest.fixture(scope="module")
def run(folder: Path, done: subprocess.CompletedProcess[str]) -> Path:
    return folder / "run"


def example(name: str) -> dict[str, object]:
    found: dict[str, object] = {}
    exec(EXAMPLES[name], found)
    return found


def test_every_block_is_run():
    text = (ROOT / "docs/extending.md").read_text()
    assert text.count("```") == 2 * len(BLOCKS)
    assert set(EXAMPLES) == {"optimisation", "plot", "estimator"}
    assert {"toy/loudness.py", "toy/conf/suite/loudness.yaml", "toy/adapter.py", "toy/metric.py"} <= set(FILES)


def test_the_report_names_the_suite_the_metric_and_both_backends(run):
    text = (run / "report.md").read_text()
    for words in ("Loudness: RMS level of frames", "level error dB", "toy_reference", "toy_port"):
        assert words in text, words
    stored = RunFolder(run)
    assert stored.environment()["plugins"] == ["toy"]
    passed = [line for line in stored.results() if line.backend == "toy_port"]
    assert len(passed) == 2
    for line in passed:
        assert line.status == "passed"
        assert 0 <= line.parity["level_error"] < 1e-3
        assert line.parity["limits"]["rms_max_abs"]["passed"]


def test_a_speed_up_names_the_backend_that_it_is_timed_against(run):
    rows = [line for line in (run / "report.md").read_text().splitlines() if "× [" in line]
    assert {"toy_port"} == {row.split("|")[2].strip() for row in rows if "of `toy_reference`" in row}


def test_a_worse_port_fails(folder, tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text.replace("/ reference.HOP)", "/ (reference.HOP - 1))"))
    words = ("run", "loudness", *QUICK, "durations=[1]", "backends=[toy_reference,toy_port]")
    done = suites(tmp_path, *words, f"out={tmp_path / 'run'}")
    assert done.returncode == 1, done.stdout + done.stderr


def test_list_names_the_plugins_additions(done):
    listed = done.stdout.partition("LISTED\n")[2]
    for words in ("loudness", "toy_port", "RMS level of audio"):
        assert words in listed


def test_a_plugin_that_is_not_there_is_named(folder):
    done = suites(folder, "list", **{plugins.VARIABLE: "no_such.plugin"})
    assert done.returncode == 2
    assert "there is no module 'no_such.plugin'" in done.stderr


def test_a_report_needs_the_plugins_of_its_run(run):
    with pytest.raises(UserError, match="needs RVC_PARITY_PLUGINS=toy"):
        RunFolder(run).config()


def test_without_plugins_nothing_changes(monkeypatch):
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    assert plugins.names() == ()
    assert plugins.search_path() == []


def test_an_optimisation(monkeypatch):
    monkeypatch.setitem(OPTIMIZATIONS, "fused_rms", OPTIMIZATIONS["fold_norm"])  # taken back afterwards
    example("optimisation")
    assert "rmvpe.fused_rms.on" in SUITES["ablation"].components(("rmvpe", "hubert"), MappingProxyType({}))
    assert "hubert.fused_rms.on" not in SUITES["ablation"].components(("rmvpe", "hubert"), MappingProxyType({}))


def test_a_plot():
    plot = example("plot")["PLOT"]
    data = load(ROOT / "tests/fixtures/run")
    ((name, alt, draw),) = plot.of(data)
    assert (name, alt) == ("medians", f"{plot.alt}: {data.name}")
    figure = draw()
    assert figure.axes[0].lines
    plt.close(figure)


def test_an_estimator(monkeypatch):
    monkeypatch.setitem(ESTIMATORS, "crossings", ESTIMATORS["pyin"])  # taken back afterwards
    example("estimator")
    found = ESTIMATORS["crossings"]
    audio = np.sin(2 * np.pi * 200 * np.arange(16000) / 16000).astype(np.float32)
    f0 = found.find(audio, found.settings)
    assert f0.shape == (101,)
    assert np.allclose(f0[10:-10], 200, atol=10)
    assert found.missing() is None
    assert compose_config("accuracy", ["suite.estimators=[crossings]"]).suite.estimators == ["crossings"]
