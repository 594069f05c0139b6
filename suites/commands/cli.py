"""What commands share: exit codes, the argument parser, and how a command declares itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from ..base.errors import UserError

PASSED, FAILED, ERROR, INTERRUPTED = 0, 1, 2, 130
OVERRIDES = "such as durations=[5,60] backends=[torch_cpu,mlx_cpu] measure=full weights.rmvpe=FILE audio=FILE"


class Parser(argparse.ArgumentParser):
    """Raises its errors as ``UserError``, which is printed in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def write_text(path: Path, text: str) -> None:
    """Write a file, and its folder where there is none.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
