"""``selftest WHAT``: how often the harness itself is right."""

from __future__ import annotations

import argparse

from ..base.outcome import Answer
from ..selftest import alarms, coverage, faults, known, reach

HELP = "how often the harness itself is right"
EXAMPLES = (
    ("selftest known", "sleeps, work and memory of known size (half a minute)"),
    ("selftest faults only=rmvpe clean=0", "known faults of one model are injected, and must be found (minutes)"),
)
OPTIONS = """faults: only=PATTERN (default: all of them; ^$ for none), clean=60, drawn=0 (single lines changed at
random), seed=0, out=FOLDER (default: in runs);
aa, power, coverage: suite=NAME (default: components; components; rmvpe), count=NUMBER (default: 100; 4; 40),
policy=default, full=false, out=FOLDER (default: nowhere), and any override of a run; coverage: busy=0.5;
known: backend=NAME (default: torch_cpu where it is installed)"""
TESTS = {
    "faults": (faults.faults, "known ones are injected, found and placed"),
    "aa": (alarms.aa, "false alarms of gates on unchanged code"),
    "power": (alarms.power, "slowdowns of known size that gates catch"),
    "coverage": (coverage.coverage, "intervals that hold the long-run speed-up while other work comes and goes"),
    "known": (known.known, "sleeps, work and memory of known size are measured right"),
    "reach": (reach.reach, "branches of rvc_mlx that the probes of the traces take"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    texts = "; ".join(f"{name}: {text}" for name, (_, text) in TESTS.items())
    parser.add_argument("what", metavar="WHAT", choices=sorted(TESTS), help=texts)
    parser.add_argument("overrides", nargs="*", metavar="name=value", help=OPTIONS)


def run(args: argparse.Namespace) -> Answer:
    test, _ = TESTS[args.what]
    return test(args.overrides)
