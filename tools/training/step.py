"""One training step: a batch, the loss, an update of the weights. Nothing in it waits for the device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from reference_torch.audio import LogMel
from reference_torch.rmvpe import Network
from rvc_common.stages import Stage, run
from tools.voices.batch import TRAINING, make_batch
from tools.voices.draw import Draw
from tools.voices.labels import Truth, salience

from .state import State

TRAIN = 0  # key of the draws of training; HELD_OUT is another
STEPS_AT_ONCE = 4  # voices are made for: the device is asked for thousands of small things each time
POSITIVE_WEIGHT = 2.0
LARGEST_GRADIENT = 5.0


def make_logits(network: Network, precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Log-mel ``[B, 128, T]`` to logits ``[B, T, 360]``: the model's own stages but the last.

    ``precision`` is that of the convolutions; recurrence and output are float32 always.
    """
    stages = network.stages()
    split = next(i for i, stage in enumerate(stages) if stage.name == "fc.0")
    if stages[-1].name != "sigmoid":
        raise RuntimeError("the network no longer ends with a sigmoid")
    before, after = stages[:split], stages[split:-1]
    return lambda mel: _logits(before, after, mel, precision == "bf16")


def _logits(before: tuple[Stage, ...], after: tuple[Stage, ...], mel: torch.Tensor, reduced: bool) -> torch.Tensor:
    carry = {"x": mel.transpose(1, 2).unsqueeze(1)}
    with torch.autocast(mel.device.type, dtype=torch.bfloat16, enabled=reduced):
        run(before, carry)
    carry["x"] = carry["x"].float()
    run(after, carry)
    return carry["x"]


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
        self.parameters = list(state.network.parameters())
        self.made: tuple[int, torch.Tensor, Truth] | None = None
        state.network.train()

    @torch.no_grad()
    def data(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-mel ``[B, 128, T]``, target ``[B, T, 360]`` and weight ``[B, T]`` of a step."""
        recipe, (block, place) = self.state.recipe, divmod(step, STEPS_AT_ONCE)
        if self.made is None or self.made[0] != block:
            draw = Draw(self.state.device, recipe.seed, TRAIN, block)
            made = make_batch(draw, STEPS_AT_ONCE * recipe.batch, recipe.frames, TRAINING)
            self.made = (block, made.audio, made.truth)
        _, audio, truth = self.made
        mine = slice(place * recipe.batch, (place + 1) * recipe.batch)
        return self.log_mel(audio[mine]), salience(truth.cents[mine], truth.voiced[mine]), truth.weight[mine]

    def __call__(self) -> None:
        """The next step."""
        state = self.state
        mel, target, weight = self.data(state.step)
        loss = loss_of(self.logits(mel), target, weight)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, LARGEST_GRADIENT, foreach=True)
        rate = state.learning_rate()
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.step()
        state.loss_sum += loss.detach()
        state.track()
        state.step += 1
