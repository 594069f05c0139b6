"""What a gate's sheets and verdicts say, as ratios and as text for any file."""

from __future__ import annotations

from suites.gate.baseline import Sheet
from suites.gate.judge import Verdict

# verdicts that call a change of a figure
CALLS = ("slower", "faster", "implausible", "bigger", "smaller", "less accurate")


def printable(text: str) -> str:
    """One line without control characters and lone surrogates: recorded texts may hold anything."""
    return "".join(c if c.isprintable() else " " for c in text).encode("utf-8", "replace").decode()


def commit_of(sheet: Sheet) -> str:
    """Seven digits, with an asterisk where the working tree had uncommitted changes."""
    commit = sheet.made.get("commit")
    if not commit:
        return "no commit"
    return printable(str(commit)[:7]) + ("*" if sheet.made.get("commit_clean") is False else "")


def ratios(verdict: Verdict) -> tuple[float | None, float | None, float | None]:
    """After over before, and the bounds of its interval; None where there is none."""
    value, low, high = (None if x is None else 1 + x for x in (verdict.change, verdict.low, verdict.high))
    return value, low, high
