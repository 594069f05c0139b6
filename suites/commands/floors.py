"""``floors``: the table of rounding floors that limits are made from."""

from __future__ import annotations

import argparse

from ..base.outcome import PASSED
from ..selftest.floor_table import show, update

HELP = "the table of rounding floors that limits are made from"


def arguments(parser: argparse.ArgumentParser) -> None:
    options = "precision=, backends=[REFERENCE,OTHER], quick=true, merge=true"
    parser.add_argument("--update", action="store_true", help="measure it anew (minutes) and store it")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help=options)


def run(args: argparse.Namespace) -> int:
    print(update(args.overrides) if args.update else show())
    return PASSED
