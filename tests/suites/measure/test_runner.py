"""Whole runs on tiny models, as a user starts them: results, interruptions, bad input."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
import torch
from command import ROOT, strict, suites
from quick_runs import Inside, figures, workers_inside

from suites.base.lock import Lock
from suites.base.records import read_lines, records
from suites.measure import probe, session
from suites.measure.launch import Worker
from suites.measure.timed import TimedCase

# one thread each: these runs stand beside other tests
BOTH = ["measure=smoke", "backends=[torch_cpu,mlx_cpu]", "threads=1"]
BOTH += ["measure.first_calls=0", "measure.warmup_seconds=0"]
SMALL = [*BOTH, "durations=[0.3]", "suite.speech_clip=false"]
# one backend, whose framework is imported at once: which one is ended does not matter
ALONE = [text.replace("torch_cpu,", "") for text in SMALL]
# of the figures; tests/reports/figures draws them all
DRAWN = ("answer", "speedup", "f0")
LONG = [*ALONE, "measure.rounds.min=400", "measure.rounds.max=400"]


def start(*arguments: str) -> subprocess.Popen[str]:
    """In the background, but with Ctrl-C in effect: a shell's background jobs ignore it. Without figures."""
    code = "import sys; from reports.documents import build; from suites.__main__ import main; build.PLOTS = ()"
    command = [sys.executable, "-c", f"{code}; sys.exit(main(sys.argv[1:]))", *arguments]
    pipe = subprocess.PIPE
    heeded = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, preexec_fn=heeded)


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that an error is told in; no traceback."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def after_the_first() -> Callable[..., Worker | Inside]:
    """Processes for what is measured; each backend's first worker, which only tells what it is, needs none."""
    described: set[str] = set()

    def started(backend: str, *given: Any) -> Worker | Inside:
        kind = Worker if backend in described else Inside
        described.add(backend)
        return kind(backend, *given)

    return started


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """With a process for either side, as users have it."""
    folder = tmp_path_factory.mktemp("run") / "run"
    with figures(*DRAWN), pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "Worker", after_the_first())
        done = suites("run", "rmvpe", *SMALL, "measure.first_calls=1", f"out={folder}")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_leaves_what_the_readme_says(finished):
    folder, done = finished
    assert done.stdout.strip().splitlines()[-1] == f"report: {folder}/report.md"
    names = {p.name for p in folder.iterdir()}
    assert {
        "report.md",
        "report.html",
        "plots",
        "records.jsonl",
        "config.yaml",
        "environment.json",
        "plan.json",
    } <= names
    assert {p.name for p in (folder / "plots").iterdir()} >= {
        "answer.png",
        "speedup.png",
        "f0-synthetic-0.3s.png",
    }


def test_records_fit_their_schema(finished):
    schema = strict()
    lines = list(read_lines(finished[0] / "records.jsonl"))
    for line in lines:
        schema.validate(line)
    closed = records(lines)
    assert len(closed) == 4 * 2
    # a turn that other work disturbed was taken again
    taken = {(line["component"], line["backend"], line["round"]) for line in lines if line["kind"] == "sample"}
    assert len(taken) == 4 * 2 * 2
    assert all(r["blas"] for r in closed if r["backend"] == "mlx_cpu")


def test_report_again_gives_the_same_bytes(finished):
    folder, _ = finished
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with figures(*DRAWN):
        assert suites("report", str(folder)).returncode == 0
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.usefixtures("quick")
def test_resuming_a_finished_run_adds_nothing(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    before = (folder / "records.jsonl").read_bytes()
    assert suites("run", f"resume={folder}").returncode == 0
    assert (folder / "records.jsonl").read_bytes() == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("kept", ['"sample"', '"record"'])
def test_a_run_folder_is_not_overwritten(finished, tmp_path, kept):
    """Some suites leave no samples, an interrupted run no record."""
    folder = shutil.copytree(finished[0], tmp_path / "run")
    lines = (folder / "records.jsonl").read_text().splitlines(keepends=True)
    (folder / "records.jsonl").write_text("".join(line for line in lines if kept in line))
    before = contents(folder)
    done = suites("run", "rmvpe", *SMALL, f"out={folder}")
    assert done.returncode == 2
    assert "already holds a run; to complete it: run resume=" in error_line(done)
    (folder / "plan.json").rename(tmp_path / "plan.json")
    assert "holds records, but its plan.json is missing" in error_line(suites("run", f"resume={folder}"))
    (tmp_path / "plan.json").rename(folder / "plan.json")
    assert contents(folder) == before


def test_nothing_gets_between_a_run_and_its_folder(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    before = contents(folder)
    with Lock(folder):
        run, trace = ["run", "rmvpe", *SMALL], ["trace", "rmvpe", "measure=smoke"]
        for words in (["run", f"resume={folder}"], *([*own, f"out={folder}"] for own in (run, trace, ["run", "all"]))):
            done = suites(*words)
            assert done.returncode == 2
            assert f"{folder}: process {os.getpid()} on " in error_line(done)
    assert contents(folder) == before


@pytest.mark.usefixtures("quick")
def test_a_broken_limit_is_exit_1(tmp_path):
    done = suites("run", "rmvpe", *SMALL, f"out={tmp_path / 'r'}", "suite.limits.fp32.salience_max_abs=0")
    assert done.returncode == 1
    assert "salience_max_abs" in done.stdout
    assert "**Failed**" in (tmp_path / "r" / "report.md").read_text()


# ---------------------------------------------------------------------- broken off
def wait_for_samples(folder: Path, count: int) -> None:
    path = folder / "records.jsonl"
    for _ in range(2400):
        if path.exists() and path.read_bytes().count(b'"sample"') >= count:
            return
        time.sleep(0.05)
    raise AssertionError("no samples came")


def sample_lines(folder: Path) -> list[dict]:
    return [line for line in read_lines(folder / "records.jsonl") if line["kind"] == "sample"]


def finish_quickly(folder: Path) -> subprocess.CompletedProcess[str]:
    """Complete a long run with fewer rounds than were planned."""
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("400", "2"))
    with workers_inside(), figures():
        return suites("run", f"resume={folder}")


def test_ctrl_c_loses_nothing(tmp_path):
    folder = tmp_path / "r"
    process = start("run", "rmvpe", *LONG, f"out={folder}")
    wait_for_samples(folder, 20)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"To go on: python -m suites run resume={folder}" in out
    assert (folder / "report.md").exists()
    kept = sample_lines(folder)
    done = finish_quickly(folder)
    assert done.returncode == 0, done.stderr + done.stdout
    assert sample_lines(folder)[: len(kept)] == kept
    keys = [(s["component"], s["backend"], s["round"], s["seconds"]) for s in sample_lines(folder)]
    assert len(keys) == len(set(keys))
    for line in records(read_lines(folder / "records.jsonl")):
        assert set(line["rounds"]) >= {0, 1}


def test_killed_parent_takes_its_workers_along(tmp_path):
    folder = tmp_path / "r"
    process = start("run", "rmvpe", *LONG, f"out={folder}")
    wait_for_samples(folder, 8)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    done = finish_quickly(folder)
    assert done.returncode == 0, done.stderr


def test_a_killed_worker_costs_its_own_case_only(tmp_path, monkeypatch):
    folder, take_turn, turns = tmp_path / "r", TimedCase._take_turn, []

    def killing(self, backend, *more):
        turns.append(backend)
        if len(turns) == 4:
            psutil.Process(self.workers["mlx_cpu"].pid).kill()
        take_turn(self, backend, *more)

    monkeypatch.setattr(TimedCase, "_take_turn", killing)
    durations = ["durations=[0.3,0.4]", "measure.rounds.min=3", "measure.rounds.max=3"]
    with workers_inside(), figures(), monkeypatch.context() as patch:
        # a process, which is killed as the system kills one
        later = after_the_first()
        patch.setattr(session, "Worker", lambda name, *given: (later if name == "mlx_cpu" else Inside)(name, *given))
        done = suites("run", "rmvpe", *SMALL, *durations, f"out={folder}")
    assert done.returncode == 2
    status = {(r["case"], r["backend"]): r["status"] for r in records(read_lines(folder / "records.jsonl"))}
    assert status == {
        ("synthetic-0.3s", "torch_cpu"): "passed",
        ("synthetic-0.3s", "mlx_cpu"): "error",
        ("synthetic-0.4s", "torch_cpu"): "passed",
        ("synthetic-0.4s", "mlx_cpu"): "passed",
    }
    assert "killed by SIGKILL" in done.stdout
    with workers_inside(), figures():
        done = suites("run", f"resume={folder}")
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("quick")
def test_other_weights_do_not_complete_a_run(tmp_path, tiny_state):
    from safetensors.numpy import save_file

    weights, folder = tmp_path / "w.safetensors", tmp_path / "r"
    save_file(tiny_state, weights)
    assert suites("run", "rmvpe", *SMALL, f"weights.rmvpe={weights}", f"out={folder}").returncode == 0
    save_file(tiny_state | {"cnn.bias": tiny_state["cnn.bias"] * 2}, weights)
    done = suites("run", f"resume={folder}")
    assert done.returncode == 2
    assert "the weights changed since" in error_line(done)


@pytest.mark.skipif(sys.platform != "linux", reason="breaks the BLAS, which only Linux chooses")
@pytest.mark.usefixtures("quick")  # before monkeypatch, which would else put back what this one has taken away
def test_an_installed_backend_that_cannot_start_is_an_error(tmp_path, monkeypatch):
    wish = [text for text in SMALL if not text.startswith("backends")]
    monkeypatch.setenv("RVC_MLX_BLAS", "/nowhere.so")
    # read where a process imports MLX
    start = {"mlx_cpu": Worker}
    monkeypatch.setattr(session, "Worker", lambda name, *given: start.get(name, Inside)(name, *given))
    done = suites("run", "rmvpe", *wish, f"out={tmp_path / 'r'}")
    assert done.returncode == 2
    assert "error: all all mlx_cpu: cannot be started: ImportError: RVC_MLX_BLAS=/nowhere.so" in done.stdout


# ---------------------------------------------------------------------- bad input
@pytest.mark.usefixtures("quick")
def test_a_mistake_leaves_no_run_behind(tmp_path):
    (tmp_path / "empty.pt").write_bytes(b"")
    done = suites("run", "rmvpe", *SMALL, f"weights.rmvpe={tmp_path / 'empty.pt'}", f"out={tmp_path / 'r'}")
    assert done.returncode == 2
    assert "empty.pt: not a readable" in error_line(done)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("package", ["soundfile", "matplotlib"])
def test_a_package_that_is_needed_later_is_missed_at_once(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    done = suites("run", "rmvpe", *SMALL, f"out={tmp_path}/run")
    assert done.returncode == 2
    assert package in error_line(done)
    assert "a package is missing or damaged, install it again" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_of_the_users_is_left_alone(tmp_path):
    (tmp_path / "config.yaml").write_text("mine")
    done = suites("run", "rmvpe", *SMALL, f"out={tmp_path}")
    assert done.returncode == 2
    assert "is not a run; give out= a folder of its own" in error_line(done)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("config.yaml", "mine")]


@pytest.mark.parametrize(
    ("override", "message"),
    [("precision=fp33", "did you mean 'fp32'"), ("precison=fp32", "unknown override 'precison'")],
)
def test_mistakes_in_a_sweep(tmp_path, override, message):
    done = suites("run", "rmvpe", "-m", *SMALL, override, f"paths.runs={tmp_path}", "seed=1,2")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rmvp"], "did you mean 'rmvpe'"),
        (["rmvpe", "durationz=[1]"], "did you mean 'durations'"),
        (["rmvpe", "audio=/nowhere.wav"], "audio /nowhere.wav: no such file"),
        (["rmvpe", "weights.rmvpe=/nowhere.pt"], "weights.rmvpe=/nowhere.pt: no such file"),
        (["rmvpe", "out=/proc/nowhere/r"], "cannot write the run folder"),
        (["rmvpe", "backends=[torch_tpu]"], "unknown backend 'torch_tpu'"),
        (["resume=/nowhere"], "not a run folder"),
        (
            ["ablation", "measure=smoke", "backends=[torch_cpu]"],
            "nothing is left to measure: optimisations",
        ),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    own = [] if any(a.startswith(("out=", "resume=")) for a in arguments) else [f"out={tmp_path / 'r'}"]
    done = suites("run", *arguments, *own)
    assert done.returncode == 2
    assert message in error_line(done)


@pytest.mark.usefixtures("quick")
def test_a_backend_that_the_machine_lacks(tmp_path):
    name = "torch_mps" if sys.platform != "darwin" else "torch_cuda"
    done = suites("run", "rmvpe", f"backends=[torch_cpu,{name}]", f"out={tmp_path / 'r'}")
    assert done.returncode == 2
    assert f"backend {name}: " in error_line(done)


@pytest.mark.usefixtures("quick")
def test_wrong_checkpoint_is_told_before_any_timing(tmp_path):
    torch.save({f"enc_p.{i}": torch.zeros(2) for i in range(9)}, tmp_path / "voice.pt")
    done = suites("run", "rmvpe", *SMALL, f"weights.rmvpe={tmp_path / 'voice.pt'}", f"out={tmp_path / 'r'}")
    assert done.returncode == 2
    assert "voice.pt: this looks like a voice checkpoint; expected RMVPE (rmvpe.pt)" in error_line(done)


def test_a_disk_that_fills_up(tmp_path):
    """A file-size limit stands for the full disk: the system call fails alike."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400));"
        "from suites.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "run", "rmvpe", *ALONE, f"out={tmp_path / 'r'}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 2
    assert "cannot write the run folder" in error_line(done)


def test_verbose_shows_the_traceback():
    assert "Traceback" in suites("run", "rmvp", "-v").stderr


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (96000, 2)])
def test_own_audio(tmp_path, rate, channels):
    t = np.arange(0.3 * rate) / rate
    wave = 0.3 * np.sin(2 * np.pi * 220 * t) + 0.01 * np.random.default_rng(0).standard_normal(t.size)
    soundfile.write(tmp_path / "a.wav", np.stack([wave] * channels, axis=1), rate)
    done = suites("run", "rmvpe", *BOTH, f"audio={tmp_path / 'a.wav'}", f"out={tmp_path / 'r'}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("quick")
def test_digital_silence_is_valid(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(4800), 16000)
    done = suites("run", "rmvpe", *BOTH, f"audio={tmp_path / 'a.wav'}", f"out={tmp_path / 'r'}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("quick")
def test_sweep(tmp_path):
    words = ["measure=smoke", "durations=[0.3]", "suite.speech_clip=false", "measure.warmup_seconds=0"]
    words += ["backends=[mlx_cpu]", f"paths.runs={tmp_path}", "seed=1,2", "out=${paths.runs}/${seed}"]
    done = suites("run", "rmvpe", "-m", *words)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["1", "2"]
    assert not (ROOT / "multirun.yaml").exists()


@pytest.mark.usefixtures("quick")
def test_doctor_tells_which_blas(monkeypatch):
    done = suites("doctor")
    assert done.returncode == 0
    assert "mlx_cpu: mlx" in done.stdout
    if sys.platform == "linux":
        assert "blas lib" in done.stdout
        monkeypatch.setenv("RVC_MLX_BLAS", "reference")  # read where a process imports MLX
        real = {"mlx_cpu": Worker}
        monkeypatch.setattr(probe, "Worker", lambda name, *given: real.get(name, Inside)(name, *given))
        assert "slow reference BLAS" in suites("doctor").stdout
