"""What a run prints of its results while it goes on; ``timed`` adds its table."""

from __future__ import annotations

import sys

from tqdm import tqdm

from .session import Session


def tell(session: Session, text: str) -> None:
    """A line above the bar, on its way at once also where the output is a pipe."""
    if session.shows_progress:
        tqdm.write(text)
        sys.stdout.flush()


def finished(session: Session, name: str, state: str = "") -> None:
    """A case whose records are closed."""
    tell(session, f"{name}: {state}{passed(session, name)}")


def passed(session: Session, name: str) -> str:
    states = [status for key, status in session.closed.items() if key[0] == name]
    return f"{states.count('passed')} of {len(states)} records passed"
