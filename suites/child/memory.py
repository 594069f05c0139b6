"""This process's memory as the operating system reports it, in bytes."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


def rss_bytes() -> int:
    """Resident memory now."""
    found = _status_bytes("VmRSS")
    if found is not None:
        return found
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_rss_bytes() -> int:
    """The largest resident memory since the start, or since ``reset_peak`` where that works."""
    high = _status_bytes("VmHWM")
    if high is not None:
        return high
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak() -> bool:
    """Begin a new peak. False where the system cannot (only Linux can): later peaks include earlier ones."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status_bytes(field: str) -> int | None:
    """Of ``/proc/self/status``; None on another system than Linux."""
    try:
        found = re.search(rf"^{field}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
