"""The figure of a trace: what each stage adds against its limit, and the error on own values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from suites import findings
from suites.trace import FAULT

from .plots import RC

if TYPE_CHECKING:
    from .trace import Trace

ADDED, LIMIT, OWN, WRONG = "#0072B2", "#999999", "#E69F00", "#D55E00"
LARGEST = 1e9


def draw(trace: Trace, folder: Path) -> list[Path]:
    """One picture per variant that was asked for, a panel per probe."""
    folder.mkdir(exist_ok=True)
    paths = []
    for variant in (findings.CONFIGURED, findings.PLAIN):
        rows = [row for row in trace.rows if row["variant"] == variant]
        if not rows:
            continue
        probes = list(dict.fromkeys(row["probe"] for row in rows))
        with plt.rc_context(RC):
            figure, axes = plt.subplots(len(probes), 1, figsize=(9.5, 3.3 * len(probes)), squeeze=False)
            for axis, probe in zip(axes[:, 0], probes, strict=True):
                _panel(axis, [row for row in rows if row["probe"] == probe], f"{variant}, probe {probe}")
            figure.tight_layout()
            path = folder / f"stages-{variant.replace(' ', '-')}.png"
            figure.savefig(path, metadata={"Software": None}, bbox_inches="tight")
            plt.close(figure)
        paths.append(path)
    return paths


def _relative(row: Any, kind: str) -> float:
    """RMS error over the value's RMS; NaN where there is none."""
    figures = row[kind]
    if figures is None or figures.get("rmse") is None or row["rms"] <= 0:
        return float("nan")
    return min(float(figures["rmse"]) / row["rms"], LARGEST) or float("nan")


def _panel(axis: Axes, rows: Sequence[Any], title: str) -> None:
    x = np.arange(len(rows))
    axis.plot(
        x,
        [_relative(r, "limit") for r in rows],
        color=LIMIT,
        lw=1.2,
        drawstyle="steps-mid",
        label="limit of the added error",
    )
    axis.plot(x, [_relative(r, "chained") for r in rows], color=OWN, lw=1.2, label="error on own values")
    axis.plot(x, [_relative(r, "added") for r in rows], ".", color=ADDED, ms=3.5, label="added by the stage")
    wrong = [i for i, row in enumerate(rows) if row["status"] == FAULT]
    values = [_relative(rows[i], "added") for i in wrong]
    if wrong:
        known = [v if np.isfinite(v) else 1.0 for v in values]
        axis.plot(wrong, known, "X", color=WRONG, ms=8, mec="black", mew=0.5, label="at fault")
    axis.set_yscale("log")
    axis.set_ylabel("RMS error / RMS of the value")
    axis.set_title(title, loc="left", fontsize=9.5)
    _name_groups(axis, rows)
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1, ncols=4, fontsize=8)


def _name_groups(axis: Axes, rows: Sequence[Any]) -> None:
    """The parts of the model below the axis, as many as can be read."""
    starts: dict[str, int] = {}
    for i, row in enumerate(rows):
        starts.setdefault(findings.group_of(row["path"]), i)
    ticks: list[tuple[int, str]] = []
    apart = len(rows) / 34
    for name, start in starts.items():
        if not ticks or start - ticks[-1][0] >= apart:
            ticks.append((start, name))
    axis.set_xticks([t for t, _ in ticks], [name for _, name in ticks], rotation=60, ha="right", fontsize=6.5)
    axis.set_xlim(-1, len(rows))
