"""Kinds of difference, what a detector proposes, and the criterion by which a proposal is accepted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from .pair import FEW, Pair, Slices, blocks, dot, f64, number

KindName = Literal[
    "none", "empty", "shape", "not finite", "zero", "near zero", "sign", "gain", "offset", "affine", "roll", "shift",
    "flip", "permutation", "transposed", "reshaped", "edge", "part", "channel gain", "channel offset",
    "channel affine", "scattered", "noise", "everywhere",
]  # fmt: skip
Predict = Callable[[Slices], np.ndarray]
Facts = dict[str, Any]

SPOILED = 0.05  # share of the values that an explanation may make worse


class Finding(NamedTuple):
    """What the difference is: ``kind`` for programs, ``where`` for readers, ``facts`` as JSON values.

    Where values were compared, ``facts`` holds ``max_abs``, ``at`` (index of that value by axis name), ``wrong`` and
    ``values`` (counts). An explanation adds ``remains`` (largest difference from its prediction) and ``removed_db``
    (how far it lowers the difference, at most 300). ``edge`` and ``part`` add ``axes`` (places by axis name),
    ``zero_there`` and, if the difference inside the place has an explanation, ``inside`` (its kind, where and facts).
    """

    kind: KindName
    where: str
    facts: Facts

    @property
    def sentence(self) -> str:
        """``where`` and what is known about the values inside that place: "last row and column; zero there"."""
        if self.facts.get("zero_there"):
            return f"{self.where}; zero there"
        inside = self.facts.get("inside")
        return f"{self.where}; {inside['where'].removesuffix(' everywhere')} there" if inside else self.where


class Match(NamedTuple):
    """What a detector proposes.

    ``facts`` and ``words`` fill the sentence of its kind. ``predict`` gives the values expected in a block of
    ``value`` (of the pair where None); a match without it has been verified by its detector.
    """

    facts: Facts
    words: dict[str, Any]
    predict: Predict | None = None
    value: np.ndarray | None = None
    reference: np.ndarray | None = None


@dataclass(frozen=True)
class Kind:
    """A row of the registry: a kind, its sentence as a template, and the detector whose matches fill it in.

    Raises:
        ValueError: the name is no kind.
    """

    name: KindName
    sentence: str
    detect: Callable[[Pair], Iterator[Match]]

    def __post_init__(self) -> None:
        if self.name not in get_args(KindName):
            raise ValueError(f"unknown kind of difference {self.name!r}")

    def finding(self, match: Match, pair: Pair) -> Finding | None:
        """The match as a finding if it meets the criterion."""
        facts = match.facts
        if match.predict is not None:
            value = pair.value if match.value is None else match.value
            reference = pair.reference if match.reference is None else match.reference
            fit = explains(pair, value, reference, match.predict)
            if fit is None:
                return None
            facts = {**facts, **fit}
        return Finding(self.name, self.sentence.format(**{**match.facts, **match.words}), facts)


def search(groups: Sequence[Sequence[Kind]], pair: Pair) -> Finding | None:
    """The finding of the first group that has one.

    Within a group it is the first that leaves only rounding; else the first that no other surpasses by 10 dB, as a
    gain may surpass a sign.
    """
    for group in groups:
        rough = []
        for kind in group:
            for match in kind.detect(pair):
                found = kind.finding(match, pair)
                if found is not None and found.facts.get("remains", 0.0) <= FEW * pair.tolerance:
                    return found
                if found is not None:
                    rough.append(found)
        if rough:
            best = max(found.facts["removed_db"] for found in rough)
            return next(found for found in rough if found.facts["removed_db"] >= best - 10)
    return None


def explains(pair: Pair, value: np.ndarray, reference: np.ndarray, predict: Predict) -> Facts | None:
    """``remains`` and ``removed_db`` of a prediction that meets the criterion; stops reading as soon as it cannot."""
    before = left = most_before = most = 0.0
    spoiled = 0
    for s in blocks(value.shape):
        v = f64(value[s])
        d, e = np.abs(v - f64(reference[s])), np.abs(v - predict(s))
        before, left = before + dot(d, d), left + dot(e, e)
        most_before, most = max(most_before, float(d.max())), max(most, float(e.max()))
        spoiled += int(np.count_nonzero((d <= pair.tolerance) & (e > FEW * pair.tolerance)))
        # 12 dB, a sixteenth of the energy, is the least that is required
        if left > pair.measured.dd / 16 or spoiled > SPOILED * value.size:
            return None
    if not 0 < before < math.inf or most_before <= pair.tolerance:
        return None
    if not (left <= before / 100 or (left <= before / 16 and most <= FEW * pair.tolerance)):
        return None
    removed = 10 * math.log10(before / max(left, 1e-30 * before, 1e-300))
    return {"remains": number(most), "removed_db": round(removed, 1)}


def view(array: np.ndarray) -> Predict:
    """A prediction that is already an array."""
    return lambda s: f64(array[s])
