"""Advantages and losses as pure functions. Legend: P prompts, G answers a prompt, B = P * G rows, T tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def grpo_advantages(reward_PG: jax.Array, eps: float = 1e-6) -> jax.Array:
    """A = (r - mean_g r) / (std_g r + eps), [P, G] float32 (Shao et al. 2024, arXiv 2402.03300, sec. 4.1.2).

    A group whose rewards are all equal has advantage 0 and teaches nothing.
    """
    assert reward_PG.ndim == 2 and reward_PG.dtype == jnp.float32
    centred = reward_PG - jnp.mean(reward_PG, axis=1, keepdims=True)
    return centred / (jnp.std(reward_PG, axis=1, keepdims=True) + eps)


def clipped_surrogate(
    logp_BT: jax.Array, behaviour_BT: jax.Array, advantage_B: jax.Array, answer_BT: jax.Array, clip: float
) -> jax.Array:
    """-mean over answers of mean over their tokens of min(w A, clip(w, 1 - e, 1 + e) A), w = exp(logp - behaviour).

    Equation 3 of Shao et al. 2024 (arXiv 2402.03300) without its KL term; a float32 scalar.
    """
    assert logp_BT.ndim == 2 and advantage_B.ndim == 1 and logp_BT.dtype == jnp.float32
    ratio = jnp.exp(logp_BT - behaviour_BT)
    a = advantage_B[:, None]
    gain = jnp.minimum(ratio * a, jnp.clip(ratio, 1 - clip, 1 + clip) * a)
    per_answer = jnp.sum(jnp.where(answer_BT, gain, 0.0), axis=1) / jnp.maximum(jnp.sum(answer_BT, axis=1), 1)
    return -jnp.mean(per_answer)


def negative_log_likelihood(logp_BT: jax.Array, answer_BT: jax.Array) -> jax.Array:
    """-mean of log-prob over answer tokens: the supervised loss, in nats a token."""
    assert logp_BT.ndim == 2 and logp_BT.dtype == jnp.float32
    return -jnp.sum(jnp.where(answer_BT, logp_BT, 0.0)) / jnp.maximum(jnp.sum(answer_BT), 1)
