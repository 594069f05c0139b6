"""The state of a training, and its step: a batch, the loss, an update. Nothing in a step waits for the device."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reference_torch.audio import LogMel
from reference_torch.rmvpe import Network, RMVPEConfig
from rvc_common.outputs import whole
from rvc_common.stages import run
from tools.voices.batch import make_batch, salience
from tools.voices.draw import Draw

WARM_UP_STEPS = 500
EMA_DECAY = 0.999
PRIOR_LOGIT = -5.0
TRAIN = 0  # key of the draws of training; HELD_OUT is another
STEPS_AT_ONCE = 4  # voices are made for: the device is asked for thousands of small things each time
POSITIVE_WEIGHT = 2.0
LARGEST_GRADIENT = 5.0
# of a state: what has a state_dict of its own, and plain numbers
PARTS = ("network", "average", "optimizer")
COUNTERS = ("step", "steps", "seconds")


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

    @property
    def config(self) -> RMVPEConfig:
        return RMVPEConfig(width=self.width, hidden=self.hidden)


class State:
    """Networks, optimiser and counters of a run on one device."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        self.recipe, self.device = recipe, device
        torch.manual_seed(recipe.seed)
        network = Network(recipe.config)
        nn.init.constant_(network.fc[1].bias, PRIOR_LOGIT)  # most bins are empty
        layout = torch.channels_last if recipe.channels_last else torch.preserve_format
        self.network = network.to(device, memory_format=layout)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        decayed = {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": recipe.decay}
        others = {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0}
        fused = device.startswith("cuda")
        self.optimizer = torch.optim.AdamW([decayed, others], lr=0.0, betas=(0.9, 0.99), fused=fused)
        self.step, self.steps, self.seconds = 0, 0, 0.0
        self.loss_sum = torch.zeros((), device=device)
        self._averaged = _floats(self.average), _floats(self.network)

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
        torch._foreach_lerp_(*self._averaged, 1 - decay)

    def save(self, path: Path) -> None:
        content = {
            "recipe": asdict(self.recipe),
            "counters": {name: getattr(self, name) for name in COUNTERS},
            "loss_sum": self.loss_sum,
            **{name: getattr(self, name).state_dict() for name in PARTS},
        }
        with whole(path, RuntimeError) as part:  # what torch.save makes of a full disk
            torch.save(content, part)


def _floats(network: nn.Module) -> list[torch.Tensor]:
    return [t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()]


def load_state(path: Path, device: str, recipe: Recipe | None = None) -> State:
    """Go on from a file; ``recipe``: what it has to have been made with.

    Raises ``TrainingError``: not such a file, or made with another recipe."""
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
    for name in PARTS:
        getattr(state, name).load_state_dict(content[name])
    state.loss_sum.copy_(content["loss_sum"])
    for name in COUNTERS:
        setattr(state, name, content["counters"][name])
    return state


def make_logits(network: Network, precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Log-mel ``[B, 128, T]`` to logits ``[B, T, 360]``: the model's own stages but the last.

    ``precision`` is that of the convolutions; recurrence and output are float32 always.
    """
    stages = network.stages()
    split = next(i for i, stage in enumerate(stages) if stage.name == "fc.0")
    if stages[-1].name != "sigmoid":
        raise RuntimeError("the network no longer ends with a sigmoid")

    def logits(mel: torch.Tensor) -> torch.Tensor:
        carry = {"x": mel.transpose(1, 2).unsqueeze(1)}
        with torch.autocast(mel.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            run(stages[:split], carry)
        carry["x"] = carry["x"].float()
        run(stages[split:-1], carry)
        return carry["x"]

    return logits


def loss_of(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Cross entropy summed over bins, averaged over the frames by ``weight`` ``[B, T]``."""
    positive = torch.full((), POSITIVE_WEIGHT, device=logits.device)
    each = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=positive)
    return (each.sum(-1) * weight).sum() / weight.sum().clamp(min=1)


class Stepper:
    """Runs steps on a state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.log_mel = LogMel(state.device)
        self.logits = make_logits(state.network, state.recipe.precision)
        self.block = -1
        state.network.train()

    @torch.no_grad()
    def data(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-mel ``[B, 128, T]``, target ``[B, T, 360]`` and weight ``[B, T]`` of a step."""
        recipe, (block, place) = self.state.recipe, divmod(step, STEPS_AT_ONCE)
        if self.block != block:
            draw = Draw(self.state.device, recipe.seed, TRAIN, block)
            self.block, self.made = block, make_batch(draw, STEPS_AT_ONCE * recipe.batch, recipe.frames)
        mine = slice(place * recipe.batch, (place + 1) * recipe.batch)
        cents, voiced, weight = (column[mine] for column in self.made.truth)
        return self.log_mel(self.made.audio[mine]), salience(cents, voiced), weight

    def __call__(self) -> None:
        """The next step."""
        state = self.state
        mel, target, weight = self.data(state.step)
        loss = loss_of(self.logits(mel), target, weight)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(state.network.parameters(), LARGEST_GRADIENT, foreach=True)
        for group in state.optimizer.param_groups:
            group["lr"] = state.learning_rate()
        state.optimizer.step()
        state.loss_sum += loss.detach()
        state.track()
        state.step += 1
