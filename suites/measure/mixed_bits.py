"""How many bits each part of a model needs, so that its result stays within an error.

Every part is quantised alone, in the fewest bits, and the error that this adds to the result is measured. Errors of
parts are taken to add up as noise does, and to fall with the square of a code's step. From the fewest bits for all, the
part whose next number of bits removes the most error for its bytes gets it, until the sum is within the budget. What is
chosen is measured as a whole; where it misses, the budget is made smaller by as much.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from rvc_common.quantized import BITS, Form, forms

from ..base.errors import UserError

# bytes of a group's scale and bias, and of a value that is left as it is
GROUP_BYTES, WHOLE_BYTES = 4, 4
MOST_TRIES = 6
# an error that is not measurable
LEAST_POWER = 1e-30

Bits = dict[str, int | None]  # by tensor; None: as it is


class Part(NamedTuple):
    """A layer: its tensors, and its ``power``, that of the error over the result's where it alone has ``bits``."""

    name: str
    tensors: dict[str, Form]
    bits: int
    power: float = 0.0

    @property
    def levels(self) -> list[int | None]:
        """Numbers of bits that it may have, the fewest first. Convolutions have one."""
        matrices = any(form.is_matrix for form in self.tensors.values())
        return [*([b for b in BITS if b >= self.bits] if matrices else BITS[-1:]), None]

    def error(self, level: int | None) -> float:
        if level is None:
            return 0.0
        return self.power * ((2 ** (self.levels[0] or 0) - 1) / (2**level - 1)) ** 2

    def size(self, level: int | None) -> float:
        """Bytes."""
        found = 0.0
        for form in self.tensors.values():
            values, bits = math.prod(form.shape), level if form.is_matrix else BITS[-1]
            groups = form.rows * form.groups * GROUP_BYTES
            found += WHOLE_BYTES * values if level is None else values * (bits or 0) / 8 + groups
        return found


class Mixed(NamedTuple):
    """``bits`` by tensor, the ``ratio`` in dB that was measured with them, and every part with its own."""

    bits: Bits
    ratio: float
    parts: list[tuple[Part, int | None]]


def fewest(
    state: Mapping[str, np.ndarray], bits: int, group: int, within: float, measured: Callable[[Bits], float | None]
) -> Mixed:
    """The bits of every tensor with which the result stays within ``within`` dB; ``measured``: the signal-to-error
    ratio in dB of the result with such bits, None where it is the same.

    Raises ``UserError``: no choice is as near."""
    chosen = forms(state, bits, group)
    # a second or more for each of a full-size network; on a terminal it shows how far it is
    shown = tqdm(_parts(chosen, bits), desc="layers alone", unit="layer", leave=False, disable=None)
    parts = [one._replace(power=_power(measured(_alone(one, chosen)))) for one in shown]
    budget = wanted = 10 ** (-within / 10)
    for _ in range(MOST_TRIES):
        levels = choose(parts, budget)
        own = {name: level for one, level in zip(parts, levels, strict=True) for name in one.tensors}
        power = _power(measured(own))
        if power <= wanted:
            return Mixed(own, -10 * math.log10(power), list(zip(parts, levels, strict=True)))
        budget *= 0.9 * wanted / power
    raise UserError(f"no choice of bits keeps the result within {within:g} dB")


def choose(parts: list[Part], budget: float) -> list[int | None]:
    """A number of bits for each part, such that the sum of their errors is at most ``budget``."""
    places = [0] * len(parts)
    while sum(one.error(one.levels[place]) for one, place in zip(parts, places, strict=True)) > budget:
        gains = []
        for i, (one, place) in enumerate(zip(parts, places, strict=True)):
            if place + 1 < len(one.levels):
                now, then = one.levels[place], one.levels[place + 1]
                removed, added = one.error(now) - one.error(then), one.size(then) - one.size(now)
                gains.append((removed / max(added, 1.0), i))
        places[max(gains)[1]] += 1
    return [one.levels[place] for one, place in zip(parts, places, strict=True)]


def _parts(chosen: Mapping[str, Form], bits: int) -> list[Part]:
    found: dict[str, dict[str, Form]] = {}
    for name, form in chosen.items():
        numbered = re.match(r".*?\.\d+(?=\.)", name)
        found.setdefault(numbered[0] if numbered else name.rpartition(".")[0], {})[name] = form
    return [Part(name, tensors, bits) for name, tensors in found.items()]


def _alone(one: Part, chosen: Mapping[str, Form]) -> Bits:
    return {name: one.levels[0] if name in one.tensors else None for name in chosen}


def _power(ratio: float | None) -> float:
    return LEAST_POWER if ratio is None else max(LEAST_POWER, 10 ** (-ratio / 10))
