"""From logits to one token a row, by the number of its position. Legend: model.py; W steps of a window."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels.categorical import inverse_cdf
from kernels.top_p import top_p_mask


class Rules(NamedTuple):
    """How each row draws, one entry a row: temperature 0 is greedy, top_p 1 keeps every token."""

    temperature_B: jax.Array
    top_p_B: jax.Array


def uniforms(key_B2: jax.Array, index_B: jax.Array, generated_B: jax.Array, window: int) -> jax.Array:
    """u [W, B]: one number per position, from (prompt key, sample index, position) alone."""

    def one(key_2: jax.Array, index: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(key_2, impl="threefry2x32")
        key = jax.random.fold_in(jax.random.fold_in(key, index), position)
        return jax.random.uniform(key)

    positions_WB = generated_B[None, :] + jnp.arange(window)[:, None]
    return jax.vmap(jax.vmap(one), in_axes=(None, None, 0))(key_B2, index_B, positions_WB)


def draw(logits_BV: jax.Array, u_B: jax.Array, rules: Rules) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(token, its log-prob under the distribution it was drawn from, its log-prob at temperature 1), each [B].

    Temperature comes first, then top-p (METRICS.md item 16); temperature 0 is greedy, of log-prob 0.
    """
    temperature_B, top_p_B = rules
    greedy_B = temperature_B == 0
    shifted = logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True)
    normaliser_B = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
    p = jax.nn.softmax(shifted / jnp.where(greedy_B, 1.0, temperature_B)[:, None], axis=-1)

    def truncate(_: jax.Array, p: jax.Array) -> jax.Array:
        return jnp.where(top_p_mask(p, top_p_B) | (top_p_B >= 1)[:, None], p, 0.0)

    # A loop of one turn or none: XLA:CPU runs the branches of a conditional on one core.
    p = jax.lax.fori_loop(0, jnp.any(top_p_B < 1).astype(jnp.int32), truncate, p)
    token = jnp.where(greedy_B, jnp.argmax(logits_BV, axis=-1).astype(jnp.int32), inverse_cdf(p, u_B))

    def pick(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, token[:, None], axis=-1)[:, 0]

    logp = jnp.where(greedy_B, 0.0, jnp.log(pick(p)) - jnp.log(jnp.sum(p, axis=-1)))
    return token, logp, pick(shifted) - normaliser_B
