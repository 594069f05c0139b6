"""What one conversion reports: the arrays of its steps, and the time of each part."""

from __future__ import annotations

import time

import numpy as np

from .base import Steps

# which part of the call a reported step ends; those of segments are reported as segment.NUMBER.NAME
PARTS = {"filtered": "filter", "cuts": "filter", "padded": "filter", "f0": "f0", "pitch": "f0"}
PARTS |= {"joined": "finish", "audio": "finish"}
SEGMENT_PARTS = {"features": "content", "phone": "blend", "audio": "synthesis"}


class Reached(Exception):
    """Ends a conversion at the step that was wanted."""


class Recorder:
    """Keeps what a conversion reports, and how long each of its parts took."""

    def __init__(self, until: str | None = None) -> None:
        self.steps, self.until = Steps(), until
        self.last = time.perf_counter()

    def __call__(self, path: str, array: np.ndarray) -> None:
        now = time.perf_counter()
        self.steps[path] = array
        table, name = (SEGMENT_PARTS, path.split(".")[-1]) if path.startswith("segment.") else (PARTS, path)
        if name in table:  # the time of a step that is not listed goes to the next one that is
            part = table[name]
            self.steps.seconds[part] = self.steps.seconds.get(part, 0.0) + now - self.last
            self.last = now
        if path == self.until:
            raise Reached
