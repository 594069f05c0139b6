"""``run``: measure a suite, all suites, a sweep, or the rest of an interrupted run; and write the report."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rvc_common.index import read_index
from rvc_common.interrupts import is_interrupt

from ..base import outcome, plugins
from ..base.errors import UserError, nearest
from ..base.files import write_whole
from ..base.lock import Lock
from ..base.outcome import ERROR, INTERRUPTED, PASSED, Answer
from ..base.paths import CONF
from ..base.records import read_lines, records
from ..base.run_folder import RunFolder, own_folder
from ..definitions import SUITES, Step, steps
from ..definitions.config import Config
from ..inputs.checkpoints import read_checked
from ..inputs.recordings import read_audio
from ..measure.config import check_sweep, compose_config, suite_names, to_config
from ..measure.overrides import quoted
from ..measure.runner import Runner, open_run, resume_run
from . import OVERRIDES
from .report import of_built, report_of
from .trace import trace_one

HELP = "measure, and write a run folder with a report"
EXAMPLES = (
    ("run rmvpe measure=smoke", "a tiny model, in seconds: does everything work here?"),
    (
        "run rmvpe 'durations=[5,30]' 'backends=[torch_cpu,mlx_cpu]' out=runs/mine",
        "what is timed, where, and the folder",
    ),
)
# of ``run all``: the overrides as the user wrote them, and the traces that are done
STATE = "all.json"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", metavar="SUITE", help="a suite's name, or all, or resume=FOLDER to go on")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help=OVERRIDES)
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="Hydra sweep: one run per combination of a=1,2 values"
    )


def run(args: argparse.Namespace) -> Answer:
    words = [args.suite, *args.overrides]
    resume = [text.removeprefix("resume=") for text in words if text.startswith("resume=") and text != "resume=null"]
    if resume:
        if len(words) > 1 + (words[0] != f"resume={resume[0]}"):
            raise UserError("a resumed run keeps its own configuration; leave out the other overrides")
        folder = Path(resume[0]).expanduser()
        return run_all(folder) if (folder / STATE).is_file() else finish(resume_run(folder))
    if args.suite == "all":
        if args.multirun:
            raise UserError("run all takes no sweep; sweep a suite, or run it once for each value")
        return run_all(open_folder(args.overrides))
    if args.multirun:
        return sweep(args.suite, args.overrides)
    return finish(open_run(compose_config(args.suite, args.overrides)))


def finish(runner: Runner) -> Answer:
    """Execute a run and write its report, also of a run that was interrupted."""
    from reports.data.result import result
    from reports.documents.build import write_report

    interrupted = False
    try:
        runner.execute()
    except BaseException as error:
        interrupted = is_interrupt(error)
        if not interrupted and isinstance(error, OSError):  # such as a full disk
            again = f"what was measured is kept; to go on: python -m suites run resume={runner.folder}"
            raise UserError(f"run folder {runner.folder}: {error.strerror or error}; {again}") from None
        if not interrupted and not isinstance(error, UserError):
            with contextlib.suppress(OSError):
                write_report(runner.folder)  # of the records that there are
        if not interrupted:
            raise
    try:
        built = write_report(runner.folder)
    except OSError as error:
        again = f"python -m suites report {runner.folder}"
        raise UserError(f"cannot write the report in {runner.folder}: {error.strerror}; then: {again}") from None
    if interrupted:
        again = f"python -m suites run resume={runner.folder}"
        built.notes.append(f"interrupted; nothing measured is lost. To go on: {again}")
    answer = of_built(built)
    code = INTERRUPTED if interrupted else built.exit_code
    return answer._replace(exit_code=code, found={**result(runner.folder), "report": str(built.path)})


def sweep(suite: str, overrides: list[str]) -> Answer:
    """Hydra's own multirun, so that its sweepers and launchers work."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    if suite not in suite_names():
        raise UserError(f"unknown suite {suite!r}{nearest(suite, suite_names())}")
    check_sweep(suite, overrides)
    answers: list[Answer] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def job(config: DictConfig) -> None:
        own = [text for text in HydraConfig.get().overrides.task if not text.startswith("suite=")]
        try:
            answers.append(finish(open_run(to_config(config, own))))
            print(answers[-1].text, flush=True)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            answers.append(Answer(ERROR, "", {"error": str(error)}))
        answers[-1].found["overrides"] = own
        if answers[-1].exit_code == INTERRUPTED:
            raise KeyboardInterrupt

    sys.argv = [sys.argv[0], "--multirun", *plugins.search_path(), f"suite={suite}", *map(quoted, overrides)]
    try:
        job()
    except SystemExit:  # Hydra has printed why
        answers.append(Answer(ERROR, ""))
    return together(answers, f"{len(answers)} runs", {})


def together(answers: Sequence[Answer], what: str, found: dict[str, Any]) -> Answer:
    """The answer of several runs, each of which has been printed."""
    passed = sum(one.exit_code == PASSED for one in answers)
    each = [{"exit_code": one.exit_code, "passed": one.exit_code == PASSED, **one.found} for one in answers]
    code = max((one.exit_code for one in answers), default=ERROR)
    return Answer(code, f"{what}, {passed} passed", {**found, "runs": each})


# ---------------------------------------------------------------------- every suite and every trace, in one folder
def fitting(name: str, overrides: Sequence[str]) -> list[str]:
    """Those of the overrides that a suite can use: no weights that it does not load, no audio if it makes its own."""
    suite = SUITES[name]
    unused = [f"weights.{w}=" for w in ("rmvpe", "hubert", "voice") if w not in suite.checkpoints]
    unused += [] if suite.takes_index else ["weights.index="]
    unused += [] if suite.takes_audio else ["audio="]
    return [word for word in overrides if not word.startswith(("out=", *unused))]


def _composed(step: Step, overrides: Sequence[str], folder: Path) -> Config:
    return compose_config(step.name, [*fitting(step.name, overrides), f"out={folder / step.folder}"])


def open_folder(overrides: Sequence[str]) -> Path:
    """A new folder, named by ``out=`` or by the time.

    Raises ``UserError``: it holds something already, or an override fits no suite."""
    first = compose_config("pipeline", [word for word in overrides if not word.startswith("audio=")])
    _check_weights(first)
    folder = Path(first.out or Path(first.paths.runs) / f"{datetime.now():%Y%m%d-%H%M%S}-all")
    configs = [_composed(step, overrides, folder) for step in steps()]  # an error now, not after hours of work
    if audio := next((config.audio for config in configs if config.audio), None):
        read_audio(audio)
    try:
        if first.out:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = own_folder(folder)
        with Lock(folder) as lock:
            if not lock.is_alone:
                raise UserError(f"{folder} holds something already; to complete it: run resume={folder}")
            write_whole(folder / STATE, json.dumps({"overrides": list(overrides)}) + "\n")
    except OSError as error:
        raise UserError(f"cannot write the run folder {folder}: {error.strerror}; set out=FOLDER") from None
    return folder


def _check_weights(config: Config) -> None:
    for name, path in config.weights.given().items():
        try:
            if name == "index":
                read_index(Path(path).expanduser())
            else:
                read_checked(Path(path).expanduser(), name)
        except (UserError, ValueError) as error:
            raise UserError(f"weights.{name}={str(error).removeprefix('index ')}") from None


def run_all(folder: Path) -> Answer:
    """The steps that are not done, and the report of all of them."""
    with Lock(folder):
        done = execute(folder)
        code = max(one.exit_code for one in done.values())
        each = {name: {"exit_code": one.exit_code, **one.found} for name, one in done.items()}
        found = {"folder": str(folder), "steps": each}
        if code == INTERRUPTED:
            return Answer(code, f"interrupted; to go on: python -m suites run resume={folder}", found)
        answer = report_of([folder], folder)
    return answer._replace(exit_code=max(code, answer.exit_code), found=found | answer.found)


def execute(folder: Path) -> dict[str, Answer]:
    """The steps that are not done, by their folders' names; one that fails does not stop the others."""
    done, wanted = {}, steps()
    for number, step in enumerate(wanted, 1):
        print(f"[{number}/{len(wanted)}] {step.kind} {step.name}", flush=True)
        try:
            found = _run(step, folder) if step.kind == "run" else _trace(step, folder)
            print(found.text, end="\n" if found.text else "", flush=True)
        except UserError as error:
            print(f"error: {step.kind} {step.name}: {error}", file=sys.stderr)
            found = Answer(ERROR, "", {"error": str(error)})
        except Exception as error:
            if is_interrupt(error):
                raise
            traceback.print_exc()
            print(f"error: {step.kind} {step.name}: unexpected {type(error).__name__}", file=sys.stderr)
            found = Answer(ERROR, "", {"error": f"unexpected {type(error).__name__}"})
        done[step.folder] = found
        if found.exit_code == INTERRUPTED:
            return done
    return done


def _state(folder: Path) -> dict[str, list[str]]:
    try:
        return {"traced": [], **json.loads((folder / STATE).read_text())}
    except (ValueError, TypeError):
        raise UserError(f"{folder / STATE}: is damaged") from None


def _run(step: Step, folder: Path) -> Answer:
    own = folder / step.folder
    if not RunFolder(own).exists:
        return finish(open_run(_composed(step, _state(folder)["overrides"], folder)))
    known = _finished(own)
    return finish(resume_run(own)) if known is None else Answer(known, "")


def _finished(folder: Path) -> int | None:
    """The exit code of a run that has all of its records, and its report."""
    run = RunFolder(folder)
    if not (run.is_planned and (folder / "report.md").is_file()):
        return None
    try:
        planned = run.plan().keys
    except UserError:
        return None  # resuming it says what is wrong
    code = outcome.judge(planned, records(read_lines(run.records_file))).exit_code
    return None if code == ERROR else code


def _trace(step: Step, folder: Path) -> Answer:
    """A trace that was broken off has a report as well, and is walked anew."""
    own, state = folder / step.folder, _state(folder)
    if step.name in state["traced"]:
        return Answer(PASSED, "")  # what it has found is in the report of all
    if own.is_dir():
        with Lock(own):  # else another process is at work in it
            shutil.rmtree(own)
    answer = trace_one(_composed(step, state["overrides"], folder), show_all=False)
    if answer.exit_code not in (ERROR, INTERRUPTED):
        write_whole(folder / STATE, json.dumps(state | {"traced": [*state["traced"], step.name]}) + "\n")
    return answer
