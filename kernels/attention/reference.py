"""Softmax attention of whole rows to one part of what they see, and its gradient, in plain JAX.

Legend: B rows, T queries of each, S keys of a part; N query heads, K key heads, N = K G; H head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kernels.products import product

LONG_ROW, QUERY_BLOCK = 1024, 512
"""Rows of more queries or keys than the first are attended about so many queries at a time: memory in T, not in T^2."""

MASK_VALUE = -1e30
"""The score of a key that is not seen, and about the log-sum-exp of a query that sees none: it weighs nothing."""


class AttentionPart(NamedTuple):
    """Some of the keys and values that queries attend to, and who sees which.

    With lengths every query of a row sees the row's first length_B keys. Without, they are the keys of the queries
    themselves: each sees itself and those before it; with segments only those of its own segment and, where it is
    given, of its prefix segment.
    """

    k_BSKH: jax.Array
    v_BSKH: jax.Array
    length_B: jax.Array | None = None
    segment_BT: jax.Array | None = None
    prefix_segment_BT: jax.Array | None = None


def forward(q_BTNH: jax.Array, part: AttentionPart) -> tuple[jax.Array, jax.Array]:
    """(output [B, T, N, H] in the dtype of q, log-sum-exp of the scores [B, N, T] in float32).

    Scores, softmax and sums are in float32; the weights are rounded to the dtype of v.
    """
    b, _, n, _ = q_BTNH.shape

    def attend(_: Any, first: Any, mine: list[jax.Array], q: jax.Array) -> tuple[tuple, tuple[jax.Array, jax.Array]]:
        scores = _scores(q, part, first, mine)
        top = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        out = product("bkgts,bskh->btkgh", (weights / total).astype(part.v_BSKH.dtype), part.v_BSKH)
        lse_BTN = (top + jnp.log(total)).reshape(b, n, -1).swapaxes(1, 2)
        return (), (out.astype(q.dtype).reshape(q.shape), lse_BTN)

    _, (out_BTNH, lse_BTN) = _by_blocks(attend, (), part, q_BTNH)
    return out_BTNH, lse_BTN.swapaxes(1, 2)


def backward(
    q_BTNH: jax.Array, part: AttentionPart, lse_BNT: jax.Array, out_BTNH: jax.Array, d_out_BTNH: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the part adds to the gradient of q, and the gradients of its k and v, each in their dtypes.

    lse and out are those of all parts together. With weights p = exp(score - lse) (Dao et al. 2022, appendix B.2):
    dv = p^T d_out and d_score = p (d_out v^T - rowsum(d_out out)).
    """
    b, _, n, h = q_BTNH.shape
    k_heads = part.k_BSKH.shape[2]
    delta_BTN = jnp.sum(out_BTNH.astype(jnp.float32) * d_out_BTNH.astype(jnp.float32), axis=-1)

    def by_head(x_BTN: jax.Array) -> jax.Array:
        return x_BTN.swapaxes(1, 2).reshape(b, k_heads, n // k_heads, -1, 1)

    def add(sums: tuple, first: Any, mine: list[jax.Array], *block: jax.Array) -> tuple[tuple, jax.Array]:
        q, d_out, lse, delta = block
        p = jnp.exp(_scores(q, part, first, mine) - by_head(lse))
        q_BTKGH, d_out_BTKGH = (x.reshape(b, -1, k_heads, n // k_heads, h) for x in (q, d_out))
        p_bar = product("btkgh,bskh->bkgts", d_out_BTKGH, part.v_BSKH)
        score_bar = (p * (p_bar - by_head(delta)) * h**-0.5).astype(q.dtype)
        dq = product("bkgts,bskh->btkgh", score_bar, part.k_BSKH).astype(q.dtype).reshape(q.shape)
        dk = product("bkgts,btkgh->bskh", score_bar, q_BTKGH)
        dv = product("bkgts,btkgh->bskh", p.astype(d_out.dtype), d_out_BTKGH)
        return (sums[0] + dk, sums[1] + dv), dq

    zeros = jnp.zeros(part.k_BSKH.shape, jnp.float32), jnp.zeros(part.v_BSKH.shape, jnp.float32)
    (dk, dv), dq = _by_blocks(add, zeros, part, q_BTNH, d_out_BTNH, lse_BNT.swapaxes(1, 2), delta_BTN)
    return dq, dk.astype(part.k_BSKH.dtype), dv.astype(part.v_BSKH.dtype)


def _scores(q_BTNH: jax.Array, part: AttentionPart, first: Any, mine: list[jax.Array]) -> jax.Array:
    """Masked scores [B, K, G, T, S] of the queries from place `first` on; mine: the segments [B, T] that they see."""
    (b, t, n, h), k = q_BTNH.shape, part.k_BSKH.shape[2]
    scores = product("btkgh,bskh->bkgts", q_BTNH.reshape(b, t, k, n // k, h), part.k_BSKH) * h**-0.5
    return jnp.where(_seen_by(part, first, t, mine)[:, None, None], scores, MASK_VALUE)


def _seen_by(part: AttentionPart, first: Any, t: int, mine: list[jax.Array]) -> jax.Array:
    """Which keys so many queries from place `first` on see: [B or 1, T or 1, S]."""
    s = part.k_BSKH.shape[1]
    if part.length_B is not None:
        return jnp.arange(s) < part.length_B[:, None, None]
    seen_BTS = (jnp.arange(s) <= first + jnp.arange(t)[:, None])[None]
    if not mine:
        return seen_BTS
    return seen_BTS & reduce(jnp.logical_or, (x[:, :, None] == part.segment_BT[:, None, :] for x in mine))


def seen(part: AttentionPart, t: int) -> jax.Array:
    """Which keys of the part the queries of a row of T see: bool [B or 1, T or 1, S]."""
    return _seen_by(part, 0, t, _segments(part))


def _segments(part: AttentionPart) -> list[jax.Array]:
    """Of each place, the segments that it sees."""
    return [x for x in (part.segment_BT, part.prefix_segment_BT) if x is not None]


def _by_blocks(step: Callable, sums: Any, part: AttentionPart, *of_queries: jax.Array) -> tuple[Any, Any]:
    """(sums, outputs [B, T, ...]) of step(sums, first place, segments seen, *arrays [B, T, ...]), block by block."""
    t, s = of_queries[0].shape[1], part.k_BSKH.shape[1]
    xs = _segments(part), *of_queries
    if max(t, s) <= LONG_ROW:
        return step(sums, 0, *xs)
    blocks = -(-t // QUERY_BLOCK)
    size = -(-t // blocks)

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, blocks * size - t), *[(0, 0)] * (x.ndim - 2)))
        return jnp.moveaxis(x.reshape(len(x), blocks, size, *x.shape[2:]), 1, 0)

    first = size * jnp.arange(blocks)
    sums, outs = jax.lax.scan(lambda sums, x: step(sums, x[0], *x[1]), sums, (first, jax.tree.map(cut, xs)))
    return sums, jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])[:, :t], outs)
