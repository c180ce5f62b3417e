"""Inverse-CDF sampling in two levels, so that no running sum over a large vocabulary is needed."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def inverse_cdf(p_BV: jax.Array, u_B: jax.Array) -> jax.Array:
    """The first token whose cumulative mass exceeds u times the total: int32 [B].

    p_BV float32 >= 0, not necessarily of sum 1; u_B in [0, 1). A block of about sqrt(V) tokens is chosen first, then
    a token inside it; running sums are products with a triangular matrix, whose rows do not depend on one another.
    A token of mass 0 is never returned. One uniform has 23 random bits: tokens rarer than 1e-7 are not resolved.
    """
    vocab = p_BV.shape[-1]
    width = math.isqrt(vocab - 1) + 1
    blocks = -(-vocab // width)
    p = jnp.pad(p_BV, ((0, 0), (0, blocks * width - vocab))).reshape(-1, blocks, width)
    block_cdf = jnp.sum(p, axis=-1) @ jnp.triu(jnp.ones((blocks, blocks), p.dtype))
    target = u_B * block_cdf[:, -1]
    block = _first_above(block_cdf, target)
    below = jnp.where(block > 0, jnp.take_along_axis(block_cdf, jnp.maximum(block - 1, 0)[:, None], 1)[:, 0], 0.0)
    inside = jnp.take_along_axis(p, block[:, None, None], axis=1)[:, 0]
    token = _first_above(inside @ jnp.triu(jnp.ones((width, width), p.dtype)), target - below)
    chosen = jnp.take_along_axis(inside, token[:, None], axis=1)[:, 0]
    # Rounding between the two levels can point just past the block's mass: its likeliest token is then as near as any.
    token = jnp.where(chosen > 0, token, jnp.argmax(inside, axis=-1))
    return (block * width + token).astype(jnp.int32)


def _first_above(cdf_BN: jax.Array, target_B: jax.Array) -> jax.Array:
    return jnp.minimum(jnp.sum(cdf_BN <= target_B[:, None], axis=-1), cdf_BN.shape[-1] - 1)
