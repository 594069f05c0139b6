"""A training log as a picture."""

from __future__ import annotations

import json
from pathlib import Path

from .state import TrainingError


def draw_curves(log: Path, out: Path) -> None:
    """Loss, learning rate and held-out scores over the steps.

    Raises:
        TrainingError: no log, or nothing in it yet.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise TrainingError(f"{log}: no training log ({error})") from None
    losses = [line for line in lines if line["event"] == "train"]
    checks = [line for line in lines if line["event"] == "check"]
    if not losses:
        raise TrainingError(f"{log}: no step has been logged yet")
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    axes[0].plot([line["step"] for line in losses], [line["loss"] for line in losses])
    axes[0].set(xlabel="step", ylabel="cross entropy per frame", yscale="log")
    axes[1].plot([line["step"] for line in losses], [line["lr"] for line in losses])
    axes[1].set(xlabel="step", ylabel="learning rate")
    for name in checks[0]["scores"] if checks else ():
        axes[2].plot([c["step"] for c in checks], [100 * c["scores"][name]["rpa"] for c in checks], label=name)
    axes[2].set(xlabel="step", ylabel="raw pitch accuracy, %, at the best threshold")
    if checks:
        axes[2].legend()
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
