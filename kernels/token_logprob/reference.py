"""log softmax(x W)[target], over chunks of positions."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

CACHED_LOGITS = 2**23
"""Logits of a chunk on a CPU. Larger ones leave the cache between product, exponentials and sums: twice as slow."""


def token_logprob(
    hidden_RD: jax.Array, unembedding_DV: jax.Array, targets_R: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """(log-prob of each target, entropy of each row's distribution), float32 [R], in nats.

    At most [chunk, V] logits live at a time. R must divide by chunk.
    """
    rows, vocab = hidden_RD.shape[0], unembedding_DV.shape[1]
    check_rows(rows, chunk)
    small = max(n for n in range(1, chunk + 1) if chunk % n == 0 and n <= max(1, CACHED_LOGITS // vocab))
    if small == chunk:
        return _chunked(hidden_RD, unembedding_DV, targets_R, chunk)
    return jax.lax.platform_dependent(
        hidden_RD,
        unembedding_DV,
        targets_R,
        cpu=partial(_chunked, chunk=small),
        default=partial(_chunked, chunk=chunk),
    )


def check_rows(rows: int, chunk: int) -> None:
    """Raises ValueError where rows do not divide into chunks."""
    if rows % chunk:
        raise ValueError(f"token_logprob: {rows} rows do not divide into chunks of {chunk}")


def _chunked(
    hidden_RD: jax.Array, unembedding_DV: jax.Array, targets_R: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """With d = logits - max and s = sum exp d over V: log p = d_target - log s, entropy = log s - sum(d exp d) / s."""

    def score(args: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, targets = args
        logits = jnp.einsum("rd,dv->rv", x, unembedding_DV, preferred_element_type=jnp.float32)
        below = logits - jnp.max(logits, axis=-1, keepdims=True)
        mass = jnp.exp(below)
        total = jnp.sum(mass, axis=-1)
        picked = jnp.take_along_axis(below, targets[:, None], axis=-1)[:, 0]
        return picked - jnp.log(total), jnp.log(total) - jnp.sum(mass * below, axis=-1) / total

    rows, width = hidden_RD.shape
    picked, entropy = jax.lax.map(score, (hidden_RD.reshape(-1, chunk, width), targets_R.reshape(-1, chunk)))
    return picked.reshape(rows), entropy.reshape(rows)
