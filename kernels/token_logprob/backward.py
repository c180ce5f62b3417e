"""The gradient of token_logprob, of logits that were kept or over tiles of the vocabulary whose logits are made again.

A tile's part of the unembedding's gradient is one product over all rows, written once: cut by rows instead, the whole
gradient of the unembedding would be read and written once a chunk.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kernels.products import product

CACHED_LOGITS = 2**23
"""Logits of a tile on a CPU. Larger ones leave the cache between product, exponentials and sums: twice as slow."""
TILE = 128
"""A tile's least width and divisor, where the vocabulary has so many tokens."""


def gradient(
    hidden_RD: jax.Array,
    unembedding_DV: jax.Array,
    targets_R: jax.Array,
    scores: tuple[jax.Array, jax.Array],
    cotangents: tuple[jax.Array, jax.Array],
    live: int,
    parts: int,
) -> tuple[jax.Array, jax.Array]:
    """Cotangents of hidden [R, D] and unembedding [D, V], in their dtypes, from those of log-prob and entropy.

    scores are (log-prob, entropy) [R] of the forward pass. About `live` logits live at a time, fewer on a CPU. parts:
    into how many equal parts a mesh cuts the vocabulary; each tile has a share of all of them.
    """

    def widest(live: int) -> int:
        width = unembedding_DV.shape[1] // parts
        most = max(1, live // (hidden_RD.shape[0] * parts) // TILE) * TILE
        # Tiles are about equally wide: the last one makes up for what it lacks by what the one before it has done.
        return min(width, -(-width // -(-width // most) // TILE) * TILE)

    args = hidden_RD, unembedding_DV, targets_R, *scores, *cotangents
    small, large = (partial(_gradient, tile=widest(n), parts=parts) for n in (min(live, CACHED_LOGITS), live))
    if small.keywords == large.keywords:
        return large(*args)
    return jax.lax.platform_dependent(*args, cpu=small, default=large)


def forward(hidden_RD: jax.Array, unembedding_DV: jax.Array, targets_R: jax.Array) -> tuple[Any, Any]:
    """(log-prob of each target and entropy [R], what gradient_of_kept needs), with all logits [R, V] at once."""
    logits = product("rd,dv->rv", hidden_RD, unembedding_DV)
    normaliser_R = jax.nn.logsumexp(logits, axis=-1)
    logp = logits - normaliser_R[:, None]
    picked_R = jnp.take_along_axis(logp, targets_R[:, None], axis=-1)[:, 0]
    entropy_R = -jnp.sum(jnp.exp(logp) * logp, axis=-1)
    return (picked_R, entropy_R), (hidden_RD, unembedding_DV, targets_R, logits, normaliser_R, entropy_R)


def gradient_of_kept(kept: Any, cotangents: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, None]:
    """As gradient, from what forward has kept."""
    hidden_RD, unembedding_DV, targets_R, logits, normaliser_R, entropy_R = kept
    logp = logits - normaliser_R[:, None]
    bar = _to_logits(logp, jnp.arange(logits.shape[1]), targets_R, entropy_R, *cotangents).astype(hidden_RD.dtype)
    hidden_bar = product("rv,dv->rd", bar, unembedding_DV).astype(hidden_RD.dtype)
    return hidden_bar, product("rd,rv->dv", hidden_RD, bar).astype(unembedding_DV.dtype), None


def _to_logits(
    logp: jax.Array,
    token: jax.Array,
    targets_R: jax.Array,
    entropy_R: jax.Array,
    logp_bar_R: jax.Array,
    entropy_bar_R: jax.Array,
) -> jax.Array:
    """The cotangent of the logits of some tokens. With p = softmax(logits) and H its entropy: d log p_target / d logits
    = onehot(target) - p, and d H / d logits = -p (log p + H)."""
    bar = -jnp.exp(logp) * (logp_bar_R[:, None] + entropy_bar_R[:, None] * (logp + entropy_R[:, None]))
    return jnp.where(token == targets_R[:, None], bar + logp_bar_R[:, None], bar)


def _gradient(
    hidden_RD: jax.Array,
    unembedding_DV: jax.Array,
    targets_R: jax.Array,
    logp_R: jax.Array,
    entropy_R: jax.Array,
    logp_bar_R: jax.Array,
    entropy_bar_R: jax.Array,
    tile: int,
    parts: int,
) -> tuple[jax.Array, jax.Array]:
    depth, vocab = unembedding_DV.shape
    width = vocab // parts
    cut_DPv = unembedding_DV.reshape(depth, parts, width)
    picked_RD = jnp.take(unembedding_DV, targets_R, axis=1).T
    normaliser_R = product("rd,rd->r", hidden_RD, picked_RD) - logp_R

    def add(sums: tuple[jax.Array, jax.Array], start: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        hidden_bar, unembedding_bar = sums
        # The last tile is moved back to lie inside; what it shares with the one before is written twice, added once.
        begin = jnp.minimum(start, width - tile)
        inside = begin + jnp.arange(tile)
        token = (width * jnp.arange(parts)[:, None] + inside).reshape(-1)
        w = jax.lax.dynamic_slice_in_dim(cut_DPv, begin, tile, 2).reshape(depth, -1)
        logp = product("rd,dv->rv", hidden_RD, w) - normaliser_R[:, None]
        bar = _to_logits(logp, token, targets_R, entropy_R, logp_bar_R, entropy_bar_R).astype(hidden_RD.dtype)
        fresh = jnp.where(jnp.tile(inside >= start, parts), bar, 0)
        hidden_bar += product("rv,dv->rd", fresh, w)
        part = product("rd,rv->dv", hidden_RD, bar)
        part = part.astype(unembedding_bar.dtype).reshape(depth, parts, tile)
        return (hidden_bar, jax.lax.dynamic_update_slice_in_dim(unembedding_bar, part, begin, 2)), None

    zero = jnp.zeros(hidden_RD.shape, jnp.float32), jnp.zeros_like(cut_DPv)
    (hidden_bar, unembedding_bar), _ = jax.lax.scan(add, zero, jnp.arange(0, width, tile))
    return hidden_bar.astype(hidden_RD.dtype), unembedding_bar.reshape(depth, vocab)
