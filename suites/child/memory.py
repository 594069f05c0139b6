"""What the operating system says of this process's memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")


def rss_bytes() -> int:
    """Resident memory now."""
    found = _status_kib("VmRSS")
    return found if found is not None else int(psutil.Process().memory_info().rss)


def peak_rss_bytes() -> int:
    """The largest resident memory since the start, or since ``reset_peak`` where that works."""
    high = _status_kib("VmHWM")
    if high is not None:
        return high
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak() -> bool:
    """Start a new peak; only Linux can. False: later peaks include earlier ones."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status_kib(field: str) -> int | None:
    try:
        text = _STATUS.read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None
