"""top-p without a sort: the threshold is found by bisection over the bits of the probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.rows import row_sum

LARGEST = 0x3F800000
"""The bits of 1.0, the largest threshold there can be."""
HALVINGS = 31


def top_p_mask(p_BV: jax.Array, top_p_B: jax.Array) -> jax.Array:
    """The smallest set of most likely tokens whose mass reaches top_p, with every token tied with the last one kept.

    p_BV float32 >= 0 and of sum 1; top_p_B in (0, 1]; returns bool [B, V]. Positive float32 numbers sort as their bit
    patterns do, so 31 halvings of the integer interval find the largest threshold t with mass(p >= t) >= top_p
    exactly (Holtzman et al. 2020, eq. 2-3). Where rounding keeps the whole mass below top_p, every token is kept.
    """
    bits_BV = jax.lax.bitcast_convert_type(p_BV, jnp.int32)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        reaches = row_sum(jnp.where(bits_BV >= middle[:, None], p_BV, 0.0)) >= top_p_B
        return jnp.where(reaches, middle, low), jnp.where(reaches, high, middle)

    low = jnp.zeros(p_BV.shape[0], jnp.int32)
    high = jnp.full(p_BV.shape[0], LARGEST + 1, jnp.int32)
    low, _ = jax.lax.fori_loop(0, HALVINGS, halve, (low, high))
    return bits_BV >= low[:, None]
