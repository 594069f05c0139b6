"""``compare RUN RUN``: what changed from one run to another, with significance."""

from __future__ import annotations

import argparse
from pathlib import Path

from reports.render import gate as texts

from ..base.outcome import ERROR, PASSED
from ..gate.baseline import baseline_of
from ..gate.judge import UNJUDGED, judge, read_policy
from ..gate.stored import read_baseline

HELP = "what changed from one run to another, with significance"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", type=Path, metavar="RUN", help="a run folder, or a baseline")
    parser.add_argument("after", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--policy", default="default", metavar="NAME", help="a file of conf/gate (default: default)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write report.md, report.html and plots there")


def run(args: argparse.Namespace) -> int:
    policy = read_policy(args.policy)
    before = baseline_of([args.before]) if args.before.is_dir() else read_baseline(args.before)
    after = baseline_of([args.after])
    outcome = judge(before, after, policy)
    print(texts.terminal(outcome, show_all=True))
    if args.out:
        from reports.documents.comparison import write_comparison

        print(f"report: {write_comparison(before, after, outcome, args.out)}")
    return ERROR if outcome.exit_code == UNJUDGED else PASSED
