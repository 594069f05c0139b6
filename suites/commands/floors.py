"""``floors``: the table of rounding floors that limits are made from."""

from __future__ import annotations

import argparse

from ..base.errors import UserError
from ..base.outcome import PASSED, Answer
from ..metrics import floors
from ..selftest.floor_table import DEFAULTS, show, update

HELP = "the table of rounding floors that limits are made from"
EXAMPLES = (
    ("floors", "what is stored, in short"),
    ("floors --update precision=tf32 merge=true", "measure one precision on this machine, and keep what is larger"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    defaults = ", ".join(f"{name}={value or 'all'}" for name, value in DEFAULTS.items())
    parser.add_argument("--update", action="store_true", help="measure it anew (minutes) and store it")
    parser.add_argument("overrides", nargs="*", metavar="name=value", help=f"with --update; defaults: {defaults}")


def run(args: argparse.Namespace) -> Answer:
    if args.overrides and not args.update:
        raise UserError(f"{args.overrides[0]}: options count with --update only; without it the stored table is shown")
    text = update(args.overrides) if args.update else show()
    table = floors.stored()
    kinds = {
        f"{precision}/{device}": {model: len(rows) for model, rows in tables.items()}
        for precision, devices in table["policies"].items()
        for device, tables in devices.items()
    }
    found = {"file": str(floors.TABLE), "made": table["made"], "kinds_of_stage": kinds}
    return Answer(PASSED, text, found, text.splitlines()[0])
