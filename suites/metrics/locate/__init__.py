"""Where two tensors differ, and in which way. Pure NumPy.

The size of a difference says that a port is wrong; its place and kind suggest what: zeros in the last row a padding
fault, exchanged axes a layout fault, a factor per channel a missing normalisation. ``REGISTRY`` has all kinds. They are
tried from top to bottom, and the first that explains the difference is reported; the kinds of one group compete.

**Criterion.** An explanation predicts the result from the reference. It is accepted if what remains (result minus
prediction, root mean square) is at least 20 dB below the difference on the same values; or at least 12 dB below and
nowhere more than four tolerances. It must not make more than 5 % of the values worse, that is, move values that agreed
away by more than four tolerances: otherwise one loud value would decide. If several explanations of a group leave more
than four tolerances, a later one is preferred if it removes 10 dB more. A place is accepted if everything outside is
within the tolerance (with "mostly": holds at most 1 % of the difference's energy, and no tenth of its peak), if so many
clean values outside are no coincidence, given how many inside are clean, and if the difference inside is 12 dB above
that outside, root mean square.

Memory: values become float64 in blocks of 65,536. Searches read 131,072 values, or one line of up to a million. A byte
per value marks NaN, and the values inside a place are copied.
"""

from __future__ import annotations

import math
from functools import partial
from typing import get_args

import numpy as np

from . import orders, patterns, places, shapes
from .core import AXES, ORDERED, Finding, Kind, KindName, Pair, axis_profile, number, search

__all__ = ["AXES", "ORDERED", "REGISTRY", "Finding", "Kind", "axis_profile", "locate"]


def _compare(pair: Pair) -> Finding:
    found = search(REGISTRY, pair)
    assert found is not None  # the last kind accepts every pair
    if found.kind in ("shape", "empty", "not finite"):
        return found
    measured = pair.measured
    facts = {
        "max_abs": number(measured.max_abs),
        "at": dict(zip(pair.axes, measured.at, strict=True)),
        "wrong": measured.wrong,
        "values": pair.value.size,
    }
    return found._replace(facts={**facts, **found.facts})


# fmt: off
# one rule for all values; also sought inside a place. The comments name typical causes
EXPLANATIONS = (
    (
        Kind("zero", "zero everywhere", patterns.constant, True),  # a branch left out
        Kind("zero", "constant ({text}) everywhere", patterns.constant, False),
    ),
    (Kind("mask", "{text}", patterns.masked, patterns.HALF),),  # a mask left out, or of another item
    (
        Kind("near zero", "effectively zero (at most {most}, reference up to {most_r}) everywhere", patterns.near_zero),
        Kind("sign", "opposite sign everywhere", patterns.sign),
        Kind("gain", "a constant factor of {gain} everywhere", patterns.scaling, "gain"),  # a scale
        Kind("offset", "a constant offset of {addend} everywhere", patterns.scaling, "offset"),  # a bias
        Kind("offset", "a constant offset of {addend} wherever the reference is not zero", patterns.offset_of_nonzero),
        Kind("affine", "a constant factor of {gain} and offset of {addend} everywhere", patterns.scaling, "affine"),
    ),
    (
        Kind("roll", "halves of the {axis} axis swapped", orders.rolled, True),
        Kind("roll", "rolled by {count} ({direction}), wrapping around", orders.rolled, False),
        Kind("shift", "shifted by {count} ({direction})", orders.shifted),  # padding on the wrong side
    ),
    (
        Kind("flip", "the {axis} axis reversed", orders.flipped),  # a flow's flip, a flipped kernel
        Kind("permutation", "{text}", orders.permuted),  # grouping, interleaving
    ),
    (
        Kind("transposed", "axes {moved} {how}", orders.transposed),  # layout of weights or attention
        Kind("reshaped", "values transposed to the order {names} and not back", orders.reshaped, False),
        Kind("reshaped", "values reshaped to the order {names}, then transposed back", orders.reshaped, True),
    ),
)
BY_INDEX = (  # a scale, a bias, a norm left out
    Kind("channel gain", "a different factor ({gains}) for each {index}", patterns.per_index, "gain"),
    Kind("channel offset", "a different offset ({addends}) for each {index}", patterns.per_index, "offset"),
    Kind("channel affine", "a different factor ({gains}) and offset ({addends}) for each {index}",
         patterns.per_index, "affine"),
)
INSIDE = partial(search, EXPLANATIONS), partial(search, (BY_INDEX,))

REGISTRY: tuple[tuple[Kind, ...], ...] = (
    (Kind("shape", "{text}", shapes.other_shape, _compare),),  # padding, upsampling, layout
    (Kind("empty", "nothing to compare", shapes.empty),),  # input too short
    (Kind("not finite", "{text}", shapes.not_finite),),  # 1/0, log 0, overflow
    (Kind("none", "no difference beyond the tolerance of {tolerance:.3g}", shapes.within_tolerance),),
    *EXPLANATIONS,
    (Kind("edge", "{place}", places.place, "edge", False, *INSIDE),),  # padding, ``output_padding``
    (Kind("part", "{place}", places.place, "part", False, *INSIDE),),  # masks, one head, one layer
    BY_INDEX,
    (Kind("mask", "{text}", patterns.masked, 0.0),),  # the lengths of another batch
    (
        Kind("offset", "an offset of {addend} in {wrong} of {size} values", patterns.of_some, "offset"),  # a wrong bin
        Kind("gain", "a factor of {gain} in {wrong} of {size} values", patterns.of_some, "gain"),
    ),
    (Kind("edge", "mostly {place}", places.place, "edge", True, *INSIDE),),
    (Kind("part", "mostly {place}", places.place, "part", True, *INSIDE),),
    (Kind("scattered", "scattered: {wrong} of {size} values differ", patterns.scattered),),  # ties, thresholds
    (Kind("offset", "mostly a constant offset of {mean:.4g}, {rest:.3g} (RMS) around it", patterns.mostly_offset),),
    (Kind("noise", "noise {extent}, not correlated with the reference, {level}", patterns.noise),),  # precision
    (Kind("everywhere", "{extent}, in no known pattern{likeness}", patterns.everywhere),),  # another computation
)
# fmt: on
if missing := set(get_args(KindName)) - {kind.name for group in REGISTRY for kind in group}:
    raise ValueError(f"no detector for {sorted(missing)}")


def locate(value: np.ndarray, reference: np.ndarray, axes: tuple[str, ...], tolerance: float) -> Finding:
    """Where and how ``value`` differs from ``reference``.

    Args:
        value: real numbers of any type and shape.
        reference: the same.
        axes: the name of each dimension of ``reference``, from ``AXES``, each at most once.
        tolerance: the largest difference of two values that counts as rounding, in their unit.

    Raises ``ValueError``: the names do not fit the reference, a value is complex, or the tolerance negative or not
    finite."""
    value, reference = np.asarray(value), np.asarray(reference)
    if len(axes) != reference.ndim or len(set(axes)) != len(axes) or not set(axes) <= set(AXES):
        raise ValueError(f"axes {axes} do not name each of the reference's {reference.ndim} dimensions once")
    if np.iscomplexobj(value) or np.iscomplexobj(reference):
        raise ValueError("complex values: pass real and imaginary part as two tensors")
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance {tolerance}")
    with np.errstate(all="ignore"):  # squares of extreme values overflow; no explanation is then accepted
        return _compare(Pair(value, reference, axes, tolerance))
