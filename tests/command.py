"""The program as a user starts it; without a process of its own, which would import everything anew."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
from pathlib import Path

from jsonschema import Draft202012Validator

from suites.__main__ import main
from suites.base.lines import SCHEMA_FILE

ROOT = Path(__file__).parents[1]


def suites(*arguments: str) -> subprocess.CompletedProcess[str]:
    out, errors, here = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(ROOT)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                code = main(list(arguments))
            except SystemExit as end:  # argparse's
                code = end.code if isinstance(end.code, int) else 2
    finally:
        os.chdir(here)
    return subprocess.CompletedProcess(list(arguments), code, out.getvalue(), errors.getvalue())


def strict() -> Draft202012Validator:
    """The shipped schema of records, in which a field that it does not name is a fault."""
    return Draft202012Validator(json.loads(SCHEMA_FILE.read_text()) | {"unevaluatedProperties": False})
