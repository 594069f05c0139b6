"""Pitch and voicing on held-out synthetic voices, under fixed conditions: figures, tables, curves.

The figures are those of MIREX melody extraction (Poliner et al., 2007), within 50 cents.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from reference_torch.rmvpe import RMVPE
from rvc_common.checkpoint import read_metadata
from rvc_common.outputs import whole
from suites.base.files import write_whole
from tools.voices.batch import CLEAN, TRAINING, Conditions, make_batch
from tools.voices.draw import Draw

from .step import Recipe, TrainingError

NOISY = (0.0, 0.6, 0.2, 0.0, 0.2)
STREAMS: dict[str, Conditions] = {
    "clean": CLEAN,
    "snr20": Conditions(NOISY, (20.0, 20.0), 0.0, 0.0),
    "snr10": Conditions(NOISY, (10.0, 10.0), 0.0, 0.0),
    "snr5": Conditions(NOISY, (5.0, 5.0), 0.0, 0.0),
    "snr0": Conditions(NOISY, (0.0, 0.0), 0.0, 0.0),
    "room": Conditions(CLEAN.kinds, None, 1.0, 0.0),
    "mixed": TRAINING,
}
HELD_OUT = 1  # key of the draws that no training step uses
TOLERANCE_CENTS = 50.0
THRESHOLD = 0.03
SHARES = {"rpa": "RPA", "rca": "RCA", "recall": "recall", "false_alarm": "false alarm", "overall": "overall"}
BEGIN, END = "<!-- scores: written by tools/train_rmvpe.py --card -->", "<!-- end of scores -->"


class Frames(NamedTuple):
    """Frames of a stream whose truth is unambiguous, ``[n]`` each: truth, estimate, highest salience."""

    cents: np.ndarray
    voiced: np.ndarray
    estimate: np.ndarray
    peak: np.ndarray


@torch.no_grad()
def evaluate_batches(model: RMVPE, recipe: Recipe, batches: int, others: int = 0) -> dict[str, list[Frames]]:
    """The estimates of ``model`` per stream and batch. Of the recipe, only ``seed``, ``batch`` and ``frames`` matter;
    ``others``, added to the seed, asks for other voices."""
    result: dict[str, list[Frames]] = {name: [] for name in STREAMS}
    for index, (name, conditions) in enumerate(STREAMS.items()):
        for i in range(batches):
            draw = Draw(model.device, recipe.seed + others, HELD_OUT, index, i)
            made = make_batch(draw, recipe.batch, recipe.frames, conditions)
            salience = model.salience(model.log_mel(made.audio).cpu().numpy()).reshape(-1, 360)
            decided = (made.truth.weight > 0.5).flatten().cpu().numpy()
            cents, voiced = (column.flatten().cpu().numpy() for column in made.truth[:2])
            columns = (cents, voiced, model.cents(salience, 0.0), salience.max(1))
            result[name].append(Frames(*(column[decided] for column in columns)))
    return result


def joined(parts: Sequence[Frames]) -> Frames:
    return Frames(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def evaluate(model: RMVPE, recipe: Recipe, batches: int, others: int = 0) -> dict[str, Frames]:
    """``evaluate_batches`` with the batches of a stream joined."""
    return {name: joined(parts) for name, parts in evaluate_batches(model, recipe, batches, others).items()}


def score(frames: Frames, threshold: float = THRESHOLD) -> dict[str, float | None]:
    """Shares from 0 to 1, and the mean error in cents of the frames within the tolerance."""
    detected = frames.peak > threshold
    error = np.abs(frames.estimate - frames.cents)
    octaves = np.abs(error - 1200 * np.round(error / 1200))
    right = detected & (error <= TOLERANCE_CENTS)
    voiced = frames.voiced.astype(bool)
    n_voiced, n_silent = max(voiced.sum(), 1), max((~voiced).sum(), 1)
    found = right & voiced
    return {
        "rpa": float(found.sum() / n_voiced),
        "rca": float((detected & (octaves <= TOLERANCE_CENTS) & voiced).sum() / n_voiced),
        "recall": float((detected & voiced).sum() / n_voiced),
        "false_alarm": float((detected & ~voiced).sum() / n_silent),
        "overall": float((found.sum() + (~detected & ~voiced).sum()) / max(voiced.size, 1)),
        "cents": float(error[found].mean()) if found.any() else None,
    }


class Difference(NamedTuple):
    """A figure of one model less that of another, and the standard error due to the choice of voices."""

    value: float
    error: float | None


def difference(one: Sequence[Frames], other: Sequence[Frames], figure: str) -> Difference:
    """``other``'s figure less ``one``'s over the same batches; the error by a jackknife over these (Efron, 1981)."""

    def of(kept: Sequence[int]) -> float:
        ours, theirs = (score(joined([parts[i] for i in kept]))[figure] for parts in (other, one))
        return float("nan") if ours is None or theirs is None else ours - theirs

    n = len(one)
    if n < 2:
        return Difference(of(range(n)), None)
    without = np.array([of([i for i in range(n) if i != gone]) for gone in range(n)])
    return Difference(of(range(n)), float(np.sqrt((n - 1) * without.var())))


def best_threshold(streams: dict[str, Frames], slack: float = 0.0005) -> float:
    """The lowest threshold whose mean overall accuracy is within ``slack`` of the best.

    The curve is flat near its maximum, and a lower threshold detects more of the voice.
    """
    grid = 1 / (1 + np.exp(-np.linspace(-7, 4, 111)))
    overall = np.array([[score(frames, t)["overall"] for frames in streams.values()] for t in grid], float).mean(1)
    return float(grid[np.argmax(overall >= overall.max() - slack)])


def versus(paths: Sequence[Path], recipe: Recipe, batches: int, device: str) -> str:
    """Markdown: the scores of every checkpoint and what it states about itself; differences from the first in points.

    Raises ``CheckpointError``: a file is missing, damaged, or of another model."""
    first: dict[str, list[Frames]] = {}
    voices = batches * recipe.batch
    parts = [f"Per condition {voices} voices of {recipe.frames} frames, in {batches} batches, seed {recipe.seed}."]
    for path in paths:
        found = evaluate_batches(RMVPE.from_checkpoint(path, device=device), recipe, batches)
        head = [*(f"{name} %" for name in SHARES.values()), "error, cents"]
        rows = [[name, *_scores(score(joined(found[name])))] for name in STREAMS]
        parts += ["", f"`{path}`: {_facts(path)}", "", *_table(head, rows)]
        if first:
            title = f"`{path}` less `{paths[0]}`, in points, ± the standard error over the batches:"
            rows = [[n, *(_signed(difference(first[n], found[n], figure)) for figure in SHARES)] for n in STREAMS]
            parts += ["", title, "", *_table(list(SHARES.values()), rows)]
        first = first or found
    return "\n".join(parts)


def read_card(card: Path) -> str:
    """Raises ``TrainingError``: the card lacks the marks between which scores are put."""
    text = card.read_text("utf-8")
    if BEGIN not in text or END not in text:
        raise TrainingError(f"{card}: lacks the line {BEGIN} or {END}")
    return text


def fill_card(text: str, card: Path) -> None:
    """Put the scores between the marks of a model card."""
    old = read_card(card)
    write_whole(card, f"{old.split(BEGIN)[0]}{BEGIN}\n{text}\n{END}{old.split(END)[1]}")


def _facts(path: Path) -> str:
    try:
        about = dict(json.loads(read_metadata(path)["about"])["training"])
    except (KeyError, TypeError, ValueError):  # not made by this tool
        about = {}
    return ", ".join([f"{path.stat().st_size} bytes", *(f"{name} {value}" for name, value in about.items())])


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (["condition", *head], ["---"] * (len(head) + 1), *rows)]


def _scores(found: dict[str, float | None]) -> list[str]:
    cents = "–" if found["cents"] is None else f"{found['cents']:.1f}"
    return [*(f"{100 * (found[figure] or 0.0):.2f}" for figure in SHARES), cents]


def _signed(found: Difference) -> str:
    return f"{100 * found.value:+.2f}" + ("" if found.error is None else f" ± {100 * found.error:.2f}")


def draw_curves(log: Path, out: Path) -> None:
    """Loss, learning rate and held-out scores over the steps.

    Raises ``TrainingError``: no log, or nothing in it yet."""
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
    with whole(out) as part:
        figure.savefig(part, dpi=110, format="png")
    pyplot.close(figure)
