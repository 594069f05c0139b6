"""Paths of stages."""

from __future__ import annotations


def inside(path: str, outer: str) -> bool:
    """Whether a stage is part of another one."""
    return path.startswith((outer + ".", outer + ":"))


def decides(path: str) -> bool:
    """Whether a stage chooses: the best bin, voiced or not, a pitch code."""
    return path.rsplit(".", 1)[-1] in ("cents", "f0", "pitchf", "pitch")
