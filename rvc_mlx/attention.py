"""Self-attention on CPUs in blocks of scores that stay in the cache, with relative positions too.

MLX's CPU backend evaluates exponentials one value at a time on x86, and makes an array of all
scores: 27 million in every layer of HuBERT for half a minute. Here a block of rows is scored, made
weights of and used up before the next one, and the exponential is arithmetic that compilers vectorise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from . import streams
from .exponential import exponential
from .runtime import mx

BLOCK_VALUES = 1 << 17  # scores of a block: half a MiB
SHORTEST_FRAMES = 128  # of less MLX's own attention is as fast


def blocked_attention() -> Callable[[mx.array, mx.array, mx.array], mx.array]:
    """``softmax(q k^T) v`` of ``[B, h, T, d]``, for float32; ``q`` has been scaled."""
    exp = exponential()

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
    exp = exponential()

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
