"""The best rates of a device in a run: the roof that components are compared with."""

from __future__ import annotations

from typing import NamedTuple

from suites.base import backends

from .frame import RunData


class Roof(NamedTuple):
    """The fastest matrix product and the fastest copy of any framework on one kind of device."""

    flops_per_s: float
    bytes_per_s: float
    sources: tuple[str, ...]

    @property
    def knee(self) -> float:
        """FLOP per byte from which on arithmetic is the limit."""
        return self.flops_per_s / self.bytes_per_s

    def at(self, intensity: float) -> float:
        """FLOP/s that so many FLOP per byte allow."""
        return min(self.flops_per_s, intensity * self.bytes_per_s)


def device_of(backend: str) -> str:
    """``cpu``, or what is not: ``gpu``."""
    return "cpu" if backends.device_of(backend) == "cpu" else "gpu"


def roofs(run: RunData) -> dict[str, Roof]:
    """By kind of device, in the order of the backends; empty where the run measured no peaks."""
    found: dict[str, Roof] = {}
    for backend, facts in run.environment.get("backends", {}).items():
        peaks, device = facts.get("peaks") or {}, device_of(backend)
        if "matmul_flops_per_s" in peaks and "copy_bytes_per_s" in peaks:
            flops, moved, sources = found.get(device, (0.0, 0.0, ()))
            best = max(flops, peaks["matmul_flops_per_s"]), max(moved, peaks["copy_bytes_per_s"])
            found[device] = Roof(*best, (*sources, run.file(f"environment.json#backends.{backend}.peaks")))
    return found
