"""log softmax(x W)[target], over chunks of positions."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def token_logprob(
    hidden_RD: jax.Array, unembedding_DV: jax.Array, targets_R: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """(log-prob of each target, entropy of each row's distribution), float32 [R], in nats.

    At most [chunk, V] logits live at a time. With d = logits - max and s = sum exp d over V: log p = d_target - log s,
    entropy = log s - sum(d exp d) / s.
    """

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
