"""The specification, dense: every row against every page, masked by the plan."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.decode_attention.plan import MASK_VALUE, AttentionState, DecodePlan


def decode_attention(
    q_BKGH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, plan: DecodePlan, tile: int
) -> AttentionState:
    """Attention of one query a row over its own pages and over those shared with its prompt's other rows.

    Scores are q k / sqrt(H); scores, softmax and sums in float32; products of q, k and of weights, v in their dtype.
    """
    b, h = q_BKGH.shape[0], q_BKGH.shape[-1]
    pages, width = k_PKHC.shape[0], k_PKHC.shape[-1]
    tokens_BP = jnp.zeros((b, pages), jnp.int32)
    items, visits = jnp.arange(plan.page_I.shape[0]), jnp.arange(plan.shared_S.shape[0])
    own = jnp.where(items < plan.items, plan.tokens_I, 0)
    tokens_BP = tokens_BP.at[plan.row_I, plan.page_I].add(own)
    rows_SB = (jnp.arange(b)[None, :] // tile == plan.tile_S[:, None]) & (plan.prompt_B == plan.prompt_S[:, None])
    shared_SB = jnp.where(rows_SB & (visits < plan.visits)[:, None], plan.shared_tokens_S[:, None], 0)
    tokens_BP = tokens_BP.at[:, plan.shared_S].add(shared_SB.T)
    seen_BPC = jnp.arange(width) < tokens_BP[:, :, None]
    scores = jnp.einsum("bkgh,pkhc->bkgpc", q_BKGH, k_PKHC, preferred_element_type=jnp.float32) * h**-0.5
    scores = jnp.where(seen_BPC[:, None, None], scores, MASK_VALUE)
    most = jnp.max(scores, axis=(-2, -1))
    e = jnp.where(seen_BPC[:, None, None], jnp.exp(scores - most[..., None, None]), 0.0)
    out = jnp.einsum("bkgpc,pkch->bkgh", e.astype(v_PKCH.dtype), v_PKCH, preferred_element_type=jnp.float32)
    return AttentionState(out, most, jnp.sum(e, axis=(-2, -1)))
