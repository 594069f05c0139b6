"""``compare RUN RUN``: what changed from one run to another, with significance."""

from __future__ import annotations

import argparse

from reports.render import gate as texts
from rvc_common.outputs import check_folder, named_path

from ..base.outcome import ERROR, PASSED, Answer
from ..gate.baseline import baseline_of
from ..gate.judge import UNJUDGED, judge, read_policy
from ..gate.stored import read_baseline

HELP = "what changed from one run to another, with significance"
EXAMPLES = (
    ("compare runs/before runs/after", "every gate of the second run, judged by the first"),
    ("compare baselines/mine.json runs/after --out changes", "by a baseline; also as a report with plots"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", type=named_path, metavar="RUN", help="a run folder, or a baseline")
    parser.add_argument("after", type=named_path, metavar="RUN", help="a run folder")
    parser.add_argument("--policy", default="default", metavar="NAME", help="a file of conf/gate")
    parser.add_argument(
        "--out", type=named_path, metavar="FOLDER", help="also write a report with plots there (default: nowhere)"
    )


def run(args: argparse.Namespace) -> Answer:
    if args.out:
        check_folder(args.out)
    policy = read_policy(args.policy)
    before = baseline_of([args.before]) if args.before.is_dir() else read_baseline(args.before)
    after = baseline_of([args.after])
    outcome = judge(before, after, policy)
    text, found = texts.terminal(outcome, show_all=True), texts.as_data(outcome, str(args.before), after.name)
    found["exit_code"] = ERROR if outcome.exit_code == UNJUDGED else PASSED
    if args.out:
        from reports.documents.comparison import write_comparison

        found["report"] = str(write_comparison(before, after, outcome, args.out))
        text += f"\nreport: {found['report']}"
    return Answer(found["exit_code"], text, found, texts.summary(outcome)[-1])
