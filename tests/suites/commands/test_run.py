"""``run all``: every step once, whatever becomes of the others; broken off anywhere, it goes on there."""

from __future__ import annotations

import json
from pathlib import Path

import made_suites
import pytest
from made_bundles import few_probes
from quick_runs import figures

from suites import definitions
from suites.__main__ import main
from suites.base.errors import UserError
from suites.base.outcome import ERROR, INTERRUPTED, Answer
from suites.base.records import read_lines
from suites.commands import run as command
from suites.commands.run import STATE, execute, fitting, open_folder
from suites.definitions import steps
from suites.measure.config import suite_names
from suites.trace.run import TraceRun

NAMES = ["rmvpe", "hubert", "memory", "trace-rmvpe", "trace-hubert"]


class Fakes:
    """In place of measuring and tracing: notes what was asked for, and leaves what they would leave."""

    def __init__(self, **codes: object) -> None:
        self.codes, self.asked = codes, []

    def _code(self, name: str) -> int:
        self.asked.append(name)
        code = self.codes.get(name.replace("-", "_"), 0)
        if isinstance(code, BaseException):
            raise code
        return int(code)

    def finish(self, run) -> Answer:
        run.session.file.close()
        code = self._code(run.folder.name)
        if code not in (ERROR, INTERRUPTED):
            made = made_suites.make_suite(run.folder.parent / "made", run.folder.name)
            for path in made.glob("*.json*"):
                path.replace(run.folder / path.name)
            (run.folder / "report.md").touch()
            for path in sorted(made.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            made.rmdir()
        return Answer(code, "")

    def trace(self, config, show_all: bool) -> Answer:
        folder = Path(config.out)
        folder.mkdir()
        (folder / "report.md").touch()  # also of a trace that was broken off
        return Answer(self._code(folder.name), "")

    def run(self, folder: Path) -> int:
        with pytest.MonkeyPatch.context() as patch, figures():
            patch.setattr(command, "finish", self.finish)
            patch.setattr(command, "trace_one", self.trace)
            return max(one.exit_code for one in execute(folder).values())


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Begun, with five of the steps."""
    monkeypatch.setattr(definitions, "CONFIGURED", ("rmvpe", "hubert", "memory"))
    monkeypatch.setattr(definitions, "TRACED", ("rmvpe", "hubert"))
    return open_folder(["measure=smoke", f"out={tmp_path / 'all'}"])


def test_every_suite_and_trace_is_a_step():
    """One that is added later must be placed."""
    assert {step.name for step in steps() if step.kind == "run"} == set(suite_names())
    assert len({step.folder for step in steps()}) == len(steps())


def test_steps_run_in_order_each_in_its_folder(folder, capsys):
    fakes = Fakes()
    assert fakes.run(folder) == 0
    assert fakes.asked == NAMES
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")] == [
        "[1/5] run rmvpe",
        "[2/5] run hubert",
        "[3/5] run memory",
        "[4/5] trace rmvpe",
        "[5/5] trace hubert",
    ]


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ({"hubert": 1}, 1),
        ({"hubert": 2, "trace_rmvpe": 1}, 2),
        ({"hubert": UserError("no such thing")}, 2),
        ({"trace_rmvpe": UserError("no such thing")}, 2),
        ({"hubert": ZeroDivisionError()}, 2),
    ],
)
def test_a_step_that_fails_does_not_stop_the_others(folder, codes, code, capsys):
    fakes = Fakes(**codes)
    assert fakes.run(folder) == code
    assert fakes.asked == NAMES
    told = capsys.readouterr().err
    for name, fault in codes.items():
        if isinstance(fault, Exception):
            words = "no such thing" if isinstance(fault, UserError) else "unexpected ZeroDivisionError"
            step = name.replace("trace_", "trace ") if name.startswith("trace") else f"run {name}"
            assert f"error: {step}: {words}" in told


@pytest.mark.parametrize("at", [0, 2, 4])
def test_broken_off_at_any_step_it_goes_on_there(folder, at):
    name = NAMES[at]
    first = Fakes(**{name.replace("-", "_"): INTERRUPTED})
    assert first.run(folder) == INTERRUPTED
    assert first.asked == NAMES[: at + 1]
    second = Fakes()
    assert second.run(folder) == 0
    assert second.asked == NAMES[at:]


def test_steps_that_failed_or_could_not_be_measured(folder):
    """What could not be measured is tried again; a failure stays one, and is not measured again."""
    Fakes(rmvpe=1, hubert=2, trace_rmvpe=1, trace_hubert=2).run(folder)
    lines = list(read_lines(folder / "rmvpe" / "records.jsonl"))
    lines[-1] |= {"status": "failed", "reason": "too far"}
    made_suites.write_lines(folder / "rmvpe", lines)
    fakes = Fakes()
    assert fakes.run(folder) == 1
    assert fakes.asked == ["hubert", "trace-hubert"]


def test_a_run_that_lacks_a_record_is_gone_on_with(folder):
    Fakes().run(folder)
    lines = list(read_lines(folder / "memory" / "records.jsonl"))
    made_suites.write_lines(folder / "memory", lines[:-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "resume_run", lambda own: Resumed(own))
        fakes = Fakes()
        fakes.finish = lambda run: Answer(fakes._code(f"resumed {run.folder.name}"), "")
        assert fakes.run(folder) == 0
    assert fakes.asked == ["resumed memory"]


class Resumed:
    def __init__(self, folder: Path) -> None:
        self.folder = folder


# ---------------------------------------------------------------------- overrides
def test_suites_get_the_overrides_that_they_can_use():
    words = ["measure=smoke", "audio=a.wav", "weights.voice=v.pth", "weights.index=i.index", "out=here"]
    assert fitting("rmvpe", words) == ["measure=smoke", "audio=a.wav"]
    assert fitting("synthesizer", words) == ["measure=smoke", "weights.voice=v.pth"]
    assert fitting("pipeline", words) == words[:-1]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("measur=smoke", "did you mean 'measure'"),
        ("precision=fp8", "precision"),
        ("backends=[torch_tpu]", "torch_tpu"),
        ("measure=smok", "did you mean 'smoke'"),
        ("weights.voice=nothing.pth", "weights.voice=nothing.pth: no such file"),
        ("weights.index=nothing.index", "weights.index=nothing.index: no such file"),
        (f"weights.rmvpe={__file__}", "test_run.py: not a readable checkpoint"),
        ("audio=nothing.wav", "nothing.wav"),
    ],
)
def test_what_is_wrong_is_told_before_hours_of_work(word, told, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(definitions, "CONFIGURED", ("rmvpe", "pipeline"))
    monkeypatch.setattr(definitions, "TRACED", ())
    assert main(["run", "all", word, f"out={tmp_path / 'all'}"]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(folder, capsys):
    assert main(["run", "all", "measure=smoke", f"out={folder}"]) == 2
    assert f"run resume={folder}" in capsys.readouterr().err
    assert (folder / STATE).is_file()


def test_a_sweep_and_a_damaged_state(folder, capsys):
    assert main(["run", "all", "-m", "seed=1,2"]) == 2
    assert "takes no sweep" in capsys.readouterr().err
    (folder / STATE).write_text("{")
    assert main(["run", f"resume={folder}"]) == 2
    assert "all.json: is damaged" in capsys.readouterr().err
    assert main(["run", f"resume={folder}", "seed=1"]) == 2


@pytest.mark.usefixtures("quick")
def test_two_real_steps(tmp_path, monkeypatch, capsys):
    """A run and a trace of tiny models, as a user starts them; resumed, nothing is left to do."""
    monkeypatch.setattr(definitions, "CONFIGURED", ("hubert",))
    monkeypatch.setattr(definitions, "TRACED", ("hubert",))
    words = ["measure=smoke", "durations=[0.5]", "backends=[torch_cpu,mlx_cpu]", "threads=1", "measure.first_calls=0"]
    words += ["measure.warmup_seconds=0", "suite.speech_clip=false"]
    out = tmp_path / "all"
    with few_probes("clip", kind=TraceRun):
        assert main(["run", "all", *words, f"out={out}"]) == 0
    names = {"all.json", "hubert", "trace-hubert", "plots", "report.html", "report.md"}
    assert {path.name for path in out.iterdir()} == names
    assert json.loads((out / "all.json").read_text())["traced"] == ["hubert"]
    written, text = (out / "hubert" / "records.jsonl").read_bytes(), (out / "report.md").read_bytes()
    assert "hubert, stage by stage: No stage at fault" in text.decode()
    assert main(["run", f"resume={out}"]) == 0
    assert (out / "hubert" / "records.jsonl").read_bytes() == written
    assert (out / "report.md").read_bytes() == text
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {out}/report.md"
