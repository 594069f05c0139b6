"""``selftest WHAT``: how often the harness itself is right."""

from __future__ import annotations

import argparse

from ..selftest import alarms, coverage, faults, known

HELP = "how often the harness itself is right"
TESTS = {
    "faults": (faults.faults, "known ones are injected, found and placed"),
    "aa": (alarms.aa, "false alarms of gates on unchanged code"),
    "power": (alarms.power, "slowdowns of known size that gates catch"),
    "coverage": (coverage.coverage, "intervals that hold the long-run speed-up while other work comes and goes"),
    "known": (known.known, "sleeps, work and memory of known size are measured right"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    texts = "; ".join(f"{name}: {text}" for name, (_, text) in TESTS.items())
    parser.add_argument("what", metavar="WHAT", choices=sorted(TESTS), help=texts)
    parser.add_argument("overrides", nargs="*", metavar="name=value", help="out=FOLDER, count=NUMBER, ...")


def run(args: argparse.Namespace) -> int:
    test, _ = TESTS[args.what]
    return test(args.overrides)
