"""top-p on a GPU, in plain XLA: many thresholds a pass, so that a row is read 10 times and not 31 times."""

from __future__ import annotations

import jax
import jax.numpy as jnp

BITS = 3
"""Bits of the threshold that one pass finds: 7 sums are kept for each element read. With 15 of them a pass takes longer
than it does to read the row."""


def top_p_mask(p_BV: jax.Array, top_p_B: jax.Array) -> jax.Array:
    """As the reference: the same threshold, found a few bits at a time from the top, where it found one.

    Probabilities lie below 2^30 as bit patterns. Masses fall as the threshold rises, so that the number of candidates
    whose mass reaches top_p is the next digit.
    """
    bits_BV = jax.lax.bitcast_convert_type(p_BV, jnp.int32)
    low_B = jnp.zeros(p_BV.shape[0], jnp.int32)
    for shift in range(30 - BITS, -1, -BITS):
        candidates = [low_B + (digit << shift) for digit in range(1, 1 << BITS)]
        parts = [jnp.where(bits_BV >= candidate[:, None], p_BV, 0.0) for candidate in candidates]
        reached = [mass >= top_p_B for mass in _sums(parts)]
        low_B = low_B + (sum(x.astype(jnp.int32) for x in reached) << shift)
    return bits_BV >= low_B[:, None]


def _sums(parts: list[jax.Array]) -> tuple[jax.Array, ...]:
    """Each part's row sums, all of them in one reduction: its inputs are read once and its terms never stored."""
    zeros = [jnp.zeros((), x.dtype) for x in parts]
    return jax.lax.reduce(parts, zeros, lambda a, b: [x + y for x, y in zip(a, b, strict=True)], [1])
