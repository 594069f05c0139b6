"""The finished checkpoint: exact norm statistics, a calibrated voicing threshold, half precision."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reference_torch.rmvpe import RMVPE, Network
from rvc_common.outputs import whole
from tools.voices.batch import make_batch
from tools.voices.draw import Draw

from .scores import THRESHOLD, best_threshold, evaluate, score
from .step import Recipe, State, TrainingError, make_logits

STATISTICS = 2  # key of the draws for the norms' statistics
CALIBRATION_SEED = 1  # added to the seed: the threshold and the scores come from different voices
CALIBRATION_BATCHES = 4  # at most, for the threshold; eight times as many for the statistics
LARGEST_BYTES = 12_000_000


def as_model(network: Network, recipe: Recipe, device: str) -> RMVPE:
    """The public model around a network, without a copy; it is put in evaluation mode."""
    model = RMVPE(recipe.config, device=device)
    model.network = network.eval()
    model.stages = network.stages()
    return model


@torch.no_grad()
def exact_statistics(network: Network, recipe: Recipe, device: str, batches: int) -> None:
    """Replace the norms' running averages by plain means over fresh data."""
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # cumulative
    model = as_model(network, recipe, device)
    logits = make_logits(network.train(), "fp32")
    for i in range(batches):
        made = make_batch(Draw(device, recipe.seed, STATISTICS, i), recipe.batch, recipe.frames)
        logits(model.log_mel(made.audio))
    network.eval()


def _logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))


def export(state: State, path: Path, batches: int) -> dict[str, Any]:
    """Write the averaged network as a checkpoint; its scores, as read back from the file.
    ``batches``: held-out batches per condition for the scores. The same state gives the same bytes.

    Raises ``TrainingError``: the file would be too large, or its weights are not finite."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    recipe, device = state.recipe, state.device
    network = copy.deepcopy(state.average)
    some = min(batches, CALIBRATION_BATCHES)
    exact_statistics(network, recipe, device, 8 * some)
    model = as_model(network, recipe, device)
    frames = evaluate(model, recipe, some, CALIBRATION_SEED)
    threshold = best_threshold(frames)
    before = {name: score(stream, threshold) for name, stream in frames.items()}
    with torch.no_grad():
        network.fc[1].bias += _logit(THRESHOLD) - _logit(threshold)
    # matrices and kernels in float16, vectors (norms, biases) in float32
    arrays = {
        k: np.ascontiguousarray(v.float().cpu().numpy().astype(np.float16 if v.ndim > 1 else np.float32))
        for k, v in network.state_dict().items()
        if not k.endswith("num_batches_tracked")
    }
    size = sum(a.nbytes for a in arrays.values())
    if size > LARGEST_BYTES:
        raise TrainingError(f"{size} bytes of weights, at most {LARGEST_BYTES} are meant: less --width or --hidden")
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise TrainingError("the weights are not finite: training has failed")
    reread = RMVPE.from_state_dict({k: v.astype(np.float32) for k, v in arrays.items()}, device=device)
    shifted = {name: score(stream) for name, stream in evaluate(reread, recipe, some, CALIBRATION_SEED).items()}
    scores = {name: score(stream) for name, stream in evaluate(reread, recipe, batches).items()}
    facts = {"seed": recipe.seed, "steps": state.step, "planned_steps": state.steps}
    facts |= {name: getattr(recipe, name) for name in ("batch", "frames", "width", "hidden", "lr", "precision")}
    name = torch.cuda.get_device_name() if device.startswith("cuda") else device
    facts |= {"torch": torch.__version__, "device": name, "threshold_before_shift": threshold}
    # one entry: the format keeps no order of several
    metadata = {"about": json.dumps({"training": facts, "scores": scores, "license": "MIT"})}
    with whole(path, SafetensorError) as part:
        save_file(arrays, part, metadata)
    told = {"event": "export", "file_bytes": path.stat().st_size, "seconds": round(state.seconds, 1), **facts}
    return told | {
        "score_batches": batches,
        "calibration_before": before,
        "calibration_after": shifted,
        "scores": scores,
    }
