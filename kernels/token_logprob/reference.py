"""log softmax(x W)[target], over chunks of positions."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def token_logprob(
    hidden_RD: jax.Array, unembedding_DV: jax.Array, targets_R: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """(log-prob of each target, entropy of each row's distribution), float32 [R], in nats.

    Only [chunk, V] logits live at a time; each chunk is recomputed in the backward pass. R must divide by chunk.
    """
    rows, width = hidden_RD.shape
    if rows % chunk:
        raise ValueError(f"token_logprob: {rows} rows do not divide into chunks of {chunk}")

    @jax.checkpoint
    def one(args: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, targets = args
        logits = jnp.einsum("rd,dv->rv", x, unembedding_DV, preferred_element_type=jnp.float32)
        logp = jax.nn.log_softmax(logits, axis=-1)
        picked = jnp.take_along_axis(logp, targets[:, None], axis=-1)[:, 0]
        return picked, -jnp.sum(jnp.exp(logp) * logp, axis=-1)

    picked, entropy = jax.lax.map(
        one, (hidden_RD.reshape(-1, chunk, width), targets_R.reshape(-1, chunk))
    )
    return picked.reshape(rows), entropy.reshape(rows)
