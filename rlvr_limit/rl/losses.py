"""Losses as pure functions: what a token adds to the loss, and how much each token weighs. Legend: advantages.py.

A loss is sum_t weight_t * token_objective_t; the weights of one optimizer step add up to 1 or less.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_limit.rl.batch import Objective, PolicyBatch

LARGEST_LOG_RATIO = 20.0
"""A token that one policy holds e^20 times as likely as another is a fault of either, not something to learn from."""


def token_objective(logp_BT: jax.Array, batch: PolicyBatch, objective: Objective) -> jax.Array:
    """-rho min(w A, clip(w, 1 - low, 1 + high) A) + kl (exp(d) - d - 1) of each token, [B, T], to be made small.

    w = exp(logp - proximal) and d = reference - logp: eq. 7 of Schulman et al. 2017 (arXiv 1707.06347), where low and
    high differ eq. 10 of Yu et al. 2025 (arXiv 2503.14476), and k3 as in eqs. 3 and 4 of Shao et al. 2024 (arXiv
    2402.03300). rho = min(exp(proximal - behaviour), cap) is truncated importance sampling (Espeholt et al. 2018, arXiv
    1802.01561), since the sampler's rounding is not the trainer's. Without a proximal policy of its own a batch takes
    the behaviour for it. Log ratios count as log_ratio bounds them, so that every gradient is finite.
    """
    assert logp_BT.ndim == 2 and logp_BT.dtype in (jnp.float32, jnp.float64)
    proximal_BT = batch.behaviour_BT if batch.proximal_BT is None else batch.proximal_BT
    assert logp_BT.shape == proximal_BT.shape == batch.advantage_BT.shape
    ratio = jnp.exp(log_ratio(logp_BT, proximal_BT))
    bounded = jnp.clip(ratio, 1 - objective.clip_low, 1 + objective.clip_high)
    gain = jnp.minimum(ratio * batch.advantage_BT, bounded * batch.advantage_BT)
    if objective.importance_cap:
        gain *= jnp.minimum(jnp.exp(log_ratio(proximal_BT, batch.behaviour_BT)), objective.importance_cap)
    return -gain if batch.reference_BT is None else objective.kl * k3(logp_BT, batch.reference_BT) - gain


def log_ratio(above: jax.Array, below: jax.Array, least: float = -LARGEST_LOG_RATIO) -> jax.Array:
    """above - below within [least, 20] and without a gradient beyond, as e^100 is no float32; 0 where both are -inf."""
    both = jnp.isneginf(above) & jnp.isneginf(below)
    return jnp.clip(jnp.where(both, 0.0, above - below), least, LARGEST_LOG_RATIO)


def k3(logp: jax.Array, reference: jax.Array) -> jax.Array:
    """exp(d) - d - 1, d = reference - logp: estimates KL(policy || reference) of tokens that the policy drew, and is
    never below 0 (Schulman 2020, "Approximating KL divergence"). d counts as -1,000 to 20, so k3 is at most e^20."""
    d = log_ratio(reference, logp, -1000.0)
    return jnp.expm1(d) - d


def value_objective(value_BT: jax.Array, batch: PolicyBatch, objective: Objective) -> jax.Array:
    """c max((V - R)^2, (V_old + clip(V - V_old, -e, e) - R)^2) of each token, [B, T]: the value head's loss (Huang et
    al. 2022, "The 37 implementation details of PPO", detail 9); c = value_coefficient, e = value_clip, 0: no clip."""
    assert value_BT.ndim == 2 and value_BT.dtype in (jnp.float32, jnp.float64)
    assert value_BT.shape == batch.value_BT.shape == batch.return_BT.shape
    error = jnp.square(value_BT - batch.return_BT)
    if objective.value_clip:
        moved = jnp.clip(value_BT - batch.value_BT, -objective.value_clip, objective.value_clip)
        error = jnp.maximum(error, jnp.square(batch.value_BT + moved - batch.return_BT))
    return objective.value_coefficient * error


def token_weights(answer_BT: np.ndarray, kept_B: np.ndarray, aggregation: str, max_tokens: int) -> np.ndarray:
    """What each token counts in the loss of one optimizer step, [B, T] float32; 0 outside answers and in rows not kept.

    "answer": mean over an answer's tokens, then over the answers kept (eq. 3 of GRPO). "token": mean over all tokens
    kept (eq. 8 of DAPO). "constant": sum over tokens by max_tokens, mean over all answers (Dr.GRPO's listing 1).

    DAPO's eq. 8 divides by the tokens of one prompt's answers, under an expectation over prompts; here, as where DAPO
    is implemented, all tokens of an optimizer step are divided by their number, whichever prompt or microbatch they are
    in. Minibatches of a rollout have numbers of their own: each step is along a mean over its own tokens.
    """
    assert answer_BT.dtype == kept_B.dtype == bool and answer_BT.ndim == 2 and kept_B.shape == answer_BT.shape[:1]
    counted = (answer_BT & kept_B[:, None]).astype(np.float64)
    if aggregation == "answer":
        per_row = np.maximum(counted.sum(axis=1, keepdims=True), 1) * max(kept_B.sum(), 1)
    elif aggregation == "token":
        per_row = max(counted.sum(), 1.0)
    else:
        assert aggregation == "constant"
        per_row = float(max_tokens * len(answer_BT))
    return (counted / per_row).astype(np.float32)
