"""``profile`` as a user starts it, on tiny models."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import soundfile
from quick_runs import figures, workers_inside

from reports.data.profile import load, terminal
from suites.__main__ import main
from suites.child import roofline
from suites.definitions.rmvpe import Rmvpe
from suites.measure.launch import WorkerLost
from suites.trace import profile, run

KERNELS = Path(__file__).parents[2] / "fixtures" / "kernels.json"
SMALL = ["measure=smoke", "durations=0.3", "threads=1"]
FILES = {"config.yaml", "environment.json", "profile.csv", "profile.json", "report.html", "report.md", "trace.json"}


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile, "SECONDS", 0.0)
        for name, value in (("PEAK_SECONDS", 0.01), ("LARGEST_MATRIX", 256), ("COPIED_BYTES", 2**22)):
            patch.setattr(roofline, name, value)
        yield


class Profiled(NamedTuple):
    out: Path
    text: str


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Profiled]:
    """The profile of a model, made once: its folder, which stays as it is, and what was told."""

    @functools.cache
    def made(model: str) -> Profiled:
        out, text = tmp_path_factory.mktemp(model) / "p", io.StringIO()
        with workers_inside(), figures(), contextlib.redirect_stdout(text):
            assert main(["profile", model, *SMALL, f"out={out}"]) == 0
        return Profiled(out, text.getvalue())

    return made


@pytest.fixture
def of_rmvpe(profiled, tmp_path) -> Path:
    """The folder of a profile, to be changed."""
    return Path(shutil.copytree(profiled("rmvpe").out, tmp_path / "runs" / "p"))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("model", ["rmvpe", "hubert", "synthesizer", "pipeline"])
def test_a_profile_has_times_and_work_of_both_sides(model, profiled):
    out, text = profiled(model)
    assert "torch_cpu: work next on" in text
    assert "mlx_cpu: work next on" in text
    assert "No kernels were recorded: that needs an NVIDIA GPU" in text
    assert text.splitlines()[-1] == f"report: {out}/report.md"
    assert {path.name for path in out.iterdir()} >= FILES
    found = json.loads((out / "profile.json").read_text())
    for backend, own in found["backends"].items():
        assert len(own["calls_s"]) == profile.ROUNDS[0]
        stages = sum(sorted(sum(one["seconds"][backend][i] for one in found["stages"]) for i in range(3))[1:2])
        assert stages == pytest.approx(sum(seconds for _, _, seconds in own["walk"]))  # the middle walk, all of it
    table = pd.read_csv(out / "profile.csv")
    assert set(table.backend) == {"torch_cpu", "mlx_cpu"}
    counted = table.dropna(subset="flops")
    assert 0.5 < len(counted) / len(table) < 1
    assert counted.groupby("path").flops.nunique().max() == 1
    before = (out / "report.html").read_bytes()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_bytes() == before


@pytest.fixture
def slow_stage(monkeypatch):
    walk = Rmvpe.walk

    def slowed(self, model, given, settings):
        for event in walk(self, model, given, settings):
            if event.path == "fc.1" and "mlx" in type(model).__module__:
                time.sleep(0.15)
            yield event

    monkeypatch.setattr(Rmvpe, "walk", slowed)


@pytest.mark.usefixtures("quick", "slow_stage")
def test_a_planted_slow_stage_is_named(tmp_path, capsys):
    assert main(["profile", "rmvpe", *SMALL, f"out={tmp_path / 'p'}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["backends"]["mlx_cpu"]["next"].startswith("mlx_cpu: work next on fc.1: 1")
    assert "fc.1" not in found["backends"]["torch_cpu"]["next"]


@pytest.mark.usefixtures("quick")
def test_one_backend_is_enough_and_pytorch_still_counts(tmp_path, capsys):
    assert main(["profile", "rmvpe", *SMALL, "backends=[mlx_cpu]", f"out={tmp_path / 'p'}", "-q"]) == 0
    assert capsys.readouterr().out.startswith("mlx_cpu: work next on ")
    found = json.loads((tmp_path / "p" / "profile.json").read_text())
    assert (found["counted_on"], [*found["backends"]]) == ("torch_cpu", ["mlx_cpu"])


@pytest.mark.usefixtures("quick")
def test_recorded_kernels_are_reported(of_rmvpe):
    out = of_rmvpe
    found = json.loads((out / "profile.json").read_text())
    found["backends"]["mlx_cpu"]["kernels"] = json.loads(KERNELS.read_text())
    (out / "profile.json").write_text(json.dumps(found))
    assert main(["report", str(out)]) == 0
    text = (out / "report.md").read_text()
    assert "the GPU is busy for 0.084 ms" in text
    assert "| Memcpy HtoD (Pageable -> Device) | 1 | 0.0214 | 25.4 |" in text
    names = [one["name"] for one in json.loads((out / "trace.json").read_text())["traceEvents"]]
    assert "Memcpy HtoD (Pageable -> Device)" in names
    assert "kernels of a call, mlx_cpu" in terminal(load(out))


@pytest.mark.usefixtures("quick")
def test_without_pytorch_cells_are_empty(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(profile, "impossible", lambda name: "torch is not installed" if "torch" in name else None)
    assert main(["profile", "rmvpe", *SMALL, "backends=[mlx_cpu]", f"out={tmp_path / 'p'}"]) == 0
    assert "Nothing was counted: PyTorch is not installed." in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "p" / "profile.csv").roof_s.isna().all()


def test_the_figures(of_rmvpe):
    assert not list((of_rmvpe / "plots").iterdir())
    assert main(["report", str(of_rmvpe)]) == 0
    assert {path.name for path in (of_rmvpe / "plots").iterdir()} == {"stages.png", "roofline.png"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rmvep"], "unknown model 'rmvep'; did you mean 'rmvpe'"),
        (["accuracy"], "unknown model 'accuracy'"),
        (["rmvpe", "backends=[mlx_cqu]"], "unknown backend 'mlx_cqu'; did you mean"),
        (["rmvpe", "backends=[torch_cpu,onnxruntime]"], "backend onnxruntime: a port's stages cannot be timed"),
        (["rmvpe", "backends=[torch_mps]"], "backend torch_mps: MPS exists on macOS only"),
        (["rmvpe", "measure=smoke", "durations=600"], "durations=600: a profile of rmvpe takes 60 s at most"),
        (["hubert", "measure=smoke", "durations=60"], "a profile of hubert takes"),
        (["rmvpe", "durations=0.1"], "durations=0.1"),
        (["rmvpe", "durations=[]"], "durations=[] leaves nothing to profile"),
        (["rmvpe", "durations=[1,2]"], "a profile takes one"),
        (["rmvpe", "measure=smoke", "weights.rmvpe=/nowhere.pt"], "no such file"),
        (["rmvpe", "measure=smoke", "audio=/nowhere.wav"], "/nowhere.wav"),
        (["rmvpe", "measure=smoke", "out=file/x"], "cannot write the run folder file/x"),
        (["rmvpe", "measure=smoke", "out=full"], "full holds something that is not a run"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("content")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("content")
    assert main(["profile", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert {path.name for path in tmp_path.rglob("*")} == {"file", "full"}


@pytest.mark.usefixtures("quick")
def test_what_the_model_refuses_leaves_nothing(tmp_path, capsys):
    soundfile.write(tmp_path / "short.wav", [0.1] * 200, 16000)
    out = tmp_path / "p"
    assert main(["profile", "rmvpe", *SMALL, f"audio={tmp_path / 'short.wav'}", f"out={out}"]) == 2
    captured = capsys.readouterr()
    assert captured.err.endswith("12 ms is too short; RMVPE needs 160 ms\n")
    assert captured.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("error", "code"), [(WorkerLost("mlx_cpu: the worker was killed"), 2), (KeyboardInterrupt(), 130)]
)
def test_a_profile_that_ends_early_leaves_nothing(error, code, tmp_path, capsys, monkeypatch):
    ask = run.Worker.ask

    def lost(self, do, *given, **words):
        if do == "profile":
            raise error
        return ask(self, do, *given, **words)

    monkeypatch.setattr(run.Worker, "ask", lost)
    assert main(["profile", "rmvpe", *SMALL, f"out={tmp_path / 'p'}"]) == code
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "p").exists()


@pytest.mark.usefixtures("quick")
def test_a_profile_among_runs_is_passed_over(of_rmvpe, tmp_path, capsys):
    for words, message in (
        (["report", f"{tmp_path}/runs", "--out", f"{tmp_path}/r"], "neither a run folder nor a folder of runs"),
        (["report", f"{tmp_path}/runs/p", "--out", f"{tmp_path}/r"], "a profile has a report of its own"),
        (["report", f"{tmp_path}/runs/p", "--tables", "csv"], "a profile has a report of its own"),
    ):
        capsys.readouterr()
        assert main(words) == 2
        assert message in capsys.readouterr().err
    (of_rmvpe / "profile.json").write_text("{}")
    capsys.readouterr()
    assert main(["report", f"{tmp_path}/runs/p"]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/runs/p/profile.json: is damaged\n"
