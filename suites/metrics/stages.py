"""Paths of stages."""

from __future__ import annotations


def inside(path: str, outer: str) -> bool:
    """Whether a stage is part of another one."""
    return path.startswith((outer + ".", outer + ":"))


def together(path: str, leaf: str) -> bool:
    """Whether a stage that has no parts, ``leaf``, computes ``path`` too: as a part, or as the term of a sum."""
    return inside(path, leaf) or leaf == f"{path}:sum"
