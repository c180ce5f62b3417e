"""top-k without a sort: the threshold is found by bisection over the bits of the probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def top_k_mask(p_BV: jax.Array, k_B: jax.Array) -> jax.Array:
    """The k most likely tokens of each row, with every token tied with the last one kept: bool [B, V].

    p_BV float32 in [0, 1]; k_B int32, at least 1; where it is V or more, every token is kept. Positive float32 numbers
    sort as their bit patterns do, so 31 halvings find the largest threshold t with at least k tokens of p >= t.
    """
    bits_BV = jax.lax.bitcast_convert_type(p_BV, jnp.int32)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = jnp.sum(bits_BV >= middle[:, None], axis=-1) >= k_B
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low = jnp.zeros(p_BV.shape[0], jnp.int32)
    high = jnp.full(p_BV.shape[0], 0x3F800001, jnp.int32)
    low, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
    return bits_BV >= low[:, None]
