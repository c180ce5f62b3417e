"""From logits to one token a row, by the number of its position. Legend: B rows, V tokens of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels.categorical import inverse_cdf
from kernels.rows import row_max, row_min, row_sum
from kernels.top_k import top_k_mask
from kernels.top_p import top_p_mask


class SamplingTensors(NamedTuple):
    """How each row draws, one entry a row: temperature 0 is greedy; top_p 1, top_k 0 and min_p 0 keep every token."""

    temperature_B: jax.Array
    top_p_B: jax.Array
    top_k_B: jax.Array
    min_p_B: jax.Array


class Truncations(NamedTuple):
    """Which truncations some row asks for: int32 scalars, 1 or 0."""

    top_p: jax.Array
    top_k: jax.Array
    min_p: jax.Array


def truncations_used(sampling: SamplingTensors) -> Truncations:
    """Those of all rows. On a mesh its devices must ask one another: once for many steps will do."""
    used = sampling.top_p_B < 1, sampling.top_k_B > 0, sampling.min_p_B > 0
    return Truncations(*(jnp.any(used_B).astype(jnp.int32) for used_B in used))


def draw(
    logits_BV: jax.Array, u_B: jax.Array, sampling: SamplingTensors, truncations: Truncations
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(token, its log-prob under the distribution it was drawn from, its log-prob at temperature 1), each [B].

    logits_BV float32, u_B in [0, 1): the first token whose cumulative mass exceeds u of the whole is drawn. Temperature
    comes first, then top-k, top-p of what is left (metrics.md item 16) and min-p (Nguyen et al. 2024, alg. 1);
    temperature 0 is greedy, of log-prob 0.
    """
    greedy_B = sampling.temperature_B == 0
    shifted = logits_BV - row_max(logits_BV)[:, None]
    normaliser_B = jnp.log(row_sum(jnp.exp(shifted)))
    p = jnp.exp(shifted / jnp.where(greedy_B, 1.0, sampling.temperature_B)[:, None])
    p = _truncated(p / row_sum(p)[:, None], sampling, truncations)
    # The first of the likeliest; argmax carries an index along, which takes XLA:CPU ten times as long.
    places = jnp.arange(logits_BV.shape[-1], dtype=jnp.int32)
    likeliest_B = row_min(jnp.where(shifted == 0, places, places[-1]))
    token = jnp.where(greedy_B, likeliest_B, inverse_cdf(p, u_B))

    def pick(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, token[:, None], axis=-1)[:, 0]

    logp = jnp.where(greedy_B, 0.0, jnp.log(pick(p)) - jnp.log(row_sum(p)))
    return token, logp, pick(shifted) - normaliser_B


def _truncated(p_BV: jax.Array, sampling: SamplingTensors, truncations: Truncations) -> jax.Array:
    """p with 0 for what top-k, top-p and min-p leave out; not of sum 1 any more."""

    def apply(keep: Callable[[jax.Array], jax.Array], used_B: jax.Array, turns: jax.Array, p: jax.Array) -> jax.Array:
        def cut(_: int, p: jax.Array) -> jax.Array:
            return jnp.where(keep(p) | ~used_B[:, None], p, 0.0)

        # A loop of one turn or none: XLA:CPU runs the branches of a conditional on one core.
        return jax.lax.fori_loop(0, turns, cut, p)

    def nucleus(p: jax.Array) -> jax.Array:
        # Of sum 1 already unless top-k took something away; divided by itself it would be rounded for nothing.
        total = jnp.where(sampling.top_k_B > 0, row_sum(p), 1.0)
        return top_p_mask(p / total[:, None], sampling.top_p_B)

    p = apply(lambda p: top_k_mask(p, sampling.top_k_B), sampling.top_k_B > 0, truncations.top_k, p_BV)
    p = apply(nucleus, sampling.top_p_B < 1, truncations.top_p, p)
    return apply(
        lambda p: p >= sampling.min_p_B[:, None] * row_max(p)[:, None], sampling.min_p_B > 0, truncations.min_p, p
    )
