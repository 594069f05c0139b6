"""``run all``: every suite and every trace, one after another, in one folder with one report."""

from __future__ import annotations

import json
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from ..base import outcome
from ..base.errors import UserError
from ..base.files import write_whole
from ..base.records import read_lines, records
from ..base.run_folder import RunFolder
from ..definitions import SUITES, Step, steps
from ..definitions.config import Config
from ..definitions.plan import requested_backends
from ..inputs.recordings import read_audio
from .config import compose_config
from .runner import Runner, open_run, resume_run

NAME = "all"
STATE = "all.json"
INTERRUPTED, ERROR = 130, 2


def fitting(name: str, overrides: Sequence[str]) -> list[str]:
    """Those of the overrides that a suite can use: no weights that it does not load, no audio if it makes its own."""
    suite = SUITES[name]
    unused = {f"weights.{w}=" for w in ("rmvpe", "hubert", "voice") if w not in suite.checkpoints}
    if not suite.takes_index:
        unused.add("weights.index=")
    if not suite.takes_audio:
        unused.add("audio=")
    return [word for word in overrides if not word.startswith(("out=", *unused))]


def composed(step: Step, overrides: Sequence[str], folder: Path) -> Config:
    return compose_config(step.name, [*fitting(step.name, overrides), f"out={folder / step.folder}"])


def open_folder(overrides: Sequence[str]) -> Path:
    """A new folder, named by ``out=`` or by the time.

    Raises:
        UserError: it holds something already, or an override fits no suite.
    """
    first = compose_config("pipeline", [word for word in overrides if not word.startswith("audio=")])
    out = next((word.removeprefix("out=") for word in overrides if word.startswith("out=")), None)
    folder = Path(out).expanduser() if out else Path(first.paths.runs) / f"{datetime.now():%Y%m%d-%H%M%S}-all"
    for config in [composed(step, overrides, folder) for step in steps()]:  # an error now, not after hours of work
        requested_backends(config)
        _check_weights(config)
    audio = [word.removeprefix("audio=") for word in overrides if word.startswith("audio=")]
    if audio and audio[-1] != "null":
        read_audio(audio[-1])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder} holds something already; to complete it: run resume={folder}")
        write_whole(folder / STATE, json.dumps({"overrides": list(overrides)}) + "\n")
    except OSError as error:
        raise UserError(f"cannot write the run folder {folder}: {error.strerror}; set out=FOLDER") from None
    return folder


def _check_weights(config: Config) -> None:
    for name, path in config.weights.given().items():
        if not Path(path).expanduser().exists():
            raise UserError(f"weights.{name}={path}: no such file")


def is_run_all(folder: Path) -> bool:
    return (folder / STATE).is_file()


def execute(folder: Path, finish: Callable[[Runner], int], trace: Callable[[Config], int]) -> int:
    """The steps that are not done; one that fails does not stop the others. The largest exit code.

    ``finish``: executes a run and reports it. ``trace``: the same of a trace. Both return an exit code.
    """
    code, wanted = 0, steps()
    for number, step in enumerate(wanted, 1):
        print(f"[{number}/{len(wanted)}] {step.kind} {step.name}", flush=True)
        try:
            found = _run(step, folder, finish) if step.kind == "run" else _trace(step, folder, trace)
        except UserError as error:
            print(f"error: {step.kind} {step.name}: {error}", file=sys.stderr)
            found = ERROR
        except Exception as error:
            traceback.print_exc()
            print(f"error: {step.kind} {step.name}: unexpected {type(error).__name__}", file=sys.stderr)
            found = ERROR
        if found == INTERRUPTED:
            return INTERRUPTED
        code = max(code, found)
    return code


def _state(folder: Path) -> dict[str, list[str]]:
    try:
        return {"traced": [], **json.loads((folder / STATE).read_text())}
    except (ValueError, TypeError):
        raise UserError(f"{folder / STATE}: is damaged") from None


def _run(step: Step, folder: Path, finish: Callable[[Runner], int]) -> int:
    own = folder / step.folder
    if not RunFolder(own).exists:
        return finish(open_run(composed(step, _state(folder)["overrides"], folder)))
    known = _finished(own)
    return finish(resume_run(own)) if known is None else known


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


def _trace(step: Step, folder: Path, trace: Callable[[Config], int]) -> int:
    """A trace that was broken off has a report as well, and is walked anew."""
    own, state = folder / step.folder, _state(folder)
    if step.name in state["traced"]:
        return 0  # what it has found is in the report of all
    if own.is_dir():
        shutil.rmtree(own)
    code = trace(composed(step, state["overrides"], folder))
    if code not in (ERROR, INTERRUPTED):
        write_whole(folder / STATE, json.dumps(state | {"traced": [*state["traced"], step.name]}) + "\n")
    return code
