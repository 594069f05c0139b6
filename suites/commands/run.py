"""``run``: measure a suite, all suites, a sweep, or the rest of an interrupted run; and write the report."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from ..base import plugins
from ..base.errors import UserError, nearest
from ..base.paths import CONF
from ..measure import run_all
from ..measure.config import check_names, compose_config, quoted, suite_names, to_config
from ..measure.runner import Runner, open_run, resume_run
from .cli import ERROR, INTERRUPTED, OVERRIDES

HELP = "measure, and write a run folder with a report"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", metavar="SUITE", help="a suite's name, or all, or resume=FOLDER to go on")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help=OVERRIDES)
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="Hydra sweep: one run per combination of a=1,2 values"
    )


def run(args: argparse.Namespace) -> int:
    words = [args.suite, *args.overrides]
    resume = [text.removeprefix("resume=") for text in words if text.startswith("resume=") and text != "resume=null"]
    if resume:
        if len(words) > 1 + (words[0] != f"resume={resume[0]}"):
            raise UserError("a resumed run keeps its own configuration; leave out the other overrides")
        folder = Path(resume[0]).expanduser()
        return run_all_suites(folder) if run_all.is_run_all(folder) else finish(resume_run(folder))
    if args.suite == run_all.NAME:
        if args.multirun:
            raise UserError("run all takes no sweep; sweep a suite, or run it once for each value")
        return run_all_suites(run_all.open_folder(args.overrides))
    if args.multirun:
        return sweep(args.suite, args.overrides)
    return finish(open_run(compose_config(args.suite, args.overrides)))


def run_all_suites(folder: Path) -> int:
    """Every suite and trace in one folder, and the report of all of them."""
    from .report import report_of
    from .trace import trace_one

    code = run_all.execute(folder, finish, lambda config: trace_one(config, show_all=False))
    if code == INTERRUPTED:
        print(f"interrupted; to go on: python -m suites run resume={folder}")
        return code
    return max(code, report_of([folder], folder))


def finish(runner: Runner) -> int:
    """Execute a run and write its report, also of a run that was interrupted."""
    from reports.documents.build import write_report

    interrupted = False
    try:
        runner.execute()
    except KeyboardInterrupt:
        interrupted = True
    except UserError:
        runner.discard_if_empty()
        raise
    except Exception:
        with contextlib.suppress(OSError):
            write_report(runner.folder)  # of the records that there are
        raise
    try:
        built = write_report(runner.folder)
    except OSError as error:
        again = f"python -m suites report {runner.folder}"
        raise UserError(f"cannot write the report in {runner.folder}: {error.strerror}; then: {again}") from None
    for line in built.notes:
        print(line)
    if interrupted:
        print(f"interrupted; nothing measured is lost. To go on: python -m suites run resume={runner.folder}")
    print(f"report: {built.path}")
    return INTERRUPTED if interrupted else built.exit_code


def sweep(suite: str, overrides: list[str]) -> int:
    """Hydra's own multirun, so that its sweepers and launchers work."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    if suite not in suite_names():
        raise UserError(f"unknown suite {suite!r}{nearest(suite, suite_names())}")
    check_names(overrides)
    codes: list[int] = []

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def job(config: DictConfig) -> None:
        own = [text for text in HydraConfig.get().overrides.task if not text.startswith("suite=")]
        try:
            codes.append(finish(open_run(to_config(config, own))))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            codes.append(ERROR)
        if codes[-1] == INTERRUPTED:
            raise KeyboardInterrupt

    sys.argv = [sys.argv[0], "--multirun", *plugins.search_path(), f"suite={suite}", *map(quoted, overrides)]
    try:
        job()
    except SystemExit:  # Hydra has printed why
        return ERROR
    return max(codes, default=ERROR)
