"""The exponential on CPUs: arithmetic that compilers vectorise.

MLX's CPU backend evaluates exponentials, and tanh and the logistic function with them, one value at a time on x86.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .gru import has_compiler
from .runtime import mx

# exp(r) = 1 + r + r^2 P(r) for |r| <= log(2) / 2, highest power first, and log(2) in two parts, the
# first one short enough for exact products: expf of the Cephes library (Moshier)
EXP_P = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
LOG_2_HIGH, LOG_2_LOW, LOG_2_E = 0.693359375, -2.12194440e-4, 1.44269504088896341
ROUNDS = 12582912.0  # 1.5 * 2 ** 23: a small number added to it loses its fraction, to the nearest integer
SMALLEST = -87.0  # exp of less is no normal float32
# where a gate's tanh and logistic function have long been flat, and products of two exponentials are finite
FLAT = 40.0

Pair = tuple[mx.array, mx.array]


def mantissa_and_power(x: mx.array) -> Pair:
    """Of exp(x), |x| <= 87: a factor near one, and the bits of the power of two that it is to be multiplied by."""
    power = (x * LOG_2_E + ROUNDS) - ROUNDS
    r = x - power * LOG_2_HIGH - power * LOG_2_LOW
    p = EXP_P[0] * r + EXP_P[1]
    for coefficient in EXP_P[2:]:
        p = p * r + coefficient
    return p * r * r + r + 1.0, (power.astype(mx.int32) + 127) * (1 << 23)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return mx.compile(function, shapeless=True) if has_compiler() else function


def _parts(x: mx.array) -> Pair:
    return mantissa_and_power(mx.where(x < SMALLEST, SMALLEST, x))  # mx.maximum and mx.round are not vectorised on x86


def exponential() -> Callable[[mx.array], mx.array]:
    """exp of float32 values that are not positive; below -87 as of -87."""
    parts = _compiled(_parts)

    def exp(x: mx.array) -> mx.array:
        factor, bits = parts(x)
        return factor * bits.view(mx.float32)

    return exp


def _within(x: mx.array) -> mx.array:
    return mx.where(x > FLAT, FLAT, mx.where(x < -FLAT, -FLAT, x))


def _gate_parts(first: mx.array, second: mx.array, offset: mx.array, other: mx.array) -> tuple[mx.array, ...]:
    u, w = mantissa_and_power(_within(-2.0 * (first + offset))), mantissa_and_power(_within(-(second + other)))
    return (*u, *w)


def _gate_of(u: mx.array, u_power: mx.array, w: mx.array, w_power: mx.array) -> mx.array:
    u, w = u * u_power, w * w_power
    return (1.0 - u) / ((1.0 + u) * (1.0 + w))


def gate() -> Callable[[mx.array, mx.array, mx.array, mx.array], mx.array]:
    """``tanh(first + offset) * sigmoid(second + other)`` of float32, with one division."""
    parts, whole = _compiled(_gate_parts), _compiled(_gate_of)

    def apply(first: mx.array, second: mx.array, offset: mx.array, other: mx.array) -> mx.array:
        u, u_bits, w, w_bits = parts(first, second, offset, other)
        return whole(u, u_bits.view(mx.float32), w, w_bits.view(mx.float32))

    return apply
