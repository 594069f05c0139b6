"""The state of a training: networks, optimiser, counters; one file."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reference_torch.rmvpe import Network, RMVPEConfig

WARM_UP_STEPS = 500
EMA_DECAY = 0.999
PRIOR_LOGIT = -5.0


class TrainingError(Exception):
    """Training cannot continue; the message gives the reason in one line."""


@dataclass(frozen=True)
class Recipe:
    """What the result depends on. ``steps`` 0: not fixed yet."""

    width: int = 4
    hidden: int = 80
    batch: int = 64
    frames: int = 320
    seed: int = 20
    lr: float = 2e-3
    decay: float = 0.01
    precision: str = "bf16"
    channels_last: bool = False


class State:
    """Networks, optimiser and counters of a run on one device."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        self.recipe, self.device = recipe, device
        torch.manual_seed(recipe.seed)
        network = Network(RMVPEConfig(width=recipe.width, hidden=recipe.hidden))
        nn.init.constant_(network.fc[1].bias, PRIOR_LOGIT)  # most bins are empty
        layout = torch.channels_last if recipe.channels_last else torch.preserve_format
        self.network = network.to(device, memory_format=layout)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        decayed = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), fused=device.startswith("cuda"))
        self.step, self.steps, self.seconds = 0, 0, 0.0
        self.loss_sum = torch.zeros((), device=device)
        self._averaged = list(zip(_floats(self.average), _floats(self.network), strict=True))

    def learning_rate(self) -> float:
        """Of the next step: linear warm-up, then half a cosine down to zero at the last."""
        warm_up = min(WARM_UP_STEPS, self.steps // 10) if self.steps else WARM_UP_STEPS
        if self.step < warm_up:
            return self.recipe.lr * (self.step + 1) / warm_up
        if not self.steps:
            return self.recipe.lr
        return self.recipe.lr * 0.5 * (1 + math.cos(math.pi * (self.step - warm_up) / max(1, self.steps - warm_up)))

    @torch.no_grad()
    def track(self) -> None:
        """Move the average towards the network; quickly at first."""
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_([a for a, _ in self._averaged], [b for _, b in self._averaged], 1 - decay)

    def save(self, path: Path) -> None:
        content = {
            "recipe": asdict(self.recipe),
            "counters": {"step": self.step, "steps": self.steps, "seconds": self.seconds},
            "loss_sum": self.loss_sum,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        part = path.with_suffix(".part")
        torch.save(content, part)
        part.replace(path)


def _floats(network: nn.Module) -> list[torch.Tensor]:
    return [t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()]


def load_state(path: Path, device: str, recipe: Recipe | None = None) -> State:
    """Go on from a file; ``recipe``: what it has to have been made with.

    Raises:
        TrainingError: not such a file, or made with another recipe.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        stored = Recipe(**content["recipe"])
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file") from None
    except Exception as error:
        raise TrainingError(f"{path}: no state of this tool ({str(error).splitlines()[0]:.100})") from None
    if recipe is not None and recipe != stored:
        wanted, made = asdict(recipe), asdict(stored)
        different = [f"{k} {made[k]} (now {wanted[k]})" for k in made if made[k] != wanted[k]]
        raise TrainingError(f"{path} was made with {', '.join(different)}; ask for the same, or for another --out")
    state = State(stored, device)
    state.network.load_state_dict(content["network"])
    state.average.load_state_dict(content["average"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.loss_sum.copy_(content["loss_sum"])
    counters = content["counters"]
    state.step, state.steps, state.seconds = counters["step"], counters["steps"], counters["seconds"]
    return state
