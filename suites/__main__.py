"""The command line: ``python -m suites --help``. It finds the command's module and runs it."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
import warnings
from types import ModuleType
from typing import NoReturn

from .base import plugins
from .base.errors import UserError, nearest
from .base.outcome import ERROR, INTERRUPTED

# modules of ``commands``, in the order of --help
COMMANDS = ("list", "plan", "run", "report", "compare", "gate", "trace", "selftest", "floors", "doctor", "convert")
# these take no overrides, so argparse reads their flags wherever they stand
WITHOUT_OVERRIDES = ("gate", "compare", "report", "convert", "doctor", "list")


class Parser(argparse.ArgumentParser):
    """Raises its errors as ``UserError``, which is printed in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def command(name: str) -> ModuleType:
    return importlib.import_module(f"suites.commands.{name}")


def parser(names: tuple[str, ...] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of these commands: only their modules are imported."""
    top = Parser(
        prog="python -m suites",
        description="Measures RVC inference in MLX against PyTorch: time, memory and numerical difference.",
        epilog="Exit codes: 0 passed; 1 a parity limit or gate failed; 2 could not measure or judge; 130 interrupted.",
    )
    top.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in names:
        module = command(name)
        own = commands.add_parser(name, help=module.HELP)
        if hasattr(module, "arguments"):
            module.arguments(own)
    return top


def parse(argv: list[str]) -> argparse.Namespace:
    """Flags may stand anywhere: argparse itself wants them before the overrides."""
    verbose = [word for word in argv if word in ("-v", "--verbose")]
    rest = [word for word in argv if word not in verbose]
    if rest and rest[0] in COMMANDS:
        name, *words = rest
        flags = [] if name in WITHOUT_OVERRIDES else [word for word in words if word in FLAGS]
        words = [word for word in words if word not in flags]
        return parser((name,)).parse_args([*verbose, name, *flags, *words])
    return parser().parse_args([*verbose, *rest])


FLAGS = ("-m", "--multirun", "--all", "--update")


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    verbose = "-v" in argv or "--verbose" in argv or os.environ.get("HYDRA_FULL_ERROR") == "1"
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    first = next((word for word in argv if not word.startswith("-")), None)
    try:
        if first is not None and first not in COMMANDS:
            raise UserError(f"unknown command {first!r}{nearest(first, COMMANDS)}")
        if plugins.names():
            importlib.import_module("suites.definitions")
        args = parse(argv)
        return int(command(args.command).run(args))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (UserError, OSError) as error:
        if verbose:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return ERROR
    except Exception as error:
        traceback.print_exc()
        print(f"error: unexpected {type(error).__name__}; this is a fault of the program", file=sys.stderr)
        return ERROR


if __name__ == "__main__":
    sys.exit(main())
