"""Losses as pure functions: what a token adds to the loss, and how much each token weighs. Legend: advantages.py.

A loss is sum_t weight_t * token_objective_t; the weights of one optimizer step add up to 1 or less.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_limit.models.log_probs import AnswerRows, PrefixBatch
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

    With objective.ratio "sequence" all tokens of an answer have one w (policy_log_ratio). With "weight" the gain is
    sg(clip(w, ...)) A logp, sg without a gradient: eqs. 4 and 5 of MiniMax-M1 (2025, arXiv 2506.13585).
    """
    assert logp_BT.ndim == 2 and logp_BT.dtype in (jnp.float32, jnp.float64)
    proximal_BT = batch.behaviour_BT if batch.proximal_BT is None else batch.proximal_BT
    assert logp_BT.shape == proximal_BT.shape == batch.advantage_BT.shape
    ratio = jnp.exp(policy_log_ratio(logp_BT, proximal_BT, batch.rows, objective.ratio))
    bounded = jnp.clip(ratio, 1 - objective.clip_low, 1 + objective.clip_high)
    if objective.ratio == "weight":
        gain = jax.lax.stop_gradient(bounded) * batch.advantage_BT * log_ratio(logp_BT, 0.0, -1000.0)
    else:
        gain = jnp.minimum(ratio * batch.advantage_BT, bounded * batch.advantage_BT)
    if objective.importance_cap:
        gain *= jnp.minimum(jnp.exp(log_ratio(proximal_BT, batch.behaviour_BT)), objective.importance_cap)
    return -gain if batch.reference_BT is None else objective.kl * k3(logp_BT, batch.reference_BT) - gain


def policy_log_ratio(
    logp_BT: jax.Array, proximal_BT: jax.Array, rows: AnswerRows | PrefixBatch, ratio: str
) -> jax.Array:
    """log w of each token: its own, or with ratio "sequence" the mean over its answer's tokens, eq. 7 of Zheng et al.
    2025 (arXiv 2507.18071)."""
    own_BT = log_ratio(logp_BT, proximal_BT)
    if ratio != "sequence":
        return own_BT
    packed_BT = rows.segment_BT if isinstance(rows, AnswerRows) else None
    segment_BT = jnp.zeros(own_BT.shape, jnp.int32) if packed_BT is None else packed_BT

    def means(own_T: jax.Array, answer_T: jax.Array, segment_T: jax.Array) -> jax.Array:
        total, count = (
            jax.ops.segment_sum(x_T, segment_T, len(own_T) + 1) for x_T in (answer_T * own_T, 1.0 * answer_T)
        )
        return (total / jnp.maximum(count, 1.0))[segment_T]

    return jax.vmap(means)(own_BT, rows.answer_BT, segment_BT)


def log_ratio(above: jax.Array, below: jax.Array | float, least: float = -LARGEST_LOG_RATIO) -> jax.Array:
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
