"""``gate RUN --baseline FILE``: judge a run by a committed baseline, or make one."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from reports.render import gate as texts
from rvc_common.outputs import check_output, named_path

from ..base.errors import UserError
from ..base.files import write_whole
from ..base.outcome import PASSED, Answer
from ..base.run_folder import RunFolder, own_folder
from ..gate.baseline import Baseline, baseline_of
from ..gate.judge import Outcome, Policy, confirmed, judge, read_policy
from ..gate.stored import read_baseline, write_baseline
from ..measure.config import compose_config
from ..measure.runner import open_run

HELP = "judge a run by a committed baseline"
EXAMPLES = (
    ("gate runs/base --baseline baselines/mine.json --update", "make the baseline from a run"),
    ("gate runs/new --baseline baselines/mine.json --confirm", "exit code 1: slower, bigger or less accurate"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    runs = "a run folder, or the JSON of pytest-benchmark; several like ones are put together"
    confirm = "where it is slower, run the suite once more, as RUN was run, and call only what both runs show"
    github = "annotations, and a table in the step summary (default: inside GitHub Actions alone)"
    add = parser.add_argument
    add("runs", nargs="+", type=named_path, metavar="RUN", help=runs)
    add("--baseline", type=named_path, required=True, metavar="FILE", help="the baseline, JSON")
    add("--update", action="store_true", help="make or replace the baseline from the run")
    add("--policy", default="default", metavar="NAME", help="a file of conf/gate")
    add("--all", action="store_true", dest="show_all", help="print gates that simply passed too")
    add("--confirm", action="store_true", help=confirm)
    add("--junit", type=named_path, metavar="FILE", help="also write the verdicts as JUnit XML (default: nowhere)")
    add("--json-file", type=named_path, metavar="FILE", help="also write the verdicts as JSON (default: nowhere)")
    add("--github", action="store_true", help=github)


def run(args: argparse.Namespace) -> Answer:
    _check_outputs(args)
    policy = read_policy(args.policy)
    candidate = baseline_of(args.runs)
    if args.update:
        return _update(args, candidate, policy)
    baseline = read_baseline(args.baseline)
    outcome = judge(baseline, candidate, policy)
    if args.confirm and any(v.kind in ("slower", "implausible") for v in outcome.verdicts):
        print(texts.terminal(outcome, args.show_all))
        again = repeated(args.runs[0])
        outcome = confirmed(outcome, judge(baseline, baseline_of([again]), policy), policy)
    title = f"Gate of {candidate.facts['suite']}"
    if args.junit:
        _write(args.junit, texts.junit(outcome, title))
    if args.json_file:
        _write(args.json_file, texts.as_json(outcome, str(args.baseline), candidate.name))
    if args.github or os.environ.get("GITHUB_ACTIONS") == "true":
        _tell_github(outcome, title, sys.stderr if args.json or args.quiet else sys.stdout)
    found = texts.as_data(outcome, str(args.baseline), candidate.name)
    return Answer(outcome.exit_code, texts.terminal(outcome, args.show_all), found)


def _update(args: argparse.Namespace, candidate: Baseline, policy: Policy) -> Answer:
    if args.baseline.exists():
        print(texts.terminal(judge(read_baseline(args.baseline), candidate, policy)), end="\n\n")
    itself = judge(candidate, candidate, policy)
    if itself.red:  # too few launches, or a machine on which nothing can be seen
        first = itself.red[0]
        raise UserError(f"no baseline: {first.kind}, {first.where} {first.metric}: {first.text}")
    write_baseline(candidate, args.baseline)
    seen = [v.detectable for v in itself.verdicts if v.detectable and v.metric == "time"]
    text = f"baseline: {args.baseline}, {len(candidate.entries)} entries; commit it"
    found: dict[str, Any] = {"baseline": str(args.baseline), "entries": len(candidate.entries)}
    if seen:
        text += f"\na run like it would show slowdowns of {100 * min(seen):.1f} to {100 * max(seen):.1f} %"
        found["detectable"] = [min(seen), max(seen)]
    return Answer(PASSED, text, found, text.splitlines()[0])


def _check_outputs(args: argparse.Namespace) -> None:
    """Check the files that are to be written, before a run is judged; none may overwrite what is read."""
    read = [*args.runs, *([] if args.update else [args.baseline])]
    for path in (args.baseline if args.update else None, args.junit, args.json_file):
        if path is not None:
            check_output(path, inputs=read, makes_folder=True)
            read.append(path)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


def _tell_github(outcome: Outcome, title: str, stream: TextIO) -> None:
    print(*texts.workflow_commands(outcome), sep="\n", file=stream)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(texts.markdown(outcome, title))
        except OSError as error:
            print(f"cannot write the step summary {summary}: {error.strerror}", file=sys.stderr)


def repeated(folder: Path) -> Path:
    """The same run once more, in a folder next to it."""
    if not folder.is_dir():
        raise UserError(f"{folder}: only a run can be repeated; leave out --confirm")
    stored = RunFolder(folder).config()
    words = [word for word in stored["overrides"] if not word.startswith(("out=", "resume="))]
    again = own_folder(folder.resolve().with_name(f"{folder.resolve().name}-again"))
    print(f"once more, to confirm: {again}")
    runner = open_run(compose_config(stored["suite"]["name"], [*words, f"out={again}"]))
    runner.execute()
    return runner.folder
