"""A profile's figures, and their texts for terminal and report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from suites.base.errors import UserError
from suites.base.run_folder import PROFILE, RunFolder
from suites.inputs.weights import TRAINED_WEIGHTS
from suites.trace import stages
from suites.trace.stages import Kernel, Row

from .trace import aligned

COLUMNS = ("ms", "GFLOP/s", "GB/s", "% of roof")
# shown of the kernels of a call; profile.json has all
MOST_KERNELS = 15


class Profile(NamedTuple):
    """``rows``: of each backend its stages, in order."""

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    found: dict[str, Any]
    rows: dict[str, list[Row]]

    @property
    def model(self) -> str:
        return str(self.found["model"])

    @property
    def about(self) -> str:
        """What was measured."""
        rounds = len(next(iter(self.found["backends"].values()))["calls_s"])
        audio = f"{self.found['seconds']:.3g} s of {self.found['source']}"
        weights = "; ".join(
            one["label"] for name, one in self.environment["weights"].items() if name != TRAINED_WEIGHTS
        )
        how = f"{self.config['precision']}, {self.environment['threads']} threads, {rounds} rounds"
        return f"{audio}; weights: {weights}; {how}"

    @property
    def advice(self) -> list[str]:
        return [stages.advice(rows) for rows in self.rows.values()]

    def call_s(self, backend: str) -> float:
        return median(self.found["backends"][backend]["calls_s"])

    def kernels(self, backend: str) -> list[list[Any]] | None:
        kernels: list[list[Any]] | None = self.found["backends"][backend]["kernels"]
        return kernels


def load(folder: Path) -> Profile:
    """Raises ``UserError``: not a profile's folder, or it is damaged."""
    run = RunFolder(folder)
    try:
        found = json.loads((folder / PROFILE).read_text())
        rows = {backend: stages.rows(found, backend) for backend in found["backends"]}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / PROFILE}: is damaged") from None
    return Profile(folder, run.config(), run.environment(), found, rows)


# ---------------------------------------------------------------------- words and numbers
def number(value: float | None) -> str:
    return "–" if value is None else f"{float(f'{value:.3g}'):.6g}"


def cells(row: Row) -> list[str]:
    """In the order of ``COLUMNS``."""
    rates = (row.rate(row.flops), row.rate(row.bytes))
    share = "–" if row.share is None else f"{100 * row.share:.0f}"
    return [number(1e3 * row.seconds), *(number(rate and rate / 1e9) for rate in rates), share]


def headings(profile: Profile, short: bool = False) -> list[str]:
    """``short``: a backend is named once, before its columns."""
    named = [f"{name} {text}" for name in profile.rows for text in COLUMNS]
    return [
        "part",
        "GFLOP",
        "MB",
        *(text.split(" ", 1)[1] if short and i % len(COLUMNS) else text for i, text in enumerate(named)),
    ]


def lines(profile: Profile) -> list[list[str]]:
    """A line for each part of the model, then all stages together, and the whole call beside them."""
    sides = {name: stages.parts(rows) for name, rows in profile.rows.items()}
    first = next(iter(sides.values()))
    found = [_line(part, [own[part] for own in sides.values()]) for part in first]
    together = [stages.together(rows, "all stages") for rows in profile.rows.values()]
    calls = [row._replace(seconds=profile.call_s(row.backend)) for row in together]
    return [*found, _line("all stages", together), _line("the whole call", calls)]


def _line(name: str, rows: Sequence[Row]) -> list[str]:
    work = [rows[0].flops, rows[0].bytes]
    amounts = [number(None if one is None else one / scale) for one, scale in zip(work, (1e9, 1e6), strict=True)]
    return [name, *amounts, *(cell for row in rows for cell in cells(row))]


def peaks(profile: Profile) -> list[str]:
    """What each framework reaches here; the fastest of those on a kind of device is the roof there."""
    found = []
    for backend, own in profile.found["peaks"].items():
        flops, moved = (number(own[name] / 1e9) for name in ("matmul_flops_per_s", "copy_bytes_per_s"))
        found.append(
            f"{backend}: a matrix product of {own['matmul_size']} squared {flops} GFLOP/s, a copy {moved} GB/s"
        )
    return found


def counted(profile: Profile) -> str:
    """How FLOP and bytes were counted."""
    if profile.found["counted_on"] is None:
        return "Nothing was counted: PyTorch is not installed."
    return (
        f"FLOP and bytes are those of the PyTorch reference ({profile.found['counted_on']}), the same on every "
        "backend: products by its FlopCounterMode, one FLOP for each value of an elementwise operator; bytes are "
        "inputs, weights and results of a stage, each once. Work in NumPy is not counted: its cells are empty, and in "
        "sums it is missing."
    )


def of_call(profile: Profile, backend: str) -> str:
    """What evaluating every stage costs, and how much of a call the device works."""
    stage_s, call_s = sum(row.seconds for row in profile.rows[backend]), profile.call_s(backend)
    text = f"{backend}: stage by stage {stages.in_units(stage_s)}, the whole call in one go {stages.in_units(call_s)}"
    text += f" ({100 * (stage_s / call_s - 1):+.0f} %)"
    if events := profile.kernels(backend):
        busy = stages.busy_s(events)
        share = f"{100 * busy / call_s:.0f} %"
        text += f", of which the GPU is busy for {stages.in_units(busy)}, {share}: for the rest it waits for the host"
    return f"{text}."


CACHED = (
    "Above 100 % of the roof, the data of a stage stayed in a cache, which the copy of 256 MiB does not fit in, or "
    "other work of the machine slowed the measurement of the peaks."
)
KERNEL_HEADINGS = ("kernel", "calls", "ms", "% of kernels")
NO_KERNELS = "No kernels were recorded: that needs an NVIDIA GPU and PyTorch with CUDA."


def kernel_lines(events: Sequence[Sequence[Any]]) -> list[list[str]]:
    found: list[Kernel] = stages.kernels(events)
    total = sum(one.seconds for one in found)
    return [
        [one.name[:80], str(one.calls), number(1e3 * one.seconds), f"{100 * one.seconds / total:.1f}"]
        for one in found[:MOST_KERNELS]
    ]


def terminal(profile: Profile) -> str:
    parts = [f"{profile.model} on {', '.join(profile.rows)}: {profile.about}"]
    parts += ["", aligned(headings(profile, short=True), lines(profile)), ""]
    for backend in profile.rows:
        if events := profile.kernels(backend):
            parts += [f"kernels of a call, {backend}", aligned(KERNEL_HEADINGS, kernel_lines(events)), ""]
    parts += [] if any(map(profile.kernels, profile.rows)) else [NO_KERNELS]
    parts += [*(f"measured peaks of {text}" for text in peaks(profile)), counted(profile)]
    shares = [row.share or 0 for rows in profile.rows.values() for row in stages.parts(rows).values()]
    parts += [*([CACHED] if max(shares) > 1 else []), ""]
    parts += [of_call(profile, backend) for backend in profile.rows]
    return "\n".join([*parts, *(sentence.replace("`", "") for sentence in profile.advice)])


def as_data(profile: Profile) -> dict[str, Any]:
    """For ``--json``."""
    backends = {
        name: {
            "stages_s": sum(row.seconds for row in rows),
            "call_s": profile.call_s(name),
            "roof": stages.roof_of(profile.found, name)._asdict(),
            "next": sentence.replace("`", ""),
            "stages": [row._asdict() for row in rows],
        }
        for (name, rows), sentence in zip(profile.rows.items(), profile.advice, strict=True)
    }
    return {"model": profile.model, "folder": str(profile.folder), "backends": backends}
