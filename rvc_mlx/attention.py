"""Self-attention on CPUs in blocks of scores that stay in the cache, with relative positions too.

MLX's CPU backend evaluates exponentials one value at a time on x86, and makes an array of all
scores: 27 million in every layer of HuBERT for half a minute. Here a block of rows is scored, made
weights of and used up before the next one, and the exponential is arithmetic that compilers vectorise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from . import streams
from .gru import has_compiler
from .runtime import mx

BLOCK_VALUES = 1 << 17  # scores of a block: half a MiB
SHORTEST_FRAMES = 128  # of less MLX's own attention is as fast
# exp(r) = 1 + r + r^2 P(r) for |r| <= log(2) / 2, highest power first, and log(2) in two parts, the
# first one short enough for exact products: expf of the Cephes library (Moshier)
EXP_P = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
LOG_2_HIGH, LOG_2_LOW, LOG_2_E = 0.693359375, -2.12194440e-4, 1.44269504088896341
ROUNDS = 12582912.0  # 1.5 * 2 ** 23: a small number added to it loses its fraction, to the nearest integer
SMALLEST = -87.0  # exp of less is no normal float32

Pair = tuple[mx.array, mx.array]


def _mantissa_and_power(x: mx.array) -> Pair:
    """Of exp(x), x <= 0: a factor near one, and the bits of the power of two that it is to be multiplied by."""
    x = mx.where(x < SMALLEST, SMALLEST, x)  # mx.maximum and mx.round are not vectorised on x86
    power = (x * LOG_2_E + ROUNDS) - ROUNDS
    r = x - power * LOG_2_HIGH - power * LOG_2_LOW
    p = EXP_P[0] * r + EXP_P[1]
    for coefficient in EXP_P[2:]:
        p = p * r + coefficient
    return p * r * r + r + 1.0, (power.astype(mx.int32) + 127) * (1 << 23)


def exponential(parts: Callable[[mx.array], Pair] = _mantissa_and_power) -> Callable[[mx.array], mx.array]:
    """exp of float32 values that are not positive; below -87 as of -87."""

    def exp(x: mx.array) -> mx.array:
        factor, bits = parts(x)
        return factor * bits.view(mx.float32)

    return exp


def blocked_attention() -> Callable[[mx.array, mx.array, mx.array], mx.array]:
    """``softmax(q k^T) v`` of ``[B, h, T, d]``, for float32; ``q`` has been scaled."""
    exp = exponential(mx.compile(_mantissa_and_power, shapeless=True) if has_compiler() else _mantissa_and_power)

    def rows(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        scores = q @ k
        weights = exp(scores - mx.max(scores, axis=-1, keepdims=True))
        return (weights @ v) / mx.sum(weights, axis=-1, keepdims=True)

    def head(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return mx.concatenate([_begun(rows(q[a:b], k, v)) for a, b in _blocks(q.shape[0])])

    def attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        # every block would copy what does not lie in a row
        q, k, v = (mx.contiguous(x) for x in (q, k.transpose(0, 1, 3, 2), v))
        items = zip(q, k, v, strict=True)
        return mx.stack([mx.stack([head(*parts) for parts in zip(*item, strict=True)]) for item in items])

    return attend


def blocked_relative_attention(two_streams: bool = False) -> Callable[..., mx.array]:
    """As ``blocked_attention``, with the keys and values of relative positions, ``[2 * reach + 1, d]`` each.

    ``two_streams``: the heads in turns. Only the columns within ``reach`` of a block's rows have them, so no array of
    all positions is made."""
    exp = exponential(mx.compile(_mantissa_and_power, shapeless=True) if has_compiler() else _mantissa_and_power)

    def rows(q: mx.array, k: mx.array, v: mx.array, keys: mx.array, values: mx.array, start: int) -> mx.array:
        count, frames, offsets = q.shape[0], k.shape[0], keys.shape[0]
        first, width = start - offsets // 2, count + offsets - 1
        left, right = max(0, first), min(frames, first + width)
        spans = [span for span in ((0, left), (left, right), (right, frames)) if span[0] < span[1]]
        middle = spans.index((left, right))
        scores = [q @ k[a:b].T for a, b in spans]
        # a row one value longer than ``width`` moves to the right by one with each row
        band = mx.as_strided(mx.pad(q @ keys.T, [(0, 0), (0, count)]), (count, width), (width, 1))
        scores[middle] = scores[middle] + band[:, left - first : right - first]
        peak = functools.reduce(mx.maximum, [mx.max(part, axis=-1, keepdims=True) for part in scores])
        weights = [exp(part - peak) for part in scores]
        near = mx.pad(weights[middle], [(0, 0), (left - first, first + width - right)])
        output = mx.as_strided(near, (count, offsets), (width + 1, 1)) @ values
        for part, (a, b) in zip(weights, spans, strict=True):
            output = output + part @ v[a:b]
        return output / sum(mx.sum(part, axis=-1, keepdims=True) for part in weights)

    def head(q: mx.array, k: mx.array, v: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        blocks = _blocks(q.shape[0])
        return mx.concatenate([_begun(rows(q[a:b], k, v, keys, values, a)) for a, b in blocks])

    def attend(q: mx.array, k: mx.array, v: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        q, k, v = (mx.contiguous(x) for x in (q, k, v))
        items = [parts for item in zip(q, k, v, strict=True) for parts in zip(*item, strict=True)]
        works = [functools.partial(head, *parts, keys, values) for parts in items]
        if two_streams:
            mx.eval(items, keys, values)
            heads = streams.in_turns(works)
        else:
            heads = [work() for work in works]
        return mx.stack(heads).reshape(q.shape)

    return attend


def _begun(block: mx.array) -> mx.array:
    """Left to itself MLX takes the first step of many blocks, then the second of each: all scores at once again."""
    mx.async_eval(block)
    return block


def _blocks(frames: int) -> list[tuple[int, int]]:
    """Rows of equal size whose scores fit the cache."""
    step = -(-frames // -(-frames * frames // BLOCK_VALUES))
    return [(start, min(start + step, frames)) for start in range(0, frames, step)]
