"""The time that a run still needs, extrapolated from the cases that it has finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

# starting processes and loading models costs as much as this many seconds of audio
START_WEIGHT = 10.0
UNKNOWN_SECONDS = 10.0


def weight(audio_s: float | None) -> float:
    """The weight of a case with this many seconds of audio; None: unknown."""
    return (audio_s or UNKNOWN_SECONDS) + START_WEIGHT


class Pace:
    """Cases in order, by weight. There is no estimate before one case has been measured."""

    def __init__(self, weights: Sequence[float], now: Callable[[], float] = time.monotonic) -> None:
        self.weights, self._now = list(weights), now
        self._next, self._spent, self._measured, self._since = 0, 0.0, 0.0, now()

    def ended(self, measured: bool) -> None:
        """The next case is over; not ``measured``: its records existed already, or it could not start."""
        now = self._now()
        if measured:
            self._spent += now - self._since
            self._measured += self.weights[self._next]
        self._next, self._since = self._next + 1, now

    def left_s(self) -> float | None:
        if not self._measured:
            return None
        expected = self._spent / self._measured * sum(self.weights[self._next :])
        return max(0.0, expected - (self._now() - self._since))

    def left(self) -> str:
        """The remaining time in words; empty while it is unknown."""
        seconds = self.left_s()
        return "" if seconds is None else f"about {tqdm.format_interval(seconds)} left"
