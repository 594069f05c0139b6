"""Scores of checkpoints on the same held-out voices, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from reference_torch.rmvpe import RMVPE
from rvc_common.checkpoint import read_metadata

from .scores import STREAMS, Frames, difference, evaluate_batches, joined, score
from .state import Recipe, TrainingError

SHARES = {"rpa": "RPA", "rca": "RCA", "recall": "recall", "false_alarm": "false alarm", "overall": "overall"}
BEGIN, END = "<!-- scores: written by tools/train_rmvpe.py --card -->", "<!-- end of scores -->"
Evaluated = dict[str, list[Frames]]


def versus(paths: Sequence[Path], recipe: Recipe, batches: int, device: str) -> str:
    """Markdown: the scores of every checkpoint and what it states about itself; differences from the first in points.

    Only ``seed``, ``batch`` and ``frames`` of the recipe matter: they fix the voices, with ``batches``.

    Raises:
        CheckpointError: a file is missing, damaged, or of another model.
    """
    first: Evaluated = {}
    voices = batches * recipe.batch
    parts = [f"Per condition {voices} voices of {recipe.frames} frames, in {batches} batches, seed {recipe.seed}."]
    for path in paths:
        evaluated = evaluate_batches(
            RMVPE.from_checkpoint(path, device=device), recipe.seed, recipe.batch, recipe.frames, batches
        )
        head = [f"{name} %" for name in SHARES.values()]
        parts += ["", f"`{path}`: {_facts(path)}", "", *_table([*head, "error, cents"], _scores(evaluated))]
        if first:
            title = f"`{path}` less `{paths[0]}`, in points, ± the standard error over the batches:"
            parts += ["", title, "", *_table(list(SHARES.values()), _differences(first, evaluated))]
        first = first or evaluated
    return "\n".join(parts)


def fill_card(text: str, card: Path) -> None:
    """Put the scores between the marks of a model card.

    Raises:
        TrainingError: the card lacks the marks.
    """
    old = card.read_text("utf-8")
    if BEGIN not in old or END not in old:
        raise TrainingError(f"{card}: lacks the line {BEGIN} or {END}")
    card.write_text(f"{old.split(BEGIN)[0]}{BEGIN}\n{text}\n{END}{old.split(END)[1]}", "utf-8")


def _facts(path: Path) -> str:
    try:
        about = dict(json.loads(read_metadata(path)["about"])["training"])
    except (KeyError, TypeError, ValueError):  # not made by this tool
        about = {}
    return ", ".join([f"{path.stat().st_size} bytes", *(f"{name} {value}" for name, value in about.items())])


def _table(head: Sequence[str], rows: dict[str, list[str]]) -> list[str]:
    lines = [["condition", *head], ["---"] * (len(head) + 1), *([name, *cells] for name, cells in rows.items())]
    return [f"| {' | '.join(line)} |" for line in lines]


def _scores(evaluated: Evaluated) -> dict[str, list[str]]:
    rows = {}
    for name in STREAMS:
        found = score(joined(evaluated[name]))
        rows[name] = [f"{100 * (found[figure] or 0.0):.2f}" for figure in SHARES]
        rows[name].append("–" if found["cents"] is None else f"{found['cents']:.1f}")
    return rows


def _differences(first: Evaluated, evaluated: Evaluated) -> dict[str, list[str]]:
    rows = {}
    for name in STREAMS:
        found = [difference(first[name], evaluated[name], figure) for figure in SHARES]
        rows[name] = [
            f"{100 * value:+.2f}" + ("" if error is None else f" ± {100 * error:.2f}") for value, error in found
        ]
    return rows
