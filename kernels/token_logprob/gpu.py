"""Log-probs of given tokens on a GPU or a CPU, in plain XLA: tiles of the vocabulary whose logits stay in its cache."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.matmul import ColumnMajor, matmul
from kernels.products import product

TILE_LOGITS = 2**22
"""Logits of one tile: 16 MB in float32, a third of the cache of an H100 or H200."""
CPU_TILE_LOGITS = 2**21
"""The same on a CPU: 8 MB. Whole rows of a large vocabulary at a time would read all of its weights for few of them."""
LOWEST = -1e30


def token_logprob(
    hidden_RD: jax.Array,
    unembedding_DV: jax.Array | ColumnMajor,
    targets_R: jax.Array,
    chunk: int,
    tile_logits: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """As the reference, forward only, with tile_logits at a time (0: TILE_LOGITS).

    Over tiles of the vocabulary it keeps the running max m, s = sum e and t = sum e (logit - m), with
    e = exp(logit - m) (Milakov & Gimelshein 2018), and the target's logit.
    """
    (rows, width), vocab = hidden_RD.shape, unembedding_DV.shape[1]
    tile = min(vocab, max(128, (tile_logits or TILE_LOGITS) // chunk // 128 * 128))
    inside = jnp.arange(tile)

    def logits_from(x: jax.Array, begin: jax.Array) -> jax.Array:
        if isinstance(unembedding_DV, ColumnMajor):
            columns = jax.lax.dynamic_slice_in_dim(unembedding_DV.w_NK, begin, tile, 0)
            return matmul(x, ColumnMajor(columns, (width, tile)))
        return product("rd,dv->rv", x, jax.lax.dynamic_slice_in_dim(unembedding_DV, begin, tile, 1))

    def score(args: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, targets = args

        def add(sums: tuple[jax.Array, ...], start: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
            old, s, t, picked = sums
            # The last tile is moved back to lie inside; tokens that the one before it had are left out.
            begin = jnp.minimum(start, vocab - tile)
            logits = jnp.where(begin + inside >= start, logits_from(x, begin), LOWEST)
            top = jnp.maximum(old, jnp.max(logits, axis=-1))
            below = logits - top[:, None]
            e, keep = jnp.exp(below), jnp.exp(old - top)
            at = targets - begin
            mine = (at >= start - begin) & (at < tile)
            hit = jnp.take_along_axis(logits, jnp.clip(at, 0, tile - 1)[:, None], axis=-1)[:, 0]
            s, t = s * keep + jnp.sum(e, axis=-1), (t + (old - top) * s) * keep + jnp.sum(e * below, axis=-1)
            return (top, s, t, jnp.where(mine, hit, picked)), None

        zero = jnp.zeros(chunk, jnp.float32)
        sums, _ = jax.lax.scan(add, (zero + LOWEST, zero, zero, zero), jnp.arange(0, vocab, tile))
        top, s, t, picked = sums
        return picked - top - jnp.log(s), jnp.log(s) - t / s

    logp, entropy = jax.lax.map(score, (hidden_RD.reshape(-1, chunk, width), targets_R.reshape(-1, chunk)))
    return logp.reshape(rows), entropy.reshape(rows)
