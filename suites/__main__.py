"""The command line: ``python -m suites --help``. It finds the command's module, runs it, and prints its answer."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NoReturn

from rvc_common.interrupts import is_interrupt

from .base import plugins
from .base.errors import UserError, nearest
from .base.outcome import ERROR, INTERRUPTED, Answer

# modules of ``commands``, in the order of --help
COMMANDS = (
    "list", "plan", "run", "report", "compare", "gate", "trace", "profile", "bundle", "judge", "selftest", "floors",
    "doctor", "convert", "export", "completion",
)  # fmt: skip
# these take overrides, so that their flags are sorted out first: argparse wants them before the overrides
WITH_OVERRIDES = ("run", "plan", "trace", "profile", "bundle", "selftest", "floors")
OF_SUITES = ("run", "plan", "trace", "profile", "bundle")  # a suite follows: its help is everything that can be set
FLAGS = ("-m", "--multirun", "--all", "--update", "--weights", "--gpu")
COMMON = ("-v", "--verbose", "-q", "--quiet", "--json")
HELP = ("-h", "--help")
OWN_PACKAGES = ("suites", "rvc_common", "rvc_mlx", "reference_torch", "reports", "tools")
FIRST = """\
first commands:
  python -m suites list            what this machine can run
  python -m suites run rmvpe       measure the pitch model and write a report (minutes)

python -m suites COMMAND -h shows a command's options and two examples; python -m suites run SUITE -h
everything that can be set with name=value. Results go to stdout, errors to stderr.
Exit codes: 0 passed; 1 a parity limit or gate failed; 2 could not measure or judge; 130 interrupted."""


class Parser(argparse.ArgumentParser):
    """Raises its errors as ``UserError``, which is printed in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Every option with its default, unless its help names it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help
        if not action.option_strings or text is None or "default" in text or action.dest == "help":
            return text
        if action.required:
            return f"{text} (required)"
        return f"{text} (default: {'off' if action.const is True else action.default})"


def command(name: str) -> ModuleType:
    return importlib.import_module(f"suites.commands.{name}")


def common() -> Parser:
    """The options of every command."""
    found = Parser(add_help=False)
    group = found.add_argument_group("options of every command, anywhere in the line")
    group.add_argument("--json", action="store_true", help="print the result as one JSON object, and nothing else")
    group.add_argument("-q", "--quiet", action="store_true", help="print the result in a line, and errors alone")
    group.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    return found


def examples(name: str) -> str:
    """The end of a command's help."""
    lines = [f"  python -m suites {words}\n      {meaning}" for words, meaning in command(name).EXAMPLES]
    return "\n".join(["examples:", *lines])


def parser(names: tuple[str, ...] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of these commands: only their modules are imported."""
    top = Parser(
        prog="python -m suites",
        usage="python -m suites COMMAND ...",
        description="Measures RVC inference in MLX against PyTorch: time, memory and numerical difference.",
        epilog=FIRST,
        formatter_class=Formatter,
    )
    commands = top.add_subparsers(
        title="commands", prog="python -m suites", dest="command", metavar="COMMAND", required=True
    )
    for name in names:
        module = command(name)
        texts = {"help": module.HELP, "description": f"{module.HELP[0].upper()}{module.HELP[1:]}."}
        own = commands.add_parser(
            name, parents=[common()], formatter_class=Formatter, epilog=examples(name), allow_abbrev=False, **texts
        )
        if hasattr(module, "arguments"):
            module.arguments(own)
    return top


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Flags may stand anywhere: argparse itself wants them before the overrides."""
    shared = [word for word in argv if word in COMMON]
    rest = [word for word in argv if word not in COMMON]
    if not rest or rest[0] not in COMMANDS:
        return parser().parse_args(rest)
    name, *words = rest
    flags = [word for word in words if word in FLAGS] if name in WITH_OVERRIDES else []
    return parser((name,)).parse_args([name, *shared, *flags, *(word for word in words if word not in flags)])


def suite_help(argv: Sequence[str]) -> str | None:
    """What ``run SUITE --help`` shows: everything that can be set; None: another line, which argparse answers."""
    words = [word for word in argv if word not in (*COMMON, *HELP, *FLAGS)]
    if not any(word in HELP for word in argv) or len(words) < 2 or words[0] not in OF_SUITES:
        return None
    from .measure.options import help_of

    return (
        None
        if words[1] == "all"
        else help_of(words[0], words[1], [word for word in words[2:] if words[0] != "bundle" or "=" in word])
    )


# ---------------------------------------------------------------------- what is printed
class NoTerminal:
    """A stream that writes as another one does, and is no terminal: no bar is drawn on it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def silenced(argv: Sequence[str]) -> Iterator[None]:
    """With ``--json`` and ``--quiet`` nothing is printed on the way to the answer; errors are, on stderr."""
    with contextlib.ExitStack() as stack:
        if {"--json", "-q", "--quiet"} & set(argv):
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))  # noqa: PTH123
            stack.enter_context(contextlib.redirect_stderr(NoTerminal(sys.stderr)))
        yield


def emit(name: str | None, argv: Sequence[str], answer: Answer) -> int:
    """Print an answer on stdout as the user wants it: whole, in a line, or as one JSON object."""
    if "--json" in argv:
        from .base.records import stored

        whole = {"command": name, "exit_code": answer.exit_code, "passed": answer.exit_code == 0, **answer.found}
        print(json.dumps(stored(whole), allow_nan=False))
    elif "-q" in argv or "--quiet" in argv:
        print(answer.line or answer.text.splitlines()[-1])
    else:
        print(answer.text)
    sys.stdout.flush()
    return answer.exit_code


def fail(name: str | None, argv: Sequence[str], text: str, exit_code: int = ERROR) -> int:
    """Tell what went wrong on stderr; with ``--json`` also in the object."""
    print(text, file=sys.stderr)
    if "--json" in argv:
        emit(name, argv, Answer(exit_code, "", {"error": text.removeprefix("error: ")}))
    return exit_code


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    verbose = "-v" in argv or "--verbose" in argv or os.environ.get("HYDRA_FULL_ERROR") == "1"
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    name = next((word for word in argv if not word.startswith("-")), None)
    try:
        if name is not None and name not in COMMANDS:
            raise UserError(f"unknown command {name!r}{nearest(name, COMMANDS)}")
        if plugins.names():
            importlib.import_module("suites.definitions")
        if (text := suite_help(argv)) is not None:
            print(text)
            return 0
        args = parse(argv)
        with silenced(argv):
            answer: Answer = command(args.command).run(args)
        return emit(name, argv, answer)
    except BaseException as error:
        return explain(error, name, argv, verbose)


def explain(error: BaseException, name: str | None, argv: Sequence[str], verbose: bool) -> int:
    """Tell in one line why a command ended; its exit code."""
    if is_interrupt(error):
        return fail(name, argv, "interrupted", INTERRUPTED)
    if not isinstance(error, Exception):  # argparse's exit
        raise error
    if isinstance(error, BrokenPipeError):  # such as | head: who reads wants no more
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        return ERROR
    if isinstance(error, (UserError, OSError)):
        if verbose:
            traceback.print_exception(error)
        return fail(name, argv, f"error: {error}")
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] not in OWN_PACKAGES:
        return fail(name, argv, f"error: {error}: a package is missing or damaged, install it again")
    traceback.print_exception(error)
    return fail(name, argv, f"error: unexpected {type(error).__name__}; this is a fault of the program")


if __name__ == "__main__":
    sys.exit(main())
