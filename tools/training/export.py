"""The finished checkpoint: exact norm statistics, a calibrated voicing threshold, half precision."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reference_torch.checkpoint import read_metadata
from reference_torch.rmvpe import RMVPE, Network, RMVPEConfig
from tools.voices.batch import make_batch
from tools.voices.draw import Draw

from .scores import STREAMS, THRESHOLD, best_threshold, listen, score
from .state import Recipe, State, TrainingError
from .step import make_logits

STATISTICS = 2  # key of the draws for the norms' statistics
CALIBRATION_SEED = 1  # added to the seed: the threshold and the scores come from different streams
LARGEST_BYTES = 12_000_000
BEGIN, END = "<!-- scores: written by tools/train_rmvpe.py --card -->", "<!-- end of scores -->"


def as_model(network: Network, config: RMVPEConfig, device: str) -> RMVPE:
    """The public model around a network, without a copy; it is put in evaluation mode."""
    model = RMVPE(config, device=device)
    model.network = network.eval()
    model.stages = network.stages()
    return model


@torch.no_grad()
def exact_statistics(network: Network, recipe: Recipe, device: str, batches: int) -> None:
    """Replace the norms' running averages by plain means over fresh data."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative
    model = as_model(network, RMVPEConfig(width=recipe.width, hidden=recipe.hidden), device)
    logits = make_logits(network.train(), "fp32")
    for i in range(batches):
        made = make_batch(Draw(device, recipe.seed, STATISTICS, i), recipe.batch, recipe.frames)
        logits(model.log_mel(made.audio))
    network.eval()


def _logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))


def stored(network: Network) -> dict[str, np.ndarray]:
    """State dict for the file: matrices and kernels in float16, vectors (norms, biases) in float32."""
    state = {
        k: v.detach().float().cpu() for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")
    }
    return {
        k: np.ascontiguousarray(v.numpy().astype(np.float16 if v.ndim > 1 else np.float32)) for k, v in state.items()
    }


def export(state: State, path: Path, batches: int) -> dict[str, Any]:
    """Write the averaged network as a checkpoint; its scores, as read back from the file.

    ``batches``: held-out batches per condition for the threshold, and again for the scores.

    Raises:
        TrainingError: the file would be too large, or its weights are not finite.
    """
    from safetensors.numpy import save_file

    recipe, device = state.recipe, state.device
    network = copy.deepcopy(state.average)
    exact_statistics(network, recipe, device, 8 * batches)
    model = as_model(network, RMVPEConfig(width=recipe.width, hidden=recipe.hidden), device)
    frames = listen(model, recipe.seed + CALIBRATION_SEED, recipe.batch, recipe.frames, batches)
    threshold = best_threshold(frames)
    before = {name: score(stream, threshold) for name, stream in frames.items()}
    with torch.no_grad():
        network.fc[1].bias += _logit(THRESHOLD) - _logit(threshold)
    arrays = stored(network)
    size = sum(a.nbytes for a in arrays.values())
    if size > LARGEST_BYTES:
        raise TrainingError(f"{size} bytes of weights, at most {LARGEST_BYTES} are meant: less --width or --hidden")
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise TrainingError("the weights are not finite: training has failed")
    reread = RMVPE.from_state_dict({k: v.astype(np.float32) for k, v in arrays.items()}, device=device)
    shifted = {
        n: score(f)
        for n, f in listen(reread, recipe.seed + CALIBRATION_SEED, recipe.batch, recipe.frames, batches).items()
    }
    scores = {n: score(f) for n, f in listen(reread, recipe.seed, recipe.batch, recipe.frames, batches).items()}
    facts = {"seed": recipe.seed, "steps": state.step, "planned_steps": state.steps, "batch": recipe.batch,
             "frames": recipe.frames, "width": recipe.width, "hidden": recipe.hidden, "lr": recipe.lr,
             "precision": recipe.precision, "seconds": round(state.seconds, 1), "torch": torch.__version__,
             "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
             "threshold_before_shift": threshold}  # fmt: skip
    # one entry: the format keeps no order of several, and the same state shall give the same bytes
    metadata = {"about": json.dumps({"training": facts, "scores": scores, "license": "MIT"})}
    part = path.with_suffix(".part")
    save_file(arrays, part, metadata)
    part.replace(path)
    return {"event": "export", "file_bytes": path.stat().st_size, **facts, "calibration_before": before,
            "calibration_after": shifted, "scores": scores}  # fmt: skip


def fill_card(checkpoint: Path, card: Path) -> None:
    """Put a checkpoint's facts and scores between the marks of a model card.

    Raises:
        TrainingError: the checkpoint has none, or the card lacks the marks.
    """
    about = json.loads(read_metadata(checkpoint).get("about", "{}"))
    text = card.read_text("utf-8")
    if "scores" not in about or "training" not in about:
        raise TrainingError(f"{checkpoint}: holds no scores; it was not made by this tool")
    if BEGIN not in text or END not in text:
        raise TrainingError(f"{card}: lacks the line {BEGIN} or {END}")
    scores, facts = about["scores"], about["training"]
    columns = ("rpa", "rca", "recall", "false_alarm", "overall")
    lines = ["| condition | RPA % | RCA % | recall % | false alarm % | overall % | error, cents |", "|---" * 7 + "|"]
    for name in STREAMS:
        row = [f"{100 * scores[name][c]:.1f}" for c in columns]
        cents = scores[name]["cents"]
        lines.append(f"| {name} | " + " | ".join(row) + (" | – |" if cents is None else f" | {cents:.1f} |"))
    told = ", ".join(f"{name} {value}" for name, value in facts.items())
    size = checkpoint.stat().st_size
    head, rest = text.split(BEGIN)[0], text.split(END)[1]
    body = "\n".join([*lines, "", f"{size} bytes; {told}."])
    card.write_text(f"{head}{BEGIN}\n{body}\n{END}{rest}", "utf-8")
