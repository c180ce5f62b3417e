"""For CPUs: sums in lanes, and of large vocabularies a few rows at a time, which stay in the cores' caches.

kernels/draw, where it is built, does without.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from kernels.rows import LANES, sum_in_lanes
from kernels.top_p import reference

LARGE = 8192
CACHED = 2**17
"""Probabilities of a block of rows: half a megabyte."""
FEW = 8


def top_p_mask(p_BV: jax.Array, top_p_B: jax.Array) -> jax.Array:
    """See reference.py: the same search between two bit patterns; for a large vocabulary on a shorter way, for a block
    of rows at a time.

    Rows of small vocabularies lie in the caches anyway, and cost more to look after than to pass over.
    """
    rows, vocab = p_BV.shape
    if vocab < LARGE:
        padded = jnp.pad(p_BV, ((0, 0), (0, -vocab % LANES)))
        return reference.top_p_mask(padded, top_p_B, sum_in_lanes)[:, :vocab]
    block = max(1, min(rows, CACHED // vocab))
    p = jnp.pad(p_BV, ((0, -rows % block), (0, 0))).reshape(-1, block, vocab)
    top_p = jnp.pad(top_p_B, (0, -rows % block), constant_values=1.0).reshape(-1, block)
    lowest = lax.map(lambda args: _lowest_kept(*args), (p, top_p)).reshape(-1)[:rows]
    return lax.bitcast_convert_type(p_BV, jnp.int32) >= lowest[:, None]


def _lowest_kept(p_BV: jax.Array, top_p_B: jax.Array) -> jax.Array:
    """A bit pattern that no token but those kept reaches.

    While many tokens lie between the ends, the next threshold is where a straight line between the masses at both ends
    reaches top_p (regula falsi in the Illinois form: the weight of an end that stays twice is halved), unless the last
    one left more than half of the way; then the middle. It ends where a single token lies between the ends, or no bit
    pattern.
    """
    bits_BV = lax.bitcast_convert_type(p_BV, jnp.int32)

    def is_open(state: tuple) -> jax.Array:
        low, high, tokens_low, tokens_high, *_ = state
        return (high - low > 1) & (tokens_low - tokens_high > 1)

    def narrow(state: tuple) -> tuple:
        low, high, tokens_low, tokens_high, weight_low, weight_high, rose, slow = state
        room = high - low
        share = jnp.where((tokens_low - tokens_high > FEW) & ~slow, weight_low / (weight_low - weight_high), 0.5)
        middle = low + jnp.clip((room * share).astype(jnp.int32), 1, jnp.maximum(room - 1, 1))
        above = bits_BV >= middle[:, None]
        mass, tokens = jnp.sum(jnp.where(above, p_BV, 0.0), axis=-1), jnp.sum(jnp.where(above, 1.0, 0.0), axis=-1)
        up = is_open(state) & (mass >= top_p_B)
        down = is_open(state) & (mass < top_p_B)
        return (
            jnp.where(up, middle, low),
            jnp.where(down, middle, high),
            jnp.where(up, tokens, tokens_low),
            jnp.where(down, tokens, tokens_high),
            jnp.where(up, mass - top_p_B, jnp.where(down & ~rose, 0.5, 1.0) * weight_low),
            jnp.where(down, mass - top_p_B, jnp.where(up & rose, 0.5, 1.0) * weight_high),
            up,
            jnp.where(up, high - middle, middle - low) > room // 2,
        )

    # All tokens below (1 - top_p) / V together have less than 1 - top_p; half of it leaves room for rounding.
    low = lax.bitcast_convert_type(jnp.maximum(1 - top_p_B, 0) / (2 * p_BV.shape[-1]), jnp.int32)
    high = lax.bitcast_convert_type(jnp.max(p_BV, axis=-1), jnp.int32) + 1
    none = jnp.zeros_like(top_p_B)
    state = low, high, none + p_BV.shape[-1], none, 1.001 - top_p_B, -top_p_B, none > 0, none > 0
    return lax.while_loop(lambda state: jnp.any(is_open(state)), narrow, state)[0]
