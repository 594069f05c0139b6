"""Paths of stages."""

from __future__ import annotations


def inside(path: str, outer: str) -> bool:
    """Whether a stage is part of another one."""
    return path.startswith((outer + ".", outer + ":"))
