"""``run all``: every suite and every trace, one after another, in one folder with one report."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from .config import Config, compose_config
from .errors import UserError
from .models import SUITES
from .run import Run, open_run, resume_run

NAME = "all"
SUITES_IN_ORDER = (
    "rmvpe",
    "hubert",
    "synthesizer",
    "pipeline",
    "components",
    "memory",
    "cold_start",
    "ablation",
    "accuracy",
)
TRACES = ("rmvpe", "hubert", "synthesizer", "pipeline")
STATE = "all.json"
INTERRUPTED, ERROR = 130, 2


class Step(NamedTuple):
    """One run of a suite, or a trace of a model, in a folder of its own."""

    kind: str
    name: str

    @property
    def folder(self) -> str:
        return self.name if self.kind == "run" else f"trace-{self.name}"


def steps() -> list[Step]:
    return [*(Step("run", name) for name in SUITES_IN_ORDER), *(Step("trace", name) for name in TRACES)]


def fitting(name: str, overrides: Sequence[str]) -> list[str]:
    """Those of the overrides that a suite can use: no weights that it does not load, no audio if it makes its own."""
    suite = SUITES[name]
    unused = {f"weights.{w}=" for w in ("rmvpe", "hubert", "voice") if w not in suite.checkpoints}
    if name not in ("pipeline", "memory", "cold_start", "ablation"):
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
    folder = Path(out).expanduser() if out else Path(first["paths"]["runs"]) / f"{datetime.now():%Y%m%d-%H%M%S}-all"
    for step in steps():
        composed(step, overrides, folder)  # what is wrong is told before hours of work
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder} holds something already; to complete it: run resume={folder}")
        (folder / STATE).write_text(json.dumps({"overrides": list(overrides)}) + "\n")
    except OSError as error:
        raise UserError(f"cannot write the run folder {folder}: {error.strerror}; set out=FOLDER") from None
    return folder


def is_everything(folder: Path) -> bool:
    return (folder / STATE).is_file()


def execute(folder: Path, finish: Callable[[Run], int], trace: Callable[[Config], int]) -> int:
    """The steps that are not done; one that fails does not stop the others. The largest exit code."""
    overrides = json.loads((folder / STATE).read_text())["overrides"]
    code, wanted = 0, steps()
    for number, step in enumerate(wanted, 1):
        print(f"[{number}/{len(wanted)}] {step.kind} {step.name}", flush=True)
        try:
            found = _step(step, folder, overrides, finish, trace)
        except UserError as error:
            print(f"error: {step.kind} {step.name}: {error}", file=sys.stderr)
            found = ERROR
        if found == INTERRUPTED:
            return INTERRUPTED
        code = max(code, found)
    return code


def _step(
    step: Step, folder: Path, overrides: Sequence[str], finish: Callable[[Run], int], trace: Callable[[Config], int]
) -> int:
    own = folder / step.folder
    if step.kind == "run":
        begun = (own / "config.yaml").is_file()
        return finish(resume_run(own) if begun else open_run(composed(step, overrides, folder)))
    if (own / "report.md").is_file():
        return 0
    if own.is_dir():
        shutil.rmtree(own)  # a trace is not gone on with
    return trace(composed(step, overrides, folder))
