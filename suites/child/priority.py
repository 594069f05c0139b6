"""The priority of a timed worker: as high as the system grants it, so that other work does not lengthen its calls."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import struct
import sys
from pathlib import Path

HIGHEST_NICE = -20
LOWEST_REAL_TIME = 1
# from here on real time gives way to other work where there is some; before, it stops for a twentieth of each second
# also where there is none
LEAST_KERNEL = (6, 12)
# the shortest that Linux takes
SLICE_NS = 100_000
# numbers of the call sched_setattr, for which C libraries have no function before 2025
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}


def raise_priority() -> None:
    """Ahead of all other work, as far as the system lets it. Threads that start later inherit it."""
    if become_real_time():
        return
    raise_nice()
    shorten_slice()


def priority() -> int | str:
    """Of this process: ``real-time N``, or its nice level."""
    if _is_real_time():
        return f"real-time {os.sched_getparam(0).sched_priority}"
    return os.getpriority(os.PRIO_PROCESS, 0)


def kernel() -> tuple[int, ...]:
    """The system's version, as far as it is numbers: ``(6, 12)``."""
    return tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])


def _is_real_time() -> bool:
    return sys.platform == "linux" and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR)


def become_real_time() -> bool:
    """Whether Linux now runs this process in real time: a thread that wakes has its core at once.

    Needs Linux 6.12, and root (or CAP_SYS_NICE) or a user's limit ``rtprio``. Linux leaves a twentieth of each core to
    other work. A scheduling policy that the user has chosen stays, and where a limit would end a process that computes
    for long in real time (RLIMIT_RTTIME) it is not begun.
    """
    if sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return _is_real_time()
    if kernel() < LEAST_KERNEL:
        return False
    import resource

    if resource.getrlimit(resource.RLIMIT_RTTIME)[0] != resource.RLIM_INFINITY:
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(LOWEST_REAL_TIME))
    except OSError:
        return False
    return True


def raise_nice() -> None:
    """Linux weighs sessions against one another before their processes (autogroups), and a worker leads a session."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, HIGHEST_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(HIGHEST_NICE))


def shorten_slice() -> None:
    """A thread that wakes takes its core back soon; needs no rights.

    From version 6.12 on Linux lets it do so from a thread with a longer slice. From one with an equal slice it waits
    for the end of that, 1.4 to 3 ms, at each of a network's many short sleeps. A scheduling policy that the user has
    chosen stays.
    """
    number = SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    flags, priority, deadline, period = 0, 0, 0, 0
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    # struct sched_attr; a system that does not know of slices ignores this one
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, flags, nice, priority, SLICE_NS, deadline, period)
    ctypes.CDLL(None).syscall(number, 0, attributes, 0)
