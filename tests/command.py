"""The program as a user starts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def suites(*arguments: str, timeout_s: float = 230) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "suites", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=timeout_s)
