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
    block_cdf = _running_sum(jnp.sum(p, axis=-1))
    target = u_B * block_cdf[:, -1]
    block = _first_above(block_cdf, target)
    below = jnp.where(block > 0, jnp.take_along_axis(block_cdf, jnp.maximum(block - 1, 0)[:, None], 1)[:, 0], 0.0)
    inside = jnp.take_along_axis(p, block[:, None, None], axis=1)[:, 0]
    # Rounding between the two levels can point just before or past the block's mass: its first or last token is meant.
    token = _first_above(_running_sum(inside), jnp.maximum(target - below, 0.0))
    chosen = jnp.take_along_axis(inside, token[:, None], axis=1)[:, 0]
    token = jnp.where(chosen > 0, token, width - 1 - jnp.argmax(inside[:, ::-1] > 0, axis=-1))
    return (block * width + token).astype(jnp.int32)


def _running_sum(p_BN: jax.Array) -> jax.Array:
    # At their default precision, GPUs and TPUs would round the masses to 11 or 8 bits before they add them.
    size = p_BN.shape[-1]
    return jnp.matmul(p_BN, jnp.triu(jnp.ones((size, size), p_BN.dtype)), precision=jax.lax.Precision.HIGHEST)


def _first_above(cdf_BN: jax.Array, target_B: jax.Array) -> jax.Array:
    return jnp.minimum(jnp.sum(cdf_BN <= target_B[:, None], axis=-1), cdf_BN.shape[-1] - 1)
