"""The line at the bottom of a terminal: what a run does, and how much longer it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Self

from tqdm import tqdm

# starting processes and loading models costs as much as this many seconds of audio
START_WEIGHT = 10.0
UNKNOWN_SECONDS = 10.0
# the report, after the last case
REPORT_S = 4.0
FORM = "{percentage:3.0f}%|{bar}| {elapsed}{postfix} {desc}"


class Progress:
    """Nothing is shown where the output is no terminal, or ``shown`` is false.

    What is left is either given with a step, or extrapolated from the cases that have ended.

    Args:
        seconds: of audio, of every case; None: unknown.
    """

    def __init__(
        self, seconds: Sequence[float | None], shown: bool = True, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.weights = [(one or UNKNOWN_SECONDS) + START_WEIGHT for one in seconds]
        self._now, self._started = now, now()
        self._next, self._spent, self._measured, self._since = 0, 0.0, 0.0, now()
        self._bar = tqdm(total=1.0, disable=None if shown else True, bar_format=FORM, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, step: str, left_s: float | None = None) -> None:
        """Show a step; ``left_s``: what the cases will still take, where that is known."""
        left_s = self.left_s() if left_s is None else left_s
        self._bar.set_description_str(step, refresh=False)
        if left_s is not None and not self._bar.disable:
            spent = self._now() - self._started
            self._bar.total, self._bar.n = spent + left_s + REPORT_S, spent
            self._bar.set_postfix_str(f"about {tqdm.format_interval(left_s + REPORT_S)} left", refresh=False)
        self._bar.refresh()

    def case_ended(self, measured: bool) -> None:
        """The next case is over; not ``measured``: its records existed already."""
        now = self._now()
        if measured:
            self._spent += now - self._since
            self._measured += self.weights[self._next]
        self._next, self._since = self._next + 1, now

    def left_s(self) -> float | None:
        """From the cases before; None until one has been measured."""
        if not self._measured:
            return None
        expected = self._spent / self._measured * sum(self.weights[self._next :])
        return max(0.0, expected - (self._now() - self._since))
