"""Truth on the frames of the log-mel: pitch, voicing, and the weight of a frame in the loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from reference_torch.audio import HOP_SAMPLES, SAMPLE_RATE
from reference_torch.rmvpe import CENTS_FIRST_BIN, CENTS_PER_BIN, N_BINS

from .contours import LOWEST_CENTS, Contour
from .draw import CONTROL_HZ

BLUR_CENTS = 25.0
# of every second pulse: weaker by less than the first, F0 stays; by more than the second, it is an octave lower
HALVED = (0.3, 0.78)
IRREGULAR_JITTER = 0.025
FADING_GATE = 0.15
TAIL_WEIGHT = 0.25


class Truth(NamedTuple):
    """``[B, T]`` each: cents above 10 Hz, voicing, weight in the loss (0: not decidable)."""

    cents: torch.Tensor
    voiced: torch.Tensor
    weight: torch.Tensor


def salience(cents: torch.Tensor, voiced: torch.Tensor) -> torch.Tensor:
    """``[B, T, 360]``: one at the pitch, blurred over neighbouring bins; nothing where unvoiced."""
    bins = CENTS_FIRST_BIN + CENTS_PER_BIN * torch.arange(N_BINS, device=cents.device, dtype=cents.dtype)
    distance = (cents[..., None] - bins) / BLUR_CENTS
    return torch.exp(-0.5 * distance.square()) * voiced[..., None]


def frame_energy(x: torch.Tensor) -> torch.Tensor:
    """Mean square within a hop of each frame's centre, ``[B, N]`` to ``[B, T]``."""
    return nn.functional.avg_pool1d(x.square()[:, None], 2 * HOP_SAMPLES, HOP_SAMPLES, HOP_SAMPLES)[:, 0]


def truth(contour: Contour, voice: torch.Tensor, rest: torch.Tensor) -> Truth:
    """What frame k, centred on sample 160 k, holds.

    ``voice``: the voiced part as it reaches the file, of RMS about one while it sounds; ``rest``: everything else.
    """
    step = HOP_SAMPLES * CONTROL_HZ // SAMPLE_RATE
    halving, jitter, gate = (t[:, ::step] for t in (contour.halving, contour.jitter, contour.gate))
    voiced = contour.voiced[:, ::step]
    octave_down = voiced & (halving > HALVED[1])
    cents = contour.cents[:, ::step] - 1200 * octave_down
    loud, other = frame_energy(voice), frame_energy(rest)
    undecided = (halving > HALVED[0]) & (halving <= HALVED[1]) | (jitter > IRREGULAR_JITTER)
    undecided = undecided | (cents < LOWEST_CENTS - 50) | (gate < FADING_GATE)
    inaudible = (loud < 3e-5) | (loud < 0.015 * other)
    # a room rings on, or another event overlaps: audible, though the glottis is at rest
    ringing = (loud > 3e-3) & (loud > 0.1 * other)
    edge = _near_edge(contour.voiced)[:, ::step]
    weight = torch.where(voiced, 1 - (undecided | inaudible).float(), 1 - (1 - TAIL_WEIGHT) * ringing.float())
    return Truth(cents, voiced, weight * ~edge)


def _near_edge(voiced: torch.Tensor, reach: int = 5) -> torch.Tensor:
    """Within ``reach`` control points of a change of voicing."""
    x = voiced.float()[:, None]
    most = nn.functional.max_pool1d(x, 2 * reach + 1, 1, reach)
    least = -nn.functional.max_pool1d(-x, 2 * reach + 1, 1, reach)
    return (most != least)[:, 0]
